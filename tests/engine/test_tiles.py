"""Products block by block, features bit for bit, and when the passes run compiled."""

import importlib.util
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest

from subquad import engine
from subquad.engine import fast, sizes
from subquad.engine import threads as engine_threads
from subquad.engine.tiles import FeatureTile, product
from subquad.features import block_sizes, monomials

HAS_NUMBA = importlib.util.find_spec("numba") is not None
needs_numba = pytest.mark.skipif(not HAS_NUMBA, reason="the `fast` extra is not installed")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rows", [1, 15, 16, 40, 417])
@pytest.mark.parametrize(("inner", "columns"), [(1, 2), (512, 65), (300, 17), (512, 600)])
def test_product_is_matmul(dtype, rows, inner, columns):
    rng = np.random.default_rng(rows * inner)
    left = rng.integers(-9, 10, (inner, rows)).astype(dtype).T
    right = rng.integers(-9, 10, (inner, columns)).astype(dtype)
    for operand in (left, np.ascontiguousarray(left)):
        out = np.full((rows, columns), np.nan, dtype)
        product(operand, right, out)
        assert np.array_equal(out, operand @ right)


def test_no_rows_and_no_tokens():
    out = np.empty((0, 3))
    product(np.empty((0, 5)), np.empty((5, 3)), out)
    out = np.empty((4, 3))
    product(np.empty((4, 0)), np.empty((0, 3)), out)
    assert not out.any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("d", "degree"), [(1, 3), (5, 1), (7, 2), (4, 5)])
def test_features_bit_for_bit(dtype, d, degree):
    x = np.random.default_rng(d).standard_normal((23, d)).astype(dtype)
    x[3] *= 1e-25  # products that underflow, by degrees
    ends = np.cumsum(block_sizes(d, degree))
    with mock.patch.object(sizes, "FEATURE_CHUNK", 6):
        tile = FeatureTile(d, degree, 16, np.dtype(dtype))
        for rows in (x[:16], x[16:], x[:16]):  # a shorter tile, and back
            tile.load(rows)
            expected = monomials(rows, degree).T
            for k in range(1, degree + 1):
                for start, stop, features in tile.blocks(k):
                    block = expected[ends[k - 1] + start : ends[k - 1] + stop]
                    assert np.array_equal(features, block)


@needs_numba
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_compiled_passes_agree_and_do_not_depend_on_the_threads(dtype, monkeypatch):
    rng = np.random.default_rng(1)
    Q, K = (rng.standard_normal((1300, 9)).astype(dtype) + 0.2 for _ in "QK")
    W = np.column_stack([rng.uniform(-1, 1, (1300, 6)), np.ones(1300)]).astype(dtype)

    def passes(least, threads):
        monkeypatch.setattr(fast, "LEAST_PRODUCTS", least)
        monkeypatch.setattr(engine_threads, "THREAD_WORK", 1)
        monkeypatch.setenv("SUBQUAD_NUM_THREADS", str(threads))
        state = engine.accumulate(K, W, 4, key_centre=np.zeros(9))
        return [*state.moments, *engine.contract(Q, state, [1.0, 1.0, 0.5, 0.2, 0.1])]

    compiled = fast.passes(10**9, 9, 4)
    with mock.patch.object(compiled, "KeyTiles", wraps=compiled.KeyTiles) as used:
        found = passes(0, 3)
        assert used.called
        used.reset_mock()
        slow = passes(np.inf, 3)
        assert not used.called
    for a, b, c in zip(found, slow, passes(0, 1), strict=True):
        assert np.array_equal(a, c)
        np.testing.assert_allclose(a, b, rtol=0, atol=np.finfo(dtype).eps * 200 * abs(b).max())


def fresh(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_little_work_does_not_load_numba():
    code = """
import sys
from subquad.engine import fast
few = fast.LEAST_PRODUCTS // 3 - 1
print(fast.passes(few, 2, 1), fast.passes(10**12, 64, 0), fast.passes(few // 2, 2, 2),
      "numba" in sys.modules)
"""
    assert fresh(code) == "None None None False"


def test_without_numba_nothing_is_compiled_and_nothing_complains():
    code = """
import sys
sys.modules["numba"] = None
from subquad.engine import fast
print(fast.passes(10**12, 64, 2), fast.expected(10**12, 64, 2))
"""
    assert fresh(code) == "None False"


@pytest.mark.parametrize("error", ["AttributeError", "SystemError", "RuntimeError", "ImportError"])
def test_a_numba_that_does_not_load_is_none(error, tmp_path):
    (tmp_path / "numba.py").write_text(f"raise {error}('too old')")
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from subquad.engine import fast
print(fast.passes(10**12, 64, 2), fast.passes(10**12, 64, 2), fast.in_use())
"""
    assert fresh(code) == "None None False"


@needs_numba
def test_the_switch(monkeypatch):
    for text, on in (("0", False), (" 0 ", False), ("", True), ("1", True)):
        monkeypatch.setenv(fast.VARIABLE, text)
        assert (fast.passes(10**12, 64, 2) is not None) == on
        assert fast.expected(10**12, 64, 2) == fast.in_use() == on
    monkeypatch.setenv(fast.VARIABLE, "off")
    with pytest.raises(ValueError, match="SUBQUAD_COMPILED is 'off': give 0"):
        fast.passes(10**12, 64, 2)


@needs_numba
@pytest.mark.parametrize(("shift", "calls"), [(0, 0), (1, 1)])
def test_code_kept_from_other_sources_is_compiled_anew(shift, calls):
    compiled = fast.passes(10**12, 64, 2)
    numba = pytest.importorskip("numba")
    signature = numba.int64(numba.float32[:, ::1], numba.float32[:, ::1], numba.int64)
    with mock.patch.object(numba, "njit") as njit:
        kept = njit.return_value.return_value
        kept.side_effect = lambda K, W, piece: compiled.MARK + shift if len(K) == 0 else None
        assert compiled._compile(None, signature) is kept
        assert kept.recompile.call_count == calls


@needs_numba
@pytest.mark.parametrize(("d", "degree"), [(1, 1), (7, 2), (5, 4)])
def test_groups_of_rows_may_be_read_past_the_last_feature(d, degree):
    """Loops take ROWS features at a time, wherever a block ends."""
    compiled = fast.passes(10**12, 64, 2)
    stored, top = compiled._features(d, degree, 48, 12, np.dtype("float32"))
    assert len(stored) - sum(block_sizes(d, degree)[1:max(degree, 2)]) >= compiled.ROWS - 1
    assert len(top) - (12 if degree > 1 else 0) >= compiled.ROWS - 1


@needs_numba
def test_what_numpy_takes_compiled_passes_take(monkeypatch):
    """Coefficients of any stride, arrays of the other byte order."""
    rng = np.random.default_rng(3)
    Q, K, W = (abs(rng.standard_normal((40, d))) for d in (3, 3, 4))
    found = []
    for least, order in ((0, "<"), (0, ">"), (np.inf, ">")):
        monkeypatch.setattr(fast, "LEAST_PRODUCTS", least)
        q, k, w = (x.astype(order + "f4") for x in (Q, K, W))
        state = engine.accumulate(k, w, 3, key_centre=np.zeros(3))
        found.append(engine.contract(q, state, np.linspace(1.0, 0.1, 8)[::-2])[0])
    assert np.array_equal(found[0], found[1])
    np.testing.assert_allclose(found[0], found[2], rtol=1e-5)


@needs_numba
def test_the_sizes_alone_decide(monkeypatch):
    """What ran before in the process does not: the same call, the same bits."""
    few, many = fast.LEAST_PRODUCTS // 6, fast.LEAST_PRODUCTS
    assert fast.passes(many, 2, 2) is not None
    assert fast.passes(few - 1, 2, 2) is None and not fast.expected(few - 1, 2, 2)
    monkeypatch.setattr(fast.passes(many, 2, 2), "AVAILABLE", False)
    fast._compiled.cache_clear()
    assert fast.passes(many, 2, 2) is None and not fast.expected(many, 2, 2)
    fast._compiled.cache_clear()
