"""Hypothesis profiles, the cost model of every test, and what to do with tests that need a GPU."""

import importlib.util
import os
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings

import subquad
from subquad.engine.fused.sizes import OPERANDS

_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("dev", max_examples=60, **_COMMON)
settings.register_profile("ci", max_examples=40, derandomize=True, **_COMMON)
settings.register_profile("deep", max_examples=2000, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))


@pytest.fixture(scope="session")
def rates():
    """A fixed machine, never a clock: choices must be the same everywhere."""
    return subquad.TYPICAL


@pytest.fixture
def fast(rates):
    """Rates of a machine whose fused passes cost next to nothing, bfloat16 the least."""
    quick = {
        name: replace(rates.float32, polynomial_flops=speed, features=float("inf"))
        for name, speed in zip(OPERANDS, (3e14, 1e14), strict=True)
    }
    return replace(rates, **quick)


@pytest.fixture
def cp():
    """CuPy, for tests marked `gpu`; what it hands out next is full of NaN, not of zeros."""
    import cupy

    dirty = [cupy.full(1 << power, cupy.nan) for power in range(4, 23)]
    del dirty
    return cupy


def missing_gpu() -> str | None:
    """Return why tests marked `gpu` cannot run here, None where they can."""
    if importlib.util.find_spec("cupy") is None:
        return "cupy is not installed"
    import cupy

    return None if cupy.is_available() else "cupy finds no CUDA device"


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") is None:
        return
    reason = missing_gpu()
    if reason is not None and os.environ.get("SUBQUAD_REQUIRE_GPU") == "1":
        pytest.fail(f"SUBQUAD_REQUIRE_GPU is 1, but {reason}", pytrace=False)
    if reason is not None:
        pytest.skip(reason)
