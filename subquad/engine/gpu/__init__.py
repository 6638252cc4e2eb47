"""The passes on CuPy: the tiles and lengths of the CPU, so its bounds. Importing it needs CuPy."""

from subquad.engine.gpu import exact, passes, rows, sets

__all__ = ["exact", "passes", "rows", "sets"]
