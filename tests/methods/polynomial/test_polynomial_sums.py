"""Sums by one polynomial: the degree from which the search for a plan starts."""

import pytest

from subquad.exp_poly import estimate_error
from subquad.exp_poly.arguments import MAX_DEGREE
from subquad.exp_poly.degree import estimated_degree
from subquad.methods.polynomial.sums import LOGIT_BOUND_MAX, LOGIT_BOUND_MIN


@pytest.mark.parametrize("logit_bound", [LOGIT_BOUND_MIN, 0.3, 2.9, 17.0, LOGIT_BOUND_MAX])
@pytest.mark.parametrize("eps", [0.7, 1e-3, 1e-9])
def test_the_smallest_degree_is_within_eps_and_the_one_below_is_not(logit_bound, eps):
    degree = estimated_degree(logit_bound, eps)
    assert estimate_error(degree, logit_bound) <= eps
    assert degree == 0 or estimate_error(degree - 1, logit_bound) > eps


def test_where_no_degree_is_within_eps_the_search_stops_at_the_highest():
    assert estimated_degree(LOGIT_BOUND_MAX, 1e-300) == MAX_DEGREE
    assert estimate_error(MAX_DEGREE, LOGIT_BOUND_MAX) > 1e-300
