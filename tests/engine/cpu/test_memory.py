"""Nothing of size n x m or n x r is ever held."""

import tracemalloc

import numpy as np

from subquad import engine
from subquad.features import feature_dimension


def peak_of(call):
    call()  # tables and recipes are cached by the first call
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_is_linear(monkeypatch):
    monkeypatch.setenv("SUBQUAD_NUM_THREADS", "2")
    n, d, degree = 12_000, 12, 3
    Q = np.full((n, d), 0.1, dtype=np.float32)
    W = np.ones((n, 9), dtype=np.float32)

    def passes():
        state = engine.accumulate(Q, W, degree, key_centre=np.zeros(d))
        engine.contract(Q, state, np.ones(degree + 1))

    assert peak_of(passes) < 4 * n * feature_dimension(d, degree) / 2
    assert peak_of(lambda: engine.exact_block(Q, Q, W)) < 4 * n * n / 50
