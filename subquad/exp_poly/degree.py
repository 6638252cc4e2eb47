"""The least degree that reaches a relative error of exp, with both halves of the proof."""

from dataclasses import dataclass
from functools import lru_cache

from subquad.exp_poly.arguments import MAX_DEGREE, MAX_LOGIT_BOUND, checked_eps, checked_logit_bound
from subquad.exp_poly.minimax import minimax_error
from subquad.exp_poly.reference import estimate_error

MARGIN = 1.0 + 2.0**-8
"""What the estimate of a minimax error may be short of by; a proof follows in any case."""


@dataclass(frozen=True)
class DegreeProof:
    """A degree that reaches `eps` on [-logit_bound, logit_bound], and why no lower one does.

    Parameters
    ----------
    degree : int
        g, the least degree.
    logit_bound, eps : float
        What was asked.
    lower : float
        Proved: every polynomial of degree g - 1 has a relative error >= lower somewhere on the
        interval (de la Vallee Poussin). 1.0 for g = 0, the error of the zero polynomial.
    upper : float
        Proved: the minimax polynomial of degree g, unscaled, has a relative error <= upper, and
        upper <= eps.
    """

    degree: int
    logit_bound: float
    eps: float
    lower: float
    upper: float

    @property
    def minimal(self) -> bool:
        """Whether the degree below is proved too low: lower > eps.

        False only if eps is within about 1e-13, relatively, of the best error of that degree.
        """
        return self.lower > self.eps


def minimal_degree(logit_bound: float, eps: float) -> DegreeProof:
    """Return the least degree whose best polynomial is within `eps` of exp, and the proof.

    Parameters
    ----------
    logit_bound : float
        B, in [0, 64]; the interval is [-B, B]. At 0 the constant 1 is exact: degree 0, upper 0.
    eps : float
        0 < eps < 1.

    Returns
    -------
    DegreeProof
        Two-sided over the whole range of B.

    Raises
    ------
    TypeError
        If an argument is no real number.
    ValueError
        If an argument is out of range, or no degree up to 256 reaches eps.

    Notes
    -----
    The search goes by an estimate; both bounds are then proved, the upper by ball arithmetic on the
    exact polynomial, the lower by points at which no polynomial of that degree can do better. Costs
    1 to 20 ms for B <= 16 and eps >= 1e-12, about a second at most: at B = 64, where eps is within
    0.01 of 1 or asks for 250 degrees.
    """
    return _minimal_degree(checked_logit_bound(logit_bound), checked_eps(eps))


@lru_cache(maxsize=4096)
def _minimal_degree(B: float, eps: float) -> DegreeProof:
    degree = _least_degree(B, eps)
    if degree is None:
        best = minimax_error(MAX_DEGREE, B)[0]
        msg = (
            f"`eps` is {eps!r}: on +-{B!r} no degree up to {MAX_DEGREE} reaches it ({MAX_DEGREE} "
            f"has {best:.3g}). Raise `eps` or lower `logit_bound`."
        )
        raise ValueError(msg)
    lower = minimax_error(degree - 1, B)[0] if degree > 0 else 1.0
    return DegreeProof(degree, B, eps, lower=lower, upper=minimax_error(degree, B)[1])


def _least_degree(B: float, eps: float) -> int | None:
    """Return the least degree proved to reach eps; None if none up to the highest does.

    The estimate is nearly always right. Where the best error is near 1 it is up to 28 degrees too
    low: the search goes up by doubling, then halves.
    """
    low = high = estimated_degree(B, eps)
    step = 1
    while not _reaches(high, B, eps):
        if high == MAX_DEGREE:
            return None
        low, high, step = high, min(high + step, MAX_DEGREE), 2 * step
    while low == high and high > 0 and _reaches(high - 1, B, eps):
        low = high = high - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _reaches(middle, B, eps) else (middle, high)
    return high


def _reaches(degree: int, B: float, eps: float) -> bool:
    """Whether the best polynomial of that degree is proved to be within eps."""
    return minimax_error(degree, B)[1] <= eps


@lru_cache(maxsize=4096)
def estimated_degree(logit_bound: float, eps: float) -> int:
    """Return the least degree whose estimated minimax error is at most eps (not proved).

    MAX_DEGREE, which may not do, where no lower one does. The estimate falls with the degree.
    """
    low, high = 0, 1
    while high < MAX_DEGREE and not estimate_error(high, logit_bound) <= eps:
        low, high = high, 2 * high
    while low < high:
        middle = (low + high) // 2
        if estimate_error(middle, logit_bound) <= eps:
            high = middle
        else:
            low = middle + 1
    return high


@lru_cache(maxsize=4096)
def reachable_logit_bound(degree: int, eps: float, least: float) -> float:
    """Return about the largest B whose minimax error, estimated with a margin, is at most eps.

    At least `least`, which may not do. The error grows like B**(degree + 1), nearly: each step
    corrects log B by that slope.
    """
    eps /= MARGIN
    b = min(1.0, eps) if degree == 0 else 0.5 * (degree + 1) * eps ** (1.0 / (degree + 1))
    for _ in range(6):
        b = min(max(b, least), MAX_LOGIT_BOUND)
        error = estimate_error(degree, b)
        b *= (eps / error) ** (1.0 / (degree + 1)) if error > 0.0 else 2.0
    b = min(max(b, least), MAX_LOGIT_BOUND) * (1.0 - 2.0**-20)
    while b > least and not estimate_error(degree, b) <= eps:
        b *= 0.99
    return b
