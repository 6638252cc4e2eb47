"""Rates that no machine has are refused where they are made, not where something is divided."""

import dataclasses
import math

import numpy as np
import pytest

from subquad.cost.rates import TYPICAL, Rates, Speed

NAMES = [field.name for field in dataclasses.fields(Speed)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rate", [0, -1, 0.0, math.nan, -math.inf])
def test_a_rate_is_above_zero(name, rate):
    with pytest.raises(ValueError, match=f"^`{name}` is {rate:g}; a rate is above 0, infinite"):
        dataclasses.replace(TYPICAL.float32, **{name: rate})


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rate", ["a", None, True, 1j])
def test_a_rate_is_a_number(name, rate):
    with pytest.raises(TypeError, match=f"^`{name}` is .*; pass a real number"):
        dataclasses.replace(TYPICAL.float32, **{name: rate})


def test_what_is_free_has_an_infinite_rate():
    assert Speed(*[math.inf] * len(NAMES)).pairs == math.inf
    assert Speed(1, np.float32(2.0), np.int64(3), 4.0, 5.0).polynomial_flops == 3


@pytest.mark.parametrize(
    "name, value, kind, words",
    [
        ("float32", 1.0, TypeError, "`float32` is 1.0 of type float; pass a Speed."),
        ("float64", None, TypeError, "`float64` is None of type NoneType; pass a Speed."),
        ("bfloat16", 1e9, TypeError, "`bfloat16` is 1000000000.0 of type float; pass a Speed."),
        ("bfloat16x3", "a", TypeError, "`bfloat16x3` is 'a' of type str; pass a Speed."),
        ("overhead", -1, ValueError, "`overhead` is -1; seconds are finite and not negative."),
        ("overhead", math.nan, ValueError, "`overhead` is nan; seconds are finite"),
        ("overhead", math.inf, ValueError, "`overhead` is inf; seconds are finite"),
        ("overhead", "a", TypeError, "`overhead` is 'a' of type str; pass a real number."),
        ("memory", 0, ValueError, "`memory` is 0; pass bytes, more than 0, or None."),
        ("memory", math.nan, ValueError, "`memory` is nan; pass bytes"),
        ("memory", "a", TypeError, "`memory` is 'a' of type str; pass a real number."),
        ("threads", 0, ValueError, "`threads` is 0; a size is at least 1"),
        ("threads", 1.5, TypeError, "`threads` is 1.5 of type float; a size is an integer."),
    ],
)
def test_rates_that_no_machine_has(name, value, kind, words):
    with pytest.raises(kind, match=f"^{words}"):
        dataclasses.replace(TYPICAL, **{name: value})


def test_rates_without_fused_passes_or_memory():
    assert Rates(TYPICAL.float32, TYPICAL.float64, overhead=0.0).bfloat16 is None
