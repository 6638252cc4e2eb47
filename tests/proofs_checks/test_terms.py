"""Certificates name claims; the claims evaluate the very functions that the certificates use."""

import ast
import re
from pathlib import Path

import pytest

import subquad
from proofs_checks import registry
from proofs_checks.claim import decide
from subquad.bounds import rounding, softmax
from subquad.bounds.partial import Partial
from subquad.engine.fused import rounding as fused_rounding
from subquad.exp_poly import ExpPolynomial, majorant
from subquad.features import anisotropic
from tests.proofs_checks.mutate import code_of, raising_code

SOURCES = sorted(Path(subquad.__file__).parent.rglob("*.py"))
NAMED = re.compile(r"[Cc]laims? `([a-z0-9-]+)`")

USED = [
    ("output-bound", softmax.output_bound),
    ("output-bound-monotone", softmax.output_bound),
    ("output-bound-gain", softmax.output_bound),
    ("ratio-sharp", softmax.ratio_bound),
    ("ratio-sharp", softmax.ratio_bound_inverse),
    ("additive-sharp", softmax.additive_bound),
    ("logit-perturbation", softmax.logit_perturbation_bound),
    ("normaliser-jensen", softmax.normaliser_lower_bound),
    ("rounding-gamma", rounding.gamma),
    ("rounding-sums", Partial.finish),
    ("rounding-exact-sums", rounding.exact_sum_error),
    ("rounding-logits", rounding.exact_logit_error),
    ("rounding-storage", rounding.storage_error),
    ("rounding-storage", rounding.conversion_error),
    ("rounding-polynomial", rounding.polynomial_sum_error),
    ("rounding-polynomial", rounding.polynomial_underflow),
    ("rounding-polynomial", rounding.polynomial_gammas),
    ("rounding-tensor-cores", fused_rounding.fused_errors),
    ("scaled-ratio", ExpPolynomial.scaled),
    ("box-taylor", anisotropic.box_tail),
    ("fitted-majorant", majorant.shortfall),
]


def named_in_terms():
    """Yield (file, id) of every Term(name, "id", value) that is written in the package."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Term":
                given = [*node.args[1:2], *(k.value for k in node.keywords if k.arg == "claim")]
                yield from ((path.name, x.value) for x in given if isinstance(x, ast.Constant))


def named_in_docstrings():
    """Yield (file, id) of every "claim `id`" in the package."""
    for path in SOURCES:
        yield from ((path.name, name) for name in NAMED.findall(path.read_text()))


def test_every_id_named_in_the_package_is_a_claim_that_holds():
    found = {*named_in_terms(), *named_in_docstrings()}
    assert {"output-bound", "logit-perturbation", "rounding-sums", "rounding-storage"} <= {
        name for _, name in found
    }
    for file, name in found:
        assert name in registry.CLAIMS, f"{file} names the claim {name!r}, which is not registered"
        assert registry.CLAIMS[name].expected == "holds", name


def test_every_bound_that_names_a_claim_is_in_the_list():
    for module in (softmax, rounding, anisotropic, majorant):
        for name, thing in vars(module).items():
            for claim in NAMED.findall(getattr(thing, "__doc__", None) or ""):
                assert (claim, thing) in USED, f"{name} names {claim!r}"


@pytest.mark.parametrize(("claim", "function"), USED, ids=lambda x: getattr(x, "__name__", x))
def test_the_claim_evaluates_the_function_itself(claim, function):
    with code_of(function, raising_code(function)):
        found = decide(registry.CLAIMS[claim]).found
    assert found.verdict == "undecided"
    assert "the claim evaluates this function" in found.detail


def test_a_certificate_names_registered_claims():
    import numpy as np

    rng = np.random.default_rng(0)
    Q, K, V = (rng.standard_normal((64, 4)) * 0.3 for _ in range(3))
    for method in subquad.METHODS:
        for term in subquad.attention(Q, K, V, tol=0.1, method=method).certificate.terms:
            assert term.claim in registry.CLAIMS, term.name
