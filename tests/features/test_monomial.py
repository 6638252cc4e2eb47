"""The graded monomials: their order, their number, their coefficients, against exact arithmetic."""

import itertools
from fractions import Fraction
from math import comb, factorial, prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subquad import features

SMALL = [(d, g) for d in range(1, 6) for g in range(6)]


@pytest.mark.parametrize(("d", "g"), SMALL)
def test_number_and_blocks(d, g):
    sizes = features.block_sizes(d, g)
    assert sum(sizes) == features.feature_dimension(d, g) == comb(d + g, d)
    alphas = features.exponents(d, g)
    assert alphas.shape == (sum(sizes), d)
    assert list(alphas.sum(axis=1)) == [k for k, r in enumerate(sizes) for _ in range(r)]
    assert len({tuple(a) for a in alphas}) == len(alphas)


@pytest.mark.parametrize(("d", "g"), SMALL)
def test_order_is_that_of_sorted_words(d, g):
    # x_a times a suffix of the block before, a ascending, is the order of non-decreasing words.
    words = [
        word for k in range(g + 1) for word in itertools.combinations_with_replacement(range(d), k)
    ]
    counted = [[word.count(i) for i in range(d)] for word in words]
    assert features.exponents(d, g).tolist() == counted


@pytest.mark.parametrize(("d", "k"), SMALL)
def test_suffixes_hold_exactly_the_later_variables(d, k):
    block = features.exponents(d, k)[features.feature_dimension(d, k) - comb(d + k - 1, k) :]
    for a, offset in enumerate(features.suffix_offsets(d, k)):
        later = [not alpha[:a].any() for alpha in block]
        assert later == [i >= offset for i in range(len(block))]


def test_a_lower_degree_is_a_prefix():
    x = np.array([[0.3, -1.7, 2.9], [5.0, 0.25, -0.125]])
    low, high = features.monomials(x, 2), features.monomials(x, 4)
    assert np.array_equal(high[:, : low.shape[1]], low)


@settings(deadline=None, max_examples=40)
@given(st.data(), st.integers(1, 5), st.integers(0, 5))
def test_multinomial_theorem_exactly(data, d, k):
    fraction = st.fractions(-3, 3, max_denominator=97)
    x, y = (np.array(data.draw(st.lists(fraction, min_size=d, max_size=d))) for _ in "xy")
    r = features.block_sizes(d, k)[k]
    last = features.exponents(d, k)[-r:]
    terms = [
        Fraction(c) * prod(x**a) * prod(y**a)
        for c, a in zip(features.multinomials(d, k), last, strict=True)
    ]
    assert sum(terms) == (x @ y) ** k
    if k > 1 and d > 1 and len({x @ y, *x, *y, 0}) > d + 2:
        assert len(set(features.multinomials(d, k))) > 1  # all-ones coefficients are refuted
    values = features.monomials(np.stack([x, y]).astype(object), k)[:, -r:]
    assert values.tolist() == [[prod(z**a) for a in last] for z in (x, y)]


def test_all_ones_coefficients_would_be_caught():
    x, y = np.array([2.0, -3.0, 5.0]), np.array([7.0, 11.0, 13.0])
    block = slice(-features.block_sizes(3, 3)[3], None)
    products = features.monomials(x[None], 3)[0, block] * features.monomials(y[None], 3)[0, block]
    assert features.multinomials(3, 3) @ products == (x @ y) ** 3
    assert products.sum() != (x @ y) ** 3


@pytest.mark.parametrize(("d", "k"), [(2, 18), (3, 20), (3, 21), (2, 55), (2, 120), (1, 200)])
def test_multinomials_are_the_nearest_floats(d, k):
    alphas = features.exponents(d, k)[-features.block_sizes(d, k)[k] :]
    exact = [factorial(k) // prod(factorial(int(i)) for i in alpha) for alpha in alphas]
    assert features.multinomials(d, k).tolist() == [float(c) for c in exact]


def test_multinomials_are_shared_and_read_only():
    with pytest.raises(ValueError, match="read-only"):
        features.multinomials(3, 2)[0] = 2.0


def test_feature_dimension_is_exact_beyond_float64():
    assert features.feature_dimension(128, 60) == comb(188, 60)


def test_messages():
    for call in (
        features.feature_dimension,
        features.block_sizes,
        features.exponents,
        features.suffix_offsets,
        features.multinomials,
    ):
        with pytest.raises(ValueError, match="`d` is 0: monomials need at least 1"):
            call(0, 2)
        with pytest.raises(ValueError, match="`degree` is -1: it must be at least 0"):
            call(3, -1)
    with pytest.raises(ValueError, match="`k` is 700 with `d` = 3"):
        features.multinomials(3, 700)
    with pytest.raises(ValueError, match="`x` has 1 dimensions"):
        features.monomials(np.ones(3), 2)
