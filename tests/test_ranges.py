"""Numbers past every range: a refusal in words, or the answer; no raw error and no warning."""

import warnings
from fractions import Fraction

import numpy as np
import pytest

import subquad

HUGE = (10**400, -(10**400), 10**5000, Fraction(10) ** 400)
RNG = np.random.default_rng(0)
ARRAYS = [RNG.uniform(-0.5, 0.5, (8, 4)) for _ in "QKV"]
TYPICAL = {"rates": subquad.TYPICAL}
SIZES = {"n": 8, "d": 4, "logit_bound": 1.0, "tol": 0.1} | TYPICAL


def attend(**options):
    return subquad.attention(*ARRAYS, **{"tol": 0.1} | TYPICAL | options)


def bridge(**options):
    return subquad.softmax_as_polynomials(*ARRAYS, **{"buckets": 2, "degree": 2} | options)


REAL = {
    "attention tol": ("tol", lambda x: attend(tol=x)),
    "attention scale": ("scale", lambda x: attend(scale=x)),
    "attention delta": ("delta", lambda x: attend(delta=x)),
    "plan tol": ("tol", lambda x: subquad.plan(**SIZES | {"tol": x})),
    "plan logit_bound": ("logit_bound", lambda x: subquad.plan(**SIZES | {"logit_bound": x})),
    "plan scale": ("scale", lambda x: subquad.plan(*ARRAYS, tol=0.1, scale=x, **TYPICAL)),
    "exact_attention scale": ("scale", lambda x: subquad.exact_attention(*ARRAYS, scale=x)),
    "minimal_degree logit_bound": ("logit_bound", lambda x: subquad.minimal_degree(x, 0.1)),
    "minimal_degree eps": ("eps", lambda x: subquad.minimal_degree(1.0, x)),
    "softmax_as_polynomials scale": ("scale", lambda x: bridge(scale=x)),
    "SupportBasis threshold": ("threshold", lambda x: subquad.SupportBasis(threshold=x)),
    "entry_statistics scale": ("scale", lambda x: subquad.entry_statistics(*ARRAYS, scale=x)),
    "entry_statistics level": ("level", lambda x: subquad.entry_statistics(*ARRAYS, level=x)),
    "Speed": ("pairs", lambda x: subquad.Speed(1.0, x, 1.0, 1.0, 1.0)),
}


@pytest.mark.parametrize("value", HUGE, ids=["10**400", "-10**400", "10**5000", "Fraction"])
@pytest.mark.parametrize("name", REAL)
def test_a_number_past_the_range_of_floats_is_refused_in_words(name, value):
    argument, call = REAL[name]
    with pytest.raises(ValueError, match=f"^`{argument}` is past the range of float64") as caught:
        call(value)
    assert type(caught.value) is ValueError and caught.value.__suppress_context__


@pytest.mark.parametrize(
    "call",
    [
        lambda x: subquad.plan(**SIZES | {"n": x}),
        lambda x: attend(seed=-x),
        lambda x: subquad.MultiThreshold(buckets=-x),
        lambda x: bridge(degree=x),
        lambda x: bridge(buckets=x),
        lambda x: subquad.exp_poly.minimax_error(x, 1.0),
        lambda x: subquad.exp_poly.minimax_error(-x, 1.0),
    ],
)
def test_an_integer_of_thousands_of_digits_is_not_written_out(call):
    with pytest.raises(ValueError, match=r"^`\w+` is (-?2\*\*16609 or so|far outside)[;:]"):
        call(10**5000)


@pytest.mark.parametrize("large", [1e100, 1e300, 1e308])
@pytest.mark.parametrize("method", ["auto", *subquad.METHODS])
def test_huge_logits_are_refused_without_a_warning(method, large):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(subquad.ToleranceError, match="no allowed method proves tol=0.1"):
            attend(scale=large, method=method)
        for made in (
            subquad.plan(**SIZES | {"logit_bound": large}, method=method),
            subquad.plan(*ARRAYS, tol=0.1, scale=large, method=method, **TYPICAL),
        ):
            assert made.heads[0].chosen is None
            assert str(made)


@pytest.mark.parametrize("large", [1e100, 1e300, 1e308])
def test_exact_attention_refuses_weights_that_float64_does_not_have(large):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=r"^`Q`, `K` and `scale` give logits up to \d"):
            subquad.exact_attention(*ARRAYS, scale=large)
        bridge(scale=large)
        subquad.entry_statistics(*ARRAYS, scale=large)


def test_exact_attention_answers_up_to_there():
    Q, K, V = ARRAYS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        output = subquad.exact_attention(Q, K, V, scale=1e15)
    np.testing.assert_allclose(output, V[np.argmax(Q @ K.T, axis=1)], rtol=1e-12)


def test_zeros_have_weights_at_any_scale():
    zero = np.zeros((8, 4))
    output = subquad.exact_attention(zero, ARRAYS[1], ARRAYS[2], scale=1e308)
    np.testing.assert_allclose(output, np.broadcast_to(ARRAYS[2].mean(axis=0), (8, 4)), rtol=1e-12)
