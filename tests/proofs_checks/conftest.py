"""All claims, run once for all tests."""

import pytest

from proofs_checks import registry


@pytest.fixture(scope="session")
def records():
    """Every claim and its twin, decided, by id."""
    return {r.claim.id: r for r in registry.run(registry.CLAIMS.values())}
