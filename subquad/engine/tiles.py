"""The monomials of one tile of tokens, feature-major, in buffers that a thread reuses."""

from collections.abc import Iterator

import numpy as np

from subquad.engine import sizes
from subquad.engine.recipe import Chunk, chunks
from subquad.features import block_sizes


def padded(columns: int) -> int:
    """Return `columns` rounded up to a multiple of 8.

    An odd last column costs BLAS 7-14 %, and cuBLAS wants rows aligned to 16 bytes.
    """
    return -(-columns // 8) * 8


def product(left: np.ndarray, right: np.ndarray, out: np.ndarray) -> None:
    """Write left @ right to `out`, block by block of rows in one call; see `sizes.product_rows`."""
    products(left[None], right[None], out[None])


def products(left: np.ndarray, right: np.ndarray, out: np.ndarray) -> None:
    """Write left[i] @ right[i] to out[i] for every i, each as by `product`, in a call or two."""
    count, rows, inner = left.shape
    columns = right.shape[2]
    each = sizes.product_rows(inner, columns) or max(rows, 1)
    whole = rows // each * each
    if whole:
        shape = count, whole // each, each
        blocks = left[:, :whole].reshape(*shape, inner)
        np.matmul(blocks, right[:, None], out=out[:, :whole].reshape(*shape, columns))
    if whole < rows:
        np.matmul(left[:, whole:], right, out=out[:, whole:])


class FeatureTile:
    """Monomials of at most `tile` tokens: degrees below the top stored, the top in chunks.

    Features are rows and tokens columns, so that x_a times a suffix of the block before is one
    contiguous multiplication. Holds (C(d+g-1, g-1) + FEATURE_CHUNK) * tile numbers.
    """

    def __init__(self, d: int, degree: int, tile: int, dtype: np.dtype) -> None:
        self._d, self._degree, self._size, self.dtype = d, degree, sizes.FEATURE_CHUNK, dtype
        self.block_sizes = block_sizes(d, degree)
        self._stored = [np.empty((r, tile), dtype) for r in block_sizes(d, max(degree - 1, 1))[1:]]
        top = min(self._size, self.block_sizes[degree])
        self._top = np.empty((top if degree > 1 else 0, tile), dtype)
        self._length = 0
        self._views: dict[tuple[int, int], list] = {}

    def load(self, rows: np.ndarray) -> None:
        """Take t <= tile tokens, shape (t, d), and build every degree but the top."""
        if len(rows) != self._length:
            self._length = len(rows)
            self._views.clear()
        self._stored[0][:, : self._length] = rows.T
        for k in range(2, self._degree):
            for chunk in chunks(self._d, k, self._size):
                self._build(chunk, k, self._stored[k - 1][chunk.start : chunk.stop])

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
                self._build(chunk, k, features)
            yield chunk.start, chunk.stop, features[:, : self._length]

    def _build(self, chunk: Chunk, k: int, out: np.ndarray) -> None:
        key = k, chunk.start
        if key not in self._views:
            # Made once: beside another thread, each slice is a chance to wait for the interpreter.
            self._views[key] = self._products(chunk, k, out)
        for factor, other, target in self._views[key]:
            np.multiply(factor, other, out=target)

    def _products(self, chunk: Chunk, k: int, out: np.ndarray) -> list:
        t, x, before = self._length, self._stored[0], self._stored[k - 2]
        return [
            (x[a, :t], before[source : source + last - first, :t], out[first:last, :t])
            for first, last, a, source in chunk.products
        ]
