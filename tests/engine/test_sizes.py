"""Tiles, chunks and groups: within their limits, and cut by sizes alone."""

from unittest import mock

import numpy as np
import pytest

from subquad.engine import lengths as engine_lengths
from subquad.engine.cpu.tiles import chunks
from subquad.features import block_sizes, exponents


@pytest.mark.parametrize(("d", "degree"), [(1, 1), (64, 0), (64, 2), (64, 3), (16, 6), (256, 2)])
def test_buffers_fit(d, degree):
    tile = engine_lengths.tile_size(d, degree)
    assert 64 <= tile <= engine_lengths.KEY_TILE
    rows = sum(block_sizes(d, max(degree - 1, 0))) + engine_lengths.FEATURE_CHUNK
    assert tile == 64 or rows * tile * 8 <= engine_lengths.TILE_BYTES


def test_known_sizes():
    assert engine_lengths.tile_size(64, 2) == 512
    assert engine_lengths.tile_size(64, 4) == 64
    assert engine_lengths.tile_for(1, 64, 2) == 512
    assert engine_lengths.tile_for(10**6, 64, 2) == 512
    assert engine_lengths.tile_for(2000, 32, 3) == 256
    assert engine_lengths.tile_for(1000, 48, 3) == 128
    assert engine_lengths.tile_count(0, 64, 2) == 0
    assert engine_lengths.tile_count(65_536, 64, 2) == 128
    assert engine_lengths.accumulator_layout(128, 64, 2, 72) == (16, 1)
    assert engine_lengths.accumulator_layout(5, 64, 2, 72) == (5, 1)
    assert engine_lengths.accumulator_layout(0, 64, 2, 72) == (0, 1)
    assert engine_lengths.accumulator_layout(128, 64, 3, 72) == (2, 8)
    assert engine_lengths.accumulator_layout(128, 16, 4, 17) == (16, 1)
    assert engine_lengths.accumulator_layout(128, 64, 4, 72) == (1, 16)
    L = engine_lengths.contraction_length(2, d=64, degree=2, tiles=128, dtype="float32")
    assert L == 512 + 512 + 3 + (128 + 5 + 5) / 2**29
    assert engine_lengths.contraction_length(0, d=64, degree=2, tiles=128, dtype="float64") == 643


@pytest.mark.parametrize(("d", "k"), [(1, 1), (1, 4), (5, 1), (5, 2), (4, 3), (3, 5), (7, 2)])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
def test_chunks_tile_the_block_and_multiply_right(d, k, size):
    rows = block_sizes(d, k)[k]
    before = exponents(d, k - 1)[-block_sizes(d, k - 1)[-1] :]
    built, at = [], 0
    for chunk in chunks(d, k, size):
        assert chunk.start == at
        assert 0 < chunk.stop - chunk.start <= size
        at, row = chunk.stop, 0
        for first, last, a, source in chunk.products:
            assert first == row < last
            built.extend(before[source : source + last - first] + np.eye(d, dtype=int)[a])
            row = last
        assert row == chunk.stop - chunk.start
    assert at == rows
    assert np.array_equal(built, exponents(d, k)[-rows:])


def test_chunk_sizes_are_even():
    lengths = [c.stop - c.start for c in chunks(64, 2, 512)]
    assert lengths == [416] * 5


@pytest.mark.parametrize("rows", [0, 1, 67, 300, 5000, 10**6])
@pytest.mark.parametrize("keys", [1, 67, 513, 65_536])
def test_shares_of_the_exact_path(rows, keys):
    block, groups = engine_lengths.exact_shares(rows, keys)
    assert (
        block * min(keys, engine_lengths.EXACT_KEY_BLOCK)
        <= engine_lengths.EXACT_ROW_BLOCK * engine_lengths.EXACT_KEY_BLOCK
    )
    assert 1 <= groups <= -(-keys // engine_lengths.EXACT_KEY_BLOCK)
    shares, enough = -(-rows // block) * groups, -(-rows * keys // engine_lengths.SHARE_PAIRS)
    if (
        rows >= 16 * engine_lengths.GROUPS
        or keys >= engine_lengths.EXACT_KEY_BLOCK * engine_lengths.GROUPS
        and rows
    ):
        assert shares >= min(engine_lengths.GROUPS, enough)
    if block < min(
        rows, engine_lengths.EXACT_ROW_BLOCK
    ):  # shorter than it could be: there is the work
        assert shares <= 2 * max(enough, 1)


def test_small_exact_blocks_are_whole():
    assert engine_lengths.exact_shares(512, 512) == (512, 1)
    assert engine_lengths.exact_shares(1024, 1024) == (512, 2)
    assert engine_lengths.exact_shares(1, 65_536) == (1, 1)
    assert engine_lengths.exact_shares(64, 65_536) == (64, 16)


@pytest.mark.parametrize(
    ("inner", "columns", "rows"),
    [(512, 65, 16), (416, 65, 32), (512, 17, 112), (64, 512, 16), (512, 129, 12), (512, 512, None)],
)
def test_rows_of_one_product(inner, columns, rows):
    assert engine_lengths.product_rows(inner, columns) == rows


def test_patched_sizes_reach_the_lengths():
    with mock.patch.multiple(engine_lengths, KEY_TILE=5, FEATURE_CHUNK=4):
        # T, min(r_2, C) and 2k - 1 in u; tiles, ceil(45 / 4) chunks, degree and 3 in u64.
        length = engine_lengths.contraction_length(2, d=9, degree=3, tiles=7, dtype="float64")
        assert length == 5 + 4 + 3 + 7 + 12 + 3 + 3
