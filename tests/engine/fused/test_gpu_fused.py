"""The fused passes against float64 on the device, and the assumption on how tensor cores add."""

import numpy as np
import pytest

import subquad.engine as engine
from subquad.arrays.formats import FORMATS
from subquad.engine.fused.rounding import STEP_ERROR, fused_errors
from subquad.engine.fused.sizes import OPERANDS
from subquad.features import block_sizes, multinomials
from subquad.methods.method import stored_norm_bound

pytestmark = pytest.mark.gpu

PROBE = r"""
typedef unsigned int u32; typedef unsigned long long u64;
#define NC 8
//WGMMA//
extern "C" __global__ void probe(
    const u32* A, const unsigned short* B, const float* C, float* D) {
    __shared__ __align__(128) unsigned short tile[16 * 8];
    const int tid = threadIdx.x, warp = tid / 32, g = tid % 32 / 4, t = tid % 4;
    const int k = tid / 8, n = tid % 8;
    tile[k / 8 * 64 + n * 8 + k % 8] = B[k * 8 + n];
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    __syncthreads();
    const int row = warp * 16 + g, at = row * 8 + 2 * t;
    float d[4] = {C[at], C[at + 1], C[at + 64], C[at + 65]};
    u32 a[4];
    for (int r = 0; r < 4; r++) a[r] = A[((row + 8 * (r & 1)) * 16 + 2 * t + 8 * (r >> 1)) / 2];
    const u32 place = (u32)__cvta_generic_to_shared(tile);
    const u64 layout = ((u64)(128 >> 4) << 16) | ((u64)(128 >> 4) << 32);
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
    wgmma(d, a, (u64)((place & 0x3ffff) >> 4) | layout);
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
    D[at] = d[0]; D[at + 1] = d[1]; D[at + 64] = d[2]; D[at + 65] = d[3];
}
"""


@pytest.fixture
def fused(cp):
    from subquad.engine.fused import passes as fused_passes

    if not fused_passes.available():
        pytest.skip("the fused passes need a device of compute capability 9.0")
    return fused_passes


def cut(x):
    """Return x with the bits below bfloat16 cleared, float32."""
    return (np.asarray(x, np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32)


@pytest.fixture
def step(cp, fused):
    """One step of the tensor cores: C (64, 8) + A (64, 16) B (16, 8), operands in bfloat16."""
    text = PROBE.replace("//WGMMA//", fused.product_source(8))
    module = cp.RawModule(code=text, backend="nvrtc", options=fused.OPTIONS)
    kernel = module.get_function("probe")

    def run(A, B, C):
        out = cp.full((64, 8), cp.nan, cp.float32)
        a, b = ((cut(x).view(np.uint32) >> 16).astype(np.uint16) for x in (A, B))
        words = cp.asarray(np.ascontiguousarray(a)).view(cp.uint32)
        kernel((1,), (128,), (words, cp.asarray(b), cp.asarray(C, dtype=cp.float32), out))
        return out.get()

    return run


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_two_bits_below_the_last_are_kept(step, sign):
    """2^j products of 2^-(23 + j) beside 1 are seen for j <= 2: what STEP_ERROR supposes."""
    for j in range(3):
        A = np.zeros((64, 16))
        A[:, : 1 << j] = 2.0**-12
        found = step(A, np.full((16, 8), sign * 2.0 ** -(11 + j)), np.ones((64, 8)))
        assert (found - 1.0 == sign * 2.0**-23).all(), j


def test_a_step_is_within_its_bound_of_the_sum_of_absolute_values(step):
    rng, worst = np.random.default_rng(0), 0.0
    for trial in range(200):
        A, B = (
            cut(rng.standard_normal(s) * 2.0 ** rng.integers(-12, 3, s))
            for s in ((64, 16), (16, 8))
        )
        if trial % 2:
            A, B = abs(A), abs(B)
        C = (rng.standard_normal((64, 8)) * 2.0 ** rng.integers(-20, 3)).astype(np.float32)
        products = A.astype(np.float64)[:, :, None] * B.astype(np.float64)
        exact = products.astype(np.longdouble).sum(axis=1) + C
        size = np.abs(products).sum(axis=1) + np.abs(C)
        worst = max(worst, float((np.abs(step(A, B, C) - exact) / size).max()))
    assert worst <= STEP_ERROR
    assert worst >= STEP_ERROR / 16.0


def drawn(cp, n, m, d, d_v, seed):
    """Return Q, K, W on the device: no centre, no symmetry, weights that differ."""
    rng = np.random.default_rng(seed)
    Q = rng.standard_normal((n, d)) * 0.4 / np.sqrt(d) + 0.01
    K = rng.standard_normal((m, d)) * rng.uniform(0.5, 1.5, (m, 1)) + 0.1
    w = rng.uniform(0.3, 1.0, (m, 1))
    V = rng.uniform(-1.0, 1.0, (m, d_v)) ** 3
    return tuple(cp.asarray(x, dtype=cp.float32) for x in (Q, K, np.hstack([V * w, w])))


@pytest.mark.parametrize("operands", OPERANDS)
@pytest.mark.parametrize(
    ("n", "m", "d", "d_v", "degree"),
    [
        (1, 1, 64, 64, 2),
        (300, 777, 64, 64, 2),
        (1000, 3001, 16, 13, 3),
        (129, 17, 32, 24, 3),
        (65, 20_001, 128, 128, 2),
        (4100, 11_000, 64, 1, 2),
        (500, 12_345, 64, 64, 3),
        (300, 5000, 48, 100, 3),
    ],
)
def test_passes_are_within_their_rounding(cp, fused, n, m, d, d_v, degree, operands):
    Q, K, W = drawn(cp, n, m, d, d_v, n + m)
    c = [1.003, 0.98, 0.53, 0.17][: degree + 1]
    runs = []
    for _ in range(2):
        state = engine.accumulate(K, W, degree, key_centre=np.zeros(d), operands=operands)
        runs.append((state, *engine.contract(Q, state, c)))
    (state, numerator, by_degree), again = runs
    assert bool((numerator == again[1]).all())
    assert bool((by_degree == again[2]).all())
    q, k, w = (x.get().astype(np.float64) for x in (Q, K, W))
    logits, norms = q @ k.T, np.linalg.norm(k, axis=1)
    errors = fused_errors(d, degree, operands, m)
    reach = 2.0 * FORMATS[operands].u + 2.0**-22  # operands rounded: logits off by that much
    query = np.linalg.norm(q, axis=1)
    total = np.zeros(n)
    for j in range(degree + 1):
        moment = w[:, -1] @ norms**j
        assert moment <= state.norm_moments[j] <= moment * 1.001 + 1e-9 * w[:, -1].sum()
        allowed = (errors[j] + j * reach * (1.0 + reach) ** j) * query**j * moment
        off = np.abs(by_degree[:, j].get() - (logits**j) @ w[:, -1])
        assert (off <= allowed).all(), j
        total += abs(c[j]) * allowed
    exact = sum(a * logits**j for j, a in enumerate(c)) @ w[:, :-1]
    assert (np.abs(numerator.get() - exact) <= total[:, None]).all()


@pytest.mark.parametrize("operands", OPERANDS)
def test_the_state_is_that_of_the_portable_pass(cp, fused, operands):
    _, K, W = drawn(cp, 1, 2000, 32, 7, 5)
    ours = engine.accumulate(K, W, 3, key_centre=np.zeros(32), operands=operands)
    theirs = engine.accumulate(
        K.astype(cp.float64), W.astype(cp.float64), 3, key_centre=np.zeros(32)
    )
    limit = 12.0 * FORMATS[operands].u
    for k, (a, b) in enumerate(zip(ours.moments, theirs.moments, strict=True)):
        assert a.shape == b.shape == (block_sizes(32, 3)[k], 8)
        weight = np.sqrt(multinomials(32, k))[:, None]  # rows of equal size, more or less
        scale = float(cp.abs(b).max())
        assert float(cp.abs((a - b) * cp.asarray(weight)).max()) <= limit * scale * 6.0
    both = ours + ours
    assert bool((both.moments[2] == 2.0 * ours.moments[2]).all())
    assert ours.dtype == operands
    with pytest.raises(ValueError, match="dtype"):
        _ = ours + engine.accumulate(K, W, 3, key_centre=np.zeros(32))


def test_many_heads_are_each_their_own(cp, fused):
    heads = [drawn(cp, 200, 333, 16, 8, seed) for seed in range(5)]
    Q, K, W = (cp.stack(x) for x in zip(*heads, strict=True))
    moments, _ = fused.accumulate(K, W, 2, "bfloat16x3")
    out, _ = fused.contract(Q, moments, [1.0, 1.0, 0.5], "bfloat16x3", divide=True)
    for i, (q, k, w) in enumerate(heads):
        logits = q.astype(cp.float64) @ k.astype(cp.float64).T
        weights = (1.0 + logits + 0.5 * logits**2) * w[:, -1]
        exact = weights @ (w[:, :-1] / w[:, -1:]) / weights.sum(axis=1, keepdims=True)
        assert float(cp.abs(out[i] - exact).max()) <= 2e-5


@pytest.mark.parametrize("degree", [2, 3])
@pytest.mark.parametrize("operands", OPERANDS)
def test_many_rows_are_those_of_few(cp, fused, operands, degree):
    """At lengths where blocks wait for one another: a warp that came apart there was met once."""
    Q, K, W = drawn(cp, 4096, 5000, 64, 64, 3)
    c = [1.003, 0.98, 0.53, 0.17][: degree + 1]
    moments, _ = fused.accumulate(K[None], W[None], degree, operands)
    few = fused.contract(Q[None], moments, c, operands)
    many = fused.contract(cp.tile(Q, (128, 1))[None], moments, c, operands)
    for a, b in zip(few, many, strict=True):
        assert bool((b.reshape(128, 4096, -1) == a).all())


@pytest.mark.parametrize(
    ("dtype", "rows", "d"), [("float64", 8, 16), ("float32", 8, 24), ("float32", 0, 16)]
)
def test_what_has_no_fused_pass_is_named(cp, fused, dtype, rows, d):
    K, W = cp.ones((rows, d), dtype), cp.ones((rows, 3), dtype)
    with pytest.raises(ValueError, match="bfloat16|d 24"):
        engine.accumulate(K, W, 2, key_centre=np.zeros(d), operands="bfloat16")


def test_widened_covers_the_rounding_of_operands():
    for name in OPERANDS:
        assert stored_norm_bound(1.0, name) >= 1.0 + FORMATS[name].u
