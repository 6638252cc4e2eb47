"""What leads to the fused passes and from them, on NumPy arrays: a stand-in does their sums."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import subquad
from subquad.bounds.rounding import ASSUMPTIONS, TENSOR_CORES
from subquad.engine import accumulate, contract
from subquad.engine.fused.sizes import OPERANDS
from subquad.methods.thresholds.support_basis import SupportBasis
from tests import oracle
from tests.engine.fused import stand_in
from tests.methods.table import ROWS, over


@pytest.fixture
def used(monkeypatch):
    """(operands, degree) of each key pass of the stand-in, in order."""
    return stand_in.install(monkeypatch)


def drawn(d=16, n=301, m=277, d_v=5, reach=0.5, seed=0, lead=(), dtype="float32"):
    """Return Q, K, V: logits up to about `reach`, keys off centre, values without symmetry."""
    rng = np.random.default_rng(seed)
    Q, K = (rng.standard_normal((*lead, rows, d)) for rows in (n, m))
    Q, K = (x / np.linalg.norm(x, axis=-1).max() for x in (Q, K))
    V = rng.uniform(-1.0, 2.0, (*lead, m, d_v)) ** 3
    return tuple(x.astype(dtype) for x in (Q * reach * np.sqrt(d), K + 0.01, V))


def aligned(d=16, n=60, m=2000, reach=0.5):
    """Return Q, K, V on one line, mantissas near ties, values of the sign of the logit."""
    axis = np.full(d, 1.0625 + 2.0**-8 * 0.49) / (1.0625 * np.sqrt(d))
    sign = np.where(np.arange(m) % 2, 1.0, -1.0)[:, None]
    Q = axis * np.linspace(0.9, 1.0, n)[:, None] * reach * np.sqrt(d)
    return tuple(x.astype(np.float32) for x in (Q, sign * axis, np.hstack([sign, -sign])))


def sound(result, Q, K, V, tol, key_mask=None):
    """Assert that measured error <= row bound <= tol, head by head; return the largest error."""
    assert result.output.dtype == Q.dtype
    assert result.certificate.bound <= tol
    worst, scale = 0.0, 1.0 / np.sqrt(Q.shape[-1])
    for index, *head in oracle.heads(Q, K, V, key_mask):
        errors = oracle.row_errors(result.output[index], *head, scale)
        bounds = result.certificate.row_bounds[index]
        assert np.all(errors <= bounds), float((errors / bounds).max())
        worst = max(worst, float(errors.max()))
    assert (TENSOR_CORES in result.certificate.assumptions) == bool(dtypes_of(result) & {*OPERANDS})
    return worst


def dtypes_of(result):
    return {head.chosen.work.dtype for head in result.plan.heads}


@pytest.mark.parametrize("operands", OPERANDS)
@pytest.mark.parametrize("degree", [2, 3])
def test_the_stand_in_is_the_passes_but_for_its_rounding(used, operands, degree):
    rng = np.random.default_rng(degree)
    Q, K = (rng.standard_normal((50, 16)) / 4 for _ in range(2))
    W = np.hstack([rng.uniform(-0.3, 0.3, (50, 3)), rng.uniform(0.3, 1, (50, 1))])
    c, centre = [1.1, 0.9, 0.7, 0.3][: degree + 1], np.zeros(16)
    state = accumulate(
        *(x.astype(np.float32) for x in (K, W)), degree, key_centre=centre, operands=operands
    )
    found = contract(Q.astype(np.float32), state, c)
    exact = accumulate(K, W, degree, key_centre=centre)
    close = {"bfloat16": 5e-2, "bfloat16x3": 5e-4}[operands]
    for x, y in zip(
        (*state.moments, *found), (*exact.moments, *contract(Q, exact, c)), strict=True
    ):
        np.testing.assert_allclose(x, y, rtol=0, atol=close * abs(y).max())
    assert np.all(state.norm_moments >= exact.norm_moments)
    assert used == [(operands, degree)]


@pytest.mark.parametrize("d", [16, 64])
@pytest.mark.parametrize(
    ("tol", "dtype"), [(3e-2, "bfloat16"), (1e-2, "bfloat16x3"), (1e-5, "float64")]
)
def test_the_tolerance_decides_the_operands(used, fast, d, tol, dtype):
    Q, K, V = drawn(d)
    result = subquad.attention(Q, K, V, tol=tol, rates=fast)
    assert dtypes_of(result) == {dtype}
    assert sound(result, Q, K, V, tol) > 0.0
    assert used == ([(dtype, 2)] if dtype in OPERANDS else [])
    chosen = next(line for line in str(result.plan).splitlines() if "<- chosen" in line)
    assert f" {dtype} " in f"{chosen} "
    assert "fused passes bfloat16 3.0e+14, bfloat16x3 1.0e+14 flop/s" in str(result.plan)


def test_without_the_device_or_its_rates_nothing_is_offered(fast, rates, monkeypatch):
    Q, K, V = drawn()
    plain = subquad.attention(Q, K, V, tol=3e-2, rates=fast)  # rates, but no device
    used = stand_in.install(monkeypatch)
    slow = subquad.attention(Q, K, V, tol=3e-2, rates=rates)  # a device, but no rates
    for result in (plain, slow):
        assert not dtypes_of(result) & {*OPERANDS}
        assert "bfloat16" not in str(result.plan).split("rates (")[0]
        assert result.certificate.assumptions == ASSUMPTIONS
        sound(result, Q, K, V, 3e-2)
    assert used == []


def test_other_shapes_have_no_fused_passes(used, fast):
    for d, d_v in ((24, 5), (16, 129)):
        Q, K, V = drawn(d, d_v=d_v)
        result = subquad.attention(Q, K, V, tol=3e-2, rates=fast, method="polynomial")
        assert not dtypes_of(result) & {*OPERANDS}
    assert used == []


@pytest.mark.parametrize("dtype", ["float16", "float64"])
@pytest.mark.parametrize("tol", [3e-2, 1e-2])
def test_inputs_of_other_dtypes_enter_in_float32(used, fast, dtype, tol):
    Q, K, V = drawn(dtype=dtype, seed=1)
    result = subquad.attention(Q, K, V, tol=tol, rates=fast)
    assert dtypes_of(result) <= {*OPERANDS} and len(used) == 1
    sound(result, Q, K, V, tol)


def test_degree_three(used, fast):
    Q, K, V = drawn(seed=2)
    result = subquad.attention(Q, K, V, tol=1e-3, rates=fast)
    assert used == [("bfloat16x3", 3)]
    sound(result, Q, K, V, 1e-3)


@pytest.mark.parametrize("tol", [3e-2, 1e-2])
def test_hard_rows_are_within_the_bound_and_coarser_sums_would_not_be(used, fast, tol, monkeypatch):
    Q, K, V = aligned()
    result = subquad.attention(Q, K, V, tol=tol, rates=fast, method="polynomial")
    assert dtypes_of(result) <= {*OPERANDS}
    measured = sound(result, Q, K, V, tol)
    assert measured >= result.certificate.bound / 20.0

    def coarse(x):
        mantissa, exponent = np.frexp(np.asarray(x, np.float64))
        return np.ldexp(np.floor(mantissa * 8.0), exponent - 3)

    monkeypatch.setattr(stand_in, "rounded", coarse)
    with pytest.raises(AssertionError):
        sound(result.plan.run(Q, K, V), Q, K, V, tol)


@pytest.mark.parametrize("options", [{}, {"criterion": "norm"}, {"criterion": "entry"}], ids=str)
@pytest.mark.parametrize("tol", [3e-2, 1e-2])
def test_large_rows_and_keys_go_exact_beside_them(used, fast, options, tol):
    Q, K, V = drawn(n=601, m=577, seed=3)
    Q[::100] *= 12.0
    K[7::150] *= 15.0
    V[7::150] -= 2.0
    result = subquad.attention(Q, K, V, tol=tol, rates=fast, method=SupportBasis(**options))
    split = result.plan.heads[0].chosen.parameters
    assert split.large_queries >= 7 and split.large_keys >= 4
    assert split.small.dtype in OPERANDS and [x for x, _ in used] == [split.small.dtype]
    sound(result, Q, K, V, tol)


@pytest.mark.parametrize("tol", [0.3, 3e-2])
def test_a_bucket_with_exact_keys_beside_it(used, fast, tol):
    """The exact part has the dtype that the rows are stored in, not the operands'."""
    Q, K, V = drawn(n=601, m=577, seed=3, reach=0.1)
    Q[::100] *= 12.0
    K[7::150] *= 15.0
    result = subquad.attention(Q, K, V, tol=tol, rates=fast, method="multi_threshold")
    chosen = result.plan.heads[0].chosen.parameters
    assert dtypes_of(result) <= {*OPERANDS} and len(used) == 1
    assert any(not bucket.cells and bucket.keys for bucket in chosen.buckets)
    sound(result, Q, K, V, tol)


def test_a_given_threshold(used, fast):
    Q, K, V = drawn(seed=4)
    norms = np.linalg.norm(Q, axis=1)
    method = SupportBasis(threshold=float(np.sort(norms)[-20]))
    result = subquad.attention(Q, K, V, tol=3e-2, rates=fast, method=method)
    assert dtypes_of(result) <= {*OPERANDS} and len(used) == 1
    assert result.plan.heads[0].chosen.parameters.large_queries > 0
    sound(result, Q, K, V, 3e-2)


def test_where_every_pair_is_exact_no_operand_is_named(used, fast):
    Q, K, V = drawn(seed=4)
    result = subquad.attention(Q, K, V, tol=3e-2, rates=fast, method=SupportBasis(threshold=0.0))
    assert dtypes_of(result) == {"float32"} and used == []
    sound(result, Q, K, V, 3e-2)


def test_heads_each_with_their_own_operands(used, fast):
    Q, K, V = drawn(lead=(2, 3), n=101, m=91, seed=5)
    Q[1, 1:] *= 1.8
    Q[0, 2] *= 30.0
    result = subquad.attention(Q, K, V, tol=2e-2, rates=fast)
    assert dtypes_of(result) == {*OPERANDS, "float32"}
    assert [x for x, _ in used] == [
        h.chosen.work.dtype for h in result.plan.heads if h.chosen.work.dtype in OPERANDS
    ]
    assert all(name in str(result.plan) for name in OPERANDS)
    sound(result, Q, K, V, 2e-2)


@pytest.mark.parametrize("tol", [5e-2, 1e-2])
def test_centred_queries_carry_key_weights(used, fast, tol):
    Q, K, V = drawn(seed=6)
    Q = Q + np.float32(0.7)
    result = subquad.attention(Q, K, V, tol=tol, rates=fast)
    assert result.plan.heads[0].stats.keys_weighted
    assert dtypes_of(result) <= {*OPERANDS} and len(used) == 1
    sound(result, Q, K, V, tol)


def test_masked_keys_and_one_key(used, fast):
    Q, K, V = drawn(seed=7)
    mask = np.random.default_rng(7).random(len(K)) < 0.3
    K[~mask] *= 1e4
    result = subquad.attention(Q, K, V, tol=3e-2, rates=fast, key_mask=mask)
    assert dtypes_of(result) == {"bfloat16"}
    sound(result, Q, K, V, 3e-2, mask)
    one = Q, K[mask][:1], np.vstack([V[:1]])
    sound(subquad.attention(*one, tol=3e-2, rates=fast, method="polynomial"), *one, 3e-2)


def test_a_plan_again_on_new_data(used, fast):
    Q, K, V = drawn(seed=8)
    made = subquad.plan(Q, K, V, tol=3e-2, rates=fast)
    assert used == []
    again = drawn(seed=9, reach=0.4)
    sound(made.run(*again), *again, 3e-2)
    assert used == [("bfloat16", 2)]
    with pytest.raises(subquad.ToleranceError, match=r"bfloat16.* plan again"):
        made.run(4.0 * Q, K, V)
    assert len(used) == 1


@over(ROWS)
def test_every_method_is_sound_beside_them(used, fast, row):
    Q, K, V = drawn(seed=10, reach=0.05)
    result = subquad.attention(Q, K, V, tol=3e-2, rates=fast, method=row.method)
    sound(result, Q, K, V, 3e-2)
    assert bool(used) == row.fused


def test_whatever_is_planned_is_sound(used, fast):
    @settings(deadline=None)
    @given(
        seed=st.integers(0, 2**32 - 1),
        reach=st.sampled_from((1e-6, 0.1, 0.5, 1.0, 1.7)),
        tol=st.sampled_from((0.3, 3e-2, 1e-2, 2e-3)),
        power=st.sampled_from((0, -30, 20)),
        sizes=st.sampled_from(((1, 1), (1, 40), (33, 2), (90, 80))),
        offset=st.sampled_from((0.0, 0.3, 2.0)),
    )
    def check(seed, reach, tol, power, sizes, offset):
        rng = np.random.default_rng(seed)
        Q, K, V = drawn(16, *sizes, d_v=3, reach=reach, seed=seed)
        Q = (Q + offset * reach * rng.standard_normal(16)) * 2.0**power
        V = V * 10.0 ** rng.integers(-8, 8)
        Q, K, V = (x.astype(np.float32) for x in (Q, K * 2.0**-power, V))
        for method in ("polynomial", "support_basis"):
            seen["asked"] += 1
            try:
                result = subquad.attention(Q, K, V, tol=tol, rates=fast, method=method)
            except subquad.ToleranceError:
                seen["refused"] += 1
                continue
            sound(result, Q, K, V, tol)

    seen = Counter()
    check()
    assert seen["asked"] > 4 * seen["refused"]
    assert len(used) > seen["asked"] / 3
