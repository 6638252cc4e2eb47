"""How fast the passes run on this CPU: a few of them timed, and fitted with a typical machine.

A shared host changes its pace within seconds: products have been seen to fall to half for a while,
exp not at all. So no single probe sets a rate. Every probe is priced as the methods price their
work, and the rates are those that explain all of them best while the ratios between them stay near
those of a typical machine (least squares in the logarithms, a Gaussian prior on the ratios). What
the probes say clearly wins over the prior; what they say only by a small difference of two large
times does not move. Rates cannot become negative, nor faster than any probe allows by much.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import numpy as np

from subquad.cost.steps import Overhead, both_passes, exact_calls
from subquad.engine.cpu import fast as cpu_fast
from subquad.engine.lengths import exact_work, padded
from subquad.engine.passes import accumulate, contract, exact_block
from subquad.engine.rows import rows_of
from subquad.engine.threads import ENTRY_WORK, THREAD_WORK, thread_count
from subquad.features import feature_dimension

TERMS = ("exact_flops", "pairs", "polynomial_flops", "features", "elements", "state_bytes", "steps")
TYPICAL_SECONDS = np.array([4.6e-12, 4.7e-10, 6.2e-12, 4.8e-10, 3.8e-9, 2.3e-10, 1.95e-6])
"""Of one unit of each of TERMS, fitted to whole runs on two cores of a server (see
the experiment `cost_model`); only the ratios between them enter."""
COMPILED_SECONDS = np.where(
    np.array(TERMS) == "polynomial_flops",
    4.0e-12,
    np.where(np.array(TERMS) == "features", 2.0e-10, TYPICAL_SECONDS),
)
"""The same where passes run compiled, from both passes of d = 8 and 64 with 8 to 64 columns."""
RATIO_SPREAD, NOISE = 0.34, 0.1
"""Standard deviations, in logarithms: of a rate about its typical ratio to the others, of a probe
about what the rates make of it."""
ROUNDS, SHORT = 2, 2.5e-3
"""How often each probe has its turn; seconds below which it is called twice in one."""
STEADY = 1.2
"""What a run takes in the median over the least of a few: probes are the least, since the first of
a process are slow, and a run is predicted in the median."""
OVERHEAD_STEPS = 1600.0
"""Steps of a run without its passes, the same for all sizes."""
ROW_ENTRIES = 30
"""Preparing a row takes as long as preparing so many entries more than it has (measured)."""
PREPARED, PASSED = 0.95, 1.15
"""What an entry costs in the probe of preparation, and in a pass that builds features of it, in
entries of a run: there each is prepared, taken up, and written as part of the output."""

Probe = tuple[np.ndarray, Callable[[], object]]
"""Amounts of TERMS, and what is timed."""


def speeds() -> tuple[dict[str, dict[str, float]], float]:
    """Return the rates of each compute dtype by name, per second, and the seconds of a call.

    Under 0.3 s, once a process, and once more when it has come to run compiled passes; these are
    not loaded for the sake of a measurement, which would take longer.
    """
    return _speeds(cpu_fast.in_use())


@lru_cache(maxsize=2)
def _speeds(_compiled: bool) -> tuple[dict[str, dict[str, float]], float]:
    return measured()


def measured() -> tuple[dict[str, dict[str, float]], float]:
    """Measure the rates and return them as `speeds` does."""
    # Of compiled passes half the lanes are known; to have them in float64 would take longer.
    both = tuple(name for name in WIDE if not (cpu_fast.in_use() and name.startswith("polynomial")))
    probes, wide = _probes("float32", PROBES), _probes("float64", both)
    rounds = ROUNDS + cpu_fast.in_use()  # in the first, compiled passes are loaded
    seconds = _timed({name: call for name, (_, call) in probes.items()}, rounds)
    amounts = np.array([amount for amount, _ in probes.values()])
    typical = COMPILED_SECONDS if cpu_fast.in_use() else TYPICAL_SECONDS
    fitted = STEADY * fit(amounts, np.array([*seconds.values()]), typical)
    # Timed once only, so averaged with 1/2, what half the lanes say. Float64 is never faster.
    slow = _timed({name: call for name, (_, call) in wide.items()}, 1)
    exact, polynomial = (
        min(1.0, (0.5 * seconds[name] / slow[name]) ** 0.5) if name in slow else 0.5
        for name in WIDE
    )
    slower = np.array([exact, exact, polynomial, polynomial, 1.0, 1.0, 1.0])
    found = {}
    for dtype, ratio in (("float32", np.ones(len(TERMS))), ("float64", slower)):
        rates = dict(zip(TERMS, (ratio / fitted).tolist(), strict=True))
        found[dtype] = {**rates, "rows": rates["elements"] / ROW_ENTRIES}
    return found, OVERHEAD_STEPS * float(fitted[-1])


def fit(
    amounts: np.ndarray, seconds: np.ndarray, typical: np.ndarray = TYPICAL_SECONDS
) -> np.ndarray:
    """Return the seconds of a unit of each of TERMS from probes: amounts (probes, terms), times.

    The maximum of the posterior: of a common factor nothing is supposed.
    """
    terms = len(typical)
    prior = (np.eye(terms) - 1.0 / terms) / RATIO_SPREAD**2
    factors = np.zeros(terms)
    for _ in range(STEPS):
        parts = amounts * (typical * np.exp(factors))
        predicted = parts.sum(axis=1)
        shares = parts / predicted[:, None]
        slope = shares.T @ np.log(seconds / predicted) / NOISE**2 - prior @ factors
        move = np.linalg.solve(shares.T @ shares / NOISE**2 + prior, slope)
        factors += np.clip(move, -1.0, 1.0)
    return typical * np.exp(factors)


STEPS = 25
"""Gauss-Newton steps of `fit`; a few do, more where the machine is far from the typical one."""


def _timed(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the least seconds of each call, in turns: a burst falls on all alike.

    The first of a process are slow: threads start, memory is new. What is short is called twice in
    its turn, since after another call its code and data are out of cache.
    """
    found = dict.fromkeys(calls, np.inf)
    for _ in range(rounds):
        for name, call in calls.items():
            for _ in range(2):
                start = time.perf_counter()
                call()
                seconds = time.perf_counter() - start
                found[name] = min(found[name], seconds)
                if seconds > SHORT:
                    break
    return found


def _probes(dtype: str, names: tuple[str, ...]) -> dict[str, Probe]:
    """Return the probes asked for: each starts every thread, and is not much larger than that.

    But for the last three, which more threads make no faster, or not yet.
    """
    work = THREAD_WORK * max(thread_count() - 1, 0.5)
    made: dict[str, Callable[[], Probe]] = {
        "exact, few columns": partial(_exact, 8, 2.6 * work, dtype),
        "exact, many columns": partial(_exact, 64, 2.6 * work, dtype),
        "polynomial, few columns": partial(_polynomial, 16, 4, 1.5 * work, dtype),
        "polynomial, many columns": partial(_polynomial, 64, 2, 1.5 * work, dtype),
        "steps": partial(_polynomial, 8, 3, 2.0**21, dtype),
        "state": partial(_polynomial, 32, 3, 2.0**19, dtype),
        "preparation": partial(_preparation, 64, THREAD_WORK // (128 * ENTRY_WORK), dtype),
    }
    return {name: made[name]() for name in names}


PROBES = (
    "exact, few columns",
    "exact, many columns",
    "polynomial, few columns",
    "polynomial, many columns",
    "steps",
    "state",
    "preparation",
)
WIDE = ("exact, many columns", "polynomial, many columns")
"""The probes taken in float64 as well: one ratio for each path."""


def _head(n: int, d: int, dtype: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    Q, K = (0.1 * rng.standard_normal((n, d)).astype(dtype) for _ in "QK")
    return Q, K, abs(rng.standard_normal((n, d + 1))).astype(dtype)


def _exact(d: int, work: float, dtype: str) -> Probe:
    """Return the probe of n queries and keys, `work` operations in all, about."""
    n = int((work / exact_work(1, 1, d, d + 1)) ** 0.5)
    Q, K, W = _head(n, d, dtype)
    calls = exact_calls(n, n, d, d)
    pairs = float(n) * n + (thread_count() - 1) * calls.alone_pairs
    amount = np.array([pairs * 2 * (2 * d + 1), pairs, 0.0, 0.0, 0.0, 0.0, 0.0])
    return amount + _beside(calls, padded(d + 1)), partial(exact_block, Q, K, W)


def _polynomial(d: int, degree: int, work: float, dtype: str) -> Probe:
    """Return the probe of both passes, each of `work` operations, about."""
    r, columns = feature_dimension(d, degree), padded(d + 1)
    n = max(64, int(work / (2 * r * columns)))
    if not cpu_fast.in_use():
        n = min(n, (cpu_fast.LEAST_PRODUCTS - 1) // r)
    elif work >= THREAD_WORK:  # compiled, like the passes of large problems
        n = max(n, -(-cpu_fast.LEAST_PRODUCTS // r))
    tokens = 2.0 * n * r
    entries = PASSED * 2.0 * n * d
    amount = np.array([0.0, 0.0, 2 * columns * tokens, tokens, entries, 0.0, 0.0])
    beside = _beside(both_passes(n, n, d, d, degree), columns)
    return amount + beside, partial(_two_passes, degree, *_head(n, d, dtype))


def _beside(calls: Overhead, columns: int) -> np.ndarray:
    """Return the amounts of the Overhead of some passes, as `Rates.seconds` counts them."""
    alone = calls.alone * (thread_count() - 1)
    return np.array([0.0, 0.0, alone, alone / (2 * columns), 0.0, calls.filled, calls.steps])


def _two_passes(degree: int, Q: Any, K: Any, W: Any) -> None:
    state = accumulate(K, W, degree, key_centre=np.zeros(K.shape[1]))
    contract(Q, state, [1.0] * (degree + 1))


def _preparation(d: int, rows: int, dtype: str) -> Probe:
    x, zeros = np.random.default_rng(0).random((rows, d), np.float32).astype(dtype), np.zeros(d)

    def prepared() -> None:
        rows_of(x).affine(x, 1.0, zeros, 1.0, dtype)
        rows_of(x).row_measures(x, 1.0, zeros)

    return np.array([0.0, 0.0, 0.0, 0.0, PREPARED * rows * d, 0.0, 0.0]), prepared
