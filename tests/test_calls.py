"""How many functions one call passes, and how deep: `tests.calls` counts, these are the limits."""

import pytest

from tests import calls

LIMITS = {"polynomial": 220, "exact": 230, "plan.run": 230}
DEEPEST = 20


@pytest.fixture(scope="module")
def measured():
    return calls.measured()


@pytest.mark.parametrize("name", LIMITS)
def test_a_call_passes_few_functions(name, measured):
    assert 50 < len(measured[name].functions) <= LIMITS[name]


@pytest.mark.parametrize("name", LIMITS)
def test_a_call_is_not_deep(name, measured):
    assert 10 < measured[name].depth <= DEEPEST, measured[name].deepest


def test_what_is_counted():
    """Named functions of the package, in every thread, and the stack of them."""
    from subquad.engine.threads import for_each, parallel_map

    found = calls.counted(lambda: parallel_map(lambda x: x, range(4), 1e12))
    names = {name for _, _, name in found.functions}
    assert {"parallel_map", "for_each", "share", "body"} <= names
    assert not any(name.startswith("<") for name in names)
    assert found.depth >= 4 and found.deepest[0].endswith("parallel_map")
    assert len(calls.counted(lambda: for_each(0, list, None)).functions) == 1
