"""What the fused passes lose: their accounting line by line, and the passes by hand on hard rows.

`model` forms products and sums as the passes do, `rows` compares them with the same polynomial in
exact integers; here `fused_errors` meets an accounting of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial

import numpy as np

from proofs_checks.checks.tensor_cores import model
from proofs_checks.checks.tensor_cores.rows import LONG, PARTS, Errors, simulated
from proofs_checks.checks.tensor_cores.split import split_pass
from proofs_checks.claim import Claim, Finding, Twin, holds, refuted
from proofs_checks.proving import both
from subquad.engine.fused.rounding import STEP_ERROR, V, fused_errors
from subquad.engine.fused.sizes import FLUSH_STEPS, OPERANDS

U32 = 2.0**-24


def _steps() -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield (what, total (n,), products (16, n)): numbers of 24 bits, products of 16."""
    rng = np.random.default_rng(0)
    full = 1.0 - 2.0**-16
    lost = np.full((16, 2), full * 2.0**-25)
    lost[0] += 3.0 * 2.0**-25  # three quarters of the last bit stay until the second cut
    yield "all products just below what is kept", np.array([1.0, 1.5]), lost
    yield "seventeen of a size", np.array([2.0 - 2.0**-23]), np.full((16, 1), (1.0 + 2.0**-7) ** 2)
    for signs in ((1.0,), (-1.0, 1.0)):
        a, b = (
            model.bfloat16(rng.uniform(1, 2, (16, 500)) * 2.0 ** rng.integers(-9, 1, (16, 500)))
            for _ in range(2)
        )
        total = model.float32(rng.uniform(1, 2, 500) * 2.0 ** rng.integers(-9, 1, 500))
        yield "random", total, a * b * rng.choice(signs, (16, 500))


def of_all(total: Fraction, products: list[Fraction]) -> Fraction:
    """Return the sum of the absolute values."""
    return abs(total) + sum(map(abs, products))


def of_largest(total: Fraction, products: list[Fraction]) -> Fraction:
    """Return the largest absolute value."""
    return max(abs(total), *map(abs, products))


def _step(error: float, size: Callable[..., Fraction]) -> Finding:
    """Return whether a step is within `error` times the size of its addends, and how near."""
    worst, count = Fraction(0), 0
    for what, total, products in _steps():
        found = model.step(total, products)
        for i, computed in enumerate(found):
            first, rest = Fraction(total[i]), [Fraction(x) for x in products[:, i]]
            off = abs(Fraction(computed) - first - sum(rest)) / size(first, rest)
            if off > Fraction(error):
                return refuted(f"{what}: off by {float(off):.3g}, said {error:.3g}")
            worst, count = max(worst, off), count + 1
    return holds(f"{count} steps, the worst at {float(worst) / error:.3f} of the bound")


def _blocks(d: int, degree: int, parts: int) -> int:
    """Return the blocks of the query pass, stages filled up: four blocks, or eight."""
    chunks, rotated = d // 16, parts == 1 and d <= 64
    if rotated and degree == 3:
        rounds = [10 + 51] * chunks  # a chunk's own pairs and threes
        for own in range(chunks):  # a variable of it, with pairs whose chunks are not all before
            pairs = sum(
                10 + (16 * (chunks - 1 - f) if f > own else 0) for f in range(chunks) if f != own
            )
            rounds += [pairs] * 16
        return sum(-(-blocks // 8) * 8 for blocks in rounds)
    rounds = []
    for first in [*(range(d) if degree == 3 else ()), 0]:
        of_round = 0
        for c in range(first // 16, chunks):  # itself, and eights of prefixes with later chunks
            eights = 1 if c == first // 16 and first % 16 >= 8 else 2
            of_round += 10 + 8 * eights * (chunks - 1 - c) if rotated else 8 * eights * (chunks - c)
        rounds.append(of_round)
    linear = [] if rotated else [chunks]
    return sum(-(-blocks // 4) * 4 for blocks in (*rounds, *linear))


def accounted(d: int, degree: int, operands: str, keys: int) -> list[float]:
    """Return, degree by degree, what the passes may lose, every factor multiplied out."""
    parts = PARTS[operands]
    products, steps = (1, 3)[parts - 1], -(-keys // 16)
    adding = products * (min(steps, FLUSH_STEPS) + _blocks(d, degree, parts)) + 2
    # Float32: keys by eight, the moment, degree 0 and its addition; runs. Float64: the rest.
    logs = 11 * math.log1p(U32) + keys * 2.0**-53
    found = [math.expm1(logs)]
    logs += -(-steps // FLUSH_STEPS) * math.log1p(U32)
    for k in range(1, degree + 1):
        if parts == 1:
            # Of 8 bits: within V/(1 + V). The sum of the last variable has the key as it was: V.
            of_operands = (2 * k - 1) * math.log1p(V / (1.0 + V)) + math.log1p(V)
        else:
            of_operands = 2 * math.log1p(split_pass(k))
        found.append(math.expm1(logs + of_operands + adding * math.log1p(STEP_ERROR)))
    return found


def _accounting(errors: Errors) -> Finding:
    """Return whether the function is nowhere below the accounting."""
    count, nearest = 0, 0.0
    for operands in OPERANDS:
        for d in range(16, 129, 16):
            for degree in (2, 3):
                for keys in (1, 17, 640, LONG, 65_536, 2**20, 2**26, 2**30):
                    said = errors(d, degree, operands, keys)
                    for k, lost in enumerate(accounted(d, degree, operands, keys)):
                        if not lost <= said[k]:
                            return refuted(
                                f"{operands}, d = {d}, degree {k} of {degree}, {keys} "
                                f"keys: {said[k]:.6g} < {lost:.6g}"
                            )
                        count, nearest = count + 1, max(nearest, lost / said[k])
    return holds(f"the accounting within the bound at {count} places, up to {nearest:.3f} of it")


def _passes(errors: Errors) -> Finding:
    return both(simulated(errors), _accounting(errors))


def moments_forgotten(d: int, degree: int, operands: str, keys: int) -> tuple[float, ...]:
    """Return the bound without what rounding the moments to operands costs."""
    first, *others = fused_errors(d, degree, operands, keys)
    return (first, *(x - V ** PARTS[operands] for x in others))


DERIVED: tuple[Claim, ...] = (
    Claim(
        id="tensor-core-step",
        statement="A step that cuts its 16 products and the sum so far off two bits below the last "
        "one of the largest, adds them and cuts off once more is within STEP_ERROR of the sum of "
        "their absolute values.",
        source="subquad",
        provenance="derived",
        evidence="exact",
        check=partial(_step, STEP_ERROR, of_all),
        twin=Twin("of the largest of them", partial(_step, STEP_ERROR, of_largest)),
    ),
    Claim(
        id="rounding-tensor-cores",
        statement="Degree k of a row by the fused passes is within fused_errors[k] |q|^k M_k of "
        "its exact value, rows as rounded to the operands.",
        source="subquad",
        provenance="derived",
        evidence="exact",
        check=partial(_passes, fused_errors),
        twin=Twin("the moments need not be rounded", partial(_passes, moments_forgotten)),
        depends=("tensor-core-step", "rounding-gamma"),
    ),
)
