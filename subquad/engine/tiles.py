"""The monomials of one tile of tokens, feature-major, in buffers that a thread reuses."""

from collections.abc import Iterator

import numpy as np

from subquad.engine import sizes
from subquad.engine.recipe import chunks
from subquad.features import block_sizes


def padded(columns: int) -> int:
    """Return `columns` rounded up to a multiple of 8: an odd last column costs BLAS 7-14 %."""
    return -(-columns // 8) * 8


class FeatureTile:
    """Monomials of at most `tile` tokens: degrees below the top stored, the top in chunks.

    Features are rows and tokens columns, so that x_a times a suffix of the block before is one
    contiguous multiplication. Holds (C(d+g-1, g-1) + FEATURE_CHUNK) * tile numbers.
    """

    def __init__(self, d: int, degree: int, tile: int, dtype: np.dtype) -> None:
        self._d, self._degree, self._size = d, degree, sizes.FEATURE_CHUNK
        rows = block_sizes(d, max(degree - 1, 1))
        self._stored = [np.empty((r, tile), dtype) for r in rows[1:]]
        top = min(self._size, block_sizes(d, degree)[degree])
        self._top = np.empty((top if degree > 1 else 0, tile), dtype)
        self._length = 0

    def load(self, rows: np.ndarray) -> None:
        """Take t <= tile tokens, shape (t, d), and build every degree but the top."""
        self._length = len(rows)
        self._stored[0][:, : self._length] = rows.T
        for k in range(2, self._degree):
            for chunk in chunks(self._d, k, self._size):
                self._build(chunk.products, k, self._stored[k - 1][chunk.start : chunk.stop])

    def blocks(
        self, k: int, piece: int = 0, pieces: int = 1
    ) -> Iterator[tuple[int, int, np.ndarray]]:
        """Yield (start, stop, features (stop - start, t)) over the degree-k monomials, k >= 1.

        Of the chunks, those numbered `piece`, `piece` + `pieces`, ... The array yielded
        is overwritten by the next step.
        """
        for chunk in chunks(self._d, k, self._size)[piece::pieces]:
            if k < self._degree or k == 1:
                features = self._stored[k - 1][chunk.start : chunk.stop]
            else:
                features = self._top[: chunk.stop - chunk.start]
                self._build(chunk.products, k, features)
            yield chunk.start, chunk.stop, features[:, : self._length]

    def _build(self, products, k: int, out: np.ndarray) -> None:
        t = self._length
        x, before = self._stored[0], self._stored[k - 2]
        for first, last, a, source in products:
            np.multiply(
                x[a, :t], before[source : source + last - first, :t], out=out[first:last, :t]
            )
