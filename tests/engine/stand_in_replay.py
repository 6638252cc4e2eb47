"""`subquad.engine.gpu_replay` on NumPy arrays, by the stand-in of the passes: float32 as there."""

from collections import namedtuple
from types import ModuleType, SimpleNamespace

import numpy as np

from tests.engine import stand_in

Units = namedtuple("Units", "query key tilt")
LATE = 1.0 + 2.0**-6
"""By how much the squared norm of a query may be reported too large."""


def prepared(x, side):
    """Return (x * pre - centre) * post, each step in float32."""
    pre, centre, post = (np.asarray(part, np.float32) for part in side)
    return (x * pre - centre) * post


def value_units(V):
    """Return pre, mid in two parts, 1 / radius, radius and the ends of the columns, float32."""
    low, high = (end(V, axis=0).astype(np.float64) for end in (np.min, np.max))
    pre = np.ldexp(1.0, -np.frexp(np.maximum(abs(low), abs(high)))[1])
    mid = (low * pre + high * pre) / 2.0
    radius = np.maximum(high * pre - mid, mid - low * pre)
    inverse = np.where(radius > 0.0, 1.0, 0.0) / np.where(radius > 0.0, radius, 1.0)
    single = [np.float32(x) for x in (pre, mid, mid - np.float32(mid), inverse, radius)]
    return (*single, low, high)


class Heads:
    """`gpu_replay.Heads`; the Units of each start go to `calls`."""

    calls: list = []

    def __init__(self, shape, units, coefficients, operands):
        self.shape, self.units, self.operands = shape, units, operands
        self.coefficients = coefficients

    def start(self, Q, K, V, out, first):
        """Fill these heads of `out` (..., n, d_v) and return what returns the Report and norms."""
        type(self).calls.append(self.units)
        own = slice(first, first + len(self.units))
        rows = [x.reshape(-1, *x.shape[-2:])[own] for x in (Q, K, V, out)]
        found = [
            one(*of_head[:3], u.query, u.key, u.tilt, c, self.operands, of_head[3])
            for *of_head, u, c in zip(*rows, self.units, self.coefficients, strict=True)
        ]
        names = "key_norms", "key_means", "low", "high", "query_norms"
        parts = {name: np.array(x) for name, x in zip(names, zip(*found, strict=True), strict=True)}
        query_norms = parts.pop("query_norms")
        return SimpleNamespace(keys=lambda: SimpleNamespace(**parts), queries=lambda: query_norms)


def one(Q, K, V, query, key, tilt, c, operands, out):
    """Fill `out` (n, d_v) of one head; return its key norm and mean, ranges and query norm."""
    with np.errstate(invalid="ignore", over="ignore"):
        k, q = prepared(K, key), prepared(Q, query)
        pre, mid, mid_rest, inverse, radius, low, high = value_units(V)
        weights = np.ones(len(K), np.float32)
        if tilt is not None:
            logits = (K.astype(np.float64) * key[0] - key[1]) @ tilt
            shift = np.ceil(logits.max() / np.log(2.0))
            weights = np.float32(np.exp(logits - shift * np.log(2.0)))
        v = np.clip(((V * pre - mid) - mid_rest) * inverse, -1.0, 1.0) * weights[:, None]
        W = np.hstack([v, weights[:, None]]).astype(np.float32)
        moments, _ = stand_in.accumulate(k, W, len(c) - 1, operands)
        state = SimpleNamespace(dtype=operands, degree=len(c) - 1, d=K.shape[1], moments=moments)
        numerator, by_degree = stand_in.contract(q, state, c)
        x = np.float32(numerator) / np.float32(by_degree @ c)[:, None]
        y = ((x * radius + mid_rest) + mid) / pre
        out[...] = np.where(y < low, low, np.where(y > high, high, y))
        squares = [np.square(x.astype(np.float64)).sum(axis=1).max() for x in (q, k)]
    return (
        float(np.sqrt(squares[1] * (1.0 + 2.0**-14))), moments[1][:, -1] / moments[0][0, -1],
        low, high, float(np.sqrt(squares[0] * LATE)),
    )  # fmt: skip


def install(monkeypatch):
    """Let plans of NumPy arrays run again without measuring; return the Units of each call."""
    from subquad.replay import replay

    stand_in.install(monkeypatch)
    monkeypatch.setattr("subquad.execution.replay", replay)
    calls, module = [], ModuleType("subquad.engine.gpu_replay")

    def replayable(*arrays):
        return all(x.dtype == np.float32 and x.flags.c_contiguous for x in arrays)

    module.replayable, module.Units, module.device = replayable, Units, lambda: 0
    module.on_device = np.copy
    module.output_for = lambda shape: np.full(shape, np.nan, np.float32)
    module.Heads = type("Heads", (Heads,), {"calls": calls})
    monkeypatch.setitem(__import__("sys").modules, "subquad.engine.gpu_replay", module)
    monkeypatch.setattr("subquad.engine.gpu_replay", module, raising=False)
    return calls
