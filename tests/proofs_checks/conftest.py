"""All claims, each run once for all tests."""

from collections.abc import Mapping

import pytest

from proofs_checks import registry
from proofs_checks.claim import decide


class Decided(Mapping):
    """The Records of all claims by id; a claim and its twin are decided when first asked for."""

    def __init__(self):
        self.known = {}

    def __getitem__(self, name):
        if name not in self.known:
            self.known[name] = decide(registry.CLAIMS[name])
        return self.known[name]

    def __iter__(self):
        return iter(registry.CLAIMS)

    def __len__(self):
        return len(registry.CLAIMS)


@pytest.fixture(scope="session")
def records():
    """Every claim and its twin, decided once, by id."""
    return Decided()
