"""Statistics of the entries of Q, K and V over all heads, and the verdict on the hypotheses."""

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from subquad.arrays.arguments import check_real, check_scale, check_seed, check_size
from subquad.empirical.inputs import host_arrays
from subquad.empirical.sample import Estimate, LargeRows, MatrixStatistics, matrix_statistics

_HYPOTHESES = {
    "gaussian_tail": "entries sub-Gaussian, each column's variance its parameter",
    "coordinates": "coordinates of a row independent",
    "rows": "successive rows independent",
}


@dataclass(frozen=True)
class Verdict:
    """Whether a hypothesis is rejected at the level `alpha`, where, and how surely.

    `p_value` is the smallest over Q and K of all heads, times their number (Bonferroni).
    """

    rejected: bool
    p_value: float
    reason: str


@dataclass(frozen=True, eq=False)
class EntryStatistics:
    """Statistics of Q, K and V of every head, in `matrices`; `of("K", head)` finds one.

    `entry_logit_bound` is scale d max|Q_il| max|K_jl|, `norm_logit_bound` scale max|q| max|k|,
    both the largest over heads, in float64 and not rounded outwards: figures, not certificates.
    """

    matrices: tuple[MatrixStatistics, ...]
    scale: float
    entry_logit_bound: float
    norm_logit_bound: float
    level: float
    alpha: float
    resamples: int
    seed: int

    def of(self, matrix: str, head: tuple[int, ...] = ()) -> MatrixStatistics:
        """Return the statistics of "Q", "K" or "V" of one head; KeyError when there is none."""
        for found in self.matrices:
            if (found.matrix, found.head) == (matrix, tuple(head)):
                return found
        msg = f"no matrix {matrix!r} of head {head}"
        raise KeyError(msg)

    def verdict(self, hypothesis: str) -> Verdict:
        """Return the verdict on "gaussian_tail", "coordinates" or "rows", over Q and K."""
        if hypothesis not in _HYPOTHESES:
            msg = f"`hypothesis` is {hypothesis!r}; one of {', '.join(_HYPOTHESES)} is needed"
            raise ValueError(msg)
        tried = [m for m in self.matrices if m.matrix in "QK"]
        worst = min(tried, key=lambda m: getattr(m, hypothesis).p_value)
        p_value = min(1.0, len(tried) * getattr(worst, hypothesis).p_value)
        rejected = p_value < self.alpha
        where = f"`{worst.matrix}`" + (f" of head {worst.head}" if worst.head else "")
        verb = f"rejected by {where}" if rejected else "not rejected"
        reason = f"{_HYPOTHESES[hypothesis]}: {verb}, p = {p_value:.2g} (level {self.alpha:g})"
        return Verdict(rejected, p_value, reason)

    @property
    def rejected(self) -> bool:
        """Whether the tails of Q or K are heavier than their variance says (`gaussian_tail`)."""
        return self.verdict("gaussian_tail").rejected

    @property
    def reason(self) -> str:
        """The sentence that goes with `rejected`, its p-value in it."""
        note = " (given independent rows, which are rejected)"
        caveat = note if self.verdict("rows").rejected else ""
        return self.verdict("gaussian_tail").reason + caveat

    def large_rows(self, threshold: float) -> tuple[LargeRows, ...]:
        """Return the rows above a threshold, counted and predicted, for Q and K of every head."""
        tried = (m for m in self.matrices if m.matrix in "QK")
        return tuple(m.large_rows(threshold, self.level) for m in tried)

    def to_json(self) -> str:
        """Return everything but `row_max` and units as JSON, with the verdicts.

        NaN becomes null, infinity (a number past the range of floats) the string "inf".
        """
        record: dict[str, Any] = dataclasses.asdict(self)
        for matrix in record["matrices"]:
            for name in ("row_max", "unit", "unit_square"):
                del matrix[name]
        verdicts = {name: dataclasses.asdict(self.verdict(name)) for name in _HYPOTHESES}
        record |= {"rejected": self.rejected, "reason": self.reason, "verdicts": verdicts}
        return json.dumps(_plain(record), allow_nan=False)

    def __str__(self) -> str:
        tried = [m for m in self.matrices if m.matrix in "QK"]
        head = min(tried, key=lambda m: (m.gaussian_tail.p_value, -m.psi_2.value)).head
        shown = [self.of(name, head) for name in "QKV"]
        heads = len(self.matrices) // 3
        title = f"Head {head} of {heads}, the farthest from Gaussian" if heads > 1 else "Entries"
        lines = [
            f"{title}; {self.level:.0%} intervals, {self.resamples} resamples of rows",
            " " * 16 + "".join(f"{f'{m.matrix} ({m.n}, {m.d})':>28}" for m in shown),
        ]
        for field in ("psi_2", "psi_2_centred", "variance", "proxy", "kurtosis"):
            cells = (f" {_show(getattr(m, field))}" for m in shown)
            lines.append(f"{field:16}" + "".join(f"{cell:>28}" for cell in cells))
        for field in _HYPOTHESES:
            cells = (f"p = {getattr(m, field).p_value:.2g}" for m in shown)
            lines.append(f"{field:16}" + "".join(f"{cell:>28}" for cell in cells))
        bounds = f"{self.entry_logit_bound:.3g} by entries, {self.norm_logit_bound:.3g} by norms"
        lines += [f"|logit| at most {bounds} (scale {self.scale:.3g})", self.reason]
        return "\n".join(lines + [self.verdict(name).reason for name in ("coordinates", "rows")])


def entry_statistics(
    Q: Any,
    K: Any,
    V: Any,
    /,
    scale: float | None = None,
    *,
    level: float = 0.95,
    alpha: float = 0.01,
    resamples: int = 400,
    seed: int = 0,
) -> EntryStatistics:
    """Return psi_2, variance proxy, kurtosis, tails and tests of Q, K and V, head by head.

    Parameters
    ----------
    Q, K, V : array, shape (..., n, d), (..., m, d), (..., m, d_v)
        Real floating point, any array library, each of its own dtype: all are copied to the host
        as float64. Leading dimensions broadcast.
    scale : float, default 1/sqrt(d)
        Of the logits, for the two logit bounds; positive.
    level : float
        Of the intervals, which are percentiles over resampled rows.
    alpha : float
        Level of the three verdicts, over all heads together.
    resamples : int
        For the intervals, at least 2.
    seed : int
        Not negative; of the resampling, and of the 20,000 rows looked at where there are more.

    Returns
    -------
    EntryStatistics
        `.of("K", head)` has the figures of one matrix, `.verdict(name)` whether a hypothesis is
        rejected; prints as a table.

    Raises
    ------
    TypeError, ValueError
        Not arrays of real floats, or shapes that do not fit, NaN or infinite entries, arguments
        out of range. The message has the argument, what was met and what is needed.

    Notes
    -----
    A sample cannot show that its law is sub-Gaussian, nor that it is not: `.rejected` is about
    the claim that the variance says how heavy the tails are (see `hypotheses.gaussian_tail`).
    For Gaussian entries psi_2 is the root of a mean of infinite variance, so its 95 % interval
    covers sigma sqrt(8/3) in 65 % of samples (measured, 150 samples, n = 512, d = 16; variance,
    proxy and kurtosis: 91 to 94 %). Intervals and p-values take rows to be independent: see the
    verdict on `rows`. Cost O(n d (d + 120) + resamples n) for a matrix; the three of n = 512,
    d = 32 take about 0.1 s.
    """
    whole = host_arrays(Q, K, V)
    *lead, _, d = whole["Q"].shape
    scale = check_scale(scale, d)
    for name, value in (("level", level), ("alpha", alpha)):
        if not 0 < check_real(name, value) < 1:
            msg = f"`{name}` is {value}; a number in (0, 1) is needed"
            raise ValueError(msg)
    resamples = check_size("resamples", resamples)
    if resamples < 2:
        msg = f"`resamples` is {resamples}; an interval needs at least 2"
        raise ValueError(msg)
    check_seed(seed)
    rng = np.random.default_rng(seed)
    found = tuple(
        matrix_statistics(x[head], name, head, level=level, resamples=resamples, rng=rng)
        for head in np.ndindex(*lead)
        for name, x in whole.items()
    )
    by_entries, by_norms = _logit_bounds(whole["Q"], whole["K"], scale)
    return EntryStatistics(found, scale, by_entries, by_norms, level, alpha, resamples, seed)


def _logit_bounds(Q: np.ndarray, K: np.ndarray, scale: float) -> tuple[float, float]:
    """Return the largest over heads of scale d max|Q_il| max|K_jl| and of scale max|q| max|k|."""
    (q, q_norm, i), (k, k_norm, j) = map(_sizes, (Q, K))
    with np.errstate(over="ignore"):  # past the range of floats: infinite
        entries = np.ldexp(Q.shape[-1] * (scale * (q * k)), i + j)
        norms = np.ldexp(scale * (q_norm * k_norm), i + j)
    return float(np.max(entries)), float(np.max(norms))


def _sizes(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (largest entries, largest norms of rows, e) of heads, both in units of 2**e."""
    largest, exponents = np.frexp(np.max(np.abs(x), axis=(-2, -1)))
    norms = np.linalg.norm(np.ldexp(x, -exponents[..., np.newaxis, np.newaxis]), axis=-1)
    return largest, np.max(norms, axis=-1), exponents


def _show(estimate: Estimate) -> str:
    return f"{estimate.value:.3g} [{estimate.low:.3g}, {estimate.high:.3g}]"


def _plain(x: Any) -> Any:
    """Return x with arrays as lists, NaN as None and infinity as a string, as JSON has it."""
    if isinstance(x, dict):
        return {key: _plain(value) for key, value in x.items()}
    if isinstance(x, list | tuple | np.ndarray):
        return [_plain(value) for value in x]
    if isinstance(x, np.generic):
        return _plain(x.item())
    if isinstance(x, float) and not math.isfinite(x):
        return None if math.isnan(x) else str(x)
    return x
