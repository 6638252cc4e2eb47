"""Shapes and launch sizes of the fused passes (`fused/`); nothing here needs a GPU.

What the passes lose by rounding stands in `subquad.engine.fused.rounding`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

OPERANDS = ("bfloat16", "bfloat16x3")
"""Compute formats of the fused passes; rows are prepared and stored in float32."""

DEGREES = (2, 3)
"""Degrees that the fused passes have."""
FLUSH_STEPS = 640
"""Steps of 16 keys after which the key pass adds its sums up in float32."""

D_MAX, D_V_MAX = 128, 128
KEY_WARPS, QUERY_GROUPS = 8, 2
"""Warps of a block of the key pass; groups of four warps, with 64 rows each, of the query pass."""
TRIPLES = 51
"""Blocks of features that are products of three variables of one chunk."""
SHARED = 226_000
"""Bytes of shared memory that one multiprocessor lends to blocks, with something to spare."""
PARTIAL_BYTES = 2**28
"""What the partial States of a launch may hold; one run for each head always fits."""
GROUPS_MAX = 128
"""Most runs that the keys are cut into, each with a partial State of its own."""


def fusable(d: int, d_v: int, degree: int) -> bool:
    """Return whether the fused passes have this shape."""
    return d % 16 == 0 and 16 <= d <= D_MAX and 1 <= d_v <= D_V_MAX and degree in DEGREES


@dataclass(frozen=True)
class Sizes:
    """What the host and the kernels must agree on, for one shape."""

    d: int
    d_v: int
    degree: int
    operands: str

    @cached_property
    def parts(self) -> int:
        """Operands that a number is split into."""
        return 2 if self.operands == "bfloat16x3" else 1

    @cached_property
    def products(self) -> int:
        """Tensor-core products in place of one."""
        return 3 if self.parts == 2 else 1

    @cached_property
    def chunks(self) -> int:
        """Groups of 16 variables."""
        return self.d // 16

    @cached_property
    def columns(self) -> int:
        """Columns of a tile: V, and a normaliser for each degree, filled up to a multiple of 8."""
        return -(-(self.d_v + self.degree) // 8) * 8

    @cached_property
    def key_bytes(self) -> int:
        """Bytes of 16 keys as operands."""
        return self.chunks * 512 * self.parts

    @cached_property
    def tile_bytes(self) -> int:
        """Bytes of 16 rows of a tile."""
        return 32 * self.columns * self.parts

    @cached_property
    def accumulators(self) -> int:
        """Prefixes of a warp of the key pass: what fits in its registers."""
        return 4 if self.columns <= 80 else 2

    @cached_property
    def units(self) -> int:
        """Groups of `accumulators` prefixes with one chunk; see `fused/key_pass.cu`."""
        width = self.accumulators
        groups = 16 // width  # of prefixes of a chunk
        square = sum(groups * (c + 1) for c in range(self.chunks))
        if self.degree == 2:
            return square
        plain = sum(b + width for c in range(self.chunks) for b in range(0, 16 * c, width))
        turned = sum(9 * groups * c for c in range(self.chunks))
        return square + plain + turned + (5 * groups + 1) * self.chunks

    @cached_property
    def feature_groups(self) -> int:
        """Thread blocks that share the features of one run of keys."""
        return -(-self.units // KEY_WARPS)

    @cached_property
    def partial_rows(self) -> int:
        """Rows of one partial State as the key pass leaves it."""
        return self.feature_groups * KEY_WARPS * self.accumulators * 16

    @cached_property
    def blocks(self) -> int:
        """Blocks of 16 features of the query pass, in rounds: see `fused/common.cu`."""
        chunks = self.chunks
        if self.rotated and self.degree == 2:
            return self._round(-1)
        if self.rotated:
            of_prefixes = sum(16 * self._round(own) for own in range(chunks))
            return of_prefixes + chunks * self._whole(10 + TRIPLES)
        rounds = []
        for eight in range(2 * chunks):
            prefixes = [8 if c == eight // 2 and eight % 2 else 16 for c in range(chunks)]
            later = range(eight // 2, chunks)
            rounds.append(self._whole(sum(prefixes[c] * (chunks - c) for c in later)))
        return rounds[0] + self._whole(chunks) + (8 * sum(rounds) if self.degree == 3 else 0)

    def _round(self, own: int) -> int:
        """Return the blocks of a round with a prefix of the chunk `own`; -1: without one."""
        found = 0
        for f in range(self.chunks):
            later = self.chunks - 1 - f if f > own else 0
            found += 10 + 16 * later if f != own else 0
        return self._whole(found)

    def _whole(self, blocks: int) -> int:
        return -(-blocks // self.stage_blocks) * self.stage_blocks

    @cached_property
    def stage_blocks(self) -> int:
        """Blocks of a stage of the query pass."""
        return 8 if self.rotated and self.degree == 3 else 4

    @cached_property
    def rotated(self) -> bool:
        """Whether the query pass takes chunks with themselves without repeating features."""
        return self.parts == 1 and self.d <= 64

    @cached_property
    def key_stage(self) -> tuple[int, int]:
        """Steps of a stage and stages of the key pass."""
        each = self.key_bytes + self.tile_bytes
        steps = next(s for s in (8, 4, 2, 1) if 4 * s * each <= 200_000)
        return steps, min(8, 220_000 // (steps * each))

    def key_steps(self, keys: int) -> int:
        """Return the steps of 16 keys that are packed: whole stages; zeros behind the keys."""
        steps = self.key_stage[0]
        return -(-keys // (16 * steps)) * steps

    @cached_property
    def key_shared(self) -> int:
        """Bytes of shared memory of a block of the key pass."""
        steps, stages = self.key_stage
        return stages * steps * (self.key_bytes + self.tile_bytes) + 128 + 128 * self.accumulators

    @cached_property
    def query_stages(self) -> tuple[int, int]:
        """Stages of the query pass, and blocks of it that share a multiprocessor."""
        own = 64 * QUERY_GROUPS * 2 * self.d * self.parts + 2048
        for resident in (2, 1) if self.columns <= 80 else (1,):
            stages = min(8, (SHARED // resident - own) // (self.stage_blocks * self.tile_bytes))
            if stages >= 3:  # one is read, one is due to be refilled, one is on its way
                return stages, resident
        msg = f"no room for the query pass of {self}"
        raise ValueError(msg)

    @cached_property
    def query_shared(self) -> int:
        """Bytes of shared memory of a block of the query pass."""
        operands = 64 * QUERY_GROUPS * 2 * self.d * self.parts
        return self.query_stages[0] * self.stage_blocks * self.tile_bytes + operands + 512

    @cached_property
    def pack_rows(self) -> int:
        """Keys of a tile of the packing kernel."""
        return 64 if self.d + self.d_v + 1 > 160 else 128

    @cached_property
    def pack_threads(self) -> int:
        """Threads of the packing kernel."""
        return max(256, -(-4 * self.columns // 32) * 32)

    @cached_property
    def pack_stages(self) -> int:
        """Tiles of the packing kernel that are on their way together."""
        return min(3, 220_000 // (4 * self.pack_rows * (self.d + self.d_v + 1)))

    @cached_property
    def pack_shared(self) -> int:
        """Bytes of shared memory of a block of the packing kernel."""
        return self.pack_stages * 4 * self.pack_rows * (self.d + self.d_v + 1) + 64

    @lru_cache(maxsize=1024)  # noqa: B019 - as many as there are shapes
    def groups(self, keys: int, heads: int, multiprocessors: int) -> int:
        """Return the runs that the keys are cut into."""
        each = self.partial_rows * self.columns * 4 * heads
        most = max(1, min(GROUPS_MAX, keys // 256, PARTIAL_BYTES // each))
        # As many as make flushes needless, where they fit; then the last wave of blocks full.
        least = -(-keys // (16 * FLUSH_STEPS))
        least = least if least <= most else 1
        blocks = self.feature_groups * heads

        def cost(groups: int) -> float:
            return -(-blocks * groups // multiprocessors) / groups * (1.0 + 0.002 * groups)

        return min(range(least, most + 1), key=cost)


@lru_cache(maxsize=256)
def sizes_for(d: int, d_v: int, degree: int, operands: str) -> Sizes:
    """Return the Sizes of a shape; ValueError where the fused passes have it not."""
    if not fusable(d, d_v, degree) or operands not in OPERANDS:
        msg = f"no fused passes for d {d}, d_v {d_v}, degree {degree}, {operands}"
        raise ValueError(msg)
    return Sizes(d, d_v, degree, operands)
