"""Claims on feature maps, and the model and matrices of their checks."""

import numpy as np
import pytest

from proofs_checks.checks.features import claims
from proofs_checks.checks.features.ranks import polynomial_matrix, rank_equals

CLAIMS = {claim.id: claim for claim in (*claims.LITERATURE, *claims.DERIVED)}


@pytest.mark.parametrize("name", CLAIMS)
def test_claim_and_twin_are_as_expected(records, name):
    claim = CLAIMS[name]
    record = records[name]
    assert record.found.verdict == claim.expected, record.found.detail
    assert record.twin_found.verdict == claim.twin.expected, record.twin_found.detail


def test_polynomial_matrix_is_the_polynomial_of_a_product_of_low_rank():
    """With p(s) = s the matrix is X Y^T, of rank d; with p(s) = 1 it is all ones."""
    matrix = np.array(polynomial_matrix(2, (0, 1), 5), dtype=float)
    assert np.linalg.matrix_rank(matrix) == 2
    assert polynomial_matrix(3, (1,), 2) == [[1, 1], [1, 1]]


def test_polynomial_matrix_is_in_whole_numbers():
    entries = [x for row in polynomial_matrix(4, (1, 2, 3, 4), 3) for x in row]
    assert all(isinstance(x, int) for x in entries)
    assert max(map(abs, entries)) > 2**80  # floats would have rounded


def test_rank_check_finds_each_dropped_coefficient():
    """Without degree k there are C(d+k-1, k) features fewer, whichever k it is."""
    for missing in (0, 1, 2):
        assert rank_equals(missing).verdict == "refuted"


def test_dropped_coefficient_is_the_last():
    found = claims.reference_degree(4)
    assert "2.67421" in found.detail and "2.71764" in found.detail
    assert claims.reference_degree(9).verdict == "refuted"
