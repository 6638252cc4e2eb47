"""Merge: commutative, with an identity, associative to the booked rounding; finish is sound."""

import dataclasses
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from subquad.bounds.partial import EMPTY_SHIFT, Partial, join_rows, stack_rows

FIELDS = tuple(f.name for f in dataclasses.fields(Partial))
D_V = 2


def partial(numerator, normaliser, shift, error=0.0, ratio=0.0, rounding=0.0, perturbation=0.0):
    """Return a Partial from lists, per row; numbers are spread over the rows."""
    n = len(normaliser)
    column = lambda x: np.broadcast_to(np.asarray(x, dtype=float), n).copy()  # noqa: E731
    return Partial(
        np.asarray(numerator, dtype=float).reshape(n, -1),
        column(normaliser),
        np.broadcast_to(np.asarray(shift, dtype=np.int64), n).copy(),
        column(error),
        column(ratio),
        column(rounding),
        column(perturbation),
    )


def same(a, b):
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in FIELDS)


@st.composite
def partials(draw, dyadic=False, rows=3, reach=3000):
    """Draw a Partial of `rows` rows; dyadic ones have sums of few bits, so that adding is exact."""
    if dyadic:
        weight, reach = st.integers(0, 2**20).map(float), 12
        part = st.integers(-(2**10), 2**10).map(lambda k: k / 1024.0)
    else:
        weight, part = st.floats(1e-3, 1e3), st.floats(-1.0, 1.0)
    small = st.floats(0.0, 1e-3)
    normaliser = draw(st.lists(weight, min_size=rows, max_size=rows))
    return partial(
        [[draw(part) * w for _ in range(D_V)] for w in normaliser],
        normaliser,
        draw(st.lists(st.integers(-reach, reach), min_size=rows, max_size=rows)),
        draw(small),
        draw(small),
        draw(small),
        draw(small),
    )


@given(a=partials(), b=partials())
def test_merge_is_commutative(a, b):
    assert same(a.merge(b), b.merge(a))


@given(a=partials())
def test_empty_is_the_identity(a):
    empty = Partial.empty(3, D_V, np)
    assert same(a.merge(empty), a)
    assert same(empty.merge(a), a)
    assert same(empty.merge(empty), empty)


def exact_sums(parts):
    """Return (numerators, normalisers) as Fractions, row by row, in units of 1."""
    unit = lambda p, i: Fraction(2) ** int(p.log_shift[i])  # noqa: E731
    rows = range(len(parts[0].normaliser))
    normaliser = [sum(Fraction(p.normaliser[i]) * unit(p, i) for p in parts) for i in rows]
    numerator = [
        [sum(Fraction(p.numerator[i, c]) * unit(p, i) for p in parts) for c in range(D_V)]
        for i in rows
    ]
    return numerator, normaliser


@given(a=partials(dyadic=True), b=partials(dyadic=True), c=partials(dyadic=True))
def test_merge_is_associative_exactly_on_dyadic_sums(a, b, c):
    left, right = a.merge(b).merge(c), a.merge(b.merge(c))
    for name in ("numerator", "normaliser", "log_shift", "ratio", "perturbation"):
        assert np.array_equal(getattr(left, name), getattr(right, name))
    numerator, normaliser = exact_sums([a, b, c])
    got_numerator, got_normaliser = exact_sums([left])
    assert (got_numerator, got_normaliser) == (numerator, normaliser)


@given(parts=st.lists(partials(), min_size=2, max_size=6), reach=st.sampled_from((0, 3, 60, 3000)))
def test_the_rounding_of_merges_is_booked(parts, reach):
    """Whatever the differences of log_shift: |error of the sums| <= rounding, and bounds add."""
    parts = [dataclasses.replace(p, log_shift=np.clip(p.log_shift, -reach, reach)) for p in parts]
    merged = parts[0]
    for p in parts[1:]:
        merged = merged.merge(p)
    numerator, normaliser = exact_sums(parts)
    got_numerator, got_normaliser = exact_sums([merged])
    for i in range(3):
        unit = Fraction(2) ** int(merged.log_shift[i])
        columns = zip(got_numerator[i], numerator[i], strict=True)
        off = max(abs(x - y) for x, y in columns) + abs(got_normaliser[i] - normaliser[i])
        before = sum(Fraction(p.rounding[i]) * Fraction(2) ** int(p.log_shift[i]) for p in parts)
        # What the parts had booked already is still there (but for its own last bits).
        assert off <= Fraction(merged.rounding[i]) * unit
        assert Fraction(merged.rounding[i]) * unit >= before * (1 - Fraction(1, 2**40))
        errors = sum(Fraction(p.error[i]) * Fraction(2) ** int(p.log_shift[i]) for p in parts)
        assert Fraction(merged.error[i]) * unit >= errors * (1 - Fraction(1, 2**40))
        assert merged.ratio[i] == max(p.ratio[i] for p in parts)
        assert merged.perturbation[i] == max(p.perturbation[i] for p in parts)


def test_the_rounding_of_a_numerator_beside_weights_that_cancel_is_booked():
    """Computed weights 1/2 and -1/2 + 2^-30 of values 1 and -1: the numerator is not in the sum."""
    one = partial([[1.0, -1.0]], [2.0**-30], 0, error=1.0)
    other = partial([[1.5 * 2.0**-53, 0.0]], [0.0], 0)
    merged = one.merge(other)
    (got, _), (true, _) = exact_sums([merged])[0][0], exact_sums([one, other])[0][0]
    assert 0 < abs(got - true) <= Fraction(merged.rounding[0])


@given(a=partials(rows=7, reach=40), b=partials(rows=7), size=st.integers(1, 7))
def test_blocks_of_rows_are_merged_and_certified_as_all_at_once(a, b, size):
    whole, divisor_and_terms = a.merge(b), a.certified()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("subquad.bounds.partial.ROWS_AT_ONCE", size)
        assert (size < 7) == bool(a._blocks())
        assert same(a.merge(b), whole)
        divisor, terms = a.certified()
    assert np.array_equal(divisor, divisor_and_terms[0])
    for term, other in zip(terms, divisor_and_terms[1], strict=True):
        assert np.array_equal(term.value, other.value)


def test_blocks_of_rows_narrow_no_bound(monkeypatch):
    """What is float32 on one side only is float64 in the sum, or it could round down."""
    one, other = (partial(np.ones((3, D_V)), np.ones(3), 0, error=x) for x in (0.5, 0.1))
    one = dataclasses.replace(one, error=one.error.astype(np.float32))
    whole = one.merge(other)
    monkeypatch.setattr("subquad.bounds.partial.ROWS_AT_ONCE", 2)
    assert same(one.merge(other), whole) and whole.error.dtype == np.float64


@given(a=partials(rows=4), cut=st.integers(0, 4))
def test_stack_rows_keeps_the_order(a, cut):
    assert same(stack_rows([a._some(slice(cut)), a._some(slice(cut, None))]), a)


def test_a_weight_far_below_is_kept_or_booked():
    big, tiny = partial([[1.0, 0.0]], [1.0], 0), partial([[1.0, -1.0]], [1.0], -1060)
    merged = big.merge(tiny)
    assert merged.numerator[0, 1] == -(2.0**-1060)
    vanished = big.merge(partial([[1.0, -1.0]], [1.0], -5000))
    assert vanished.numerator[0, 1] == 0.0
    assert vanished.rounding[0] > 0.0
    assert vanished.log_shift[0] == 0


@pytest.mark.parametrize("down", [1, 899, 1022, 1070, 1074, 1075, 2147, 5000])
def test_what_larger_units_lose_is_booked(down):
    one = partial([[1.0, -0.3]], [1.25], -down, error=0.7)
    got = one.in_units(np.zeros(1, np.int64))
    columns = zip(exact_sums([got])[0][0], exact_sums([one])[0][0], strict=True)
    off = max(abs(x - y) for x, y in columns)
    off += abs(exact_sums([got])[1][0] - exact_sums([one])[1][0])
    assert off <= Fraction(got.rounding[0])
    assert Fraction(got.error[0]) >= Fraction(0.7) * Fraction(1, 2**down)
    assert (off == 0) == (down < 1000)


@given(a=partials(rows=4), order=st.permutations(range(4)), cut=st.integers(0, 4))
def test_join_rows_puts_every_row_in_its_place(a, order, cut):
    def take(rows):
        return Partial(*(getattr(a, name)[rows] for name in FIELDS))

    rows = np.array(order, dtype=np.int64)
    parts = [(rows[:cut], take(rows[:cut])), (rows[cut:], take(rows[cut:]))]
    assert same(join_rows(parts), a)


def test_an_empty_row_has_no_finite_bound():
    output, terms = Partial.empty(2, D_V, np).finish()
    assert np.isnan(output).all()
    assert np.isinf(sum(t.value for t in terms)).all()
    half = Partial.empty(1, D_V, np).merge(partial([[0.5, 0.5]], [1.0], 0))
    assert half.log_shift[0] == 0 != EMPTY_SHIFT
    assert np.isfinite(sum(t.value for t in half.finish()[1])).all()


@pytest.mark.parametrize("normaliser", [0.0, -1.0, np.nan, np.inf, 1e-3])
def test_no_bound_without_a_safely_positive_normaliser(normaliser):
    """1e-3 is positive, but not beyond its own rounding."""
    with np.errstate(invalid="ignore"):
        _, terms = partial([[1.0, 0.0]], [normaliser], 0, rounding=1e-2).finish()
    assert not sum(t.value for t in terms)[0] <= 2.0


@given(seed=st.integers(0, 2**32 - 1), eps=st.floats(1e-6, 0.5), splits=st.integers(1, 5))
def test_finish_is_sound_on_weights_of_known_error(seed, eps, splits):
    """Keys dealt to parts, each with wrong weights and its own account; some parts exact."""
    rng = np.random.default_rng(seed)
    n, m = 4, 40
    true = np.exp(rng.uniform(-3.0, 3.0, (n, m)))
    values = rng.uniform(-1.0, 1.0, (m, D_V))
    owner = rng.integers(0, splits, m)
    merged = Partial.empty(n, D_V, np)
    for part in range(splits):
        keys = owner == part
        own_eps = eps if part % 2 == 0 else 0.0
        # Relative to the computed weight: w = w~ (1 + t), |t| <= eps.
        w = true[:, keys] / (1.0 + own_eps * rng.choice([-1.0, 1.0], (n, int(keys.sum()))))
        error = np.abs(w - true[:, keys]).sum(axis=1) * (1.0 + 1e-14)
        shift = int(rng.integers(-5, 6))
        merged = merged.merge(
            partial(
                w @ values[keys] * 2.0**-shift,
                w.sum(axis=1) * 2.0**-shift,
                shift,
                error * 2.0**-shift,
                own_eps * (1.0 + 1e-14),
                1e-14 * w.sum(axis=1) * 2.0**-shift,
            )
        )
    output, terms = merged.finish()
    exact = true @ values / true.sum(axis=1, keepdims=True)
    bound = sum(t.value for t in terms)
    assert np.all(np.abs(output - exact).max(axis=1) <= bound)
    assert np.all(bound <= 2.0 * eps + 1e-12)


@given(a=partials(reach=40), seed=st.integers(0, 2**32 - 1), size=st.floats(0.0, 600.0))
def test_times_exp_is_within_its_rounding(a, seed, size):
    """The factor, seen on sums of 1, is exp of the logit; the sums are products with it, rounded.

    Products in fractions, exp with 60 digits.
    """
    logits = size * np.random.default_rng(seed).uniform(-1.0, 1.0, 3)
    got = a.times_exp(logits, np.full(3, 0.25))
    one = partial(np.ones((3, D_V)), np.ones(3), 0).times_exp(logits, np.zeros(3))
    for i in range(3):
        f = Fraction(float(one.normaliser[i]))
        with mpmath.workdps(60):
            true = mpmath.exp(mpmath.mpf(float(logits[i]))) / mpmath.mpf(2) ** int(one.log_shift[i])
            # One product and one difference with a multiple of ln 2, then exp.
            slack = (2.0 * abs(logits[i]) + 8.0) * 2.0**-53
            assert abs(mpmath.mpf(float(f)) / true - 1) <= slack
        assert 0.7 <= f <= 1.42
        pairs = [(got.numerator[i, c], a.numerator[i, c]) for c in range(D_V)]
        first, *columns = [
            abs(Fraction(float(x)) - Fraction(float(y)) * f)
            for x, y in [(got.normaliser[i], a.normaliser[i]), *pairs]
        ]
        off = first + max(columns)
        assert off <= Fraction(float(got.rounding[i])) - Fraction(float(a.rounding[i])) * f
        assert Fraction(float(got.error[i])) >= Fraction(float(a.error[i])) * f
    assert np.array_equal(got.log_shift, a.log_shift + one.log_shift)
    assert np.array_equal(got.perturbation, a.perturbation + 0.25)
    assert np.array_equal(got.ratio, a.ratio)


def test_times_exp_leaves_empty_rows_and_refuses_the_boundless():
    empty = Partial.empty(2, D_V, np).times_exp(np.array([5.0, -5.0]), np.ones(2))
    assert same(empty, Partial.empty(2, D_V, np))
    lost = partial([[1.0, 0.5]], [2.0], 0).times_exp(np.array([2.0**40]), np.zeros(1))
    assert np.isinf(sum(t.value for t in lost.finish()[1])).all()
