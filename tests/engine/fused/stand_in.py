"""The fused passes on NumPy arrays, for tests of all that leads to them: rounded as they round.

Features are written out; operands are of 8 bits, or two of them with three products for one; sums
are float32's. Slow and simple: a few hundred rows. `install` puts it where the passes are.
"""

from itertools import combinations_with_replacement

import numpy as np

from subquad.engine import passes
from subquad.engine.fused.sizes import DEGREES, OPERANDS, fusable


def rounded(x):
    """Return x to 8 significant bits, ties to even, in float64."""
    mantissa, exponent = np.frexp(np.asarray(x, np.float64))
    return np.ldexp(np.rint(mantissa * 256.0), exponent - 8)


def split(x, operands):
    """Return x as (high, low), low 0 where there is one operand."""
    high = rounded(x)
    return high, rounded(x - high) if operands == "bfloat16x3" else 0.0 * high


def times(x, s, operands):
    """Return the product of two split numbers, split."""
    high = rounded(x[0] * s[0])
    if operands == "bfloat16":
        return high, 0.0 * high
    return high, rounded(x[0] * s[1] + rounded(x[1] * s[0] + x[0] * s[0] - high))


def powers(rows, degree, operands):
    """Return the monomials of degrees 1 to `degree`, each (n, r_k) split, in graded order."""
    x = split(rows, operands)
    found = []
    for k in range(1, degree + 1):
        names = np.array(list(combinations_with_replacement(range(rows.shape[1]), k)))
        of_degree = tuple(part[:, names[:, 0]] for part in x)
        for place in range(1, k):
            of_degree = times(tuple(p[:, names[:, place]] for p in x), of_degree, operands)
        found.append(of_degree)
    return found


def summed(left, right):
    """Return left^T right of split numbers: three products for one, added in float32."""
    (a, b), (c, d) = ([part.astype(np.float32) for part in x] for x in (left, right))
    return (a.T @ c + a.T @ d + b.T @ c).astype(np.float64)


def weights_of(d, k):
    """Return the multinomials of the monomials of degree k."""
    found = []
    for names in combinations_with_replacement(range(d), k):
        counts = [names.count(i) for i in set(names)]
        found.append(np.prod(range(1, k + 1)) / np.prod([np.prod(range(1, c + 1)) for c in counts]))
    return np.array(found)


def accumulate(K, W, degree, operands):
    """Return what `dispatch._fused_accumulate` does: moments by degree and norm moments."""
    assert operands in OPERANDS and fusable(K.shape[1], W.shape[1] - 1, degree)
    assert K.dtype == W.dtype == np.float32 and len(K) > 0
    wide, norms = W.astype(np.float64), np.linalg.norm(K.astype(np.float64), axis=1)
    parts = split(W, operands)
    moments = [wide.sum(axis=0)[None]]
    moments += [summed(x, parts) for x in powers(K, degree, operands)]
    return moments, (norms ** np.arange(degree + 1)[:, None]) @ wide[:, -1] * (1.0 + 2.0**-14)


def contract(Q, state, c):
    """Return what `dispatch._fused_contract` does: numerator and normaliser by degree."""
    assert Q.dtype == np.float32 and state.dtype in OPERANDS and state.degree in DEGREES
    whole = [np.repeat(state.moments[0].astype(np.float32), len(Q), axis=0)]
    for k, x in enumerate(powers(Q, len(c) - 1, state.dtype), start=1):
        table = state.moments[k] * weights_of(state.d, k)[:, None]
        table[:, :-1] *= c[k]
        of_query = tuple(part.T for part in x)
        whole.append(summed(of_query, split(table.astype(np.float32), state.dtype)))
    numerator = c[0] * whole[0][:, :-1] + sum(x[:, :-1] for x in whole[1:])
    by_degree = np.stack([x[:, -1] for x in whole], axis=1)
    return tuple(x.astype(np.float32).astype(np.float64) for x in (numerator, by_degree))


def install(monkeypatch):
    """Let NumPy arrays have the fused passes; return the names of the operands as they are used."""
    used = []

    def accumulate_used(K, W, degree, operands):
        used.append((operands, degree))
        return accumulate(K, W, degree, operands)

    for module in ("head.problem", "planning.rerun"):
        monkeypatch.setattr(f"subquad.{module}.fused_operands", lambda x: OPERANDS)
    monkeypatch.setattr(passes, "_fused_accumulate", accumulate_used)
    monkeypatch.setattr(passes, "_fused_contract", contract)
    # The way to run a plan again on the device alone: there is no device.
    monkeypatch.setattr("subquad.planning.plan.replay", lambda *arguments: None)
    return used
