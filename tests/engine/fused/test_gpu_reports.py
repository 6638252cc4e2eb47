"""What heads under way tell the host, against the same from NumPy, and what is out of range."""

import numpy as np
import pytest

from tests.engine.fused import stand_in_replay

pytestmark = pytest.mark.gpu
D, D_V, FAR = 32, 24, 2.0**100


@pytest.fixture
def replay(cp):
    from subquad.engine.fused import passes as fused_passes
    from subquad.engine.fused import rerun as fused_rerun

    if not fused_passes.available():
        pytest.skip("the fused passes need a device of compute capability 9.0")
    return fused_rerun


def drawn(heads, m, seed):
    """Return Q, K, V, float32: each head with a mean of its own and columns of many sizes."""
    rng = np.random.default_rng(seed)
    Q, K = (rng.standard_normal((heads, rows, D)) for rows in (333, m))
    K += np.linspace(0.1, 3.0, heads)[:, None, None] * np.linspace(-1.0, 1.5, D)
    V = rng.uniform(-1.0, 1.0, (heads, m, D_V)) * 10.0 ** rng.integers(-3, 3, (heads, 1, D_V))
    V += rng.uniform(-50.0, 50.0, (heads, 1, D_V))
    V[..., 3] = 0.375  # constant
    V[..., 5] = 0.0
    return tuple(x.astype(np.float32) for x in (Q, 0.1 * K, V))


def report(cp, replay, arrays, limits, tilt=None):
    """Return the Report and the largest norms of queries of one run."""
    Q, K, V = (cp.asarray(x) for x in arrays)
    side = 1.0, np.zeros(D), 1.0
    units = [replay.Units(side, side, tilt) for _ in Q]
    coefficients = np.tile([1.0, 1.0, 0.5], (len(Q), 1))
    shape = Q.shape[1], *K.shape[1:], V.shape[2]
    heads = replay.FusedHeads(shape, units, coefficients, "bfloat16x3", limits)
    under_way = heads.start(Q, K, V, cp.empty((*Q.shape[:2], D_V), np.float32), 0)
    return under_way.keys(), under_way.queries()


@pytest.mark.parametrize("keys_weighted", [False, True])
def test_reports_are_those_of_numpy(cp, replay, keys_weighted):
    arrays, heads = drawn(7, 1234, 1), 7
    limits = np.tile([1e-3, np.inf, 32.0, 4.0, FAR], (heads, 1))
    limits[:, 0] *= np.arange(1, heads + 1)
    tilt = 0.3 * np.linspace(-1.0, 1.0, D) if keys_weighted else None
    found, query_norms = report(cp, replay, arrays, limits, tilt)
    Q, K, V = (x.astype(np.float64) for x in arrays)
    for i in range(heads):
        weights = np.exp(K[i] @ tilt) if keys_weighted else np.ones(len(K[i]))
        mean = np.linalg.norm(weights @ K[i] / weights.sum())
        norm, query_norm = (np.linalg.norm(x[i], axis=1).max() for x in (K, Q))
        assert norm <= found.key_norms[i] <= norm * (1.0 + 2.0**-12)
        assert query_norm <= query_norms[i] <= query_norm * (1.0 + 2.0**-12)
        _, offset, ratio = stand_in_replay.classed(
            norm, mean, V[i].min(axis=0), V[i].max(axis=0), limits[i]
        )
        assert abs(found.offsets[i] - offset) <= 1e-3 * (i + 1)  # what they allow for: the slack
        assert ratio * (1.0 - 1e-12) <= found.ratios[i] <= ratio * (1.0 + 1e-12)
    assert np.array_equal(found.classes[:, 0], np.ones(heads))
    assert np.array_equal(found.classes[:, 1], np.ceil(32.0 * found.offsets))
    assert (2.0 ** (found.classes[:, 2] / 4.0) >= found.ratios).all()
    assert (2.0 ** ((found.classes[:, 2] - 1.0) / 4.0) < found.ratios).all()
    assert len(set(found.classes[:, 1])) > 2 and len(set(found.classes[:, 2])) > 1


@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf, 2.0**101])
@pytest.mark.parametrize("column", [0, 3, 23])
def test_values_out_of_range_are_seen(cp, replay, value, column):
    arrays = drawn(3, 500, 2)
    arrays[2][1, 77, column] = value
    found, _ = report(cp, replay, arrays, np.tile([1e-3, np.inf, 32.0, 4.0, FAR], (3, 1)))
    assert np.array_equal(found.classes[:, 0], [1.0, 0.0, 1.0])
    assert np.array_equal(found.classes[1], np.zeros(3))


def test_tiny_values_and_long_keys_are_seen(cp, replay):
    arrays = drawn(4, 500, 3)
    limits = np.tile([1e-3, np.inf, 32.0, 4.0, FAR], (4, 1))
    norms = np.linalg.norm(arrays[1].astype(np.float64), axis=2).max(axis=1)
    limits[:, 1] = norms * [2.0, 0.999, 2.0, 1.01]
    arrays[2][2, :, 7] = 2.0**-101
    found, _ = report(cp, replay, arrays, limits)
    assert np.array_equal(found.classes[:, 0], [1.0, 0.0, 0.0, 1.0])
    arrays[1][3, 11, 2] = np.nan
    found, _ = report(cp, replay, arrays, limits)
    assert np.array_equal(found.classes[:, 0], [1.0, 0.0, 0.0, 0.0])
    assert np.isnan(found.key_norms[3]) and found.offsets[3] == 1.0
