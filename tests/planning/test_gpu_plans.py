"""The fused passes as the planner takes them: bounds held, plans run again without measuring."""

import dataclasses

import numpy as np
import pytest

import subquad
from subquad.engine.fused.sizes import OPERANDS
from subquad.methods.method import Proposal, stored_norm_bound
from subquad.methods.polynomial.method import Polynomial
from subquad.methods.polynomial.sums import parameters_for

pytestmark = pytest.mark.gpu


@pytest.fixture
def fused(cp):
    """CuPy, on a device that has the fused passes."""
    from subquad.engine.fused import passes as fused_passes

    if not fused_passes.available():
        pytest.skip("the fused passes need a device of compute capability 9.0")
    return cp


def drawn(n=3001, m=2777, d=64, d_v=33, seed=0, reach=0.4, lead=()):
    """Return Q, K, V, float32: logits up to about `reach`, no centre, no symmetry."""
    rng = np.random.default_rng(seed)
    Q, K = (rng.standard_normal((*lead, rows, d)) for rows in (n, m))
    Q, K = (x / np.linalg.norm(x, axis=-1).max() for x in (Q, K))
    V = rng.uniform(-1.0, 2.0, (*lead, m, d_v)) ** 3
    return tuple(x.astype(np.float32) for x in (Q * reach * np.sqrt(d), K + 0.01, V))


def there(cp, arrays):
    return tuple(cp.asarray(x) for x in arrays)


def row_errors(output, Q, K, V):
    """Return the error of each row, (n,), per value radius: float64, 1e-12 beside bounds of 1e-6.

    The oracle of long doubles has no BLAS: seconds a head of this size.
    """
    Q, K, V = (x.astype(np.float64) for x in (Q, K, V))
    logits = Q @ (K - K[0]).T / np.sqrt(Q.shape[-1])
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    exact = weights @ V / weights.sum(axis=1, keepdims=True)
    radius = (V.max(axis=0) - V.min(axis=0)) / 2.0
    assert (radius > 0.0).all()
    return np.abs((output - exact) / radius).max(axis=1)


def holds(result, arrays, tol):
    """Assert that the error of every row of every head is within its bound; return the output."""
    output, bounds = result.output.get(), result.certificate.row_bounds.get()
    assert result.certificate.bound <= tol
    named = sum(term.value.get() for term in result.certificate.terms)
    np.testing.assert_allclose(named, bounds, rtol=1e-12)
    for i in np.ndindex(output.shape[:-2]):
        assert (row_errors(output[i], *(x[i] for x in arrays)) <= bounds[i]).all()  # NaN fails
        null = np.broadcast_to(arrays[2][i].mean(axis=0), output[i].shape)
        assert row_errors(null, *(x[i] for x in arrays)).max() > 1e-4  # not a trivial answer
    return output


def dtype_of(result):
    return result.plan.heads[0].chosen.work.dtype


@pytest.mark.parametrize(
    ("tol", "dtype"), [(6e-2, "bfloat16"), (1e-2, "bfloat16x3"), (1e-5, "float64")]
)
def test_the_mode_follows_from_the_tolerance(fused, fast, tol, dtype):
    arrays = drawn()
    result = subquad.attention(*there(fused, arrays), tol=tol, rates=fast, method="polynomial")
    assert dtype_of(result) == dtype
    holds(result, arrays, tol)
    assumed = " ".join(result.certificate.assumptions)
    assert ("tensor cores" in assumed) == (dtype in OPERANDS)


def test_large_rows_go_exact_beside_them(fused, fast):
    Q, K, V = drawn()
    Q[::500] *= 12.0
    K[7::600] *= 15.0
    result = subquad.attention(
        *there(fused, (Q, K, V)), tol=1e-2, rates=fast, method="support_basis"
    )
    assert dtype_of(result) in OPERANDS
    assert result.plan.heads[0].chosen.parameters.large_keys > 0
    holds(result, (Q, K, V), 1e-2)


@pytest.fixture
def replays(monkeypatch, fused):
    """The heads that went through the fused passes without being measured."""
    from subquad.engine.fused import rerun as fused_rerun

    calls, start = [], fused_rerun.FusedHeads.start

    def counted(self, *args):
        calls.extend(range(self.heads))
        return start(self, *args)

    monkeypatch.setattr(fused_rerun.FusedHeads, "start", counted)
    return calls


@pytest.mark.parametrize("tol", [6e-2, 1e-2])
@pytest.mark.parametrize(("d", "d_v", "lead"), [(64, 33, ()), (16, 128, ()), (128, 1, (2, 2))])
def test_a_plan_runs_again_in_its_own_units(fused, fast, replays, tol, d, d_v, lead):
    made = subquad.plan(
        *there(fused, drawn(d=d, d_v=d_v, lead=lead)), tol=tol, rates=fast, method="polynomial"
    )
    new = drawn(d=d, d_v=d_v, seed=5, reach=0.35, lead=lead)
    dirty = [fused.full(1 << power, fused.nan, fused.float32) for power in range(6, 22)]
    del dirty
    results = [made.run(*there(fused, new)) for _ in range(2)]
    assert len(replays) == 2 * len(made.heads)
    first, second = (holds(result, new, tol) for result in results)
    assert np.array_equal(first, second)
    assert [t.name for t in results[0].certificate.terms][:3] == ["truncation", "logits", "sums"]


class Cubic(Polynomial):
    """Degree 3 in the operands asked for, whatever is the cheapest."""

    def __init__(self, operands):
        self.operands = operands

    def fit(self, stats, tol, rates, budget=np.inf):
        p = parameters_for(
            3, stored_norm_bound(stats.logit_bound, self.operands), self.operands, stats.d
        )
        yield Proposal(self, p, self.certify(stats, p), self.work(stats, p))


@pytest.mark.parametrize("operands", OPERANDS)
def test_degree_3_runs_again_on_another_stream(fused, fast, replays, operands):
    made = subquad.plan(*there(fused, drawn()), tol=4e-2, rates=fast, method=Cubic(operands))
    new = drawn(seed=5, reach=0.35)
    first = holds(made.run(*there(fused, new)), new, 4e-2)
    with fused.cuda.Stream(non_blocking=True) as stream:
        arrays = there(fused, new)
        second = made.run(*arrays)
        stream.synchronize()
    assert np.array_equal(first, second.output.get())
    assert len(replays) == 2


def test_what_one_run_finds_is_not_found_by_the_next(fused, fast, replays):
    """What a run leaves behind is 0 again: larger rows and values of the one before are gone."""
    made = subquad.plan(*there(fused, drawn()), tol=1e-2, rates=fast, method="polynomial")
    large, small = drawn(seed=5, reach=0.39), drawn(seed=6, reach=0.1)
    small[2][:] *= np.float32(0.01)
    alone = dataclasses.replace(made).run(*there(fused, small))
    made.run(*there(fused, large))
    after = made.run(*there(fused, small))
    assert np.array_equal(holds(after, small, 1e-2), alone.output.get())
    assert after.certificate.bound == alone.certificate.bound
    Q, K, V = small
    Q = Q.copy()
    Q[17] *= 40.0
    with pytest.raises(subquad.ToleranceError, match="plan again"):
        made.run(*there(fused, (Q, K, V)))
    assert np.array_equal(made.run(*there(fused, small)).output.get(), alone.output.get())


def test_a_bound_that_new_data_break_is_refused(fused, fast, replays):
    made = subquad.plan(*there(fused, drawn()), tol=1e-2, rates=fast, method="polynomial")
    Q, K, V = drawn(seed=5)
    Q[17] *= 9.0
    with pytest.raises(subquad.ToleranceError, match="plan again"):
        made.run(*there(fused, (Q, K, V)))
    assert replays


@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(fused, fast, which, bad):
    made = subquad.plan(*there(fused, drawn()), tol=1e-2, rates=fast, method="polynomial")
    arrays = drawn(seed=5, reach=0.3)
    arrays[which][1234, 0] = bad
    with pytest.raises(ValueError, match=f"`{'QKV'[which]}`"):
        made.run(*there(fused, arrays))


def test_other_layouts_run_the_long_way(fused, fast, replays):
    made = subquad.plan(*there(fused, drawn()), tol=1e-2, rates=fast, method="polynomial")
    new = drawn(seed=5, reach=0.3)
    Q, K, V = there(fused, new)
    holds(made.run(Q, fused.asfortranarray(K), V), new, 1e-2)
    assert not replays
