"""What a certificate says in full: statements of claims, and errors in the units of the values."""

import builtins
import json

import numpy as np
import pytest

import subquad
from proofs_checks import registry
from subquad.bounds.certificate import Certificate, Term, total
from tests import oracle


def heads(v=1.0, offset=0.0, dtype="float64", lead=(2,)):
    rng = np.random.default_rng(3)
    Q, K = (0.3 * rng.standard_normal((*lead, rows, 6)) for rows in (200, 300))
    V = v * (rng.standard_normal((*lead, 300, 3)) + offset)
    return tuple(x.astype(dtype) for x in (Q, K, V))


@pytest.mark.parametrize("devices", [None, ["cpu"] * 2], ids=["here", "shards"])
@pytest.mark.parametrize("v", [1.0, 1e-3, 1e6, 1e300, 1e-310])
def test_the_value_radius_is_half_the_range_rounded_up(v, devices, rates):
    Q, K, V = heads(v)
    V[..., 1] = v
    made = subquad.attention(Q, K, V, tol=0.5, method="exact", devices=devices, rates=rates)
    radius = made.certificate.value_radius
    half = V.max(axis=-2) / 2 - V.min(axis=-2) / 2
    assert radius.shape == (2, 3)
    assert np.all(radius[:, 1] == 0.0)
    assert np.all(radius >= half) and np.all(radius <= half * (1.0 + 1e-12) + 1e-322)


def exactly(Q, K, V):
    """Return the exact output of one head, extended precision."""
    mid, radius = oracle.units(V)
    return mid + radius * oracle.attention(Q, K, V, 6**-0.5)


@pytest.mark.parametrize("method", subquad.METHODS)
def test_absolute_errors_keep_to_the_absolute_bound(method, rates):
    Q, K, V = heads(v=50.0, offset=3.0)
    V[0] *= 10.0  # the largest bound and the largest radius need not be of one head
    Q[0] *= 0.1
    Q[..., 1:] *= 0.1
    result = subquad.attention(Q, K, V, tol=5e-2, method=method, rates=rates)
    c = result.certificate
    truth = np.stack([exactly(*one) for one in zip(Q, K, V, strict=True)])
    assert np.abs(result.output - truth).max() <= c.absolute_bound
    own = [c.row_bounds[i].max() * c.value_radius[i].max() for i in range(2)]
    assert max(own) <= c.absolute_bound <= max(own) * (1.0 + 1e-12)
    assert json.loads(c.to_json())["absolute_bound"] == c.absolute_bound


def test_dropped_keys_do_not_widen_the_radius(rates):
    Q, K, V = heads(lead=())
    mask = np.ones(300, dtype=bool)
    mask[7] = False
    V[7] = 1e6
    c = subquad.attention(Q, K, V, tol=0.5, key_mask=mask, rates=rates).certificate
    assert c.value_radius.max() < 10.0


def test_explain_prints_terms_statements_and_assumptions(rates, capsys):
    c = subquad.attention(*heads(), tol=1e-2, method="polynomial", rates=rates).certificate
    assert c.explain() is None
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert lines[0] == f"bound {c.bound:.3e} of value_radius, holds always"
    assert lines[1] == f"absolute bound {c.absolute_bound:.3e} in units of V"
    words = " ".join(text.split())
    for term in c.terms:
        title = f"{term.name} {term.worst():.3e} claim {term.claim}"
        statement = " ".join(registry.CLAIMS[term.claim].statement.split())
        assert f"{title} {statement} ({registry.CLAIMS[term.claim].source})" in words
    for assumption in c.assumptions:
        assert f"assuming {assumption}" in text
    assert max(map(len, lines[2:-2])) <= 96


def plain(claim):
    terms = (Term("truncation", claim, np.array([1e-3, 2e-3])),)
    return Certificate(terms, total(terms, terms[0].value))


def test_a_claim_from_elsewhere_is_its_id_alone(capsys):
    plain("of-another-house").explain()
    assert capsys.readouterr().out.splitlines() == [
        "bound 2.000e-03 of value_radius, holds always",
        "absolute bound not measured by this run",
        "  truncation   2.000e-03   claim of-another-house",
    ]
    assert plain("of-another-house").absolute_bound is None


def test_without_the_registry_ids_stand_alone(monkeypatch, capsys):
    found = builtins.__import__

    def without(name, *rest):
        if name.startswith("proofs_checks"):
            raise ImportError(name)
        return found(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    plain("output-bound").explain()
    assert capsys.readouterr().out.splitlines()[2:] == [
        "  truncation   2.000e-03   claim output-bound"
    ]
