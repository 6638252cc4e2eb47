"""The bounds are attained: on each theorem's worst case the bound is a few times the error."""

import numpy as np
import pytest

import subquad
from tests import oracle
from tests.methods import worst
from tests.methods.table import ROWS

CASES = {
    f"{name} {i}": make for name, row in ROWS.items() for i, make in enumerate(row.worst_cases)
}


def measured(case: worst.Worst) -> tuple[subquad.Result, float]:
    """Return the Result of a worst case, and the error of its first row."""
    Q, K, V = case.Q, case.K, case.V
    options = {"scale": 1.0, "rates": subquad.TYPICAL}
    result = subquad.attention(Q, K, V, tol=case.tol, method=case.method, **options)
    (error,) = oracle.row_errors(result.output, Q, K, V, 1.0, rows=[0])
    return result, float(error)


def term_of(result: subquad.Result, name: str) -> np.ndarray:
    values = {term.name: np.asarray(term.value) for term in result.certificate.terms}
    return np.broadcast_to(values[name], result.certificate.row_bounds.shape)


@pytest.mark.parametrize("case", CASES)
def test_the_bound_is_attained(case: str):
    case = CASES[case]()
    result, error = measured(case)
    assert 0.0 < error <= result.certificate.row_bounds[0]
    assert term_of(result, case.term)[0] <= case.within * error


@pytest.mark.parametrize(("reach", "tol"), worst.SMALL)
def test_a_query_far_out_is_exact_and_blunts_no_other(reach: float, tol: float):
    result, _ = measured(worst.single_threshold(reach, tol))
    truncation = term_of(result, "truncation")
    assert truncation[2] == 0.0
    assert 0.0 < truncation[0]
