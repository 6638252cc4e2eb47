"""What the bounds suppose of CUDA and cuBLAS, and what makes it false where it is not forced."""

import numpy as np
import pytest

from subquad.bounds.rounding import EXP_ULPS

pytestmark = pytest.mark.gpu


def product(cp, a, b):
    from subquad.engine.gpu.blas import product

    return product(cp.asarray(a), cp.asarray(b)).get()


@pytest.mark.parametrize(
    ("dtype", "low", "high"), [("float32", -87.0, 88.0), ("float64", -708.0, 709.0)]
)
def test_exp_is_within_the_assumed_ulps(cp, dtype, low, high):
    from subquad.engine.gpu.kernels import launch
    from subquad.engine.lengths import LN2

    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(low, high, 2_000_000), rng.uniform(-1, 1, 1_000_000)])
    x = x.astype(dtype).reshape(1000, -1)
    there = cp.asarray(x)
    launch("weigh", (there,), (1000, 1), (there, 1000, x.shape[1], x.shape[1], LN2, 0))
    true = np.exp(x.astype(np.longdouble))
    ulp = np.spacing(true.astype(dtype)).astype(np.longdouble)
    worst = float((abs(there.get() - true) / ulp).max())
    assert 0.4 < worst <= EXP_ULPS
    assert worst <= 2.0 + 1e-3, "CUDA promises 2 in float32 and 1 in float64"


def spread(seed, shape, dtype):
    """Mantissas of full length: TF32 keeps 10 bits of them."""
    return np.random.default_rng(seed).uniform(0.5, 1.0, shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("rows", "inner", "columns"), [(2080, 512, 72), (72, 416, 4096), (64, 64, 512), (1, 7, 3)]
)
def test_products_are_rounded_sums_even_where_tf32_is_on(cp, dtype, rows, inner, columns):
    from cupy.cuda import cublas, device

    a, b = spread(1, (rows, inner), dtype), spread(2, (inner, columns), dtype)
    u = 2.0**-24 if dtype == "float32" else 2.0**-53
    true = a.astype(np.longdouble) @ b.astype(np.longdouble)
    handle = device.get_cublas_handle()
    before, tf32 = cublas.getMathMode(handle), 3
    try:
        for mode in (before, tf32):
            cublas.setMathMode(handle, mode)
            worst = float((abs(product(cp, a, b) - true) / true).max())
            assert worst <= inner * u, "a sum of products in any order"
            assert cublas.getMathMode(handle) == mode, "the caller's mode is put back"
    finally:
        cublas.setMathMode(handle, before)


def test_tf32_would_break_the_bound(cp):
    """The twin of the test above: were the mode not forced, it would show."""
    from cupy.cuda import cublas, device

    if int(cp.cuda.Device().compute_capability) < 80:
        pytest.skip("this GPU has no TF32")
    from subquad.engine.gpu import blas as gpu_blas

    a, b = spread(1, (512, 512), "float32"), spread(2, (512, 512), "float32")
    true = a.astype(float) @ b.astype(float)
    before = gpu_blas.PEDANTIC
    try:
        gpu_blas.PEDANTIC = 3
        worst = (abs(product(cp, a, b) - true) / true).max()
    finally:
        gpu_blas.PEDANTIC = before
        cublas.setMathMode(device.get_cublas_handle(), 0)
    assert worst > 8 * 2.0**-24 * np.sqrt(512)


@pytest.mark.parametrize("shape", [(2080, 512, 72), (72, 416, 4096), (64, 64, 512), (3, 5, 2)])
@pytest.mark.parametrize(("dtype", "small"), [("float32", -140), ("float64", -1060)])
def test_products_keep_subnormal_numbers(cp, dtype, small, shape):
    rows, inner, columns = shape
    half = np.ldexp(np.ones((rows, inner)), small // 2).astype(dtype)
    ones = np.ones((inner, columns), dtype)
    sums = inner * 2.0**small
    assert np.all(product(cp, half, ones * half[0, 0]) == sums), "a subnormal product"
    tiny = (half * half).astype(dtype)
    assert np.all(tiny > 0)
    assert np.all(product(cp, tiny, ones) == sums), "a subnormal factor"


def test_no_fused_or_fast_arithmetic_is_asked_for():
    from subquad.engine.gpu import kernels as gpu_kernels

    assert "--fmad=false" in gpu_kernels.OPTIONS
    assert not any("fast" in option or "ftz" in option for option in gpu_kernels.OPTIONS)
