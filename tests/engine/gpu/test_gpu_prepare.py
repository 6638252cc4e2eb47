"""The row passes on CuPy against the same on NumPy: bit for bit, but for sums along a row."""

import numpy as np
import pytest

from subquad.engine.rows import rows_of

pytestmark = pytest.mark.gpu
DTYPES = ("float16", "float32", "float64")


def rows(seed, n, d, dtype):
    """Rows of every size, a quarter of them of subnormal numbers."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d)) * 10.0 ** rng.integers(-4, 4, (n, 1))
    x[1::4] *= 4 * float(np.finfo(dtype).smallest_subnormal)
    x[n // 3] = 0.0
    return x.astype(dtype)


def views(cp, x):
    """Yield (host, device) pairs of the same numbers in several layouts."""
    wide = np.full((2 * x.shape[0], 3 * x.shape[1]), np.nan, x.dtype)
    wide[::2, ::-3] = x
    yield x, cp.asarray(x)
    yield x, cp.asarray(wide)[::2, ::-3]
    yield x, cp.asfortranarray(cp.asarray(x))


CASES = [
    (1, 1, "float16"),
    (300, 7, "float16"),
    (5001, 64, "float32"),
    (700, 65, "float64"),
    (40, 300, "float32"),
]


@pytest.mark.parametrize(("n", "d", "dtype"), CASES)
def test_affine_and_values_are_the_cpus(cp, n, d, dtype):
    rng = np.random.default_rng(n)
    centre, out_scale, weights = (
        rng.standard_normal(d),
        rng.uniform(0.1, 2, d),
        rng.uniform(0, 1, n),
    )
    for host, there in views(cp, rows(d, n, d, dtype)):
        for compute in ("float32", "float64"):
            for units in ((0.25, centre, 3.0), (out_scale, 0.0, out_scale)):
                found = rows_of(there).affine(there, *units, compute)
                assert found.dtype == compute and found.flags.c_contiguous
                assert np.array_equal(found.get(), rows_of(host).affine(host, *units, compute))
            inverse = 1.0 / abs(host.astype(float) * 0.25 - centre).max(axis=0)
            for w in (None, weights):
                found = rows_of(there).weighted_values(
                    there, 0.25, centre, inverse, None if w is None else cp.asarray(w), compute
                )
                plain = rows_of(host).weighted_values(host, 0.25, centre, inverse, w, compute)
                assert np.array_equal(found.get(), plain)


@pytest.mark.parametrize("dtype", DTYPES)
def test_restored_values_are_rounded_once(cp, dtype):
    rng = np.random.default_rng(1)
    x = rng.uniform(-1.2, 1.2, (1000, 9))
    # Halfway between two halves but for what a float cannot hold: through float it would go down.
    x[0] = 1.0 + 2.0**-11 + 2.0**-40
    centre, radius = rng.standard_normal(9), rng.uniform(0.5, 2, 9)
    divisor = rng.uniform(1, 9, 1000)
    units = (0.5, centre, radius, np.full(9, -1.5), np.full(9, 2.0))
    there = cp.asarray(x)
    for parts in (units, (1.0, 0.0, 1.0, -9.0, 9.0)):
        found = rows_of(there).restored_values(there, *parts, dtype)
        assert np.array_equal(found.get(), rows_of(x).restored_values(x, *parts, dtype))
        divided = rows_of(there).restored_values(there, *parts, dtype, cp.asarray(divisor))
        assert np.array_equal(divided.get(), rows_of(x).restored_values(x, *parts, dtype, divisor))
    if dtype == "float16":
        assert found[0, 0] == np.float16(1.0 + 2.0**-10)
        assert np.float16(np.float32(x[0, 0])) == 1.0


@pytest.mark.parametrize(("n", "d", "dtype"), CASES)
def test_measures_bound_the_rows_and_are_sharp(cp, n, d, dtype):
    centre = np.random.default_rng(2).standard_normal(d)
    for host, there in views(cp, rows(d, n, d, dtype)):
        norms, entries = rows_of(there).row_measures(there, 0.5, centre)
        away = host.astype(np.longdouble) * 0.5 - centre
        true = np.sqrt((away**2).sum(axis=1))
        assert isinstance(norms, np.ndarray)
        assert np.all((true <= norms) & (norms <= true * (1 + (3 * d + 30) * 2.0**-53)))
        assert np.array_equal(entries, rows_of(host).row_measures(host, 0.5, centre)[1])


@pytest.mark.parametrize(("n", "d", "dtype"), CASES)
def test_sums_agree(cp, n, d, dtype):
    rng = np.random.default_rng(3)
    centre, vector, weights = rng.standard_normal((2, d)), rng.standard_normal(d), rng.random(n)
    for host, there in views(cp, rows(d, n, d, dtype)):
        found = rows_of(there).row_dots(there, 2.0, centre[0], vector).get()
        size = (abs(host.astype(float) * 2.0) + abs(centre[0])) @ abs(vector)
        plain = rows_of(host).row_dots(host, 2.0, centre[0], vector)
        assert np.all(abs(found - plain) <= 2 * (d + 3) * 2.0**-53 * size)
        for w in (None, weights):
            there_w = None if w is None else cp.asarray(w)
            mean = rows_of(there).weighted_mean(there, 2.0, there_w)
            plain = rows_of(host).weighted_mean(host, 2.0, w)
            np.testing.assert_allclose(mean, plain, rtol=0, atol=2.0**-40 * float(abs(host).max()))


def test_ranges_over_leading_dimensions_and_nan(cp):
    x = np.random.default_rng(4).standard_normal((2, 3, 501, 5))
    for there in (cp.asarray(x), cp.asarray(x.swapaxes(0, 1)).swapaxes(0, 1)):
        low, high = rows_of(there).column_range(there)
        assert np.array_equal(low, x.min(axis=(0, 1, 2)))
        assert np.array_equal(high, x.max(axis=(0, 1, 2)))
    x[1, 2, 77, 3], x[0, 0, 0, 1], x[0, 1, 3, 2] = np.nan, np.inf, -np.inf
    there = cp.asarray(x)
    low, high = rows_of(there).column_range(there)
    assert np.isnan(low).tolist() == np.isnan(high).tolist() == [False, False, False, True, False]
    assert high[1] == np.inf and low[2] == -np.inf


def test_rows_are_taken(cp):
    x = rows(5, 100, 3, "float32")
    index = np.random.default_rng(5).permutation(100)
    there = cp.asarray(x)
    taken = rows_of(there).take_rows(there, 0.5, index)
    assert taken.dtype == np.float64 and np.array_equal(taken, x[index].astype(float) * 0.5)


@pytest.mark.parametrize("compute", ["float32", "float64"])
def test_rotated_rows_agree(cp, compute, monkeypatch):
    from subquad.engine.gpu import rows as gpu_rows

    monkeypatch.setattr(gpu_rows, "ROTATED_ROWS", 333)
    rng = np.random.default_rng(6)
    x, basis, centre = rows(6, 1000, 12, "float32"), rng.standard_normal((12, 12)), rng.random(12)
    there = cp.asarray(x)
    found = rows_of(there).rotated(there, 0.5, centre, 2.0, basis, compute).get()
    size = (abs(x.astype(float)) + 2 * abs(centre)) @ abs(basis)
    u = 2.0**-24 if compute == "float32" else 2.0**-53
    away = abs(found - rows_of(x).rotated(x, 0.5, centre, 2.0, basis, "float64"))
    assert np.all(away <= (40 * 2.0**-53 + u) * size)
    reach = rows_of(there).rotated_reach(there, 0.5, centre, 2.0, basis)
    plain = rows_of(x).rotated_reach(x, 0.5, centre, 2.0, basis)
    np.testing.assert_allclose(reach, plain, rtol=1e-12)
