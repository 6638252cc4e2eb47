"""Work in counts, rates of the machine, and the seconds that one makes of the other."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from typing import Any

import array_api_compat
import numpy as np


@dataclass(frozen=True)
class Work:
    """What a method will do to one head.

    Attributes
    ----------
    pairs : float
        Exact query-key pairs.
    feature_tokens : float
        Features times tokens, summed over the two passes.
    elements : float
        Entries of Q, K, V centred and scaled, and of the output.
    state_bytes : float
        Memory of the State, 0 where there is none.
    wide_pairs : float
        Exact pairs in float64 whatever `dtype`: rows that go exact after the run.
    """

    pairs: float
    feature_tokens: float
    elements: float
    d: int
    d_v: int
    dtype: str
    state_bytes: float = 0.0
    wide_pairs: float = 0.0

    @property
    def flops(self) -> float:
        """Operations: a pair 2d + 2(d_v + 1) + 20, a feature of a token 2(d_v + 1) + 1."""
        pair = 2 * self.d + 2 * (self.d_v + 1) + 20
        pairs = self.pairs + self.wide_pairs
        return pairs * pair + self.feature_tokens * (2 * (self.d_v + 1) + 1)


ROW_ENTRIES = 64
"""What a row is found to cost beside its own entries, in entries."""


@dataclass(frozen=True)
class Speed:
    """Rates of one dtype, per second.

    Flops in the products of the exact and of the polynomial path, pairs (exp and what goes with
    it), features built, entries of the input prepared; bytes of the State filled and converted,
    and rows: norms, sums by degree, bounds. The last two are free where nobody gives them.
    """

    exact_flops: float
    pairs: float
    polynomial_flops: float
    features: float
    elements: float
    state_bytes: float = math.inf
    rows: float = math.inf


@dataclass(frozen=True)
class Rates:
    """The machine: a Speed for each compute dtype, and seconds per call."""

    float32: Speed
    float64: Speed
    overhead: float = 5e-3

    def seconds(self, work: Work) -> float:
        """Return the predicted seconds of `work`."""
        speed: Speed = getattr(self, work.dtype)
        columns = -(-(work.d_v + 1) // 8) * 8  # the engine pads [V, 1]
        pair, wide_pair = (
            2 * (work.d + work.d_v + 1) / x.exact_flops + 1.0 / x.pairs
            for x in (speed, self.float64)
        )
        feature = 2 * columns / speed.polynomial_flops + 1.0 / speed.features
        rows = work.elements / (work.d + work.d_v)
        return (
            self.overhead
            + work.pairs * pair
            + work.wide_pairs * wide_pair
            + work.feature_tokens * feature
            + work.elements / speed.elements
            + rows / speed.rows
            + work.state_bytes / speed.state_bytes
        )

    def as_dict(self) -> dict:
        """Return the rates as plain numbers."""
        return asdict(self)


TYPICAL = Rates(
    float32=Speed(2.0e11, 1.2e9, 1.5e11, 1.5e9, 4e8),
    float64=Speed(1.0e11, 6.0e8, 0.7e11, 7.0e8, 4e8),
    overhead=1e-3,
)
"""Two cores of a server of the 2020s: for tests and for plans that must not depend on a clock."""


@lru_cache(maxsize=1)
def measured_rates() -> Rates:
    """Return the rates of this machine, measured on the engine itself; under 0.3 s, once."""
    probes = {**_probes("float32"), **{f"{k} 64": _probes("float64")[k] for k in _WIDE}}
    best = dict.fromkeys(probes, math.inf)
    # In rounds, so that a burst of other load does not fall on one probe alone; least time wins.
    for _ in range(ROUNDS):
        for name, probe in probes.items():
            start = time.perf_counter()
            probe()
            best[name] = min(best[name], time.perf_counter() - start)
    narrow = _speed(best)
    # The wider format is never the faster one: what says so is noise.
    exact, polynomial = (min(1.0, best[name] / best[f"{name} 64"]) for name in _WIDE)
    wide = replace(
        narrow, exact_flops=exact * narrow.exact_flops, pairs=exact * narrow.pairs,
        polynomial_flops=polynomial * narrow.polynomial_flops,
        features=polynomial * narrow.features,
    )  # fmt: skip
    return Rates(narrow, wide)


def rates_for(x: Any) -> Rates:
    """Return the measured rates of what holds the array x: this machine's, or its CUDA device's."""
    if not array_api_compat.is_cupy_array(x):
        return measured_rates()
    from subquad.engine import gpu_rates  # brings CuPy

    speeds = gpu_rates.speeds()
    return Rates(Speed(*speeds["float32"]), Speed(*speeds["float64"]))


ROUNDS = 2
_N, _D = 2048, (8, 64)
_TOKENS, _FEATURES, _STATE = 4096, (16, 3), (32, 3)
"""Tokens of the polynomial probes, whole tiles; (d, degree) there and of a State large enough."""
_ROWS = 16_384
"""Rows of the preparation probe."""
_WIDE = ("exact high", "polynomial high")
"""The probes taken in float64 as well: one ratio for each path."""


def _probes(dtype: str) -> dict[str, Callable[[], object]]:
    """Return the timed calls of one dtype: each path at few and at many columns, and the rest."""
    from subquad.engine import prepare

    rng = np.random.default_rng(0)

    def head(n: int, d: int, columns: int):
        Q, K = (0.1 * rng.standard_normal((n, d)).astype(dtype) for _ in range(2))
        return Q, K, abs(rng.standard_normal((n, columns))).astype(dtype)

    def prepared(x) -> None:
        prepare.affine(x, 1.0, np.zeros(_D[1]), 1.0, dtype)
        prepare.row_measures(x, 1.0, np.zeros(_D[1]))

    (low, high), (width, degree) = _D, _FEATURES
    return {
        "call": partial(_exact, *head(64, low, low)),
        "exact low": partial(_exact, *head(_N, low, low)),
        "exact high": partial(_exact, *head(_N, high, high)),
        "rows": partial(_two_passes, 1, *head(_TOKENS, width, low)),
        "polynomial low": partial(_two_passes, degree, *head(_TOKENS, width, low)),
        "polynomial high": partial(_two_passes, degree, *head(_TOKENS, width, high)),
        "state": partial(_two_passes, _STATE[1], *head(64, _STATE[0], high)),
        "prepare": partial(prepared, rng.standard_normal((_ROWS, high)).astype(dtype)),
    }


def _exact(Q, K, W) -> None:
    from subquad.engine import exact_block

    # The first row is long: row maxima are needed, as they are wherever exact is worth it.
    exact_block(np.concatenate([1e3 * Q[:1], Q[1:]]), K, W)


def _two_passes(degree: int, Q, K, W) -> None:
    from subquad.engine import accumulate, contract

    state = accumulate(K, W, degree, key_centre=np.zeros(K.shape[1]))
    contract(Q, state, [1.0] * (degree + 1))


def _speed(seconds: dict[str, float]) -> Speed:
    """Return the rates from the seconds of the probes in float32."""
    from subquad.features import feature_dimension

    tokens = 2.0 * _TOKENS * feature_dimension(*_FEATURES)
    call = min(seconds["call"], 0.5 * seconds["exact low"])  # what pairs do not cost
    exact = _line(seconds["exact low"] - call, seconds["exact high"] - call, _N**2, 4.0)
    rows = min(seconds["rows"], 0.5 * seconds["polynomial low"])  # what features do not cost
    polynomial = _line(
        seconds["polynomial low"] - rows, seconds["polynomial high"] - rows, tokens, 2.0
    )
    state = 3 * 8.0 * feature_dimension(*_STATE) * (_D[1] + 7)  # as methods count it
    elements = float(_ROWS) * _D[1] / seconds["prepare"]
    return Speed(
        *exact, *polynomial, elements, state / seconds["state"], elements / ROW_ENTRIES
    )


def _line(low: float, high: float, items: float, flops: float) -> tuple[float, float]:
    """Return (flops per second, items per second), `flops` being those of one item and column.

    Each keeps at least a tenth of the time, so that noise cannot make a rate negative.
    """
    low, high = low / items, high / items
    most = high / (flops * _D[1])
    per_flop = min(max((high - low) / (flops * (_D[1] - _D[0])), 0.1 * most), most)
    return 1.0 / per_flop, 1.0 / max(low - per_flop * flops * _D[0], 0.1 * low)
