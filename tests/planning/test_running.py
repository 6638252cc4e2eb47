"""Heads that run together: the output and the Terms that each has alone, bit for bit."""

import numpy as np
import pytest

import subquad
from subquad.planning import run
from tests.oracle import row_errors


def data(lead, n, m, d, d_v, dtype="float32", size=3.0, seed=0):
    rng = np.random.default_rng(seed)
    Q, K, V = (rng.standard_normal((*lead, *shape)) for shape in ((n, d), (m, d), (m, d_v)))
    sizes = rng.uniform(0.3, size, (*lead, 1, 1))
    return [x.astype(dtype) for x in (Q * sizes + 0.2, K * sizes - 0.1, V * sizes + 1.0)]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(40, 60, 5, 3), (1, 700, 16, 2), (600, 1, 4, 4)])
def test_a_head_runs_with_others_as_it_does_alone(dtype, shape, monkeypatch):
    monkeypatch.setattr(run, "TOGETHER", 2 * shape[0] * shape[3])
    Q, K, V = data((2, 3), *shape, dtype=dtype)
    options = {"tol": 0.5, "method": "exact", "rates": subquad.TYPICAL}
    result = subquad.attention(Q, K, V, **options)
    for i in np.ndindex(2, 3):
        alone = subquad.attention(Q[i], K[i], V[i], **options)
        assert np.array_equal(result.output[i], alone.output)
        for term, own in zip(result.certificate.terms, alone.certificate.terms, strict=True):
            assert (term.name, term.claim) == (own.name, own.claim)
            assert np.array_equal(term.value[i], own.value)
    assert result.output.dtype == dtype and result.output.flags.c_contiguous


def test_the_bound_of_each_head_is_its_own():
    """Large logits and values in one head loosen its rows, and those of no other."""
    Q, K, V = data((4,), 50, 70, 6, 3)
    Q[2] *= np.float32(30.0)
    V[1] += np.float32(1e5)
    result = subquad.attention(Q, K, V, tol=0.5, method="exact", rates=subquad.TYPICAL)
    bounds = result.certificate.row_bounds.max(axis=1)
    assert bounds[2] > 3.0 * bounds[0] and bounds[1] > 3.0 * bounds[0]
    for i in range(4):
        error = row_errors(result.output[i], Q[i], K[i], V[i], 1.0 / np.sqrt(6))
        assert np.all(error <= result.certificate.row_bounds[i])


def test_heads_of_several_methods_keep_their_places():
    """Small logits go by polynomial, the others exact, between one another."""
    Q, K, V = data((5,), 900, 800, 2, 2, seed=3)
    for i, size in enumerate((0.02, 20.0, 20.0, 0.02, 20.0)):
        Q[i] *= np.float32(size / abs(Q[i]).max())
        K[i] *= np.float32(size / abs(K[i]).max())
    made = subquad.plan(Q, K, V, tol=1e-3, rates=subquad.TYPICAL)
    result = subquad.attention(Q, K, V, tol=1e-3, rates=subquad.TYPICAL)
    assert len({head.chosen.method.name for head in made.heads}) > 1
    for i in range(5):
        alone = subquad.attention(Q[i], K[i], V[i], tol=1e-3, rates=subquad.TYPICAL)
        assert np.array_equal(result.output[i], alone.output)
        assert np.array_equal(result.certificate.row_bounds[i], alone.certificate.row_bounds)


def test_masked_heads_run_with_those_of_their_size(monkeypatch):
    runs = []
    real = run._run_together

    def counted(heads, chosen):
        runs.append(len(heads))
        return real(heads, chosen)

    monkeypatch.setattr(run, "_run_together", counted)
    Q, K, V = data((5,), 30, 40, 4, 2)
    mask = np.ones((5, 40), bool)
    mask[2:, 7] = False
    result = subquad.attention(Q, K, V, tol=0.5, method="exact", key_mask=mask)
    assert runs == [2, 3]
    for i in range(5):
        error = row_errors(result.output[i], Q[i], K[i][mask[i]], V[i][mask[i]], 0.5)
        assert np.all(error <= result.certificate.row_bounds[i])


def test_large_heads_do_not_wait_for_one_another(monkeypatch):
    """A head that can feed two threads runs alone, all threads on it."""
    monkeypatch.setattr(run, "_run_together", lambda heads, chosen: pytest.fail("together"))
    Q, K, V = data((2,), 1500, 1500, 64, 8)
    subquad.attention(Q, K, V, tol=0.5, method="exact", rates=subquad.TYPICAL)
