"""State is a commutative monoid, exactly so on small integers; what does not fit is refused."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subquad import engine
from subquad.engine.state import sum_up


def state(K, W, degree=2, dtype="float64", **metadata):
    K, W = np.asarray(K, dtype), np.asarray(W, dtype)
    return engine.accumulate(K, W, degree, key_centre=np.zeros(K.shape[1]), **metadata)


def same(a, b):
    return a.count == b.count and all(
        np.array_equal(x, y) for x, y in zip(a.moments, b.moments, strict=True)
    )


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32), st.lists(st.integers(0, 7), min_size=3, max_size=3))
def test_monoid_laws_on_integers(seed, counts):
    rng = np.random.default_rng(seed)
    parts = [(rng.integers(-4, 6, (m, 3)), rng.integers(1, 5, (m, 4))) for m in counts]
    a, b, c = (state(*part) for part in parts)
    zero = state(np.ones((0, 3)), np.ones((0, 4)))
    assert same(a + b, b + a)
    assert same((a + b) + c, a + (b + c))
    assert same(a + zero, a)
    assert np.array_equal((zero + a).norm_moments, a.norm_moments)
    together = state(*(np.concatenate(rows) for rows in zip(*parts, strict=True)))
    assert same(a + b + c, together)
    for x, y in ((a + b, b + a), ((a + b) + c, together)):
        np.testing.assert_allclose(x.norm_moments, y.norm_moments, rtol=1e-13)


@given(st.floats(0, 1e300), st.floats(0, 1e300))
def test_sums_of_bounds_are_rounded_up(a, b):
    from fractions import Fraction

    total = float(sum_up(np.float64(a), np.float64(b)))
    assert Fraction(total) >= Fraction(a) + Fraction(b)
    assert total <= np.nextafter(a + b, np.inf)


def test_what_differs_is_named():
    a = state([[1, 2]], [[1, 2]])
    others = {
        "`degree`: 2 and 3": state([[1, 2]], [[1, 2]], degree=3),
        "`d`: 2 and 1": state([[1]], [[1, 2]]),
        "`d_v`: 1 and 2": state([[1, 2]], [[1, 2, 3]]),
        "`weight_shift`: 0 and 4": state([[1, 2]], [[1, 2]], weight_shift=4),
        "`balance`: 0 and -1": state([[1, 2]], [[1, 2]], balance=-1),
        "`dtype`: float64 and float32": state([[1, 2]], [[1, 2]], dtype="float32"),
        "`key_centre` at 1 of 2 components, first at 1: 0.0 and 0.5": replace(
            a, key_centre=np.array([0.0, 0.5])
        ),
    }
    for text, other in others.items():
        with pytest.raises(ValueError, match=text):
            a + other
    with pytest.raises(TypeError):
        a + 1


def test_the_centre_is_copied():
    centre = np.zeros(2)
    made = engine.accumulate(np.ones((1, 2)), np.ones((1, 2)), 1, key_centre=centre)
    centre[:] = 9
    assert not made.key_centre.any()
