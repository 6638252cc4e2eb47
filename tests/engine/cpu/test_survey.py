"""The passes that measure rows: norms never below the truth, in float32 as in float64."""

import math
from fractions import Fraction

import numpy as np
import pytest

from subquad.engine.cpu import measures as cpu_measures
from subquad.engine.rows import rows_of


def norms_of(x, in_scale, centre):
    """Return the norms of the rows of x * in_scale - centre, each sum of squares rounded once."""
    rows = x.astype(np.float64) * in_scale - centre
    return np.array([math.sqrt(math.fsum(v * v for v in row)) for row in rows])


def rows(seed, d, dtype, spread):
    """Return rows of very unlike sizes, one of them zero, with a centre of float32 numbers."""
    rng = np.random.default_rng(seed)
    size = 10.0 ** rng.uniform(-8, 8)
    x = size * rng.standard_normal((130, d)) * np.exp(spread * rng.standard_normal((130, 1)))
    x[3] = 0.0
    in_scale = 2.0 ** -round(math.log2(np.median(np.abs(x))))
    centre = np.zeros(d) if seed % 3 == 0 else np.float32(x.mean(axis=0)).astype(float) * in_scale
    return x.astype(dtype), in_scale, centre


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("d", [1, 3, 64, 700])
@pytest.mark.parametrize("seed", range(6))
def test_norms_and_mean(seed, d, dtype):
    spread = 0.5 if dtype == "float16" else (0.0, 2.0, 12.0)[seed % 3]
    x, in_scale, centre = rows(seed, d, "float32" if dtype == "float16" else dtype, spread)
    if dtype == "float16":
        x, in_scale = (x.astype(float) * in_scale).clip(-100, 100).astype(dtype), 1.0
    norms, mean, slack = rows_of(x).centred_norms([x], [in_scale], [centre])[0]
    true = norms_of(x, in_scale, centre)
    assert np.all(norms.astype(float) >= true * (1.0 - 2.0**-52))
    assert np.all(norms.astype(float) <= true * (1.0 + (d + 12) * 2.0**-23) + 2.0**-400)
    assert np.array_equal(norms == 0.0, true == 0.0)
    exact = np.array([math.fsum(c) for c in (x.astype(float) * in_scale - centre).T]) / len(x)
    assert np.linalg.norm(mean - exact) <= slack <= 2.0**-12 * (true.max() + np.abs(centre).sum())


@pytest.mark.parametrize("d", [1, 5, 64])
def test_norms_at_the_ends_of_the_range(d):
    """Squares that vanish or overflow: no less than the truth, nor more than sqrt(d) entries."""
    sizes = np.array([0.0, 5e-324, 2.0**-1040, 2.0**-600, 2.0**-465, 1.0, 2.0**600, 2.0**1000])
    x = sizes[:, None] * np.linspace(1.0, -0.6, d)
    x[3, 1:] = x[4, 1:] = 0.0
    true = [
        math.sqrt(sum(Fraction(float(v / size)) ** 2 for v in row)) * size if size else 0.0
        for row, size in zip(x, sizes, strict=True)
    ]
    true[1] = true[2] = 0.0  # subnormal: the truth is only known to be below the next line's
    for norms in (
        cpu_measures.row_measures(x, 1.0, np.zeros(d))[0],
        rows_of(x[:-1]).centred_norms([x[:-1]], [1.0], [np.zeros(d)])[0][0],
    ):
        own = np.array(true)[: len(norms)]
        assert np.all(norms >= own)
        assert np.all(norms <= math.sqrt(d) * sizes[: len(norms)] * (1.0 + 2.0**-40) + 2.0**-1070)
        assert np.all(norms >= np.abs(x).max(axis=1)[: len(norms)])
        assert norms[0] == 0.0


def test_the_float32_pass_is_taken_and_rounds_up():
    """Its plain sums fall short of the truth for about half of the rows: the factor is needed."""
    x, in_scale, centre = rows(1, 64, "float32", 0.1)
    norms, _, _ = rows_of(x).centred_norms([x], [in_scale], [centre])[0]
    assert norms.dtype == np.float32
    true = norms_of(x, in_scale, centre)
    plain = norms.astype(float) / (1.0 + (64 + 8) * 2.0**-24)
    assert np.any(plain[true > 0] < true[true > 0])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_shows(value):
    x = np.ones((3000, 4), np.float32)
    x[2001, 2] = value
    assert not np.isfinite(rows_of(x).centred_norms([x], [1.0], [np.zeros(4)])[0][0].max())


@pytest.mark.parametrize("layout", ["C", "F", "strided", "odd"])
def test_column_range(layout):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3001 if layout == "odd" else 4096, 6))
    x = {"F": np.asfortranarray, "strided": lambda a: a[::3, ::2]}.get(layout, lambda a: a)(x)
    low, high = rows_of(x).column_range(x)
    assert np.array_equal(low, x.min(axis=0)) and np.array_equal(high, x.max(axis=0))
    assert cpu_measures.FOLD > 1
    x[5, 1] = np.nan
    assert np.isnan(rows_of(x).column_range(x)[0]).tolist() == [i == 1 for i in range(x.shape[1])]


@pytest.mark.parametrize("in_scale", [1.0, 2.0**-3, 2.0**300, 0.3])
def test_powers_of_two_are_moved_and_round_nothing(in_scale):
    """(x * in_scale - centre) * out_scale, each step rounded to the compute dtype."""
    rng = np.random.default_rng(1)
    x, centre = rng.standard_normal((5000, 7)) / in_scale, rng.standard_normal(7)
    for dtype in ("float32", "float64"):
        found = rows_of(x).affine(x, in_scale, centre, 0.7, dtype)
        assert np.array_equal(found, ((x * in_scale - centre) * 0.7).astype(dtype))
    radius = np.abs(rng.standard_normal(7))
    low, high = np.full(7, -0.5), np.full(7, 0.5)
    divisor = 1.0 + rng.random(5000)
    found = rows_of(x).restored_values(x, in_scale, centre, radius, low, high, "float64", divisor)
    expected = np.clip((x / divisor[:, None] * radius + centre) / in_scale, low, high)
    assert np.array_equal(found, expected)
