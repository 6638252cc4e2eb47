"""Measured error <= row bound <= tol on CuPy arrays: the drawn problems of the CPU's suite."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import subquad
from subquad.head.problem import Problem
from subquad.methods.method import storage_term, stored_norm_bound
from subquad.methods.polynomial.sums import LOGIT_BOUND_MAX, LOGIT_BOUND_MIN, parameters_for
from tests import oracle, test_soundness
from tests.methods.refusals import POLYNOMIAL
from tests.methods.table import WITH_AUTO, over
from tests.strategies import Data, recipes

pytestmark = pytest.mark.gpu
DRAWN = settings(deadline=None, max_examples=max(10, settings().max_examples // 2))


def laid_out(cp, x, layout):
    """Return the numbers of x on the device, in a layout of the drawn ones."""
    there = cp.asarray(np.ascontiguousarray(x))
    if layout == "F":
        return cp.asfortranarray(there)
    if layout == "strided":
        wide = cp.full((*x.shape[:-1], 2 * x.shape[-1]), cp.nan, dtype=x.dtype)
        wide[..., ::2] = there
        return wide[..., ::2]
    if layout == "reversed":
        return cp.ascontiguousarray(there[..., ::-1, :])[..., ::-1, :]
    return there


def to_host(cp, result):
    """Return the Result with its arrays on the host; they must have been on the device."""
    old = result.certificate
    arrays = [result.output, old.row_bounds, *(term.value for term in old.terms)]
    assert all(isinstance(x, cp.ndarray) for x in arrays)
    terms = tuple(replace(term, value=term.value.get()) for term in old.terms)
    certificate = replace(old, terms=terms, row_bounds=old.row_bounds.get())
    return replace(result, output=result.output.get(), certificate=certificate)


def moved(cp, data, layout):
    """Return the Data with its arrays on the device."""
    there = (laid_out(cp, x, layout) for x in data[:3])
    mask = None if data.key_mask is None else cp.asarray(data.key_mask)
    return type(data)(*there, data.scale, mask, data.tol)


def attend(cp, data, there, rates, **options):
    """Return the Result on the host, or the ToleranceError; the inputs must come out unchanged."""
    try:
        result = subquad.attention(
            there.Q,
            there.K,
            there.V,
            tol=there.tol,
            scale=there.scale,
            key_mask=there.key_mask,
            rates=rates,
            **options,
        )
    except subquad.ToleranceError as error:
        return error
    finally:
        assert all(np.array_equal(x.get(), y) for x, y in zip(there[:3], data[:3], strict=True))
    return to_host(cp, result)


@over(WITH_AUTO)
def test_every_method_is_sound(cp, row, rates):
    seen = Counter()
    options = {"method": row.method, "allow_exact": row.allow_exact}

    @DRAWN
    @given(recipe=recipes())
    def check(recipe):
        data = recipe.build()
        if not test_soundness.affordable(data, rates, row):
            return
        there = moved(cp, data, recipe.layout)
        result = attend(cp, data, there, rates, **options)
        seen["drawn"] += 1
        if isinstance(result, subquad.ToleranceError):
            seen["refused"] += 1
            assert row.may_refuse(there), str(result)
        else:
            test_soundness.assert_sound(data, result)

    check()
    assert seen["drawn"] > seen["refused"]


def test_every_degree_has_its_own_true_certificate(cp):
    @DRAWN
    @given(
        recipe=recipes(leads=(0,)),
        degree=st.integers(0, 5),
        dtype=st.sampled_from(["float32", "float64"]),
    )
    def check(recipe, degree, dtype):
        data = recipe.build()
        there = moved(cp, data, recipe.layout)
        problem = Problem(*there[:3], scale=there.scale, key_mask=there.key_mask)
        assert_degree_sound(problem.heads[0], degree, dtype)

    check()


def assert_degree_sound(head, degree, dtype):
    bound = max(stored_norm_bound(head.stats.logit_bound, dtype), LOGIT_BOUND_MIN)
    p = parameters_for(degree, min(bound, LOGIT_BOUND_MAX), dtype, head.stats.d)
    if bound > LOGIT_BOUND_MAX or not p.polynomial.upper < 1.0:
        return
    output, terms = POLYNOMIAL.run(head, p).finish()
    bounds = sum(t.value.get() for t in terms) + storage_term(head.stats, dtype).value
    true = oracle.attention(head.Q.get(), head.K.get(), head.V.get(), head.scale)
    assert np.all(abs(output.get() - true).max(axis=1) <= bounds)
    assert np.all(bounds <= sum(float(t.value) for t in POLYNOMIAL.certify(head.stats, p)))


def test_a_falsified_answer_is_caught(cp, rates):
    """The check above can fail: one key more in the oracle's head than in the call."""
    rng = np.random.default_rng(0)
    Q, K, V = (rng.standard_normal((40, 4)) for _ in range(3))
    data = Data(Q / 4, K, V, None, None, 1e-6)
    short = data._replace(K=data.K[:-1], V=data.V[:-1])
    result = attend(cp, short, moved(cp, short, "C"), rates)
    with pytest.raises(AssertionError):
        test_soundness.assert_sound(data, result)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_same_plan_and_nearly_the_same_answer_as_on_the_cpu(cp, dtype, rates):
    rng = np.random.default_rng(1)
    Q, K, V = (rng.standard_normal(s).astype(dtype) for s in ((3000, 8), (2500, 8), (2500, 5)))
    Q /= 4
    for tol in (0.5, 5e-2, 1e-2):
        plain = subquad.attention(Q, K, V, tol=tol, rates=rates)
        found = subquad.attention(*map(cp.asarray, (Q, K, V)), tol=tol, rates=rates)
        ours, theirs = (r.plan.heads[0].chosen for r in (found, plain))
        assert (ours.method.name, ours.work.dtype) == (theirs.method.name, theirs.work.dtype)
        # The CPU measures float32 rows in float32, so its bounds are larger by a little.
        assert found.certificate.bound == pytest.approx(plain.certificate.bound, rel=1e-4)
        apart = np.abs(found.output.get().astype(float) - plain.output).max()
        assert apart <= 2 * tol * np.ptp(V.astype(float), axis=0).max() / 2
        assert found.output.dtype == dtype and found.certificate.to_json()
        assert str(found.plan) and str(found.certificate)
    again = found.plan.run(*map(cp.asarray, (Q[::-1], K, V)))
    assert again.certificate.bound <= tol
    whole = subquad.exact_attention(*map(cp.asarray, (Q, K, V)))
    plain = subquad.exact_attention(Q, K, V)
    np.testing.assert_allclose(
        whole.get().astype(float),
        plain.astype(float),
        rtol=0,
        atol=2 * float(np.finfo(dtype).eps) * abs(V).max(),
    )


def test_bad_input_is_named(cp, rates):
    Q = np.random.default_rng(2).standard_normal((9, 3))
    there = cp.asarray(Q)
    with pytest.raises(TypeError, match="different libraries"):
        subquad.attention(there, Q, there, tol=0.1, rates=rates)
    with pytest.raises(TypeError, match="`key_mask` is a numpy array but `K` a cupy"):
        subquad.attention(there, there, there, tol=0.1, rates=rates, key_mask=np.ones(9, bool))
    bad = there.copy()
    bad[3, 1] = cp.nan
    with pytest.raises(ValueError, match="`K` has 1 NaN and 0 infinite entries of 27"):
        subquad.attention(there, bad, there, tol=0.1, rates=rates)
    with pytest.raises(ValueError, match="`key_mask` drops all 9 keys"):
        subquad.attention(there, there, there, tol=0.1, rates=rates, key_mask=cp.zeros(9, bool))


def test_memory_is_linear(cp):
    """Beyond the tiles, a few numbers for each of the input's: never n r, never n m."""
    from subquad.engine.gpu.tiles import TILE_BYTES

    n, d = 200_000, 64
    Q, K, V = (0.05 * cp.random.standard_normal((n, d)).astype("float32") for _ in range(3))
    subquad.attention(Q[:64], K[:64], V[:64], tol=0.1, rates=subquad.TYPICAL)  # compile
    pool = cp.get_default_memory_pool()
    pool.free_all_blocks()
    before = pool.total_bytes()
    result = subquad.attention(Q, K, V, tol=0.1, rates=subquad.TYPICAL)
    assert result.plan.heads[0].chosen.method.name == "polynomial"
    del result
    assert pool.total_bytes() - before <= 2 * TILE_BYTES + 8 * 4 * n * 2 * d


def test_measured_rates_are_used_and_sane(cp):
    rng = np.random.default_rng(3)
    Q, K, V = (cp.asarray(rng.standard_normal((500, 8)) / 3) for _ in range(3))
    rates = subquad.plan(Q, K, V, tol=0.1).rates
    for speed in (rates.float32, rates.float64):
        assert 1e9 < speed.exact_flops < 1e16 and 1e9 < speed.polynomial_flops < 1e16
        assert 1e7 < speed.pairs < 1e14 and 1e7 < speed.features < 1e14
        assert 1e6 < speed.elements < 1e13
