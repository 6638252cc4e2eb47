"""The monomials of one tile of tokens, feature-major, in buffers that a thread reuses.

`chunks` says how a block of one degree is built from the block below it; computed once a size.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from subquad.engine import lengths
from subquad.features import block_sizes, suffix_offsets


def product(left: np.ndarray, right: np.ndarray, out: np.ndarray) -> None:
    """Write left @ right to `out`, block by block of rows in a call: `lengths.product_rows`."""
    products(left[None], right[None], out[None])


def products(left: np.ndarray, right: np.ndarray, out: np.ndarray) -> None:
    """Write left[i] @ right[i] to out[i] for every i, each as by `product`, in a call or two."""
    count, rows, inner = left.shape
    columns = right.shape[2]
    each = lengths.product_rows(inner, columns) or max(rows, 1)
    whole = rows // each * each
    if whole:
        shape = count, whole // each, each
        blocks = left[:, :whole].reshape(*shape, inner)
        np.matmul(blocks, right[:, None], out=out[:, :whole].reshape(*shape, columns))
    if whole < rows:
        np.matmul(left[:, whole:], right, out=out[:, whole:])


@dataclass(frozen=True)
class Chunk:
    """Rows start:stop of a block; each product is (first, last, a, source).

    Rows first:last of the chunk are x_a times rows source:source+last-first of the block before.
    """

    start: int
    stop: int
    products: tuple[tuple[int, int, int, int], ...]


@lru_cache(maxsize=256)
def chunks(d: int, k: int, size: int) -> tuple[Chunk, ...]:
    """Return the chunks of the degree-k block (k >= 1), near-equal, each of at most `size` rows."""
    rows, before = block_sizes(d, k)[k], block_sizes(d, k - 1)[k - 1]
    count = -(-rows // size)
    cuts = [rows * i // count for i in range(count + 1)]
    led, begin = [], 0  # (first row of the block led by a, a, offset of its suffix)
    for a, offset in enumerate(suffix_offsets(d, k - 1)):
        led.append((begin, a, offset))
        begin += before - offset
    led.append((begin, d, 0))
    made, at = [], 0
    for start, stop in zip(cuts[:-1], cuts[1:], strict=True):
        products, row = [], start
        while row < stop:
            first, a, offset = led[at]
            last = min(stop, led[at + 1][0])
            products.append((row - start, last - start, a, offset + row - first))
            row = last
            at += row == led[at + 1][0]
        made.append(Chunk(start, stop, tuple(products)))
    return tuple(made)


class FeatureTile:
    """Monomials of at most `tile` tokens: degrees below the top stored, the top in chunks.

    Features are rows and tokens columns, so that x_a times a suffix of the block before is one
    contiguous multiplication. Holds (C(d+g-1, g-1) + FEATURE_CHUNK) * tile numbers.
    """

    def __init__(self, d: int, degree: int, tile: int, dtype: np.dtype) -> None:
        self._d, self._degree, self._size, self.dtype = d, degree, lengths.FEATURE_CHUNK, dtype
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
