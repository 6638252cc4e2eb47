"""Work in counts, rates of the machine, and the seconds that one makes of the other."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, astuple, dataclass
from functools import lru_cache, partial

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
    """

    pairs: float
    feature_tokens: float
    elements: float
    d: int
    d_v: int
    dtype: str
    state_bytes: float = 0.0

    @property
    def flops(self) -> float:
        """Operations: a pair 2d + 2(d_v + 1) + 20, a feature of a token 2(d_v + 1) + 1."""
        pair = 2 * self.d + 2 * (self.d_v + 1) + 20
        return self.pairs * pair + self.feature_tokens * (2 * (self.d_v + 1) + 1)


@dataclass(frozen=True)
class Speed:
    """Rates of one dtype, per second.

    Flops in the products of the exact and of the polynomial path, pairs (exp and what goes with
    it), features built, entries of the input prepared.
    """

    exact_flops: float
    pairs: float
    polynomial_flops: float
    features: float
    elements: float


@dataclass(frozen=True)
class Rates:
    """The machine: a Speed for each compute dtype, and seconds per call."""

    float32: Speed
    float64: Speed
    overhead: float = 1e-3

    def seconds(self, work: Work) -> float:
        """Return the predicted seconds of `work`."""
        speed: Speed = getattr(self, work.dtype)
        columns = -(-(work.d_v + 1) // 8) * 8  # the engine pads [V, 1]
        pair = 2 * (work.d + work.d_v + 1) / speed.exact_flops + 1.0 / speed.pairs
        feature = 2 * columns / speed.polynomial_flops + 1.0 / speed.features
        return (
            self.overhead
            + work.pairs * pair
            + work.feature_tokens * feature
            + work.elements / speed.elements
        )

    def as_dict(self) -> dict:
        """Return the rates as plain numbers."""
        return asdict(self)


TYPICAL = Rates(
    float32=Speed(2.0e11, 1.2e9, 1.5e11, 1.5e9, 4e8),
    float64=Speed(1.0e11, 6.0e8, 0.7e11, 7.0e8, 4e8),
)
"""Two cores of a server of the 2020s: for tests and for plans that must not depend on a clock."""


@lru_cache(maxsize=1)
def measured_rates() -> Rates:
    """Return the rates of this machine, measured on the engine itself; about 0.3 s, once."""
    probes = {dtype: _probes(dtype) for dtype in ("float32", "float64")}
    best = {(dtype, name): math.inf for dtype in probes for name in probes[dtype]}
    # In rounds, so that a burst of other load does not fall on one probe alone; least time wins.
    for _ in range(ROUNDS):
        for dtype, name in best:
            start = time.perf_counter()
            probes[dtype][name]()
            best[dtype, name] = min(best[dtype, name], time.perf_counter() - start)
    float32, float64 = (_speed({k: best[dtype, k] for k in probes[dtype]}) for dtype in probes)
    # The wider format is never the faster one: what says so is noise.
    slower = Speed(*(min(a, b) for a, b in zip(astuple(float32), astuple(float64), strict=True)))
    return Rates(float32, slower)


ROUNDS = 4
_N, _D = 1024, (8, 64)


def _probes(dtype: str) -> dict[str, Callable[[], object]]:
    """Return the timed calls of one dtype: each path at few and at many columns, preparation."""
    from subquad.engine import accumulate, contract, exact_block, prepare

    rng = np.random.default_rng(0)

    def head(d: int, columns: int):
        Q, K = (0.1 * rng.standard_normal((_N, d)).astype(dtype) for _ in range(2))
        return Q, K, abs(rng.standard_normal((_N, columns))).astype(dtype)

    def two_passes(Q, K, W) -> None:
        state = accumulate(K, W, 2, key_centre=np.zeros(K.shape[1]))
        contract(Q, state, [1.0, 1.0, 0.5])

    def prepared(x) -> None:
        prepare.affine(x, 1.0, np.zeros(_D[1]), 1.0, dtype)
        for _ in range(2):
            prepare.row_measures(x, 1.0, np.zeros(_D[1]))

    low, high = _D
    return {
        "exact low": partial(exact_block, *head(low, low)),
        "exact high": partial(exact_block, *head(high, high)),
        "polynomial low": partial(two_passes, *head(32, low)),
        "polynomial high": partial(two_passes, *head(32, high)),
        "prepare": partial(prepared, rng.standard_normal((8 * _N, high)).astype(dtype)),
    }


def _speed(seconds: dict[str, float]) -> Speed:
    """Return the rates from the seconds of the probes of one dtype."""
    from subquad.features import feature_dimension

    tokens = 2.0 * _N * feature_dimension(32, 2)
    exact = _line(seconds["exact low"], seconds["exact high"], _N**2, 4.0)
    polynomial = _line(seconds["polynomial low"], seconds["polynomial high"], tokens, 2.0)
    return Speed(*exact, *polynomial, 8.0 * _N * _D[1] / seconds["prepare"])


def _line(low: float, high: float, items: float, flops: float) -> tuple[float, float]:
    """Return (flops per second, items per second), `flops` being those of one item and column.

    Each keeps at least a tenth of the time, so that noise cannot make a rate negative.
    """
    low, high = low / items, high / items
    most = high / (flops * _D[1])
    per_flop = min(max((high - low) / (flops * (_D[1] - _D[0])), 0.1 * most), most)
    return 1.0 / per_flop, 1.0 / max(low - per_flop * flops * _D[0], 0.1 * low)
