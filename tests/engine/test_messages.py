"""Bad input is named, with the value met and the value needed."""

from dataclasses import replace

import numpy as np
import pytest

from subquad import engine


def accumulate(K=None, W=None, degree=2, centre=None):
    K = np.ones((4, 3)) if K is None else K
    W = np.ones((4, 2)) if W is None else W
    return engine.accumulate(K, W, degree, key_centre=np.zeros(3) if centre is None else centre)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (dict(degree=-1), "`degree` is -1"),
        (dict(K=np.ones(3)), r"`K` has shape \(3,\)"),
        (dict(K=np.ones((4, 0))), r"`K` has shape \(4, 0\)"),
        (dict(K=np.ones((4, 3), np.float16)), "`K` is float16"),
        (dict(K=np.ones((4, 3), int)), "`K` is int64"),
        (dict(W=np.ones((5, 2))), "`W` has 5 rows but `K` has 4"),
        (dict(W=np.ones((4, 1))), "`W` has 1 column: it needs d_v"),
        (dict(W=np.ones((4, 2), np.float32)), "`W` is float32 but `K` is float64"),
        (dict(centre=np.zeros(2)), r"`key_centre` has shape \(2,\): it needs \(3,\)"),
    ],
)
def test_accumulate(changes, text):
    with pytest.raises(ValueError, match=text):
        accumulate(**changes)


def test_contract():
    state = accumulate()
    with pytest.raises(ValueError, match="`Q` has 2 columns but the keys have 3"):
        engine.contract(np.ones((5, 2)), state, [1.0])
    text = "`Q` is float32 but the State was computed in float64: convert `Q` to float64"
    with pytest.raises(ValueError, match=text):
        engine.contract(np.ones((5, 3), np.float32), state, [1.0])
    fused = replace(state, dtype="bfloat16")
    with pytest.raises(ValueError, match="computed in bfloat16: convert `Q` to float32"):
        engine.contract(np.ones((5, 3)), fused, [1.0])
    for bad in ([], [1.0] * 4, [[1.0]], 1.0):
        with pytest.raises(ValueError, match="`coefficients` has shape .*between 1 and 3 numbers"):
            engine.contract(np.ones((5, 3)), state, bad)


def test_exact_block():
    Q, K, W = np.ones((5, 3)), np.ones((4, 3)), np.ones((4, 2))
    with pytest.raises(ValueError, match="`Q` has 2 columns but the keys have 3"):
        engine.exact_block(Q[:, :2], K, W)
    with pytest.raises(ValueError, match="`Q` is float32 but `K` is float64"):
        engine.exact_block(Q.astype(np.float32), K, W)
    with pytest.raises(ValueError, match="`W` has 3 rows but `K` has 4"):
        engine.exact_block(Q, K, W[:3])


def test_other_arrays_are_refused_by_name():
    with pytest.raises(TypeError, match="`Q` is a builtins.list: the passes are built for numpy"):
        engine.exact_block([[1.0]], np.ones((1, 1)), np.ones((1, 2)))
    with pytest.raises(TypeError, match="`W` is a builtins.list"):
        accumulate(W=[[1.0]])
    with pytest.raises(TypeError, match="`Q` is a builtins.float"):
        engine.contract(1.0, accumulate(), [1.0])
