"""Exact attention by another way, sharing no code with the package: extended precision, no blocks.

`attention` works in 80-bit (or wider) floats on the raw input, keys taken relative to one of them,
so that a large common offset costs no digits; `attention_mp` works in mpmath at 60 digits and is
what `attention` is tested against. Errors are in units of value_radius, half the range of a column.
"""

import mpmath
import numpy as np

WIDE = np.longdouble
assert np.finfo(WIDE).nmant >= 63, "the oracle needs a long double wider than float64"


def units(V):
    """Return (mid-range, radius) of the columns of V (m, d_v), extended precision."""
    low, high = V.min(axis=0).astype(WIDE), V.max(axis=0).astype(WIDE)
    return (low + high) / 2, (high - low) / 2


def attention(Q, K, V, scale):
    """Return (output - mid) / radius, (n, d_v), extended; 0 in constant columns. One head."""
    mid, radius = units(V)
    values = (V.astype(WIDE) - mid) / np.where(radius > 0, radius, 1)
    # Powers of two keep the products in range; they are exact.
    keys = K.astype(WIDE) - K[len(K) // 2].astype(WIDE)
    logits = (Q.astype(WIDE) * WIDE(scale)) @ keys.T
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (weights @ values) / weights.sum(axis=1, keepdims=True)


def attention_mp(Q, K, V, scale, digits=60):
    """Return the same as nested lists of mpf; for a handful of rows."""
    with mpmath.workdps(digits):
        q, k, v = ([[mpmath.mpf(float(x)) for x in row] for row in a] for a in (Q, K, V))
        s, columns = mpmath.mpf(float(scale)), range(len(v[0]))
        low = [min(row[c] for row in v) for c in columns]
        high = [max(row[c] for row in v) for c in columns]
        mid = [(a + b) / 2 for a, b in zip(low, high, strict=True)]
        radius = [(b - a) / 2 for a, b in zip(low, high, strict=True)]
        out = []
        for row in q:
            logits = [s * mpmath.fdot(row, key) for key in k]
            top = max(logits)
            w = [mpmath.exp(x - top) for x in logits]
            z = mpmath.fsum(w)
            out.append(
                [
                    mpmath.fdot(w, [x[c] - mid[c] for x in v]) / z / radius[c]
                    if radius[c]
                    else z * 0
                    for c in columns
                ]
            )
        return out


def in_units(output, V):
    """Return (output - mid) / radius, extended; a constant column must come back exactly."""
    mid, radius = units(V)
    away = output.astype(WIDE) - mid
    if not np.all(away[:, radius == 0] == 0):
        return np.full(output.shape, np.inf, dtype=WIDE)
    return away / np.where(radius > 0, radius, 1)


def row_errors(output, Q, K, V, scale, rows=slice(None)):
    """Return the measured error of each row, (n,): the largest over columns, one head.

    Of the given rows of Q alone, where all would take long.
    """
    error = np.abs(in_units(output[rows], V) - attention(Q[rows], K, V, scale)).max(axis=1)
    return np.where(np.isnan(error), np.inf, error)


def some_rows(sizes, every, largest=64):
    """Return the indices of every so many-th row and of those largest in size, ascending."""
    sizes = np.asarray(sizes)
    return np.union1d(np.arange(0, sizes.size, every), np.argsort(-sizes)[:largest])


def heads(Q, K, V, key_mask=None):
    """Yield (index, Q, K, V) of each head after NumPy's broadcasting, masked keys dropped."""
    leads = [x.shape[:-2] for x in (Q, K, V)]
    if key_mask is not None:
        leads.append(key_mask.shape[:-1])
    lead = np.broadcast_shapes(*leads)
    q, k, v = (np.broadcast_to(x, lead + x.shape[-2:]) for x in (Q, K, V))
    kept = None if key_mask is None else np.broadcast_to(key_mask, lead + key_mask.shape[-1:])
    for index in np.ndindex(*lead):
        if kept is None:
            yield index, q[index], k[index], v[index]
        else:
            yield index, q[index], k[index][kept[index]], v[index][kept[index]]
