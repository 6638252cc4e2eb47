"""Stacks on CuPy: what each head gives alone, bit for bit, and what the CPU finds."""

import numpy as np
import pytest

import subquad
from subquad.engine.rows import rows_of
from subquad.head.centring import measure
from subquad.head.frame import value_units
from subquad.head.sides import NotFiniteError
from tests.head.test_measuring import same, stack
from tests.oracle import row_errors

pytestmark = pytest.mark.gpu
CASES = [
    (1, 1, "float32"),
    (300, 7, "float16"),
    (5001, 64, "float32"),
    (70_000, 65, "float64"),
    (257, 300, "float32"),
    (66_000, 16, "float32"),
]


def heads_of(cp, n, d, dtype):
    """Return (host arrays, device arrays) of a stack, its heads in several layouts of memory."""
    x = stack(5, n, d, "float64")
    x = (x / abs(x).max()).astype(dtype)
    x[3, n // 3] = 0.0
    wide = cp.full((2 * n, 3 * d), cp.nan, dtype)
    wide[::2, ::-3] = cp.asarray(x[4])
    first = list(cp.asarray(x[:3].swapaxes(0, 1)).swapaxes(0, 1))
    return list(x), [*first, cp.asfortranarray(cp.asarray(x[3])), wide[::2, ::-3]]


@pytest.mark.parametrize(("n", "d", "dtype"), CASES)
def test_surveys(cp, n, d, dtype):
    host, there = heads_of(cp, n, d, dtype)
    rng = np.random.default_rng(n)
    in_scales, centres = [2.0**k for k in range(-2, 3)], 0.1 * rng.standard_normal((5, d))
    found = rows_of(there[0]).centred_norms(there, in_scales, list(centres))
    for own, x, on_device, in_scale, centre in zip(
        found, host, there, in_scales, centres, strict=True
    ):
        assert all(
            map(same, own, rows_of(on_device).centred_norms([on_device], [in_scale], [centre])[0])
        )
        norms, mean, slack = own
        alone = rows_of(on_device).centred_norms([on_device], [in_scale], [centre], means=False)
        assert same(norms, alone[0][0]) and alone[0][1] is None
        away = x.astype(np.longdouble) * in_scale - centre
        true = np.sqrt((away**2).sum(axis=1))
        assert np.all((true <= norms) & (norms <= true * (1 + (3 * d + 30) * 2.0**-53)))
        assert np.array_equal(
            norms, rows_of(on_device).row_measures(on_device, in_scale, centre)[0]
        )
        assert np.linalg.norm(mean - away.mean(axis=0)) <= slack


@pytest.mark.parametrize(("n", "d", "dtype"), CASES)
def test_ranges_and_rows(cp, n, d, dtype):
    host, there = heads_of(cp, n, d, dtype)
    ends = rows_of(there[0]).column_ranges(there)
    assert np.array_equal(ends, [[x.min(axis=0), x.max(axis=0)] for x in host])
    rows = np.random.default_rng(0).integers(0, n, (5, 11))
    for index in (slice(None, None, 3), rows, rows[:, :1]):
        found = rows_of(there[0]).stacked_rows(there, index)
        assert found.dtype == np.result_type(dtype, np.float32)
        assert np.array_equal(found, rows_of(host[0]).stacked_rows(host, index))


def test_ranges_keep_nan(cp):
    x = stack(3, 2000, 5, "float32")
    x[1, 1234, 3], x[0, 0, 1], x[2, 3, 2] = np.nan, np.inf, -np.inf
    ends = rows_of(list(cp.asarray(x))[0]).column_ranges(list(cp.asarray(x)))
    assert np.isnan(ends).sum() == 2 and np.isnan(ends[1, :, 3]).all()
    assert ends[0, 1, 1] == np.inf and ends[2, 0, 2] == -np.inf
    with pytest.raises(NotFiniteError):
        value_units(list(cp.asarray(x)))


@pytest.mark.parametrize(("n", "d"), [(900, 16), (3000, 64), (30_000, 8)])
def test_centres_are_those_of_the_cpu(cp, n, d):
    """They are found on the host, of the same rows; norms are float64's there."""
    x = stack(6, n, d, "float32")
    there = measure(list(cp.asarray(x)), True)
    assert all(map(same, there, [measure([own], True)[0] for own in cp.asarray(x)]))
    for own, host in zip(there, measure(list(x), True), strict=True):
        assert np.array_equal(own.sample, host.sample)
        assert same(own.centred[0].side, host.centred[0].side)
        assert np.all(host.centred[0].norms >= own.centred[0].norms * (1.0 - 2.0**-50))


def test_attention_over_heads(cp):
    x = stack(6, 700, 16, "float32").reshape(2, 3, 700, 16)
    Q, K, V = (
        np.float32(0.5) * (x - x.mean(axis=2, keepdims=True)) / x.std(axis=(2, 3))[..., None, None]
        for _ in range(3)
    )
    result = subquad.attention(*map(cp.asarray, (Q, K, V)), tol=0.1)
    for i in np.ndindex(2, 3):
        error = row_errors(result.output[i].get(), Q[i], K[i], V[i], 0.25)
        assert np.all(error <= result.certificate.row_bounds[i].get())
