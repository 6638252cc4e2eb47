"""What every method owes its callers, over the rows of the table, by name and as an object."""

import pickle

import numpy as np
import pytest

import subquad
from subquad.methods.method import Refusal
from tests import oracle
from tests.methods.table import ROWS, over


def heads(lead=(), n=150, m=170, d=5, d_v=3, seed=0):
    """Return Q, K, V with logits up to about 0.1, n != m, values without symmetry."""
    rng = np.random.default_rng(seed)
    Q, K = (0.1 * rng.standard_normal((*lead, rows, d)) + 0.05 for rows in (n, m))
    return Q, K, rng.standard_normal((*lead, m, d_v)) ** 3


def test_every_method_has_a_row():
    assert {*subquad.METHODS} <= {*ROWS}
    for name, row in ROWS.items():
        assert row.object.name == name
        assert row.on_shards == (row.object.run_on_shards is not None), name
        assert row.allow_exact or not row.object.is_oracle, name
        assert row.worst_cases, name


@over(ROWS)
def test_the_method_is_the_only_one_asked_and_is_within_tol(row, rates):
    Q, K, V = heads()
    result = subquad.attention(Q, K, V, tol=1e-2, method=row.object, rates=rates)
    (head,) = result.plan.heads
    assert {offer.method.name for offer in head.options} == {row.object.name}
    error = oracle.row_errors(result.output, Q, K, V, 5**-0.5)
    assert np.all(error <= result.certificate.row_bounds)
    assert result.certificate.bound <= head.chosen.bound <= 1e-2


@over(ROWS)
def test_the_offer_is_what_certify_and_work_say_of_its_parameters(row, rates):
    for tol in (0.3, 1e-2):
        made = subquad.plan(*heads(), tol=tol, method=row.method, rates=rates)
        (head,) = made.heads
        offer = head.chosen
        terms = row.object.certify(head.stats, offer.parameters)
        assert [(t.name, t.claim, t.value) for t in terms] == [
            (t.name, t.claim, t.value) for t in offer.terms
        ]
        assert row.object.work(head.stats, offer.parameters) == offer.work
        assert str(offer.parameters) in str(made)


@over(ROWS)
def test_a_refusal_says_the_best_bound_and_the_tolerance(row, rates):
    made = subquad.plan(*heads(), tol=1e-18, method=row.method, rates=rates)
    for refusal in made.heads[0].options:  # of each variant
        assert isinstance(refusal, Refusal) and refusal.reason
        assert refusal.best_bound is None or refusal.best_bound > 1e-18
    with pytest.raises(subquad.ToleranceError, match="no allowed method proves tol=1e-18"):
        made.run(*heads())
    with pytest.raises(subquad.ToleranceError, match="no allowed method proves tol=1e-18"):
        subquad.attention(*heads(), tol=1e-18, method=row.method, rates=rates)


@over(ROWS)
def test_a_head_of_a_batch_has_the_bits_of_the_head_alone(row, rates):
    Q, K, V = heads((2, 1))
    K, V = K[:1], np.concatenate([V, V[:, :, ::-1] + 1.0], axis=1)  # (1, 1, m, d), (2, 2, m, d_v)
    options = {"tol": 1e-2, "method": row.method, "rates": rates}
    result = subquad.attention(Q, K, V, **options)
    for index, q, k, v in oracle.heads(Q, K, V):
        alone = subquad.attention(q, k, v, **options)
        assert np.array_equal(result.output[index], alone.output)
        assert np.array_equal(result.certificate.row_bounds[index], alone.certificate.row_bounds)


@over(ROWS)
def test_masked_keys_are_keys_that_are_not_there(row, rates):
    Q, K, V = heads()
    kept = np.arange(len(K)) % 3 != 1
    options = {"tol": 1e-2, "method": row.method, "rates": rates}
    masked = subquad.attention(Q, K, V, key_mask=kept, **options)
    assert np.array_equal(masked.output, subquad.attention(Q, K[kept], V[kept], **options).output)


@over(ROWS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("side", [0, 1, 2])
def test_what_is_not_finite_is_refused_by_name(row, side, value, rates):
    arrays = heads()
    made = subquad.plan(*arrays, tol=1e-2, method=row.method, rates=rates)
    arrays[side][7, 1] = value
    with pytest.raises(ValueError, match=f"`{'QKV'[side]}` has "):
        subquad.attention(*arrays, tol=1e-2, method=row.method, rates=rates)
    with pytest.raises(ValueError, match=f"`{'QKV'[side]}` has "):
        made.run(*arrays)


@over(ROWS)
def test_a_plan_run_on_its_own_data_and_pickled_gives_the_same_bits(row, rates):
    result = subquad.attention(*heads(), tol=1e-2, method=row.method, rates=rates)
    again = result.plan.run(*heads())
    there = pickle.loads(pickle.dumps(result))
    for other in (again, there):
        assert np.array_equal(other.output, result.output)
        assert np.array_equal(other.certificate.row_bounds, result.certificate.row_bounds)
    assert str(there.plan) == str(result.plan)
