"""The helpers of the checks: a bound must be neither too small nor larger than it need be."""

import math
from fractions import Fraction

import sympy

from proofs_checks.claim import holds, refuted, undecided
from proofs_checks.proving import both, l1_distance, never_below, proved, sharp, square_root, zero

INSTANCES = [((1.0,), Fraction(2)), ((3.0,), Fraction(6))]


def test_sharp_holds_at_the_constant_only():
    assert sharp(lambda x: 2 * x, INSTANCES).verdict == "holds"
    assert sharp(lambda x: 1.999 * x, INSTANCES).verdict == "refuted"
    assert "not sharp" in sharp(lambda x: 2.001 * x, INSTANCES).detail
    assert sharp(lambda x: 2.001 * x, INSTANCES, Fraction(1, 100)).verdict == "holds"
    assert sharp(lambda x: math.nan, INSTANCES).verdict == "refuted"
    assert sharp(lambda x: math.inf, INSTANCES).verdict == "refuted"


def test_never_below_allows_what_is_larger_but_no_nan():
    assert never_below(lambda x: 5 * x, INSTANCES).verdict == "holds"
    assert never_below(lambda x: math.inf, INSTANCES).verdict == "holds"
    assert never_below(lambda x: 1.99 * x, INSTANCES).verdict == "refuted"
    assert never_below(lambda x: math.nan, INSTANCES).verdict == "refuted"


def test_a_missing_step_is_undecided_and_named():
    assert proved({"one": True}).verdict == "holds"
    found = proved({"one": True, "two": False})
    assert found.verdict == "undecided" and found.detail == "not proved: two"


def test_both_returns_the_first_that_does_not_hold():
    assert both(holds("a"), holds("b")) == holds("a. b")
    assert both(holds("a"), undecided("b"), refuted("c")) == undecided("b")


def test_zero_is_proved_by_algebra():
    x = sympy.symbols("x")
    assert zero((x + 1) ** 2 - x**2 - 2 * x - 1)
    assert not zero(x**2 - x)


def test_l1_distance_is_exact():
    assert l1_distance((1, 1), (1, 3)) == Fraction(1, 2)
    assert l1_distance((2, 2), (3, 3)) == 0


def test_square_root_is_from_below_and_near():
    for value in (Fraction(2), Fraction(1, 3), Fraction(10**-20)):
        root = square_root(value)
        assert root**2 <= value < (root + Fraction(1, 2**160)) ** 2
