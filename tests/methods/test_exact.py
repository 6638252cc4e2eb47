"""Why the exact method refuses: what is too coarse, and the input that would do."""

import numpy as np
import pytest

import subquad

OFFSET = "(a far offset, or subnormal numbers)"


def refusal(dtype, tol, offset=0.0):
    """Return the reason of a refusal by `exact`, and None where it certifies."""
    rng = np.random.default_rng(0)
    Q, K, V = (rng.uniform(-0.5, 0.5, (8, 4)) for _ in "QKV")
    given = (x.astype(dtype) for x in (Q, K, V + offset))
    (offer,) = subquad.plan(*given, tol=tol, method="exact", rates=subquad.TYPICAL).heads[0].options
    return getattr(offer, "reason", None)


@pytest.mark.parametrize("dtype, tol", [("float16", 1e-6), ("float16", 1e-12), ("float32", 1e-12)])
def test_a_narrow_input_is_told_that_a_wide_one_would_do(dtype, tol):
    reason = refusal(dtype, tol)
    assert reason.startswith(f"rounding to {dtype} of values ")
    assert reason.endswith(" times value_radius in size; float64 input would do")
    assert refusal("float64", tol) is None


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_no_input_does_below_the_rounding_of_float64(dtype):
    assert refusal(dtype, 1e-15).endswith(" times value_radius in size")
    assert refusal("float64", 1e-15).startswith("rounding in float64 of sums")


def test_an_offset_is_blamed_where_there_is_one():
    assert refusal("float32", 1e-12, offset=1e4).endswith(f" in size {OFFSET}")
    assert refusal("float64", 1e-12, offset=1e4).endswith(f" in size {OFFSET}")
    assert refusal("float32", 1e-6, offset=1e4).endswith(f"{OFFSET}; float64 input would do")
    assert refusal("float64", 1e-6, offset=1e4) is None
