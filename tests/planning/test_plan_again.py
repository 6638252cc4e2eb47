"""A plan run on other data: the bound holds there too, or the plan is refused."""

import math
import pickle
from dataclasses import replace

import numpy as np
import pytest

import subquad
from subquad.head.problem import Problem
from subquad.methods.thresholds.division import all_exact
from tests.methods.table import WITH_AUTO
from tests.oracle import row_errors


def cloud(norm: float, n: int = 200, d: int = 8, seed: int = 0):
    rng = np.random.default_rng(seed)
    Q, K = (rng.standard_normal((n, d)) for _ in range(2))
    Q, K = (norm * x / np.linalg.norm(x, axis=1, keepdims=True) for x in (Q, K))
    return np.concatenate([Q, -Q]), np.concatenate([K, -K]), rng.standard_normal((2 * n, 3)) + 0.5


METHODS = {
    f"{name} {i}" if i else name: method
    for name, row in WITH_AUTO.items()
    for i, method in enumerate((row.method, *row.variants))
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("first", [5.0, 2.0, 1.0, 0.1])
@pytest.mark.parametrize("second", [5.0, 2.0, 1.0, 0.1])
def test_the_bound_holds_on_the_new_data(name, first, second):
    """A plan made for large rows once certified small ones with a polynomial for none."""
    try:
        made = subquad.plan(*cloud(first), tol=1e-2, method=METHODS[name], rates=subquad.TYPICAL)
        Q, K, V = cloud(second, seed=1)
        result = made.run(Q, K, V)
    except subquad.ToleranceError:
        return
    error = row_errors(result.output, Q, K, V, 1.0 / np.sqrt(8))
    assert np.all(error <= result.certificate.row_bounds)
    assert result.certificate.bound <= 1e-2


@pytest.mark.parametrize("factor", [3.0, 30.0])
def test_no_key_is_left_out_of_every_bucket(factor):
    """Larger queries alone move the units of the keys: those above the only bucket were dropped."""
    ran = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        Q, K, V = (rng.standard_normal((rows, 1)) for rows in (5, 50, 50))
        Q = np.round(2.0 * Q - 2.0) / 2.0
        made = subquad.plan(
            Q, K, V, tol=1e-3, scale=0.06, method=subquad.MultiThreshold(), rates=subquad.TYPICAL
        )
        try:
            result = made.run(factor * Q, K, V)
        except subquad.ToleranceError:
            continue
        ran += 1
        error = row_errors(result.output, factor * Q, K, V, 0.06)
        assert np.all(error <= result.certificate.row_bounds)
    assert ran > 0


def test_buckets_that_leave_keys_out_are_none():
    whole = all_exact(Problem(*cloud(1.0)).heads[0].stats, "norm", "float64")
    (bucket,) = whole.buckets
    for other in ({"largest": 3.0}, {"smallest": 0.0}, {"smallest": math.nan}):
        with pytest.raises(ValueError, match="leave keys out"):
            replace(whole, buckets=(replace(bucket, **other),))
    split = replace(bucket, smallest=0.5), replace(bucket, largest=0.5)
    assert replace(whole, buckets=split).buckets == split
    with pytest.raises(ValueError, match="leave keys out"):
        replace(whole, buckets=split[::-1])


@pytest.mark.parametrize(("n", "m"), [(1, 300), (2, 3000), (8, 3000)])
def test_few_queries_print(n, m):
    """The search for the crossover ends where neighbouring lengths are all that is left."""
    made = subquad.plan(n=n, m=m, d=4, logit_bound=0.5, tol=1e-2, rates=subquad.TYPICAL)
    assert "certified" in str(made)


@pytest.mark.parametrize("n", range(1, 10))
def test_plans_of_few_rows_print(n):
    """Where lengths are tried for the crossover, the ranks known end before the last row."""
    for seed in range(4):
        rng = np.random.default_rng(seed)
        Q, K, V = (rng.standard_normal((rows, 16)) for rows in (n, 300, 300))
        assert "chosen" in str(subquad.plan(Q, K, V, tol=1e-2, rates=subquad.TYPICAL))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [1e12, 1e15, 1e16, 1e30])
def test_logits_past_all_rounding_are_refused(size, dtype):
    """Errors of a logit whose exp overflows once ended planning."""
    rng = np.random.default_rng(4)
    Q, K, V = (rng.standard_normal((rows, 4)).astype(dtype) for rows in (50, 60, 60))
    Q *= np.dtype(dtype).type(size)
    for method in (row.method for row in WITH_AUTO.values()):
        made = subquad.plan(Q, K, V, tol=0.05, method=method, rates=subquad.TYPICAL)
        assert "logit bound" in str(made)
        if size > 1e15 or made.heads[0].chosen is None:
            with pytest.raises(subquad.ToleranceError, match="no allowed method proves tol=0.05"):
                subquad.attention(Q, K, V, tol=0.05, method=method, rates=subquad.TYPICAL)


@pytest.mark.parametrize("size", [1e12, 1e16, 1e30])
def test_one_key_past_all_rounding_beside_polynomials(size):
    """What is exact errs by more than exp holds; the other keys have a polynomial."""
    rng = np.random.default_rng(5)
    Q, K, V = (0.2 * rng.standard_normal((rows, 4)) for rows in (400, 500, 500))
    K[7] *= size
    made = subquad.plan(Q, K, V, tol=0.05, method=subquad.MultiThreshold(), rates=subquad.TYPICAL)
    assert made.heads[0].chosen is None or made.heads[0].chosen.bound <= 0.05


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_plan_takes_its_rows_in_another_order(dtype):
    """Centres and so the largest logit differ in the last bits."""
    refused = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        Q, K, V = (0.4 * rng.standard_normal((rows, 6)).astype(dtype) for rows in (200, 240, 240))
        made = subquad.plan(Q, K, V, tol=1e-2, method="polynomial", rates=subquad.TYPICAL)
        order = rng.permutation(240)
        result = made.run(Q, K[order], V[order])
        assert np.all(row_errors(result.output, Q, K, V, 6**-0.5) <= result.certificate.row_bounds)
        try:  # a tenth more is not the same rows: the room is for these
            made.run(np.dtype(dtype).type(1.1) * Q, K, V)
        except subquad.ToleranceError as error:
            assert "logit bound" in str(error)
            refused += 1
    assert refused > 0


def test_many_buckets_take_no_longer_than_there_are_places():
    Q, K, V = cloud(1.0)
    most, all_ = (
        subquad.plan(
            Q, K, V, tol=1e-2, method=subquad.MultiThreshold(buckets=count), rates=subquad.TYPICAL
        )
        for count in (64, 10**9)
    )
    assert most.heads[0].chosen.parameters == all_.heads[0].chosen.parameters


def test_results_can_be_pickled():
    Q, K, V = cloud(1.0)
    result = subquad.attention(Q, K, V, tol=1e-2, rates=subquad.TYPICAL)
    again = pickle.loads(pickle.dumps(result))
    assert np.array_equal(again.output, result.output)
    assert str(again.plan) == str(result.plan)
    assert str(again.certificate) == str(result.certificate)
