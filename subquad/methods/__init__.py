"""The methods: one file, one algorithm, one theorem, the same four verbs (`method.py`)."""

from subquad.methods.anisotropic.method import Anisotropic
from subquad.methods.exact import Exact
from subquad.methods.fitted.method import Fitted
from subquad.methods.method import Method
from subquad.methods.polynomial.method import Polynomial
from subquad.methods.thresholds.multi_threshold import MultiThreshold
from subquad.methods.thresholds.support_basis import SupportBasis

METHODS: dict[str, Method] = {
    method.name: method
    for method in (Exact(), Polynomial(), SupportBasis(), MultiThreshold(), Fitted(), Anisotropic())
}
"""Name -> method, in the order in which plans print them. Drives the planner and the tests."""
