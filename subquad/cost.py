"""Work in counts, rates of the machine, and the seconds that one makes of the other."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache

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
    """Return the rates of this machine, measured on the engine itself; about 0.2 s, once."""
    return Rates(_speed("float32"), _speed("float64"))


def _speed(dtype: str) -> Speed:
    from subquad.engine import accumulate, contract, exact_block, prepare
    from subquad.features import feature_dimension

    rng = np.random.default_rng(0)
    n, small, big = 1024, 8, 64

    def head(d: int, d_v: int):
        Q, K = (0.1 * rng.standard_normal((n, d)).astype(dtype) for _ in range(2))
        return Q, K, rng.standard_normal((n, d_v + 1)).astype(dtype)

    def two_passes(Q, K, W) -> None:
        state = accumulate(K, abs(W), 2, key_centre=np.zeros(K.shape[1]))
        contract(Q, state, [1.0, 1.0, 0.5])

    pair_at = [_best(exact_block, *head(d, d - 1)) / n**2 for d in (small, big)]
    exact_flops, pairs = _line(pair_at, (4.0 * small, 4.0 * big))
    tokens = 2.0 * n * feature_dimension(32, 2)
    feature_at = [_best(two_passes, *head(32, d - 1)) / tokens for d in (small, big)]
    polynomial_flops, features = _line(feature_at, (2.0 * small, 2.0 * big))
    x = rng.standard_normal((8 * n, big)).astype(dtype)
    prepared = _best(prepare.affine, x, 1.0, np.zeros(big), 1.0, dtype)
    measures = _best(prepare.row_measures, x, 1.0, np.zeros(big))
    return Speed(exact_flops, pairs, polynomial_flops, features, x.size / (prepared + 2 * measures))


def _line(seconds: list[float], flops: tuple[float, float]) -> tuple[float, float]:
    """Return (flops per second, items per second) from the seconds per item at two flop counts.

    Each keeps at least a tenth of the time, so that noise cannot make a rate negative.
    """
    low, high = seconds
    most = high / flops[1]
    per_flop = min(max((high - low) / (flops[1] - flops[0]), 0.1 * most), most)
    return 1.0 / per_flop, 1.0 / max(low - per_flop * flops[0], 0.1 * low)


def _best(function: Callable[..., object], *arguments, repeats: int = 3) -> float:
    times = []
    function(*arguments)
    for _ in range(repeats):
        start = time.perf_counter()
        function(*arguments)
        times.append(time.perf_counter() - start)
    return min(times)
