"""Work in counts, rates of the machine, and the seconds that one makes of the other."""

from __future__ import annotations

import math
import os
import pickle
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from typing import Any

import array_api_compat
import numpy as np

from subquad.arrays.arguments import check_real, check_size
from subquad.cost.steps import NONE, Overhead
from subquad.engine.cpu import fast as cpu_fast
from subquad.engine.shards.fleet import Fleet
from subquad.engine.threads import thread_count

OVERHEAD_SHARE = 0.4
"""Share of the overhead of a call of one head that each head of a call of many has."""


@dataclass(frozen=True)
class Work:
    """What a method will do to one head, in counts; `Rates.seconds` makes them a time.

    Parameters
    ----------
    pairs : float
        Exact query-key pairs.
    feature_tokens : float
        Features times tokens, summed over the two passes.
    elements : float
        Entries of Q, K, V centred and scaled, and of the output.
    d, d_v : int
        Head dimension, and columns of V.
    dtype : str
        The compute dtype of the passes: "float32", "float64", "bfloat16" or "bfloat16x3".
    state_bytes : float
        Memory of the passes, 0 where there is no State; costs no time.
    wide_pairs : float
        Exact pairs in float64 whatever `dtype`: rows that go exact after the run.
    calls : Overhead
        What the passes on the CPU cost besides arithmetic: steps of constant cost, operations that
        one thread does alone, and accumulators filled. Whatever else does not grow with the sizes
        is counted in steps as well.
    """

    pairs: float
    feature_tokens: float
    elements: float
    d: int
    d_v: int
    dtype: str
    state_bytes: float = 0.0
    wide_pairs: float = 0.0
    calls: Overhead = NONE

    @property
    def flops(self) -> float:
        """Operations: a pair 2d + 2(d_v + 1) + 20, a feature of a token 2(d_v + 1) + 1."""
        pair = 2 * self.d + 2 * (self.d_v + 1) + 20
        pairs = self.pairs + self.wide_pairs
        return pairs * pair + self.feature_tokens * (2 * (self.d_v + 1) + 1)


@dataclass(frozen=True)
class Speed:
    """Rates of one compute dtype, each per second; the last three are free unless given.

    Parameters
    ----------
    exact_flops, pairs : float
        Operations in the products of the exact path, and its query-key pairs (exp and what each
        pair needs besides).
    polynomial_flops, features : float
        Operations in the products of the polynomial path, and features built for one row.
    elements : float
        Entries of Q, K and V centred and scaled.
    state_bytes : float, optional
        Bytes of accumulators and tables filled.
    rows : float, optional
        Rows of which norms, sums by degree and bounds are computed.
    steps : float, optional
        Calls of constant cost, see `Overhead`.

    Raises
    ------
    TypeError, ValueError
        Where a rate is no number above 0; infinity is one, of what is free.
    """

    exact_flops: float
    pairs: float
    polynomial_flops: float
    features: float
    elements: float
    state_bytes: float = math.inf
    rows: float = math.inf
    steps: float = math.inf

    def __post_init__(self) -> None:
        for field in fields(self):
            rate = check_real(field.name, getattr(self, field.name))
            if not rate > 0.0:
                msg = f"`{field.name}` is {rate:g}; a rate is above 0, infinite where it is free."
                raise ValueError(msg)


@dataclass(frozen=True)
class Rates:
    """The machine: what `attention` and `plan` take for `rates`.

    Parameters
    ----------
    float32, float64 : Speed
        Of all `threads` together, where there is enough to do for them.
    overhead : float, optional
        Seconds per call.
    bfloat16, bfloat16x3 : Speed, optional
        Of the fused passes of a GPU; None where there are none.
    memory : float, optional
        Bytes that the passes may take; None for that of the machine.
    threads : int, optional
        How many share the work.

    Raises
    ------
    TypeError, ValueError
        Where a Speed is none, or seconds, bytes or threads are no number in their range.
    """

    float32: Speed
    float64: Speed
    overhead: float = 5e-3
    bfloat16: Speed | None = None
    bfloat16x3: Speed | None = None
    memory: float | None = None
    threads: int = 1

    def __post_init__(self) -> None:
        for name in ("float32", "float64", "bfloat16", "bfloat16x3"):
            speed = getattr(self, name)
            if not (isinstance(speed, Speed) or (speed is None and name.startswith("b"))):
                msg = f"`{name}` is {speed!r} of type {type(speed).__name__}; pass a Speed."
                raise TypeError(msg)
        if not 0.0 <= check_real("overhead", self.overhead) < math.inf:
            msg = f"`overhead` is {self.overhead:g}; seconds are finite and not negative."
            raise ValueError(msg)
        if self.memory is not None and not check_real("memory", self.memory) > 0.0:
            msg = f"`memory` is {self.memory:g}; pass bytes, more than 0, or None."
            raise ValueError(msg)
        check_size("threads", self.threads)

    def knows(self, dtype: str) -> bool:
        """Return whether there is a Speed for a compute dtype.

        Parameters
        ----------
        dtype : str
            "float32", "float64", "bfloat16" or "bfloat16x3".

        Returns
        -------
        bool
            True where `seconds` can count work of that dtype.
        """
        return getattr(self, dtype) is not None

    def seconds(self, work: Work) -> float:
        """Return the predicted time of some work.

        Parameters
        ----------
        work : Work
            Of one head.

        Returns
        -------
        float
            Seconds, `overhead` included.
        """
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
            + (work.pairs + (self.threads - 1) * work.calls.alone_pairs) * pair
            + work.wide_pairs * wide_pair
            + work.feature_tokens * feature
            + (self.threads - 1) * work.calls.alone * feature / (2 * columns)
            + work.elements / speed.elements
            + rows / speed.rows
            + work.calls.filled / speed.state_bytes
            + work.calls.steps / speed.steps
        )

    def beside(self, steps: float, heads: int = 1) -> Rates:
        """Return the rates with the cost of some steps added to `overhead`.

        Parameters
        ----------
        steps : float
            Calls of constant cost that each head needs before its passes.
        heads : int, optional
            How many heads share the overhead of the call.

        Returns
        -------
        Rates
            These rates where steps are free: then nothing is known of what a call costs.
        """
        return _beside(self, steps, heads) if self.float32.steps < math.inf else self

    def as_dict(self) -> dict:
        """Return the rates as plain numbers.

        Returns
        -------
        dict
            By the names of the parameters; a Speed is a dict in turn, None is left out.
        """
        return {name: value for name, value in asdict(self).items() if value is not None}


@lru_cache(maxsize=256)
def _beside(rates: Rates, steps: float, heads: int) -> Rates:
    share = OVERHEAD_SHARE + (1.0 - OVERHEAD_SHARE) / heads
    return replace(rates, overhead=share * rates.overhead + steps / rates.float32.steps)


TYPICAL = Rates(
    float32=Speed(2.0e11, 1.2e9, 1.5e11, 1.5e9, 4e8),
    float64=Speed(1.0e11, 6.0e8, 0.7e11, 7.0e8, 4e8),
    overhead=1e-3,
)
"""Two cores of a server of the 2020s: for tests and for plans that must not depend on a clock."""


def measured_rates() -> Rates:
    """Return the rates of this machine, measured on the engine itself.

    Returns
    -------
    Rates
        Of all threads together. Measured once for a number of threads, in under 0.3 s.
    """
    return _measured(cpu_fast.in_use(), thread_count())


@lru_cache(maxsize=8)
def _measured(_compiled: bool, threads: int) -> Rates:
    from subquad.cost import cpu_rates

    speeds, overhead = cpu_rates.speeds()
    narrow, wide = (Speed(**speeds[dtype]) for dtype in ("float32", "float64"))
    return Rates(narrow, wide, overhead=overhead, threads=threads)


def rates_for(x: Any) -> Rates:
    """Return the measured rates of what holds the array x: this machine's, or its CUDA device's."""
    if not array_api_compat.is_cupy_array(x):
        return measured_rates()
    from subquad.cost import gpu_rates  # brings CuPy

    speeds: dict[str, Any] = {k: Speed(*speed) for k, speed in gpu_rates.speeds().items()}
    return Rates(**speeds, overhead=gpu_rates.OVERHEAD, memory=gpu_rates.memory_bytes())


PER_DEVICE = ("state_bytes", "steps")
"""Rates that more devices do not raise."""


def fleet_rates(rates: Rates, fleet: Fleet) -> Rates:
    """Return the rates of a Fleet of devices that have `rates`, the same in every process.

    But for what each device does for all: filling the State, steps of its own.
    """
    if len(fleet.local) < fleet.ranks:  # clocks differ: those of rank 0 count
        text = np.frombuffer(pickle.dumps(rates), dtype=np.uint8)
        rates = pickle.loads(fleet.all_gather_host([text])[0].tobytes())

    def together(speed: Speed) -> Speed:
        faster = {f.name: getattr(speed, f.name) * fleet.speedup for f in fields(Speed)}
        return replace(speed, **(faster | {name: getattr(speed, name) for name in PER_DEVICE}))

    numbers: dict[str, Any] = {f.name: getattr(rates, f.name) for f in fields(Rates)}
    speeds = {name: together(x) for name, x in numbers.items() if isinstance(x, Speed)}
    return Rates(**(numbers | speeds))


def memory_bytes() -> float:
    """Return the machine's memory in bytes, 16 GiB where it cannot be read."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return 2.0**34
