"""A plan run on other data: the bound holds there too, or the plan is refused."""

import numpy as np
import pytest

import subquad
from tests.oracle import row_errors


def cloud(norm: float, n: int = 200, d: int = 8, seed: int = 0):
    rng = np.random.default_rng(seed)
    Q, K = (rng.standard_normal((n, d)) for _ in range(2))
    Q, K = (norm * x / np.linalg.norm(x, axis=1, keepdims=True) for x in (Q, K))
    return np.concatenate([Q, -Q]), np.concatenate([K, -K]), rng.standard_normal((2 * n, 3)) + 0.5


METHODS = {
    "auto": "auto", "polynomial": "polynomial", "norm": subquad.SupportBasis(criterion="norm"),
    "norm at 3": subquad.SupportBasis(criterion="norm", threshold=3.0),
    "entry at 1": subquad.SupportBasis(criterion="entry", threshold=1.0),
}  # fmt: skip


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


@pytest.mark.parametrize(("n", "m"), [(1, 300), (2, 3000), (8, 3000)])
def test_few_queries_print(n, m):
    """The search for the crossover ends where neighbouring lengths are all that is left."""
    made = subquad.plan(n=n, m=m, d=4, logit_bound=0.5, tol=1e-2, rates=subquad.TYPICAL)
    assert "certified" in str(made)
