"""The fused passes by hand, for one chunk of 16 variables: bfloat16 operands, tensor-core steps.

Written from the description of the passes, in NumPy's float64 with explicit cuts; nothing of
`subquad.engine` but the run length is used. Numbers are tuples of operands, (high,) or (high, low).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from subquad.engine.fused.sizes import FLUSH_STEPS

Number = tuple[np.ndarray, ...]
Feature = tuple[int, ...]
D = 16
TINY = 2.0**-126
"""What the steps may flush to zero."""


def bfloat16(x: np.ndarray) -> np.ndarray:
    """Return x rounded to 8 significant bits, ties to even, no bit below 2^-133."""
    exponent = np.maximum(np.frexp(x)[1] - 8, -133)
    return np.ldexp(np.rint(np.ldexp(x, -exponent)), exponent)


def operand(x: np.ndarray, parts: int) -> Number:
    """Return x, rounded, as one operand or the sum of two."""
    high = bfloat16(x)
    return (high, bfloat16(x - high)) if parts == 2 else (high,)


def value(x: Number) -> np.ndarray:
    """Return the number that operands stand for."""
    return x[0] if len(x) == 1 else x[0] + x[1]


def product(x: Number, s: Number) -> Number:
    """Return x s from operations on operands: a product, and three fused ones for the low part."""
    high = bfloat16(x[0] * s[0])
    if len(x) == 1:
        return (high,)
    lost = bfloat16(x[0] * s[0] - high)
    return high, bfloat16(x[0] * s[1] + bfloat16(x[1] * s[0] + lost))


def pairs(x: Number, s: Number) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Return what the tensor cores multiply in place of x s: low times low is left out."""
    return ((x[0], s[0]),) if len(x) == 1 else ((x[0], s[0]), (x[0], s[1]), (x[1], s[0]))


def multiplied(x: Number, s: Number) -> np.ndarray:
    """Return the sum of the `pairs` of x s, nothing rounded."""
    return np.add.reduce([a * b for a, b in pairs(x, s)])


def cut(x: np.ndarray, bits: int, least: float) -> np.ndarray:
    """Return x towards zero, to `bits` significant bits; 0 below `least`."""
    exponent = np.frexp(x)[1] - bits
    return np.where(abs(x) < least, 0.0, np.ldexp(np.trunc(np.ldexp(x, -exponent)), exponent))


def step(total: np.ndarray, products: np.ndarray) -> np.ndarray:
    """Return total (...) plus products (16, ...) as one step of the tensor cores adds them.

    All are cut off two bits below the last one of the largest, added, and cut off once more.
    """
    largest = np.maximum(abs(total), abs(products).max(axis=0))
    exponent = np.frexp(largest)[1] - 26
    whole = np.trunc(np.ldexp(products, -exponent)).sum(axis=0)
    whole += np.trunc(np.ldexp(total, -exponent))
    return cut(np.ldexp(whole, exponent), 24, TINY)


def float32(x: np.ndarray) -> np.ndarray:
    """Return x rounded to float32."""
    return x.astype(np.float32).astype(np.float64)


def monomials(degree: int) -> list[Feature]:
    """Return the sorted variables of every monomial of degrees 1 to `degree`."""
    choose = itertools.combinations_with_replacement
    return [m for k in range(1, degree + 1) for m in choose(range(D), k)]


def feature(rows: Number, order: Feature) -> Number:
    """Return the product of some variables of the rows (n, 16), multiplied in that order."""
    found = tuple(part[:, order[0]] for part in rows)
    for variable in order[1:]:
        found = product(found, tuple(part[:, variable] for part in rows))
    return found


def key_pass(K: np.ndarray, W: np.ndarray, degree: int, parts: int, groups: int) -> np.ndarray:
    """Return the moments (monomials, columns) of K (m, 16) and W (m, columns)."""
    rows, weights = operand(K, parts), operand(W, parts)
    names = monomials(degree)
    features = [feature(rows, m) for m in names]
    built = tuple(np.stack(column, axis=1) for column in zip(*features, strict=True))
    steps = -(-len(K) // 16)
    filled = 16 * steps - len(K)
    built, weights = (
        tuple(np.pad(p, ((0, filled), (0, 0))).reshape(steps, 16, -1) for p in x)
        for x in (built, weights)
    )
    moments = np.zeros((len(names), W.shape[1]))
    for group in range(groups):
        run = range(steps * group // groups, steps * (group + 1) // groups)
        moments += _run(built, weights, run)
    # The linear feature of the last variable is summed apart: keys as they were, float32 by eight.
    moments[names.index((D - 1,))] = _eights(K[:, D - 1 :] * W)
    return moments


def _run(built: Number, weights: Number, steps: range) -> np.ndarray:
    """Return the sums over some steps: every FLUSH_STEPS of them added up in float32."""
    shape = built[0].shape[2], weights[0].shape[2]
    total = np.zeros(shape)
    for start in range(steps.start, steps.stop, FLUSH_STEPS):
        acc = np.zeros(shape)
        for s in range(start, min(start + FLUSH_STEPS, steps.stop)):
            of_step = tuple(p[s] for p in built), tuple(p[s] for p in weights)
            for x, w in pairs(*of_step):
                acc = step(acc, x[:, :, None] * w[:, None, :])
        total = float32(total + acc)
    return total


def _eights(x: np.ndarray) -> np.ndarray:
    """Return the sums of the columns of x: eight rows at a time in float32, those in float64."""
    total = np.zeros(x.shape[1])
    for start in range(0, len(x), 8):
        part = np.zeros(x.shape[1])
        for row in x[start : start + 8]:
            part = float32(part + row)
        total += part
    return total


def query_blocks(degree: int, parts: int) -> Iterator[list[Feature]]:
    """Yield the 16 features of each block of the query pass; () where another block has it.

    With one operand a number the chunk meets itself rotated, which leaves out what repeats, in
    degree 3 twice; with two it meets each of its variables, and then stands alone. Stages have
    four blocks, in the first case of degree 3 eight.
    """
    linear: list[Feature] = [(i,) for i in range(D)]
    if parts == 1:
        rounds = [[*_pairs(), *(_triples() if degree == 3 else ())]]
    else:
        prefixes: list[Feature] = [(first,) for first in range(D)] if degree == 3 else []
        rounds = [*(list(_by_prefix(p)) for p in [*prefixes, ()]), [linear]]
    for blocks in rounds:
        yield from blocks
        nothing: list[Feature] = [()] * D
        yield from (nothing for _ in range(-len(blocks) % (8 if degree == 3 and parts == 1 else 4)))


def _by_prefix(first: Feature) -> Iterator[list[Feature]]:
    """Yield the chunk, times the first prefix, times each variable from the eight of that on."""
    for second in range(first[0] // 8 * 8 if first else 0, D):
        yield [(i, *first, second) if first <= (second,) and second <= i else () for i in range(D)]


def _partner(i: int, apart: int, other: bool) -> int:
    """Return the variable in the place of i `apart` pairs of variables on, or beside that."""
    return (i // 2 + apart) % 8 * 2 + (i % 2 ^ other)


def _pairs() -> Iterator[list[Feature]]:
    """Yield the chunk times its variables 1, 2, 3, 0 and 4 pairs on, and alone."""
    for apart in (1, 2, 3, 0):
        for other in (False, True):
            again = [apart == 0 and other and i % 2 == 0 for i in range(D)]
            yield [() if a else (i, _partner(i, apart, other)) for i, a in enumerate(again)]
    yield [(i % 8, _partner(i % 8, 4, i >= 8)) for i in range(D)]
    yield [(i,) for i in range(D)]


def _triples() -> Iterator[list[Feature]]:
    """Yield the chunk times its variables `s`, then `u` pairs on: each three pairs once."""
    turns = [*((0, u) for u in range(8)), *((1, u) for u in range(2, 7)), (2, 4), (2, 5)]
    for s, u in turns:
        for crossed, swapped in itertools.product((False, True), repeat=2):
            if s > 0 or not swapped or (u > 0 and not crossed):  # else of one pair, seen before
                yield [(i, _partner(i, s, crossed), _partner(i, u, swapped)) for i in range(D)]


def query_pass(
    Q: np.ndarray, moments: np.ndarray, constants: np.ndarray, c: Sequence[float], parts: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return (numerator (n, columns - 1), normaliser by degree (n, degree + 1)).

    `constants` (columns,) is the moment of degree 0; the weights are the last column.
    """
    degree, columns = len(c) - 1, moments.shape[1] - 1
    names = {m: i for i, m in enumerate(monomials(degree))}
    rows = operand(Q, parts)
    acc = np.zeros((len(Q), columns + degree))
    for block in query_blocks(degree, parts):
        table = np.zeros((16, columns + degree))
        for i, order in enumerate(block):
            if order:
                moment = multinomial(order) * moments[names[tuple(sorted(order))]]
                table[i, :columns] = moment[:-1] * c[len(order)]
                table[i, columns + len(order) - 1] = moment[-1]
        built = [feature(rows, order or (0,)) for order in block]
        left = tuple(np.stack(column) for column in zip(*built, strict=True))
        for x, w in pairs(left, operand(float32(table), parts)):
            acc = step(acc, x[:, :, None] * w[:, None, :])
    zero = float32(constants[-1:])[0]
    by_degree = np.column_stack([np.full(len(Q), zero), acc[:, columns:]])
    return float32(acc[:, :columns] + float32(constants[:-1] * c[0])), by_degree


def multinomial(order: Feature) -> int:
    """Return how many products of variables in some order are this monomial."""
    found = math.factorial(len(order))
    for variable in set(order):
        found //= math.factorial(order.count(variable))
    return found


def passes(
    Q: np.ndarray, K: np.ndarray, W: np.ndarray, c: Sequence[float], parts: int, groups: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Return (numerator, normaliser by degree) of both passes, `groups` runs of keys."""
    moments = key_pass(K, W, len(c) - 1, parts, groups)
    return query_pass(Q, moments, _eights(W), c, parts)
