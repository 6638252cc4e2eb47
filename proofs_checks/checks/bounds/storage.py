"""What the library's exp, and storing values and output, cost: the ends of every computation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np

from proofs_checks.claim import Claim, Finding, Twin, holds, refuted
from proofs_checks.proving import both, never_below, scaled_bound
from subquad.arrays.formats import FORMATS
from subquad.bounds.rounding import EXP_ULPS, conversion_error, storage_error

Bound = Callable[..., Any]
U32 = FORMATS["float32"].u
PERCENT = Fraction(1, 100)


def _exp_ulps(ulps: float) -> Finding:
    """Return whether exp in float32 is within `ulps`, on 2^20 arguments drawn by their bits."""
    from scipy import stats

    rng = np.random.default_rng(11)
    low, high = (int(np.float32(x).view(np.uint32)) for x in (2.0**-30, 87.0))
    bits = rng.integers(low, high, size=2**20, dtype=np.uint32)
    x = np.concatenate([bits.view(np.float32), -bits.view(np.float32)])
    exact = np.exp(x.astype(np.float64))
    off = np.abs(np.exp(x).astype(np.float64) - exact) / np.spacing(exact.astype(np.float32))
    bad, count = int(np.sum(~(off <= ulps))), off.size
    if bad:
        worst = int(np.argmax(off))
        return refuted(f"exp({x[worst]!r}) is {off[worst]:.2f} ulp off; {bad} of {count} exceed")
    share = float(stats.binomtest(0, count).proportion_ci(0.998).high)
    return holds(
        f"largest {off.max():.2f} ulp over {count} floats; with confidence 0.999 fewer "
        f"than {share:.1e} of all floats in the range exceed {ulps} ulp"
    )


def _storage(bound: Bound) -> Finding:
    """Return whether storing costs no more than the bound, and as much to 1 %.

    A column 1 +- r: an output 1 + u rounds to 1, an error of u/r in units of its radius r.
    """

    def leaving() -> Iterator[tuple[tuple[Any, ...], Fraction]]:
        for dtype in ("float16", "float32"):
            u = FORMATS[dtype].u
            for r in (Fraction(1, 2**7), Fraction(1, 2**9)):
                stored = np.dtype(dtype).type(1.0 + u)
                lost = abs(Fraction(float(stored)) - 1 - Fraction(u)) / r
                yield (float((1 + r) / r), dtype), lost

    def stored_in(value_ratio: float, dtype: str) -> Any:
        return bound(value_ratio, "float64", dtype)

    for (ratio, dtype), lost in leaving():
        value = Fraction(float(stored_in(ratio, dtype)))
        if lost > value:
            shown = f"{dtype}, ratio {ratio:g}: bound {float(value):.6g}"
            return refuted(f"{shown} < error {float(lost):.6g}")
        if value > lost * (1 + PERCENT):
            return refuted(
                f"{dtype}, ratio {ratio:g}: bound {float(value):.6g}, worst {float(lost):.6g}"
            )
    return both(
        holds("outputs 1 + u on columns 1 +- r lose what the bound says, to 1 %"),
        never_below(lambda ratio: bound(ratio, "float32", "float64"), _entering()),
    )


def _entering() -> Iterator[tuple[tuple[float], Fraction]]:
    """Yield values in [-1, 1] rounded to float32, and what that loses."""
    for x in (1.0 - U32 / 2, 0.5 + U32 / 2, 1 / 3, 2.0 / 3.0, 0.1):
        yield (1.0,), abs(Fraction(float(np.float32(x))) - Fraction(x))


def _conversion(bound: Bound) -> Finding:
    """Return whether float32 units cost no more than the bound, in exact rationals.

    Random columns about 0 and far from it, nearly constant ones with it: values enter as
    (v * in_scale - mid in two parts) / radius, times a weight; the output leaves divided, times the
    radius, plus mid. What rounding the output once costs is `storage_error`'s.
    """
    rng, nearest = np.random.default_rng(3), 0.0
    for trial in range(60):
        away = np.float32(rng.choice([0.0, 1.0, -37.0, 3e4]))
        v = (away + rng.uniform(-1.0, 2.0, 6) * 2.0 ** rng.integers(-9, 3)).astype(np.float32)
        low, high = (Fraction(float(end)) for end in (v.min(), v.max()))
        if low == high:
            continue
        mid, radius = (low + high) / 2, (high - low) / 2
        ratio = float(max(abs(low), abs(high)) / radius)
        lost = max(_entered(v, mid, radius, rng) + _left(mid, radius, rng, trial))
        limit = Fraction(float(bound(ratio))) + Fraction(U32) * Fraction(ratio)
        if lost > limit:
            return refuted(
                f"values about {float(away):g}, ratio {ratio:.3g}: {float(lost):.3g} "
                f"lost, {float(limit):.3g} allowed"
            )
        nearest = max(nearest, float(lost / limit))
    return holds(f"what float32 units lose is at most {nearest:.2f} of the bound")


def _parts(mid: Fraction) -> tuple[np.float32, np.float32]:
    first = np.float32(float(mid))
    return first, np.float32(float(mid - Fraction(float(first))))


def _entered(v: np.ndarray, mid: Fraction, radius: Fraction, rng: Any) -> list[Fraction]:
    """Return what each value times its weight loses as it enters, both weights and values."""
    first, second = _parts(mid)
    weight = rng.uniform(0.5, 1.0, v.size)
    entered = ((v - first) - second) * np.float32(float(1 / radius)) * np.float32(weight)
    exact = [
        (Fraction(float(x)) - mid) / radius * Fraction(w) for x, w in zip(v, weight, strict=True)
    ]
    lost = [abs(Fraction(float(x)) - y) for x, y in zip(entered, exact, strict=True)]
    own = [abs(Fraction(float(np.float32(w))) - Fraction(w)) for w in weight]
    return [2 * max(a, b) for a, b in zip(lost, own, strict=True)]  # of weights of 1/2 and more


def _left(mid: Fraction, radius: Fraction, rng: Any, trial: int) -> list[Fraction]:
    """Return what a few outputs lose as they leave: sums over a normaliser, in [-1, 1]."""
    first, second = _parts(mid)
    sums, whole = (rng.uniform(*ends, 8).astype(np.float32) for ends in ((-1.0, 1.0), (1.0, 3.0)))
    sums[0] = whole[0] * (1 if trial % 2 else -1)
    x = sums * (np.float32(1.0) / whole)
    out = (x * np.float32(float(radius)) + second) + first
    exact = [Fraction(float(a)) / Fraction(float(b)) for a, b in zip(sums, whole, strict=True)]
    return [
        abs(Fraction(float(y)) - mid - radius * e) / radius for y, e in zip(out, exact, strict=True)
    ]


def _all_storage(stored: Bound, converted: Bound) -> Finding:
    return both(_storage(stored), _conversion(converted))


DERIVED: tuple[Claim, ...] = (
    Claim(
        id="exp-4-ulp",
        statement="exp of the array library is within 4 ulp in float32 (an assumption of every "
        "certificate).",
        source="subquad",
        provenance="derived",
        evidence="statistical",
        check=partial(_exp_ulps, float(EXP_ULPS)),
        twin=Twin("within 0.45 ulp", partial(_exp_ulps, 0.45)),
    ),
    Claim(
        id="rounding-storage",
        statement="Rounding the values on entry and the output on return costs at most "
        "storage_error in units of value_radius; columns 1 +- r reach it to 1 %. Units in float32 "
        "cost at most conversion_error more.",
        source="subquad",
        provenance="derived",
        evidence="exact",
        check=partial(_all_storage, storage_error, conversion_error),
        twin=Twin("0.99 of it suffices", partial(_storage, scaled_bound(storage_error, 0.99))),
    ),
)
