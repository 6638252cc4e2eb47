"""When the passes run compiled, and that nothing is loaded or complains where they do not."""

import importlib.util
import subprocess
import sys

import pytest

from subquad.engine import fast

HAS_NUMBA = importlib.util.find_spec("numba") is not None
needs_numba = pytest.mark.skipif(not HAS_NUMBA, reason="the `fast` extra is not installed")


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
def test_the_sizes_alone_decide(monkeypatch):
    """What ran before in the process does not: the same call, the same bits."""
    few, many = fast.LEAST_PRODUCTS // 6, fast.LEAST_PRODUCTS
    assert fast.passes(many, 2, 2) is not None
    assert fast.passes(few - 1, 2, 2) is None and not fast.expected(few - 1, 2, 2)
    monkeypatch.setattr(fast.passes(many, 2, 2), "AVAILABLE", False)
    fast._compiled.cache_clear()
    assert fast.passes(many, 2, 2) is None and not fast.expected(many, 2, 2)
    fast._compiled.cache_clear()
