"""The passes on NumPy, in threads: tiles and blocks that stay in cache, compiled where numba is."""

from subquad.engine.cpu import exact, passes, rows, sets

__all__ = ["exact", "passes", "rows", "sets"]
