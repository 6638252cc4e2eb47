"""The bounds are attained: on each theorem's worst case the error is at least half the bound."""

import numpy as np
import pytest

import subquad

FEW = 2000  # keys in all; multiplicities are rounded to whole keys


def _worst_keys(coefficients, logit_bound: float, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """Return keys (m, 1) at the extrema of p(x) exp(-x) - 1 and values of the error's sign.

    For the query 1 half of the softmax mass lies where the computed weights are too large, spread
    evenly over the extrema of each sign; the ends of the interval are among them.
    """
    x = np.linspace(-logit_bound, logit_bound, 200_001)
    error = np.polynomial.polynomial.polyval(x, coefficients) * np.exp(-x) - 1.0
    runs = np.split(np.arange(x.size), np.flatnonzero(np.diff(np.sign(error))) + 1)
    at = np.array([run[np.argmax(np.abs(error[run]))] for run in runs])
    assert (np.abs(error[at]) > 0.98 * eps).all()
    signs = np.sign(error[at])
    share = np.exp(-x[at]) / np.where(signs > 0, (signs > 0).sum(), (signs < 0).sum())
    counts = np.maximum(1, np.round(FEW * share / share.sum())).astype(int)
    return np.repeat(x[at], counts)[:, None], np.repeat(signs, counts)[:, None]


def _exact(q: float, K: np.ndarray, V: np.ndarray) -> float:
    weights = np.exp(q * K[:, 0])
    return float(weights @ V[:, 0] / weights.sum())


# At reach 2 a twentieth of the worst keys lie so far from the others that they go exact.
@pytest.mark.parametrize(
    ("method", "reach", "tol"),
    [
        *(
            (method, reach, tol)
            for method in ("polynomial", "support_basis")
            for reach, tol in ((0.5, 1e-2), (0.5, 1e-4), (0.4, 1e-3), (1.0, 1e-3))
        ),
        ("polynomial", 2.0, 5e-3),
    ],
)
def test_truncation_is_attained(method: str, reach: float, tol: float):
    Q = np.array([[1.0], [-1.0]])
    spread = np.linspace(-reach, reach, 101)[:, None]
    options = {"scale": 1.0, "rates": subquad.TYPICAL}
    made = subquad.plan(Q, spread, spread, tol=tol, method="polynomial", **options)
    chosen = made.heads[0].chosen
    p = chosen.parameters.polynomial
    K, V = _worst_keys(p.scaled() * (1.0 - p.upper**2), p.logit_bound, p.upper)
    K = np.clip(K, -reach, reach)
    if method == "support_basis":  # one query far out, exact, must not blunt the others
        Q = np.concatenate([Q, [[300.0]]])
        chooser = subquad.SupportBasis(criterion="norm", threshold=1.5 * max(reach, 1.0))
    else:
        chooser = "polynomial"
    res = subquad.attention(Q, K, V, tol=tol, method=chooser, **options)
    truncation = {t.name: np.asarray(t.value) for t in res.certificate.terms}["truncation"]
    measured = abs(float(res.output[0, 0]) - _exact(1.0, K, V))
    assert 0.0 < measured <= res.certificate.row_bounds[0]
    assert truncation[0] <= 2.0 * measured
    if method == "support_basis":
        assert truncation[2] == 0.0
        assert 0.0 < truncation[0]
