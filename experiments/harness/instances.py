"""Families of (Q, K, V, scale) to measure on: synthetic ones by seed, and shipped real heads.

Every family in FAMILIES is called as ``family(n, d, seed=0, m=None, d_v=None, dtype=np.float64)``
with its own parameters by keyword, and returns Q (n, d), K (m, d), V (m, d_v) and the scale.
Q, K and V come from three independent streams, so that Q does not change with m, nor K with n; but
`planted` makes Q of the keys, and `outliers` draws which keys are large after the queries. V is
off centre, to break the symmetry that would hide a wrong sign, except in `reference`.
"""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

Instance = tuple[np.ndarray, np.ndarray, np.ndarray, float]
DATA = Path(__file__).parents[1] / "data"


def _streams(n: int, d: int, m: int | None, d_v: int | None, seed: int) -> tuple:
    """Return three generators and the shapes of Q, K, V; ValueError unless sizes are >= 1."""
    m, d_v = n if m is None else m, d if d_v is None else d_v
    for name, size in (("n", n), ("d", d), ("m", m), ("d_v", d_v)):
        if size < 1:
            msg = f"`{name}` is {size}; an instance needs at least 1"
            raise ValueError(msg)
    return (*np.random.default_rng(seed).spawn(3), (n, d), (m, d), (m, d_v))


def _values(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Return normal entries, each column about its own centre in [1/2, 3/2]."""
    return rng.standard_normal(shape) + rng.uniform(0.5, 1.5, shape[1])


def _cast(Q: np.ndarray, K: np.ndarray, V: np.ndarray, scale: float, dtype: DTypeLike) -> Instance:
    return Q.astype(dtype), K.astype(dtype), V.astype(dtype), scale


def reference(
    n: int,
    d: int,
    *,
    seed: int = 0,
    m: int | None = None,
    d_v: int | None = None,
    dtype: DTypeLike = np.float64,
) -> Instance:
    """Tiny logits, as in the published timing script: 0.1 N(0,1), V 0.05 N(0,1), scale 1/d."""
    q, k, v, *shapes = _streams(n, d, m, d_v, seed)
    Q, K, V = (g.standard_normal(s) for g, s in zip((q, k, v), shapes, strict=True))
    return _cast(0.1 * Q, 0.1 * K, 0.05 * V, 1 / d, dtype)


def subgaussian(
    n: int,
    d: int,
    *,
    sigma: float = 1.0,
    seed: int = 0,
    m: int | None = None,
    d_v: int | None = None,
    dtype: DTypeLike = np.float64,
) -> Instance:
    """Independent sigma N(0,1) entries, the hypothesis of the support-basis theorem."""
    q, k, v, q_shape, k_shape, v_shape = _streams(n, d, m, d_v, seed)
    Q, K = q.standard_normal(q_shape), k.standard_normal(k_shape)
    return _cast(sigma * Q, sigma * K, _values(v, v_shape), 1 / math.sqrt(d), dtype)


def heavy_tail(
    n: int,
    d: int,
    *,
    dof: float = 3.0,
    factor: float = 0.3,
    seed: int = 0,
    m: int | None = None,
    d_v: int | None = None,
    dtype: DTypeLike = np.float64,
) -> Instance:
    """Independent Student t entries with `dof` degrees of freedom, times `factor`."""
    q, k, v, q_shape, k_shape, v_shape = _streams(n, d, m, d_v, seed)
    Q, K = q.standard_t(dof, q_shape), k.standard_t(dof, k_shape)
    return _cast(factor * Q, factor * K, _values(v, v_shape), 1 / math.sqrt(d), dtype)


def _rows_in_ball(rng: np.random.Generator, shape: tuple[int, int], radius: float) -> np.ndarray:
    """Return rows in random directions, norms uniform in [1/2, 1] radius, one of them at 1."""
    rows = rng.standard_normal(shape)
    norms = rng.uniform(0.5, 1.0, shape[0])
    norms[np.argmax(norms)] = 1.0
    return rows * (radius * norms / np.linalg.norm(rows, axis=1))[:, np.newaxis]


def bounded(
    n: int,
    d: int,
    *,
    beta: float = 1.0,
    seed: int = 0,
    m: int | None = None,
    d_v: int | None = None,
    dtype: DTypeLike = np.float64,
) -> Instance:
    """Random directions with max|q| max|k| scale = beta, from below: the polynomial method's case.

    The product falls short of beta by a few roundings of `dtype`, so that it never exceeds it.
    """
    if not beta > 0:
        msg = f"`beta` is {beta}; a logit bound above 0 is needed"
        raise ValueError(msg)
    q, k, v, q_shape, k_shape, v_shape = _streams(n, d, m, d_v, seed)
    margin = 4 * float(np.finfo(dtype).eps) + d * float(np.finfo(np.float64).eps)
    scale = 1 / math.sqrt(d)
    radius = math.sqrt(beta / scale) * (1 - margin)
    Q, K = _rows_in_ball(q, q_shape, radius), _rows_in_ball(k, k_shape, radius)
    return _cast(Q, K, _values(v, v_shape), scale, dtype)


def outliers(
    n: int,
    d: int,
    *,
    beta: float = 1.0,
    fraction: float = 0.001,
    factor: float = 20.0,
    seed: int = 0,
    m: int | None = None,
    d_v: int | None = None,
    dtype: DTypeLike = np.float64,
) -> Instance:
    """`bounded(beta)`, but a fraction of rows and keys (at least one) is `factor` times larger."""
    if not 5 <= factor <= 50:
        msg = f"`factor` is {factor}; outliers are 5 to 50 times larger than the rest"
        raise ValueError(msg)
    if not 0 < fraction < 1:
        msg = f"`fraction` is {fraction}; a share of the rows in (0, 1) is needed"
        raise ValueError(msg)
    Q, K, V, scale = bounded(n, d, beta=beta, seed=seed, m=m, d_v=d_v)
    chooser = np.random.default_rng([seed, 1])
    for rows in (Q, K):
        count = max(1, round(fraction * len(rows)))
        rows[chooser.choice(len(rows), count, replace=False)] *= factor
    return _cast(Q, K, V, scale, dtype)


def planted(
    n: int,
    d: int,
    *,
    strength: float | None = None,
    seed: int = 0,
    m: int | None = None,
    d_v: int | None = None,
    dtype: DTypeLike = np.float64,
) -> Instance:
    """One key per query in its direction with logit `strength`, the rest random: mean(V) fails.

    The default 2 ln(m) + 1 gives the matching key most of the weight once d is well above
    2 ln(m); a permutation of the keys is planted where n <= m, else keys are drawn again.
    """
    q, k, v, q_shape, k_shape, v_shape = _streams(n, d, m, d_v, seed)
    K = k.standard_normal(k_shape)
    match = q.permutation(len(K))[:n] if n <= len(K) else q.integers(len(K), size=n)
    scale = 1 / math.sqrt(d)
    wanted = 2 * math.log(len(K)) + 1 if strength is None else strength
    squares = np.sum(K**2, axis=1, keepdims=True)
    Q = (wanted / scale) * (K / squares)[match]
    return _cast(Q.reshape(q_shape), K, _values(v, v_shape), scale, dtype)


FAMILIES: dict[str, Callable[..., Instance]] = {
    family.__name__: family
    for family in (reference, subgaussian, bounded, outliers, heavy_tail, planted)
}


def meaning(name: str) -> str:
    """Return the one line that says what the family is."""
    return (FAMILIES[name].__doc__ or "").partition("\n")[0]


def real_names() -> tuple[str, ...]:
    """Return the names of the shipped heads of a real encoder, by layer."""
    return tuple(sorted(path.stem for path in DATA.glob("*.npz")))


def real(name: str) -> Instance:
    """Return a shipped head in float32, 512 tokens, d = 32, scale 1/sqrt(d).

    ValueError for a name that is not in `real_names()`. Source: experiments/data/README.md.
    """
    if name not in real_names():
        msg = f"`name` is {name!r}; shipped heads: {', '.join(real_names())}"
        raise ValueError(msg)
    with np.load(DATA / f"{name}.npz") as head:
        Q, K, V = (head[part].astype(np.float32) for part in "QKV")
    return Q, K, V, 1 / math.sqrt(Q.shape[1])
