"""The record of a polynomial near exp: exact coefficients, interval, proved relative error."""

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class ExpPolynomial:
    """A polynomial near exp on [-logit_bound, logit_bound], with its proved relative error.

    A relative error below 1 keeps every computed weight positive: p(x) >= (1 - upper) exp(x) > 0 on
    the interval, so that no normaliser can vanish or change its sign.

    Parameters
    ----------
    coefficients : tuple of Fraction, length degree + 1
        Exact, monomial basis, degree 0 first; dyadic, but for Taylor's, which are 1/k!.
    logit_bound : float
        B, the interval is [-B, B].
    lower, upper : float
        Proved: lower <= sup |p(x) exp(-x) - 1| on [-B, B] <= upper, for the exact coefficients;
        rounded outwards. What rounding the coefficients to floats costs belongs to the rounding of
        the sums.
    family : str
        "taylor", "chebyshev" or "minimax".
    """

    coefficients: tuple[Fraction, ...]
    logit_bound: float
    lower: float
    upper: float
    family: str

    @property
    def degree(self) -> int:
        """The degree: one less than the number of coefficients."""
        return len(self.coefficients) - 1

    def scaled(self) -> np.ndarray:
        """Return float64 coefficients of p / (1 - upper^2), shape (degree + 1,), degree 0 first.

        With it every weight w = exp(x) is within `upper` of the computed w~, relative to the
        computed one: |w / w~ - 1| <= upper. For p = w (1 + e) with |e| <= u one has w / w~ = (1 -
        u^2) / (1 + e), which runs from (1 - u^2)/(1 + u) = 1 - u to (1 - u^2)/(1 - u) = 1 + u; no
        other factor makes the largest |w / w~ - 1| as small. A common factor cancels in the
        softmax, so the scaling costs nothing; it makes the sum of the computed weights, which the
        run knows, the unit of the error.

        Each coefficient is the float nearest the exact one (underflow included): a rounding of its
        own, not part of `upper`.

        Raises
        ------
        ValueError
            If `upper` >= 1: a weight may then be 0 or negative, and no factor helps.
        """
        if not self.upper < 1:
            msg = (
                f"`upper` is {self.upper!r}: it needs to be below 1 to divide by 1 - upper^2. "
                f"Raise the degree ({self.degree}) or lower the logit bound ({self.logit_bound!r})."
            )
            raise ValueError(msg)
        return self._scaled.copy()

    @cached_property
    def _scaled(self) -> np.ndarray:
        """The array of `scaled`: a search for thresholds asks for it a hundred times."""
        factor = 1 - Fraction(self.upper) ** 2
        return np.array([float(c / factor) for c in self.coefficients])
