"""`subquad.engine.fused.rerun` on NumPy arrays, by the stand-in of the passes: float32 as there."""

from collections import namedtuple
from dataclasses import make_dataclass
from types import ModuleType, SimpleNamespace

import numpy as np

from tests.engine.fused import stand_in

Units = namedtuple("Units", "query key tilt")
Found = make_dataclass("Found", ["key_norms", "classes", "offsets", "ratios"])
LATE = 1.0 + 2.0**-6
"""By how much the squared norm of a query may be reported too large."""


def prepared(x, side):
    """Return (x * in_scale - centre) * out_scale, each step in float32."""
    in_scale, centre, out_scale = (np.asarray(part, np.float32) for part in side)
    return (x * in_scale - centre) * out_scale


def value_units(V):
    """Return in_scale, mid in two parts, 1 / radius, radius and the columns' ends, float32."""
    low, high = (end(V, axis=0).astype(np.float64) for end in (np.min, np.max))
    in_scale = np.ldexp(1.0, -np.frexp(np.maximum(abs(low), abs(high)))[1])
    mid = (low * in_scale + high * in_scale) / 2.0
    radius = np.maximum(high * in_scale - mid, mid - low * in_scale)
    inverse = np.where(radius > 0.0, 1.0, 0.0) / np.where(radius > 0.0, radius, 1.0)
    single = [np.float32(x) for x in (in_scale, mid, mid - np.float32(mid), inverse, radius)]
    return (*single, low, high)


class FusedHeads:
    """`fused.rerun.FusedHeads`; the Units of each start go to `calls`."""

    calls: list = []

    def __init__(self, shape, units, coefficients, operands, limits):
        self.shape, self.units, self.operands = shape, units, operands
        self.coefficients, self.limits = coefficients, limits

    def start(self, Q, K, V, out, first):
        """Fill these heads of `out` (..., n, d_v) and return what returns the Report and norms."""
        type(self).calls.append(self.units)
        own = slice(first, first + len(self.units))
        rows = [x.reshape(-1, *x.shape[-2:])[own] for x in (Q, K, V, out)]
        found = [
            one(*of_head[:3], u.query, u.key, u.tilt, c, self.operands, of_head[3], own)
            for *of_head, u, c, own in zip(
                *rows, self.units, self.coefficients, self.limits, strict=True
            )
        ]
        *parts, query_norms = map(np.array, zip(*found, strict=True))
        return SimpleNamespace(keys=lambda: Found(*parts), queries=lambda: query_norms)


def one(Q, K, V, query, key, tilt, c, operands, out, limits):
    """Fill `out` (n, d_v) of one head; return what `Found` has of it, and its query norm."""
    with np.errstate(invalid="ignore", over="ignore"):
        k, q = prepared(K, key), prepared(Q, query)
        in_scale, mid, mid_rest, inverse, radius, low, high = value_units(V)
        weights = np.ones(len(K), np.float32)
        if tilt is not None:
            logits = (K.astype(np.float64) * key[0] - key[1]) @ tilt
            shift = np.ceil(logits.max() / np.log(2.0))
            weights = np.float32(np.exp(logits - shift * np.log(2.0)))
        v = np.clip(((V * in_scale - mid) - mid_rest) * inverse, -1.0, 1.0) * weights[:, None]
        W = np.hstack([v, weights[:, None]]).astype(np.float32)
        moments, _ = stand_in.accumulate(k, W, len(c) - 1, operands)
        state = SimpleNamespace(dtype=operands, degree=len(c) - 1, d=K.shape[1], moments=moments)
        numerator, by_degree = stand_in.contract(q, state, c)
        x = np.float32(numerator) / np.float32(by_degree @ c)[:, None]
        y = ((x * radius + mid_rest) + mid) / in_scale
        out[...] = np.where(y < low, low, np.where(y > high, high, y))
        squares = [np.square(x.astype(np.float64)).sum(axis=1).max() for x in (q, k)]
        mean = np.linalg.norm(moments[1][:, -1] / moments[0][0, -1])
        key_norm = float(np.sqrt(squares[1] * (1.0 + 2.0**-14)))
        found = classed(key_norm, mean, low.astype(np.float64), high.astype(np.float64), limits)
    return (key_norm, *found, float(np.sqrt(squares[0] * LATE)))


def classed(key_norm, mean, low, high, limits):
    """Return (in range, steps, powers), offset and ratio, as the report of the device has them."""
    slack, longest, steps, powers, far = limits
    with np.errstate(all="ignore"):
        size, width = np.maximum(abs(low), abs(high)), high - low
        near = (size == 0.0) | ((1.0 / far <= size) & (size <= far))
        ratios = np.where(width > 0.0, (size + 2.0**-126) / np.where(width > 0.0, width, 1.0), 0.0)
        ratio = max(1.0, 2.0 * ratios.max() * (1.0 + 2.0**-44))
        offset = mean / key_norm * (1.0 + 2.0**-43) + slack
        offset = offset if key_norm > 0.0 and offset < 1.0 else 1.0
        found = np.ceil(offset * steps), np.ceil(np.log2(ratio * (1.0 + 2.0**-44)) * powers)
    in_range = bool(near.all() and key_norm <= longest)
    return ((1.0, *found) if in_range else (0.0, 0.0, 0.0)), offset, ratio


def install(monkeypatch):
    """Let plans of NumPy arrays run again without measuring; return the Units of each call."""
    from subquad.planning.rerun import replay

    stand_in.install(monkeypatch)
    monkeypatch.setattr("subquad.planning.plan.replay", replay)
    calls, module = [], ModuleType("subquad.engine.fused.rerun")

    def replayable(*arrays):
        return all(x.dtype == np.float32 and x.flags.c_contiguous for x in arrays)

    module.replayable, module.Units, module.device = replayable, Units, lambda: 0
    module.available = lambda: True
    module.fill = np.copyto
    module.empty = lambda shape, dtype: np.full(shape, np.nan, dtype)
    module.FusedHeads = type("Heads", (FusedHeads,), {"calls": calls})
    monkeypatch.setitem(__import__("sys").modules, "subquad.engine.fused.rerun", module)
    monkeypatch.setattr("subquad.engine.fused.rerun", module, raising=False)
    return calls
