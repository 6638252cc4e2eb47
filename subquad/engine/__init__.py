"""The passes over rows that every method is made of, and the lengths their rounding rests on.

`accumulate` turns keys into a `State`, `contract` applies a polynomial to it row by row,
`exact_block` sums exact weights. All polynomial methods are the first two, O((n + m) r d_v).
"""

from subquad.engine.fused.sizes import OPERANDS
from subquad.engine.lengths import (
    EXACT_KEY_BLOCK,
    KEY_TILE,
    UNSHIFTED_LOGITS,
    contraction_length,
    tile_count,
    tile_size,
)
from subquad.engine.passes import accumulate, contract, exact_block, stored_dtype
from subquad.engine.state import State

__all__ = [
    "EXACT_KEY_BLOCK",
    "KEY_TILE",
    "OPERANDS",
    "UNSHIFTED_LOGITS",
    "State",
    "accumulate",
    "contract",
    "contraction_length",
    "exact_block",
    "stored_dtype",
    "tile_count",
    "tile_size",
]
