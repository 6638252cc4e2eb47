"""Claims on the gradient of attention (Alman and Song 2024) and on its lower bound's function f.

L(X) = |f h - E|_F^2 / 2 with f = softmax(A1 X A2^T / tau) by rows; c = f h - E, q = c h^T and
r_j = <f_j, q_j>. Then dL/dX = A1^T (f o q - diag(r) f) A2 / tau.
"""

from __future__ import annotations

from fractions import Fraction
from functools import partial
from typing import Any

from proofs_checks.checks.gradient import bounds as bound_checks
from proofs_checks.checks.gradient import strip as strip_checks
from proofs_checks.claim import Claim, Finding, Twin, holds, refuted


def loss_and_softmax(A1: Any, A2: Any, h: Any, E: Any, X: Any, tau: Any) -> tuple[Any, Any]:
    """Return L and f as sympy expressions of the entries of X."""
    import sympy as sp

    weights = (A1 * X * A2.T / tau).applyfunc(sp.exp)
    f = sp.Matrix.vstack(*[weights[i, :] / sum(weights[i, :]) for i in range(weights.rows)])
    return sum(x**2 for x in f * h - E) / 2, f


def closed_form(A1: Any, A2: Any, h: Any, E: Any, f: Any, form: str = "right") -> Any:
    """Return tau dL/dX, or what "D.3" (q = h c^T), "D.5" (f diag(r) for diag(r) f) make of it."""
    import sympy as sp

    c = f * h - E
    q = h * c.T if form == "D.3" else c * h.T
    r = sp.diag(*[f[i, :].dot(q[i, :]) for i in range(f.rows)])
    second = f * r if form == "D.5" else r * f
    return A1.T * (sp.hadamard_product(f, q) - second) * A2


def gradient(with_tau: bool) -> Finding:
    """Return whether the closed form is dL/dX, in symbols for n = 2, d = 1 and at an X = 0."""
    import sympy as sp

    A1, A2, h, E = (sp.Matrix(sp.symbols(f"{name}:2")) for name in "abhe")
    x, tau = sp.symbols("x tau", positive=True)
    loss, f = loss_and_softmax(A1, A2, h, E, sp.Matrix([x]), tau)
    form = closed_form(A1, A2, h, E, f)[0] / (tau if with_tau else 1)
    difference = sp.diff(loss, x) - form
    # A rational function of the exponentials, which may as well be free.
    free = {e: sp.Symbol(f"w{i}") for i, e in enumerate(sorted(difference.atoms(sp.exp), key=str))}
    if sp.fraction(sp.together(difference.subs(free)))[0].expand() != 0:
        return refuted("n = 2, d = 1, in symbols: the two differ")
    A1, A2, h, E = _instance(3, 2)
    X = sp.Matrix(2, 2, sp.symbols("x:4"))
    loss, f = loss_and_softmax(A1, A2, h, E, X, 2)
    zero = dict.fromkeys(X, 0)
    true = [sp.diff(loss, entry).subs(zero) for entry in X]
    got = list(closed_form(A1, A2, h, E, f.subs(zero)) / 2)
    if true != got:
        return refuted(f"n = 3, d = 2, X = 0: {true}, closed form {got}")
    return holds(f"n = 2, d = 1 in symbols; n = 3, d = 2, X = 0: {true}")


def orientation(form: str) -> Finding:
    """Return whether `form` gives dL/dX on an instance with n = 3, d = 1, X = 0, tau = 1."""
    import sympy as sp

    columns = ((-3, -1, 1), (-3, 1, -3), (3, 0, 1), (2, 3, 0))
    A1, A2, h, E = (sp.Matrix(column) for column in columns)
    x = sp.Symbol("x")
    loss, f = loss_and_softmax(A1, A2, h, E, sp.Matrix([x]), 1)
    true = sp.diff(loss, x).subs(x, 0)
    got = closed_form(A1, A2, h, E, f.subs(x, 0), form)[0]
    where = f"A1, A2, h, E = {columns}: dL/dX = {true}"
    return holds(where) if got == true else refuted(f"{where}, printed form {got}")


def _instance(n: int, d: int) -> list[Any]:
    import sympy as sp

    rule = {"A1": (2, 3, 5), "A2": (3, 5, 7), "h": (5, 2, 7), "E": (1, 4, 5)}
    return [
        sp.Matrix(n, d, lambda i, j, a=a, b=b, m=m: (a * i * i + b * j + i * j) % m - m // 2)
        for a, b, m in rule.values()
    ]


_AS24 = "Alman and Song, NeurIPS 2024, arXiv 2402.04497"
_HALF, _LESS = Fraction(1, 2), Fraction(99, 100)
_SHARP = bound_checks.SHARP

LITERATURE: tuple[Claim, ...] = (
    Claim(
        id="as24-gradient",
        statement="dL/dX = A1^T (f o q - diag(r) f) A2 / tau.",
        source=f"{_AS24}, Lemma C.7",
        provenance="read",
        evidence="symbolic",
        check=partial(gradient, True),
        twin=Twin("without 1/tau", partial(gradient, False)),
    ),
    Claim(
        id="as24-d3-orientation",
        statement="The same with q = h c^T, as printed. (The transpose of the paper's own "
        "Definition C.3; with q = c h^T the lemma's construction stands.)",
        source=f"{_AS24}, Lemma D.3",
        provenance="read",
        evidence="counterexample",
        check=partial(orientation, "D.3"),
        twin=Twin("q = c h^T", partial(orientation, "right"), expected="holds"),
        depends=("as24-gradient",),
        expected="refuted",
    ),
    Claim(
        id="as24-d5-orientation",
        statement="The same with f diag(r) for diag(r) f, as the printed U4 = U1, "
        "V4 = diag(r) V1 give. (U4 = diag(r) U1, V4 = V1 repairs it, at the same cost.)",
        source=f"{_AS24}, Lemma D.5",
        provenance="read",
        evidence="counterexample",
        check=partial(orientation, "D.5"),
        twin=Twin("diag(r) f", partial(orientation, "right"), expected="holds"),
        depends=("as24-gradient",),
        expected="refuted",
    ),
    Claim(
        id="as24-8bn",
        statement="|f'| <= 8 B n for every d, f = |softmax(lambda A) V|_F^2, A in [0, B] with at "
        "least half of each row B, V of 0 and 1. (The sum over the d columns of V is missing.)",
        source=f"{_AS24}, Lemma E.3",
        provenance="read",
        evidence="counterexample",
        check=partial(bound_checks.printed_constant, (28, 33)),
        twin=Twin(
            "for d <= 27", partial(bound_checks.printed_constant, range(1, 28)), expected="holds"
        ),
        depends=("softmax-slope-sharp",),
        expected="refuted",
    ),
    Claim(
        id="as24-riemann-points",
        statement="With b = n B^2, B = log^2 n and m = log^4 n points the bound b/m of Lemma E.4 "
        "tends to 0. (Refuted as a step of the proof; the theorem may stand, see "
        "`softmax-quadrature`.)",
        source=f"{_AS24}, proof of Theorem E.5",
        provenance="read",
        evidence="symbolic",
        check=partial(bound_checks.sample_count, 0, 4),
        twin=Twin(
            "m = n log^5 n points", partial(bound_checks.sample_count, 1, 5), expected="holds"
        ),
        expected="refuted",
    ),
)

DERIVED: tuple[Claim, ...] = (
    Claim(
        id="softmax-slope-half",
        statement="|f'(lambda)| <= n d B / 2 for all real lambda, A in [0, B], V of 0 and 1.",
        source="subquad",
        provenance="derived",
        evidence="symbolic",
        check=partial(bound_checks.derivative_bound, _HALF),
        twin=Twin("A in [-B, B]", partial(bound_checks.derivative_bound, _HALF, -1)),
    ),
    Claim(
        id="softmax-slope-sharp",
        statement="The sharp constant for 1/2 there is 8/27, attained at lambda = 0.",
        source="subquad",
        provenance="derived",
        evidence="symbolic",
        check=partial(bound_checks.derivative_bound, _SHARP),
        twin=Twin("1 % smaller", partial(bound_checks.derivative_bound, _SHARP * _LESS)),
    ),
    Claim(
        id="left-riemann-sharp",
        statement="The left Riemann sum of m points on [0, 1] errs by at most b/(2m) if |f'| <= b, "
        "attained by f = b x. (Alman and Song's Lemma E.4 has b/m.)",
        source="subquad",
        provenance="derived",
        evidence="symbolic",
        check=partial(bound_checks.left_riemann, _HALF),
        twin=Twin("0.495 b/m", partial(bound_checks.left_riemann, _HALF * _LESS)),
    ),
    Claim(
        id="softmax-strip",
        statement="D(z) = sum_k exp(z A_k), A in [0, B], has |D(z)| >= cos(B Im z / 2) D(Re z), so "
        "no zero for |Im z| < pi/B; on instances.",
        source="subquad",
        provenance="derived",
        evidence="enclosed",
        check=partial(strip_checks.zero_free, Fraction(1)),
        twin=Twin("for |Im z| < 1.01 pi/B", partial(strip_checks.zero_free, Fraction(101, 100))),
    ),
    Claim(
        id="softmax-quadrature",
        statement="k Gauss-Legendre nodes on each of B panels recover f(1) - f(0) from f' within "
        "(32/15) M rho^(-2k)/(1 - rho^-2), M = (4 + 4 sqrt 2) n d B, rho = pi + sqrt(pi^2 + 1); "
        "on an instance. (It would repair the step refuted in `as24-riemann-points`; that the "
        "theorem follows is not verified.)",
        source="subquad",
        provenance="derived",
        evidence="enclosed",
        check=partial(strip_checks.quadrature, None),
        twin=Twin("one panel", partial(strip_checks.quadrature, 1)),
        depends=("softmax-strip",),
    ),
)
