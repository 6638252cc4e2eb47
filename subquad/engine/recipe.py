"""How to build a degree-k block of monomials from the one before, in chunks: computed once."""

from dataclasses import dataclass
from functools import lru_cache

from subquad.features import block_sizes, suffix_offsets


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
