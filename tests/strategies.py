"""Problems to attend to: a Recipe is drawn, small and readable; the arrays follow from its seed.

Recipes break symmetries on purpose (n != m, d_v != d, Q unlike K) and reach the corners: one query,
one key, one column, duplicated and all-zero rows, one huge row, offsets, denormals, 1e30.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

ROWS = (
    "normal",
    "sphere",
    "aligned",
    "outliers",
    "one_huge",
    "duplicated",
    "constant_column",
    "student",
    "zero",
    "equal",
)
VALUES = ("normal", "signs", "one_spike", "constant", "constant_column")
LEADS = (((), (), ()),) * 5 + (
    ((2,), (2,), (2,)),
    ((2, 1), (1, 3), (3,)),
    ((), (2,), ()),
    ((2,), (), (1,)),
)
ALL_LEADS = tuple(range(len(LEADS)))
LAYOUTS = ("C", "F", "strided", "reversed", "read-only", "broadcast")
DTYPES = ("float16", "float32", "float64")
# Powers of ten by which Q, K and V are multiplied; scale makes up for those of Q and K.
POWERS = {
    "float16": (0, 0, 0, -2, 1, -5),
    "float32": (0, 0, 0, -30, 6, 30, -41),
    "float64": (0, 0, 0, -30, 6, 30, -150, -312),
}
ROUNDOFF = {"float16": 2.0**-11, "float32": 2.0**-24, "float64": 2.0**-53}


class Data(NamedTuple):
    """What `attention` is called with; scale None means the default."""

    Q: np.ndarray
    K: np.ndarray
    V: np.ndarray
    scale: float | None
    key_mask: np.ndarray | None
    tol: float

    @property
    def true_scale(self):
        return 1.0 / np.sqrt(self.Q.shape[-1]) if self.scale is None else self.scale


@dataclass(frozen=True)
class Recipe:
    seed: int
    n: int
    m: int
    d: int
    d_v: int
    lead: int
    dtype: str
    q_rows: str
    k_rows: str
    values: str
    q_offset: float
    k_offset: float
    v_offset: float
    q_power: int
    k_power: int
    v_power: int
    logit: float
    default_scale: bool
    mask: bool
    layout: str
    strictness: float

    def build(self) -> Data:
        rng = np.random.default_rng(self.seed)
        leads, d = LEADS[self.lead], self.d
        axis = rng.standard_normal(d)
        Q = _rows(rng, (*leads[0], self.n, d), self.q_rows, axis) + self.q_offset * _signs(rng, d)
        K = _rows(rng, (*leads[1], self.m, d), self.k_rows, axis) + self.k_offset * _signs(rng, d)
        V = _values(rng, (*leads[2], self.m, self.d_v), self.values)
        V = V + self.v_offset * _signs(rng, self.d_v)
        reach = (
            np.linalg.norm(Q, axis=-1).max()
            * np.linalg.norm(K - K.mean(axis=-2, keepdims=True), axis=-1).max()
        )
        scale = self.logit / max(reach, 1e-3)
        if self.default_scale:
            Q, scale = Q * (scale * np.sqrt(d)), None
            Q, K = _cast(Q, 0, self.dtype), _cast(K, 0, self.dtype)
        else:
            Q, K = _cast(Q, self.q_power, self.dtype), _cast(K, self.k_power, self.dtype)
            back = np.clip(-self.q_power - self.k_power, -290, 290)  # or the logits are tiny
            scale = float(np.clip(scale * 10.0**back, 1e-300, 1e300))
        V = _cast(V, self.v_power, self.dtype)
        mask = None
        if self.mask:
            mask = rng.random((*leads[1], self.m)) < 0.7
            mask[..., rng.integers(self.m)] = True
        Q, K, V = (_laid_out(x, self.layout) for x in (Q, K, V))
        return Data(Q, K, V, scale, mask, self._tol(V))

    def _tol(self, V) -> float:
        """Log-uniform from what storing the output costs (or 1e-9, if more) to 2."""
        size = np.abs(V).max(axis=-2).astype(float) + float(np.finfo(V.dtype).smallest_normal)
        radius = (V.max(axis=-2).astype(float) - V.min(axis=-2).astype(float)) / 2
        ratio = np.max(np.where(radius > 0, size / np.where(radius > 0, radius, 1), 0))
        low = min(max(1e-9, 20 * ROUNDOFF[self.dtype] * ratio), 1.0)
        if self.strictness > 0.97:
            low = 1e-9
        return float(2.0 * (low / 2.0) ** self.strictness)


def _signs(rng, size):
    return rng.choice([-1.0, 1.0, 0.5], size)


def _rows(rng, shape, family, axis):
    x = rng.standard_normal(shape)
    n = shape[-2]
    if family == "sphere":
        x /= np.linalg.norm(x, axis=-1, keepdims=True) + 1e-9
    elif family == "aligned":
        x = axis * rng.choice([-1.0, 1.0], (*shape[:-1], 1)) + 1e-4 * x
    elif family == "outliers":
        x[..., rng.random(n) < 0.1, :] *= 20.0
    elif family == "one_huge":
        x[..., rng.integers(n), :] *= 300.0
    elif family == "duplicated":
        x = x[..., rng.integers(0, max(1, n // 8), n), :]
    elif family == "constant_column":
        x[..., rng.integers(shape[-1])] = 0.75
    elif family == "student":
        x = rng.standard_t(2.5, shape)
    elif family == "zero":
        x *= 0.0
    elif family == "equal":
        x[...] = axis
    return x


def _values(rng, shape, family):
    v = rng.standard_normal(shape)
    if family == "signs":
        v = np.sign(v)
    elif family == "one_spike":
        v *= 1e-3
        v[..., rng.integers(shape[-2]), :] = 1.0
    elif family == "constant":
        v[...] = 1.0 / 3.0
    elif family == "constant_column":
        v[..., rng.integers(shape[-1])] = -1.0 / 3.0
    return v


def _cast(x, power, dtype):
    limit = float(np.finfo(dtype).max) / 4
    # Twice, as 10**-312 is denormal and would lose digits that are wanted.
    y = x * 10.0 ** (power // 2) * 10.0 ** (power - power // 2)
    with np.errstate(under="ignore"):
        return np.clip(y, -limit, limit).astype(dtype)


def _laid_out(x, layout):
    if layout == "F":
        return np.asfortranarray(x)
    if layout == "strided":
        wide = np.full((*x.shape[:-1], 2 * x.shape[-1]), np.nan, x.dtype)
        wide[..., ::2] = x
        return wide[..., ::2]
    if layout == "reversed":
        return np.ascontiguousarray(x[..., ::-1, :])[..., ::-1, :]
    if layout == "read-only":
        x = x.copy()
        x.flags.writeable = False
        return x
    if layout == "broadcast" and x.ndim == 2:
        return np.broadcast_to(x, (1, *x.shape))
    return x


def _size(largest):
    return st.one_of(st.integers(1, 12), st.integers(1, largest), st.just(1))


def _offset():
    return st.sampled_from((0.0, 0.0, 0.0, 1.0, 1e3))


@st.composite
def recipes(draw, dtypes=DTYPES, leads=ALL_LEADS) -> Recipe:
    """Draw a Recipe; every field shrinks towards the plainest problem."""
    dtype = draw(st.sampled_from(dtypes))
    power = st.sampled_from(POWERS[dtype])
    return Recipe(
        seed=draw(st.integers(0, 2**32 - 1)),
        n=draw(_size(90)),
        m=draw(st.one_of(_size(90), st.sampled_from((600, 1100)))),
        d=draw(st.sampled_from((3, 1, 2, 5, 8, 16))),
        d_v=draw(st.sampled_from((2, 1, 4, 9))),
        lead=draw(st.sampled_from(leads)),
        dtype=dtype,
        q_rows=draw(st.sampled_from(ROWS)),
        k_rows=draw(st.sampled_from(ROWS)),
        values=draw(st.sampled_from(VALUES)),
        q_offset=draw(_offset()),
        k_offset=draw(_offset()),
        v_offset=draw(_offset()),
        q_power=draw(power),
        k_power=draw(power),
        v_power=draw(power),
        logit=10.0 ** draw(st.floats(-4.0, 1.5)),
        default_scale=draw(st.booleans()),
        mask=draw(st.sampled_from((False, False, True))),
        layout=draw(st.sampled_from(LAYOUTS)),
        strictness=draw(st.floats(0.0, 1.0)),
    )
