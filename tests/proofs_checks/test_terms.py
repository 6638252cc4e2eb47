"""Certificates name claims; the claims evaluate the very functions that the certificates use."""

import pytest

import subquad
from proofs_checks import registry
from proofs_checks.claim import decide
from proofs_checks.used import NAMED, USED, mentions, terms
from subquad.bounds import rounding, softmax
from subquad.exp_poly import majorant
from subquad.features import anisotropic
from tests.methods.table import ROWS
from tests.proofs_checks.mutate import code_of, raising_code


def test_every_id_named_in_the_package_is_a_claim_that_holds():
    main = {"output-bound", "logit-perturbation", "rounding-sums", "rounding-storage"}
    assert main <= {place.claim for place in terms()}
    assert {"output-bound", "ratio-sharp"} <= {place.claim for place in mentions()}
    for place in (*terms(), *mentions()):
        name = place.claim
        assert name in registry.CLAIMS, f"{place} names {name!r}, which is not registered"
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
    for row in ROWS.values():
        for term in subquad.attention(Q, K, V, tol=0.1, method=row.method).certificate.terms:
            assert term.claim in registry.CLAIMS, term.name
