"""When the passes run compiled, and that nothing is loaded or complains where they do not."""

import importlib.util

import pytest

from subquad.engine.cpu import fast as cpu_fast
from tests.fresh import printed

HAS_NUMBA = importlib.util.find_spec("numba") is not None
needs_numba = pytest.mark.skipif(not HAS_NUMBA, reason="the `fast` extra is not installed")


def test_little_work_does_not_load_numba():
    code = """
import sys
from subquad.engine.cpu import fast
few = fast.LEAST_PRODUCTS // 3 - 1
print(fast.passes(few, 2, 1), fast.passes(10**12, 64, 0), fast.passes(few // 2, 2, 2),
      "numba" in sys.modules)
"""
    assert printed(code) == "None None None False"


def test_without_numba_nothing_is_compiled_and_nothing_complains():
    code = """
import sys
sys.modules["numba"] = None
from subquad.engine.cpu import fast
print(fast.passes(10**12, 64, 2), fast.expected(10**12, 64, 2))
"""
    assert printed(code) == "None False"


def test_a_numba_that_does_not_load_is_none(tmp_path):
    (tmp_path / "numba.py").write_text("import os; exec(os.environ['RAISE'])")
    code = f"""
import os, sys
sys.path.insert(0, {str(tmp_path)!r})
from subquad.engine.cpu import fast
for error in ("AttributeError", "SystemError", "RuntimeError", "ImportError"):
    os.environ["RAISE"] = f"print('tried'); raise {{error}}('too old')"
    fast._compiled.cache_clear()
    print(fast.passes(10**12, 64, 2), fast.passes(10**12, 64, 2), fast.in_use())
"""
    assert printed(code).split() == ["tried", "None", "None", "False"] * 4


@needs_numba
def test_the_switch(monkeypatch):
    for text, on in (("0", False), (" 0 ", False), ("", True), ("1", True)):
        monkeypatch.setenv(cpu_fast.VARIABLE, text)
        assert (cpu_fast.passes(10**12, 64, 2) is not None) == on
        assert cpu_fast.expected(10**12, 64, 2) == cpu_fast.in_use() == on
    monkeypatch.setenv(cpu_fast.VARIABLE, "off")
    with pytest.raises(ValueError, match="SUBQUAD_COMPILED is 'off': give 0"):
        cpu_fast.passes(10**12, 64, 2)


@needs_numba
def test_the_sizes_alone_decide(monkeypatch):
    """What ran before in the process does not: the same call, the same bits."""
    few, many = cpu_fast.LEAST_PRODUCTS // 6, cpu_fast.LEAST_PRODUCTS
    assert cpu_fast.passes(many, 2, 2) is not None
    assert cpu_fast.passes(few - 1, 2, 2) is None and not cpu_fast.expected(few - 1, 2, 2)
    monkeypatch.setattr(cpu_fast.passes(many, 2, 2), "AVAILABLE", False)
    cpu_fast._compiled.cache_clear()
    assert cpu_fast.passes(many, 2, 2) is None and not cpu_fast.expected(many, 2, 2)
    cpu_fast._compiled.cache_clear()
