"""Claims on polynomials near exp; the checks stand in the files `exp_poly_*` beside this one.

X = 2 (B/2)^(g+1) / (g+1)! throughout, for a degree g and the interval [-B, B].
"""

from __future__ import annotations

from fractions import Fraction
from functools import partial

from proofs_checks.checks.exp_poly import degrees as degree_checks
from proofs_checks.checks.exp_poly import provers as prover_checks
from proofs_checks.checks.exp_poly import signs as sign_checks
from proofs_checks.checks.exp_poly import uniform as uniform_checks
from proofs_checks.claim import Claim, Twin

_LESS = Fraction(99, 100)
_AA22 = "Aggarwal and Alman, CCC 2022, arXiv 2205.06249, abstract"

LITERATURE: tuple[Claim, ...] = (
    Claim(
        id="bernstein-uniform",
        statement="The least uniform error of exp by degree g on [-B, B] is between exp(-B) X and "
        "exp(B) X; on a grid of B = 1/128..16, g = 0..40.",
        source="S. Bernstein, classical",
        provenance="recalled",
        evidence="enclosed",
        check=partial(uniform_checks.bernstein, Fraction(1)),
        twin=Twin("exp(B) X made 1 % smaller", partial(uniform_checks.bernstein, _LESS)),
    ),
    Claim(
        id="bessel-bound",
        statement="(B/2)^k/k! <= I_k(B) <= (B/2)^k/k! exp(B^2/(4 (k + 1))); on a grid of "
        "B = 1/128..16, k = 0..60.",
        source="classical, from the power series of I_k",
        provenance="recalled",
        evidence="enclosed",
        check=partial(uniform_checks.bessel, 1),
        twin=Twin("k + 2 in the place of k + 1", partial(uniform_checks.bessel, 2)),
    ),
    Claim(
        id="chebyshev-tail",
        statement="The Chebyshev series of exp(B t) cut after degree g errs by at most "
        "2 sum_{k > g} I_k(B), attained at t = 1; for B = 0.5..4, g = 1..8.",
        source="classical",
        provenance="recalled",
        evidence="enclosed",
        check=partial(uniform_checks.series, Fraction(1)),
        twin=Twin("1.98 in the place of 2", partial(uniform_checks.series, _LESS)),
        depends=("bessel-bound",),
    ),
    Claim(
        id="aa22-degree-exp",
        statement="The least degree within delta of exp(x) on [0, B] is 0.85 to 1.72 times "
        "max{B, L / log(e + L/B)}, L = log(1/delta), on a grid of B = 1..64, delta = 1e-1..1e-16. "
        "The paper states the order Theta(max{B, L / log(L/B)}); the e is ours.",
        source=_AA22,
        provenance="read",
        evidence="enclosed",
        check=partial(degree_checks.formula_range, 1, 0.85, 1.72),
        twin=Twin("1.70 for 1.72", partial(degree_checks.formula_range, 1, 0.85, 1.70)),
        depends=("bessel-bound",),
    ),
    Claim(
        id="aa22-degree-exp-minus",
        statement="The least degree within delta of exp(-x) on [0, B] is 0.32 to 1.2 times "
        "max{sqrt(B L), L / log(e + L/B)}, L = log(1/delta), on the same grid. The paper states "
        "the order Theta(max{sqrt(B L), L / log(L/B)}); the e is ours.",
        source=_AA22,
        provenance="read",
        evidence="enclosed",
        check=partial(degree_checks.formula_range, -1, 0.32, 1.2),
        twin=Twin("1.18 for 1.2", partial(degree_checks.formula_range, -1, 0.32, 1.18)),
        depends=("bessel-bound",),
    ),
    Claim(
        id="aa22-bare-log",
        statement="Taken literally wherever L = log(1/delta) > B, max{B, L / log(L/B)} is within "
        "a factor 2 of the least degree for exp(x) on [0, B]. (Near L = B the quotient has no "
        "bound. The order of the abstract needs a convention there, which the full text, not "
        "read, may state.)",
        source=_AA22,
        provenance="read",
        evidence="counterexample",
        check=partial(degree_checks.formula_range, 1, 0.5, 2.0, False),
        twin=Twin(
            "log(e + L/B) in the place of log(L/B)",
            partial(degree_checks.formula_range, 1, 0.5, 2.0),
            expected="holds",
        ),
        expected="refuted",
    ),
    Claim(
        id="relative-from-uniform",
        statement="A uniform error eps exp(-B) on [-B, B] gives the relative error eps, so the "
        "least degree for the former is at least that for the latter; on the degree table.",
        source="Alman and Song 2023, arXiv 2302.13214, corollary of the polynomial lemma",
        provenance="recalled",
        evidence="enclosed",
        check=partial(degree_checks.relative_from_uniform, -1),
        twin=Twin("eps exp(+B)", partial(degree_checks.relative_from_uniform, 1)),
        depends=("minimal-degree-table", "bessel-bound"),
    ),
    Claim(
        id="even-taylor-positive",
        statement="The Taylor polynomials of exp of even degree have no real root; degrees to 20.",
        source="classical",
        provenance="recalled",
        evidence="exact",
        check=partial(sign_checks.taylor_roots, 2),
        twin=Twin("every degree from 2 on", partial(sign_checks.taylor_roots, 1)),
    ),
)

DERIVED: tuple[Claim, ...] = (
    Claim(
        id="relative-error-size",
        statement="The least relative error of exp by degree g on [-B, B] is between "
        "X exp(-B^2/(3 g + 3)) and X; on a grid of B = 1/128..16, g = 0..40.",
        source="subquad",
        provenance="derived",
        evidence="enclosed",
        check=partial(uniform_checks.relative_size, Fraction(1)),
        twin=Twin("X made 1 % smaller", partial(uniform_checks.relative_size, _LESS)),
        depends=("enclosure-sound",),
    ),
    Claim(
        id="small-degree-errors",
        statement="The Chebyshev interpolants of degree 2 and 3 have the uniform errors of the "
        "table at B = 0.01, 0.1, 1, 4: about B^3/24 and B^4/192 times 1 to 5.7.",
        source="subquad",
        provenance="derived",
        evidence="enclosed",
        check=partial(uniform_checks.small_degrees, Fraction(1)),
        twin=Twin("table made 1 % smaller", partial(uniform_checks.small_degrees, _LESS)),
    ),
    Claim(
        id="interpolant-at-zero",
        statement="The Chebyshev interpolant of exp on [-B, B] is 1 at 0, whatever its degree. "
        "(A support basis that masks by zeros relies on it.)",
        source="subquad",
        provenance="derived",
        evidence="counterexample",
        check=partial(sign_checks.value_at_zero, 1),
        twin=Twin("even degrees", partial(sign_checks.value_at_zero, 2), expected="holds"),
        expected="refuted",
    ),
    Claim(
        id="odd-interpolant-bias",
        statement="For odd g the interpolant has exp(-B) X <= -(-1)^((g+1)/2) (p(0) - 1) <= "
        "exp(B) X; for g to 29, B = 1/128..16.",
        source="subquad",
        provenance="derived",
        evidence="enclosed",
        check=partial(sign_checks.odd_bias, Fraction(1)),
        twin=Twin("exp(B) X made 1 % smaller", partial(sign_checks.odd_bias, _LESS)),
    ),
    Claim(
        id="support-basis-bias",
        statement="With large rows zeroed, p(S_s) + exp(S_L) - 1 errs on every masked entry by "
        "p(0) - 1 exactly (an instance at degree 3, with the features of the package).",
        source="subquad",
        provenance="derived",
        evidence="exact",
        check=partial(sign_checks.masked_entries, 3, True),
        twin=Twin("by 0", partial(sign_checks.masked_entries, 3, False)),
        depends=("symmetric-features",),
    ),
    Claim(
        id="minimax-positive",
        statement="A relative error proved below 1 leaves p no zero in [-B, B]; by Sturm's "
        "theorem for the polynomials of the package.",
        source="subquad",
        provenance="derived",
        evidence="exact",
        check=partial(sign_checks.positive_on_interval, True),
        twin=Twin("whatever the error", partial(sign_checks.positive_on_interval, False)),
        depends=("enclosure-sound",),
    ),
    Claim(
        id="minimal-degree-table",
        statement="The least degrees for relative error 1e-2 on [-B, B] are 2/3/5/7/12/21 at "
        "B = 0.5/1/2/4/8/16, and those of the table for 1e-1..1e-8, proved from both sides.",
        source="subquad",
        provenance="derived",
        evidence="enclosed",
        check=partial(degree_checks.degree_table, 0),
        twin=Twin("one degree less at B = 16", partial(degree_checks.degree_table, 1)),
        depends=("enclosure-sound",),
    ),
    Claim(
        id="minimal-degree-second-prover",
        statement="At eps = 1e-2 the same least degrees follow, from both sides, from sympy's root "
        "isolation in Python integers, rational intervals, and the alternation of the error.",
        source="subquad",
        provenance="derived",
        evidence="enclosed",
        check=partial(prover_checks.degrees, 1),
        twin=Twin("the degree itself fails", partial(prover_checks.degrees, 0)),
    ),
    Claim(
        id="scaled-ratio",
        statement="If |p(x) exp(-x) - 1| <= u < 1 then w~ = p/(1 - u^2) has |w/w~ - 1| <= u, "
        "w = exp(x); `ExpPolynomial.scaled` returns the floats nearest its coefficients.",
        source="subquad",
        provenance="derived",
        evidence="symbolic",
        check=partial(prover_checks.scaled_ratio, 1),
        twin=Twin("w~ = p, unscaled", partial(prover_checks.scaled_ratio, 0)),
    ),
    Claim(
        id="enclosure-sound",
        statement="`relative_error` encloses sup |p(x) exp(-x) - 1| over [-B, B]: a second prover "
        "that shares no arithmetic with it meets it to 1e-9 on 18 polynomials.",
        source="subquad",
        provenance="derived",
        evidence="enclosed",
        check=partial(prover_checks.enclosure, Fraction(1)),
        twin=Twin("upper made 1 % smaller", partial(prover_checks.enclosure, _LESS)),
    ),
)
