"""The shapes of the fused passes by enumeration, and what their launches may hold."""

import itertools

import pytest

from subquad.engine.fused.sizes import OPERANDS, QUERY_GROUPS, SHARED, TRIPLES, fusable, sizes_for

SHAPES = [
    (d, d_v, degree, operands)
    for d, d_v in ((16, 1), (32, 24), (64, 64), (64, 39), (96, 128), (128, 64), (128, 128))
    for degree, operands in itertools.product((2, 3), OPERANDS)
]


def diagonal_pairs(c):
    """Return the pairs of variables of 9 blocks of chunk c with itself, two a lane and half."""
    own, found = 16 * c, []
    for s in range(4):
        for e in range(2):
            found += [
                (own + k, own + (k // 2 + s) % 8 * 2 + (k % 2 ^ e))
                for k in range(16)
                if s or not e or k % 2
            ]
    return found + [(own + k % 8, own + 8 + (k % 8 ^ k // 8)) for k in range(16)]


def triples(c):
    """Return the triples of variables of chunk c, block by block, by the pairs they are in."""
    blocks = []
    for s, u in [(0, u) for u in range(8)] + [(1, u) for u in range(2, 7)] + [(2, 4), (2, 5)]:
        for crossed, swapped in itertools.product(range(2), range(2)):
            if s == 0 and (crossed and swapped or swapped and u == 0):
                continue  # two of one pair: the other order is the same
            blocks.append(
                [
                    tuple(
                        sorted(
                            16 * c + v
                            for v in (
                                k,
                                (k // 2 + s) % 8 * 2 + (k % 2 ^ crossed),
                                (k // 2 + u) % 8 * 2 + (k % 2 ^ swapped),
                            )
                        )
                    )
                    for k in range(16)
                ]
            )
    return blocks


def rotated_round(d, own, prefix):
    """Return what a round without repeated features has a place for, and its blocks."""
    found, count, chunks = [], 0, d // 16
    for c in range(chunks):
        if c == own:
            continue
        of_chunk = range(16 * c, 16 * c + 16)
        found += [(*prefix, *p) for p in diagonal_pairs(c)]
        count += 10
        if c > own:
            found += [(*prefix, b, x) for b in of_chunk for x in range(16 * c + 16, d)]
            found += [(*prefix, x) for x in of_chunk]
            count += 16 * (chunks - 1 - c)
    return found, count


def round_of(d, v, prefix):
    """Return what a round of split operands has a place for, and its blocks."""
    found, count = [], 0
    for c in range(v // 16, d // 16):
        eights = range(max(v // 8 * 8, 16 * c), 16 * c + 16)
        pairs = [(b, x) for b in eights for x in range(16 * c, d) if b <= x]
        count += len(eights) * (d // 16 - c)
        found += [(*prefix, *p) for p in pairs if not prefix or min(p) >= v]
    return found, count


def monomials_of_blocks(d, degree, rotated):
    """Return what the query pass has a place for, as sorted variables, and its blocks."""
    chunks, stage = d // 16, 8 if rotated and degree == 3 else 4
    if rotated and degree == 3:
        rounds = [rotated_round(d, v // 16, (v,)) for v in range(d)]
        for c in range(chunks):
            own = diagonal_pairs(c) + [(x,) for x in range(16 * c, 16 * c + 16)]
            assert len(triples(c)) == TRIPLES
            rounds.append((own + sum(triples(c), []), 10 + TRIPLES))
    elif rotated:
        rounds = [rotated_round(d, -1, ())]
    else:
        rounds = [round_of(d, v, (v,)) for v in range(d)] if degree == 3 else []
        rounds += [round_of(d, 0, ()), ([(x,) for x in range(d)], chunks)]
    found = [tuple(sorted(m)) for part, _ in rounds for m in part]
    return found, sum(-(-count // stage) * stage for _, count in rounds)


@pytest.mark.parametrize("operands", OPERANDS)
@pytest.mark.parametrize(
    ("d", "degree"), [(16, 2), (16, 3), (32, 2), (32, 3), (48, 3), (64, 2), (80, 3), (128, 2)]
)
def test_the_blocks_hold_every_monomial_once(d, degree, operands):
    sizes = sizes_for(d, 8, degree, operands)
    found, count = monomials_of_blocks(d, degree, sizes.rotated)
    wanted = [
        m
        for k in range(1, degree + 1)
        for m in itertools.combinations_with_replacement(range(d), k)
    ]
    assert sorted(found) == sorted(wanted)
    assert count == sizes.blocks


def cubic_units(d, width):
    """Return the units of degree 3 of the key pass, each as (the monomials it is for, blocks)."""
    units = []
    for c in range(d // 16):
        own = 16 * c
        units.append(([(x,) for x in range(own, own + 16)], 1))
        for b in range(0, own, width):
            units += [
                (
                    [(a, b + i, own + k) for i in range(width) for k in range(16) if a <= b + i],
                    width,
                )
                for a in range(b + width)
            ]
        for s, a in itertools.product(range(9), range(0, own, width)):  # turned
            rows = range(16 if s < 8 else 8)
            pairs = [sorted((own + k, own + (k + s) % 16)) for k in rows]
            units.append(([(a + i, *p) for i in range(width) for p in pairs], width))
        for s, a in itertools.product(range(5), range(own, own + 16, width)):  # in halves
            rows = [k for k in range(16) if s < 4 or k % 8 < 4]
            pairs = [sorted((own + k, own + k // 8 * 8 + (k + s) % 8)) for k in rows]
            units.append(
                (
                    [
                        tuple(sorted((a + i, *p)))
                        for i in range(width)
                        for p in pairs
                        if (a + i) // 8 != p[1] // 8 or a + i >= p[1]
                    ],
                    width,
                )
            )
    return units


@pytest.mark.parametrize(("d", "d_v"), [(16, 8), (64, 64), (48, 100)])
@pytest.mark.parametrize("degree", [2, 3])
def test_the_units_hold_every_monomial(d, d_v, degree):
    sizes = sizes_for(d, d_v, degree, "bfloat16")
    width = sizes.accumulators
    cubic = cubic_units(d, width) if degree == 3 else []
    assert sizes.units == len(cubic) + sum(16 * (c + 1) // width for c in range(d // 16))
    if degree == 3:
        wanted = [m for k in (1, 3) for m in itertools.combinations_with_replacement(range(d), k)]
        assert sorted(m for unit, _ in cubic for m in unit) == sorted(wanted)
        assert all(blocks <= width for _, blocks in cubic)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_fits_in_shared_memory(shape):
    sizes = sizes_for(*shape)
    stages, resident = sizes.query_stages
    assert stages >= 3  # with fewer the refills would wait for themselves
    assert sizes.key_stage[1] >= 3
    assert resident * sizes.query_shared <= SHARED + 2048
    operands = 64 * QUERY_GROUPS * 2 * sizes.d * sizes.parts
    barriers = sizes.query_shared - stages * sizes.stage_blocks * sizes.tile_bytes - operands
    assert barriers >= 8 + 16 * stages  # a pair of ones, two barriers a stage
    assert (
        sizes.key_shared
        - sizes.key_stage[1] * sizes.key_stage[0] * (sizes.key_bytes + sizes.tile_bytes)
        >= 128 + 2 * 64 * sizes.accumulators
    )
    assert 16 * sizes.key_stage[1] <= 128  # two barriers a stage, then ones and zeros
    assert max(sizes.key_shared, sizes.pack_shared) <= SHARED
    assert sizes.columns >= sizes.d_v + sizes.degree
    assert sizes.pack_threads <= 1024


@pytest.mark.parametrize(
    ("keys", "heads"), [(1, 1), (4096, 1), (65_536, 16), (2**22, 1), (2**22, 64)]
)
@pytest.mark.parametrize("shape", SHAPES[:8])
def test_groups_are_at_least_one_and_fit(shape, keys, heads):
    sizes = sizes_for(*shape)
    groups = sizes.groups(keys, heads, 132)
    assert groups >= 1
    assert groups == 1 or groups * heads * sizes.partial_rows * sizes.columns * 4 <= 2**28


def test_other_shapes_are_refused():
    for d, d_v, degree in ((8, 8, 2), (65, 64, 2), (144, 64, 2), (64, 129, 2), (64, 64, 4)):
        assert not fusable(d, d_v, degree)
        with pytest.raises(ValueError, match=f"d {d}, d_v {d_v}, degree {degree}"):
            sizes_for(d, d_v, degree, "bfloat16")
    with pytest.raises(ValueError, match="float32"):
        sizes_for(64, 64, 2, "float32")
