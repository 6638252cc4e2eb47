"""The passes compiled by numba: made once, made anew where stale, and what they add up.

`test_passes` holds them to the rounding bounds.
"""

import ast
import importlib.util
import runpy
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from subquad import engine
from subquad.engine import lengths
from subquad.engine import threads as engine_threads
from subquad.engine.cpu import fast as cpu_fast
from subquad.features import block_sizes

HAS_NUMBA = importlib.util.find_spec("numba") is not None
pytestmark = pytest.mark.skipif(not HAS_NUMBA, reason="the `fast` extra is not installed")
ENGINE = Path(cpu_fast.__file__).parent
SIZES = ("ROWS", "TOKENS", "VECTORS", "VECTOR_BYTES")


@pytest.fixture
def compiled():
    return cpu_fast.passes(10**12, 64, 2)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_compiled_passes_agree_and_do_not_depend_on_the_threads(compiled, dtype, monkeypatch):
    rng = np.random.default_rng(1)
    Q, K = (rng.standard_normal((1300, 9)).astype(dtype) + 0.2 for _ in "QK")
    W = np.column_stack([rng.uniform(-1, 1, (1300, 6)), np.ones(1300)]).astype(dtype)

    def passes(least, threads):
        monkeypatch.setattr(cpu_fast, "LEAST_PRODUCTS", least)
        monkeypatch.setattr(engine_threads, "THREAD_WORK", 1)
        monkeypatch.setenv("SUBQUAD_NUM_THREADS", str(threads))
        state = engine.accumulate(K, W, 4, key_centre=np.zeros(9))
        return [*state.moments, *engine.contract(Q, state, [1.0, 1.0, 0.5, 0.2, 0.1])]

    with mock.patch.object(compiled, "KeyTiles", wraps=compiled.KeyTiles) as used:
        found = passes(0, 3)
        assert used.called
        used.reset_mock()
        slow = passes(np.inf, 3)
        assert not used.called
    for a, b, c in zip(found, slow, passes(0, 1), strict=True):
        assert np.array_equal(a, c)
        np.testing.assert_allclose(a, b, rtol=0, atol=np.finfo(dtype).eps * 200 * abs(b).max())


@pytest.mark.parametrize(("shift", "calls"), [(0, 0), (1, 1)])
def test_code_kept_from_other_sources_is_compiled_anew(compiled, shift, calls):
    numba = pytest.importorskip("numba")
    signature = numba.int64(numba.float32[:, ::1], numba.float32[:, ::1], numba.int64)
    with mock.patch.object(numba, "njit") as njit:
        kept = njit.return_value.return_value
        kept.side_effect = lambda K, W, piece: compiled.loops.MARK + shift if len(K) == 0 else None
        assert compiled._compile(None, signature) is kept
        assert kept.recompile.call_count == calls


def test_where_nothing_can_be_kept_it_is_compiled_all_the_same(compiled):
    numba = pytest.importorskip("numba")

    def njit(_, cache=False, **options):
        if cache:
            raise RuntimeError
        return lambda function: (function, options)

    with mock.patch.object(numba, "njit", njit):
        assert compiled._compile(len, None) == (len, compiled.loops.OPTIONS)


def sources() -> set[str]:
    """Return the files of the engine that compiled.py imports, itself among them, and so on.

    Of lengths.py they take a number, which is in the mark.
    """
    found, left = set(), {"compiled.py"}
    while left:
        found.add(name := left.pop())
        for node in ast.walk(ast.parse((ENGINE / name).read_text())):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("subquad.engine"):
                inner = node.module.split(".")[3:4] or [alias.name for alias in node.names]
                left |= {f"{module}.py" for module in inner} - {*found, "lengths.py"}
    return found


def test_the_mark_changes_with_every_source_and_size(compiled, tmp_path, monkeypatch):
    for name in sources():
        shutil.copy(ENGINE / name, tmp_path)

    def mark():
        return runpy.run_path(str(tmp_path / "compiled_loops.py"))["MARK"]

    assert mark() == compiled.loops.MARK
    for name in sources():
        with (tmp_path / name).open("a") as file:
            file.write("# changed\n")
        assert mark() != compiled.loops.MARK, name
        shutil.copy(ENGINE / name, tmp_path)
    for module, name in ((lengths, "FEATURE_CHUNK"), *((compiled.microkernel, x) for x in SIZES)):
        with monkeypatch.context() as changed:
            changed.setattr(module, name, getattr(module, name) + 1)
            assert mark() != compiled.loops.MARK, name
    assert mark() == compiled.loops.MARK


class Watched:
    """A lock that says when it is asked for while `inside` is set."""

    def __init__(self, inside, asked):
        self._lock, self._inside, self._asked = threading.Lock(), inside, asked

    def __enter__(self):
        if self._inside.is_set():
            self._asked.set()
        self._lock.acquire()

    def __exit__(self, *_):
        self._lock.release()


def test_two_threads_at_once_compile_once(compiled, monkeypatch):
    """The first waits inside until the second waits for it, or is inside as well."""
    inside, second, made = threading.Event(), threading.Event(), []

    def compile_(function, _):
        made.append(function)
        (second if inside.is_set() else inside).set()
        assert second.wait(60)
        return object()

    monkeypatch.setattr(compiled, "_compile", compile_)
    monkeypatch.setattr(compiled, "_lock", Watched(inside, second))
    compiled._made_once.cache_clear()
    try:
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(compiled._made, np.dtype("float32"))
            assert inside.wait(60)
            assert pool.submit(compiled._made, np.dtype("float32")).result() == first.result()
    finally:
        compiled._made_once.cache_clear()
    assert made == [compiled.loops.accumulate, compiled.loops.contract]


@pytest.fixture
def hard(compiled):
    """Return float32 (left (ROWS, 3 lanes), right) and their exact dot products, integers.

    Each lane adds up exactly in float32. The sum of all lanes is no float32 number, so adding them
    in float32 is off, in whatever order; in float64 it is exact.
    """
    rng, lanes = np.random.default_rng(8), compiled.microkernel.VECTOR_BYTES // 4
    left = rng.integers(1, 4, (compiled.ROWS, 3 * lanes))
    right = rng.integers(2**20, 3 * 2**19, 3 * lanes)
    left[:, -1], right[-1] = 1, 2**20 + 1
    left[:, -1] += (left @ right) % 2 == 0  # each sum odd
    sums = left @ right
    assert ((left * right).reshape(-1, 3, lanes).sum(axis=1) < 2**24).all()
    assert (sums > 2**24).all() and (sums.astype("f") != sums).all()
    return left.astype("f"), right.astype("f"), sums


def test_lanes_of_a_dot_product_are_added_in_float64(compiled, hard):
    numba = pytest.importorskip("numba")
    (left, right, sums), add_dots = hard, compiled.microkernel.add_dots

    @numba.njit
    def dots(left, right, out):
        add_dots(left, 1, left.shape[1], right, len(right), out, 1, 2)

    out = np.arange(0.5, 2 * compiled.ROWS + 1)
    expected = out.copy()
    expected[1 : 2 * compiled.ROWS : 2] += sums
    dots(np.column_stack([np.full(len(left), 5, "f"), left]), right, out)
    assert np.array_equal(out, expected)


def test_a_state_adds_the_lanes_of_its_last_column_in_float64(compiled, hard, monkeypatch):
    """One column more than a register holds: the weights are added up apart."""
    monkeypatch.setattr(cpu_fast, "LEAST_PRODUCTS", 0)
    left, right, sums = hard
    W = np.column_stack([np.ones((len(right), len(right) // 3), "f"), right])
    with mock.patch.object(compiled, "KeyTiles", wraps=compiled.KeyTiles) as used:
        state = engine.accumulate(left.T, W, 1, key_centre=np.zeros(len(left)))
    assert used.called and compiled.width(W.shape[1], W.dtype) == 2 * (W.shape[1] - 1)
    assert np.array_equal(state.moments[1][:, -1], sums)


@pytest.mark.parametrize(("d", "degree"), [(1, 1), (7, 2), (5, 4)])
def test_groups_of_rows_may_be_read_past_the_last_feature(compiled, d, degree):
    """Loops take ROWS features at a time, wherever a block ends."""
    below, dtype = sum(block_sizes(d, degree)[1 : max(degree, 2)]), np.dtype("float32")
    for tiles, at_once in (
        (compiled.KeyTiles(d, degree, 48, 5, dtype), compiled.loops.FEATURES),
        (compiled.QueryTiles(d, degree, 5, dtype), compiled.loops.CHUNK),
    ):
        stored, top = tiles._buffers[:2]
        assert len(stored) - below >= compiled.ROWS - 1
        assert len(top) - (at_once if degree > 1 else 0) >= compiled.ROWS - 1


def test_what_numpy_takes_compiled_passes_take(monkeypatch):
    """Coefficients of any stride, arrays of the other byte order."""
    rng = np.random.default_rng(3)
    Q, K, W = (abs(rng.standard_normal((40, d))) for d in (3, 3, 4))
    found = []
    for least, order in ((0, "<"), (0, ">"), (np.inf, ">")):
        monkeypatch.setattr(cpu_fast, "LEAST_PRODUCTS", least)
        q, k, w = (x.astype(order + "f4") for x in (Q, K, W))
        state = engine.accumulate(k, w, 3, key_centre=np.zeros(3))
        found.append(engine.contract(q, state, np.linspace(1.0, 0.1, 8)[::-2])[0])
    assert np.array_equal(found[0], found[1])
    np.testing.assert_allclose(found[0], found[2], rtol=1e-5)
