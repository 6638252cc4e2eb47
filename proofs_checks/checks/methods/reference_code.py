"""The regime of the published support-basis code: masks, interval, triviality, dead settings.

Everything here is a model of the code's path in our own words, in the numbers that were read there:
n = 4096, d = 64, Q and K 0.1 times standard normal, logits divided by d, degree 2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import partial

import numpy as np

from proofs_checks.checks.empirical.statistics import surely_below
from proofs_checks.claim import Claim, Finding, Twin, holds, refuted
from subquad.exp_poly import chebyshev_interpolant

REPOSITORY = "Aliakbarpour, Braverman, Yin and Zhang 2025, code at fa6c180, efficiency experiment"
LLADA = "Aliakbarpour, Braverman, Yin and Zhang 2025, code at fa6c180, modeling_llada.py"
D = 64


def _locked_interval(lowest: Fraction) -> Finding:
    """Return whether min(T^2, 1/100) is the same for all 29 thresholds from `lowest` to 1/2."""
    grid = [lowest + (Fraction(1, 2) - lowest) * k / 29 for k in range(1, 30)]
    found = {min(T * T, Fraction(1, 100)) for T in grid}
    if len(found) == 1:
        return holds(f"{len(grid)} thresholds up to 0.5: always {float(found.pop())}")
    return refuted(f"from {float(lowest)}: {len(found)} different intervals")


def _trivial(ones: float, first: float) -> Finding:
    """Return whether the all-ones and the 1 + S kernels are that close, relatively (Frobenius)."""
    rng, worst, draws, n = np.random.default_rng(8), [0.0, 0.0], 40, 512
    for _ in range(draws):
        Q, K = (rng.standard_normal((n, D)) * 0.1 for _ in range(2))
        S = Q @ K.T / D
        A = np.exp(S)
        norm = float(np.linalg.norm(A))
        errors = (float(np.linalg.norm(A - 1.0)), float(np.linalg.norm(A - 1.0 - S)))
        worst = [max(w, e / norm) for w, e in zip(worst, errors, strict=True)]
    shown = f"all ones {worst[0]:.3g}, 1 + S {worst[1]:.3g}, the worst of {draws} draws, n = {n}"
    if worst[0] > ones or worst[1] > first:
        return refuted(f"{shown}; {ones:g} and {first:g} were wanted")
    share = surely_below(draws, 0.99)
    return holds(f"{shown}; with confidence 0.99 so for at least {share:.2f} of the draws")


def _hybrid(read_settings: bool) -> Callable[[np.ndarray, Mapping[str, float]], np.ndarray]:
    """Return the model: extreme scores exact, the others by polynomial, then normalised."""

    def attention_weights(S: np.ndarray, settings: Mapping[str, float]) -> np.ndarray:
        share, degree = 0.2, 6  # locals of the function, whatever the settings say
        if read_settings:
            share = settings["hybrid_exact_ratio"]
            degree = int(settings["hybrid_chebyshev_degree"])
        low, high = np.quantile(S, [share / 2, 1 - share / 2])
        exact = (S <= low) | (S >= high)
        p = chebyshev_interpolant(degree, 4.0)
        near = np.polynomial.polynomial.polyval(
            np.clip(S, -4, 4), [float(c) for c in p.coefficients]
        )
        merged = np.where(exact, np.exp(S), near)
        return np.asarray(merged / merged.sum(axis=1, keepdims=True))

    return attention_weights


def _settings_matter(read_settings: bool) -> Finding:
    """Return whether some two of nine settings give different outputs."""
    S = np.random.default_rng(9).standard_normal((16, 16))
    model = _hybrid(read_settings)
    outputs = {
        (ratio, degree): model(S, {"hybrid_exact_ratio": ratio, "hybrid_chebyshev_degree": degree})
        for ratio in (0.1, 0.2, 0.5)
        for degree in (2, 4, 6)
    }
    apart = max(float(np.max(np.abs(a - outputs[0.2, 6]))) for a in outputs.values())
    shown = f"largest difference over {len(outputs)} settings {apart:.3g}"
    return holds(shown) if apart > 0.0 else refuted(f"{shown}: ratios .1, .2, .5, degrees 2, 4, 6")


LITERATURE: tuple[Claim, ...] = (
    Claim(
        id="sb-locked-interval",
        statement="With LOCK_TIGHT_POLY the polynomial's interval min(T^2, 0.01) is 0.01 at all 29 "
        "thresholds of the sweep over (0.15, 0.5]: the threshold never changes the polynomial.",
        source=REPOSITORY,
        provenance="read",
        evidence="exact",
        check=partial(_locked_interval, Fraction(15, 100)),
        twin=Twin("also if the sweep begins at 0.05", partial(_locked_interval, Fraction(5, 100))),
    ),
    Claim(
        id="sb-trivial-regime",
        statement="In the experiment's regime (drawn at n = 512) the all-ones kernel has relative "
        "error < 1.3e-3, 1 + S < 2e-6.",
        source=REPOSITORY,
        provenance="derived",
        evidence="statistical",
        check=partial(_trivial, 1.3e-3, 2e-6),
        twin=Twin("the all-ones kernel has < 1.2e-3", partial(_trivial, 1.2e-3, 2e-6)),
        depends=("clopper-pearson",),
    ),
    Claim(
        id="sb-dead-settings",
        statement="The settings hybrid_exact_ratio and hybrid_chebyshev_degree change the output. "
        "(In a model of the path: share 0.2 and degree 6 are locals, nothing reads the settings.)",
        source=LLADA,
        provenance="read",
        evidence="counterexample",
        check=partial(_settings_matter, False),
        twin=Twin("a path that reads them", partial(_settings_matter, True), "holds"),
        expected="refuted",
    ),
)
