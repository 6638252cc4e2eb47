"""The methods: one file, one algorithm, one theorem, the same four verbs (`method.py`)."""

from subquad.methods.anisotropic import Anisotropic
from subquad.methods.exact import Exact
from subquad.methods.fitted import Fitted
from subquad.methods.method import Method
from subquad.methods.multi_threshold import MultiThreshold
from subquad.methods.polynomial import Polynomial
from subquad.methods.support_basis import SupportBasis

METHODS: dict[str, Method] = {
    method.name: method
    for method in (Exact(), Polynomial(), SupportBasis(), MultiThreshold(), Fitted(), Anisotropic())
}
"""Name -> method, in the order in which plans print them. Drives the planner and the tests."""
