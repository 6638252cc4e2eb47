"""Monomials by what they are worth on a box: the order, the sets, the tail, the two passes."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proofs_checks.checks.features import anisotropic as checks
from subquad.engine.cpu import sets as cpu_sets
from subquad.engine.lengths import FEATURE_CHUNK, set_length
from subquad.engine.passes import accumulate_set, contract_set
from subquad.features import feature_dimension
from subquad.features.anisotropic import BestFirst, best_set, box_tail

SPECTRUM = tuple(0.9 * 0.6**i for i in range(6))
boxes = st.lists(st.floats(0.0, 2.5), min_size=1, max_size=5).map(
    lambda b: tuple(sorted(b, reverse=True))
)


def worth(alpha, box):
    return math.prod(b**a / math.factorial(a) for a, b in zip(alpha, box, strict=True))


def rows(kept, d):
    return [tuple(a) for a in kept.exponents(d).tolist()]


def test_the_order_is_that_of_falling_worth():
    """Against all monomials up to degree 8, sorted: the same worths, one by one."""
    every = itertools.product(range(9), repeat=3)
    box = (0.9, 0.5, 0.2)
    best = sorted((worth(a, box) for a in every if sum(a) <= 8), reverse=True)[:40]
    order = BestFirst(box)
    for r in range(1, 41):
        taken = sorted((worth(a, box) for a in rows(order.take(r), 3)), reverse=True)
        np.testing.assert_allclose(taken, best[:r], rtol=1e-12)


@settings(max_examples=60, deadline=None)
@given(boxes, st.integers(1, 120))
def test_sets_are_trees_of_distinct_monomials(box, r):
    kept = best_set(box, r)
    found = rows(kept, len(box))
    assert len(set(found)) == len(found) == kept.r <= r
    assert found[0] == (0,) * len(box)
    assert kept.degree == max(map(sum, found))
    for s in range(1, kept.r):
        assert kept.parents[s] < s
        assert found[s][kept.variables[s]] == kept.powers[s]
    starts = [run[0] for run in kept.runs]
    assert starts == sorted(starts)
    assert all(kept.parents[a:b].max() < a for a, b, _ in kept.runs)
    assert sum(b - a for a, b, _ in kept.runs) == kept.r - 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.01, 1.0), min_size=1, max_size=4), st.integers(1, 60))
def test_below_one_sets_are_closed_under_division(b, r):
    found = set(rows(best_set(tuple(sorted(b, reverse=True)), r), len(b)))
    worths = sorted(worth(a, sorted(b, reverse=True)) for a in found)
    if len(set(worths)) < len(worths):
        return  # ties may be cut anywhere
    for alpha in found:
        for i, a in enumerate(alpha):
            assert a == 0 or (*alpha[:i], a - 1, *alpha[i + 1 :]) in found


def test_values_and_coefficients():
    kept, x = best_set(SPECTRUM, 50), np.array([[0.5], [-2.0], [3.0], [1.5], [-1.0], [0.25]])
    found = rows(kept, 6)
    expected = [math.prod(v**a for v, a in zip(x[:, 0], alpha, strict=True)) for alpha in found]
    np.testing.assert_allclose(kept.evaluate(x)[:, 0], expected, rtol=1e-14)
    np.testing.assert_allclose(
        1.0 / kept.coefficients(), [math.prod(map(math.factorial, a)) for a in found], rtol=1e-14
    )


@settings(max_examples=60, deadline=None)
@given(boxes, st.integers(1, 80))
def test_the_tail_is_at_least_the_true_one_and_hardly_more(box, r):
    """In fractions: exp by its series to 80 terms, the set exactly."""
    kept = best_set(box, r)
    whole = sum(Fraction(b) for b in box)
    p, q = whole.as_integer_ratio()
    over = math.factorial(79)  # one common denominator: 80 sums of fractions would take seconds
    series = sum(p**k * q ** (79 - k) * (over // math.factorial(k)) for k in range(80))
    exponential = Fraction(series, q**79 * over)
    b = tuple(Fraction(x) for x in box)
    true = exponential - checks._sum(kept.exponents(len(box)), b)
    value = Fraction(box_tail(box, kept))
    assert value >= true
    assert value - true <= exponential * Fraction(1, 2**44)


def test_a_dropped_monomial_is_seen():
    assert checks._box_taylor(0, box_tail).verdict == "holds"
    assert checks._box_taylor(1, box_tail).verdict == "refuted"
    low = checks._box_taylor(0, lambda box, kept: 0.999 * box_tail(box, kept))
    assert low.verdict == "refuted"
    high = checks._box_taylor(0, lambda box, kept: 1.001 * box_tail(box, kept))
    assert high.verdict == "refuted", "not attained"


def test_growing_finds_the_least_set():
    order = BestFirst(SPECTRUM)
    for tail in (1.0, 0.1, 1e-2, 1e-4, 1e-2):  # back again: what is known is looked up
        r = order.grow(tail, 10_000)
        assert box_tail(SPECTRUM, order.take(r)) <= tail * (1 + 1e-9)
        assert box_tail(SPECTRUM, order.take(r - 1)) > tail
    assert order.grow(1e-6, 50) == 51
    assert order.at_least(1e-6) > 50


def test_at_least_never_exceeds_the_truth():
    order, true = BestFirst(SPECTRUM), BestFirst(SPECTRUM).grow(1e-5, 10**5)
    for r in (1, 3, 10, 50):
        order.take(r)
        assert order.at_least(1e-5) <= true


@pytest.mark.parametrize(
    ("decay", "most"), [(0.5, 469), (0.7, 23_473)], ids=["decay 0.5", "decay 0.7"]
)
def test_steep_spectra_need_few(decay, most):
    """d = 32, sum b = 2, error 1e-2 of the smallest normaliser: isotropic needs degree 6."""
    b = decay ** (2.0 * np.arange(32))
    order = BestFirst(tuple(2.0 * b / b.sum()))
    assert order.grow(0.5e-2 * math.exp(-2.0), 2**16) <= most
    assert most < feature_dimension(32, 4) < 435_897 < feature_dimension(32, 6)


def test_a_flat_spectrum_is_refused_early():
    order = BestFirst((0.2,) * 32)
    assert order.grow(1e-4, 2**16) == 2**16 + 1
    assert order.taken < 2**16


def test_nothing_to_keep():
    kept = best_set((0.0, 0.0), 10)
    assert (kept.r, kept.degree, kept.runs) == (1, 0, ())
    assert 0.0 < box_tail((0.0, 0.0), kept) < 1e-14
    with pytest.raises(ValueError, match="not negative"):
        BestFirst((1.0, -0.5))
    with pytest.raises(ValueError, match="not negative"):
        BestFirst((float("nan"),))
    assert box_tail((800.0,), best_set((800.0,), 3)) == math.inf


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("n", "m", "r"),
    [(5, 7, 30), (1, 1, 1), (700, 1300, 200), (3, 600, 2), (130, 200, 1300), (4, 12_000, 30)],
)
def test_the_passes_are_within_their_rounding(n, m, r, dtype):
    """Against features in longdouble, all materialised; the bound is that of the docstring."""
    rng = np.random.default_rng(n + m)
    X, Y = (rng.uniform(-0.8, 0.8, (x, 6)).astype(dtype) for x in (n, m))
    W = np.concatenate([rng.uniform(-1, 1, (m, 3)), np.ones((m, 1))], axis=1).astype(dtype)
    kept = best_set(SPECTRUM, r)
    sums = contract_set(X, accumulate_set(Y, W, kept), kept)
    wide = [x.astype(np.longdouble) for x in (X, Y, W)]
    features = (kept.evaluate(wide[0].T) * kept.coefficients()[:, None]).T
    true = features @ (kept.evaluate(wide[1].T) @ wide[2])
    u = {"float32": 2.0**-24, "float64": 2.0**-53}[dtype]
    reach = np.exp(np.abs(X) @ np.abs(Y).max(axis=0))[:, None] * m
    bound = set_length(m, r, kept.degree, dtype) * u * reach
    assert sums.shape == (n, 4)
    assert np.all(np.abs(sums - true) <= bound)


@pytest.mark.parametrize("box", [SPECTRUM, (0.9,) * 9, (1.5,), tuple(0.97**i for i in range(40))])
@pytest.mark.parametrize("r", [1, 2, 60, 1100])
def test_tiles_hold_the_monomials_to_the_bit(box, r):
    """Whatever is built at once, and whatever tile came before: the products of `evaluate`."""
    kept, rng = best_set(box, r), np.random.default_rng(r)
    tile = cpu_sets._SetTile(kept, 12, np.float32)
    for t in (12, 5, 5, 1, 12):
        x = rng.uniform(-2.0, 2.0, (t, len(box))).astype(np.float32)
        with np.errstate(over="ignore", under="ignore"):  # as in `for_each`
            chunks = list(tile.blocks(x))
        assert [c[0] for c in chunks] == list(range(0, kept.r, FEATURE_CHUNK))
        assert np.array_equal(np.concatenate([c[2] for c in chunks]), kept.evaluate(x.T))


def test_steps_are_few_and_long_runs_are_not_gathered():
    kept = best_set(tuple(2.0 * 0.49 * 0.5**i for i in range(32)), 469)
    steps = list(cpu_sets._steps(kept))
    assert [a for a, _, _ in steps] == [1, *(b for _, b, _ in steps[:-1])]
    assert steps[-1][1] == kept.r
    assert len(steps) < len(kept.runs) / 2
    for start, stop, variable in steps:
        assert kept.parents[start:stop].max() < start
        assert variable is None or np.all(kept.variables[start:stop] == variable)
    flat = best_set((0.9,) * 9, 1100)
    assert any(v is not None for _, _, v in cpu_sets._steps(flat))


def test_threads_do_not_change_the_sums(monkeypatch):
    rng = np.random.default_rng(3)
    X, Y, W = rng.uniform(-1, 1, (900, 6)), rng.uniform(-1, 1, (2500, 6)), np.ones((2500, 2))
    kept, found = best_set(SPECTRUM, 300), []
    for threads in ("1", "2", "5"):
        monkeypatch.setenv("SUBQUAD_NUM_THREADS", threads)
        found.append(contract_set(X, accumulate_set(Y, W, kept), kept))
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


def test_a_box_past_the_range_has_an_infinite_tail():
    """A kept term that overflows must not be subtracted: the tail would come out negative."""
    kept = best_set((0.5, 0.4), 12)
    assert box_tail((1e200, 0.4), kept) == math.inf
    assert box_tail((1e3, 0.4), kept) == math.inf
