"""A refusal names what is lacking: memory, or a tolerance, which is accepted when passed back."""

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import subquad
from subquad.planning import choose
from subquad.planning.refusal import rounded_up

RATES = subquad.TYPICAL
NAMED = re.compile(r"Best bound reached: (\S+) by (\w+); `tol` would have to be at least that")


def arrays(seed, size, dtype, lead=(), offset=0.0):
    rng = np.random.default_rng(seed)
    Q, K = (size * rng.standard_normal((*lead, 60, 4)) for _ in range(2))
    if lead:
        Q[0] *= 3.0  # heads that reach different bounds
    return tuple(x.astype(dtype) for x in (Q, K, rng.standard_normal((*lead, 60, 3)) + offset))


@given(
    method=st.sampled_from(["auto", *subquad.METHODS]),
    allow_exact=st.booleans(),
    size=st.sampled_from([0.1, 0.5, 1.0, 2.0, 8.0]),
    dtype=st.sampled_from(["float16", "float32", "float64"]),
    tol=st.sampled_from([1e-1, 1e-3, 1e-6, 1e-9, 1e-14]),
    lead=st.sampled_from([(), (3,)]),
    offset=st.sampled_from([0.0, 1e3]),
    seed=st.integers(0, 99),
)
def test_the_tolerance_named_is_accepted(method, allow_exact, size, dtype, tol, lead, offset, seed):
    allow_exact = allow_exact or method == "exact"
    call = arrays(seed, size, dtype, lead, offset)
    options = {"method": method, "allow_exact": allow_exact, "rates": RATES}
    try:
        subquad.attention(*call, tol=tol, **options)
        return
    except subquad.ToleranceError as error:
        found = NAMED.search(str(error))
    if found is not None:
        assert float(found[1]) > tol
        assert subquad.attention(*call, tol=float(found[1]), **options).certificate.bound > 0.0


def test_fitted_names_no_bound_that_needs_the_exact_method():
    """That of the rows which go exact was named, and refused when asked for."""
    call = arrays(0, 0.5, "float32", offset=1e3)
    options = {"method": "fitted", "allow_exact": False, "rates": RATES}
    with pytest.raises(subquad.ToleranceError, match="leaves no room") as caught:
        subquad.attention(*call, tol=1e-9, **options)
    assert "Best bound" not in str(caught.value)
    with pytest.raises(subquad.ToleranceError) as caught:
        subquad.attention(*call, tol=1e-9, **options | {"allow_exact": True})
    assert NAMED.search(str(caught.value))


def test_one_tolerance_is_named_for_all_heads():
    call = arrays(1, 0.3, "float32", lead=(3,))
    options = {"method": "exact", "rates": RATES}
    with pytest.raises(subquad.ToleranceError, match=r"in head \(0,\)") as caught:
        subquad.attention(*call, tol=1e-9, **options)
    named = float(NAMED.search(str(caught.value))[1])
    alone = []
    for head in range(3):
        with pytest.raises(subquad.ToleranceError) as caught:
            subquad.attention(*(x[head] for x in call), tol=1e-9, **options)
        alone.append(float(NAMED.search(str(caught.value))[1]))
    assert named == max(alone) > min(alone)


def test_memory_that_is_short_is_said_with_what_is_needed_and_allowed(monkeypatch):
    """A tolerance of 7.1e-03 was asked for where 1e-2 was given, and proved."""
    call = arrays(2, 0.5, "float64")
    options = {"tol": 1e-2, "method": "polynomial", "rates": RATES}
    needed = subquad.plan(*call, **options).heads[0].chosen.work.state_bytes
    monkeypatch.setattr(choose, "memory_bytes", lambda: 3000.0)
    with pytest.raises(subquad.ToleranceError) as caught:
        subquad.attention(*call, **options)
    text = str(caught.value)
    assert text.startswith("no allowed method that proves tol=0.01 fits in memory (asked for ")
    words = "certified, but the passes need {} and may take 1.46 KiB, half of the memory"
    assert 2**20 > needed > 2**10
    assert words.format(f"{needed / 2**10:,.2f} KiB") in text
    assert "Best bound" not in text and "a smaller logit bound" not in text
    assert "a larger `tol` needs a lower degree, and so less memory" in text
    assert words.format(f"{needed / 2**10:,.2f} KiB") in str(subquad.plan(*call, **options))


def test_memory_of_the_rates_is_meant_where_they_have_some():
    rates = subquad.Rates(RATES.float32, RATES.float64, memory=2.0**31)
    sizes = {"n": 2**20, "d": 64, "logit_bound": 4.0, "tol": 1e-3, "method": "polynomial"}
    made = subquad.plan(**sizes, rates=rates)
    assert made.heads[0].chosen is None
    assert re.search(r"need [\d,.]+ GiB and may take 1\.00 GiB, half", str(made))


@given(st.floats(1e-300, 2.0))
def test_a_bound_is_rounded_up_to_four_digits(bound):
    up = rounded_up(bound)
    assert bound <= up <= bound * (1.0 + 1.001e-3)
    assert float(f"{up:.3e}") == up
    assert rounded_up(up) == up
    assert rounded_up(math.inf) == math.inf
