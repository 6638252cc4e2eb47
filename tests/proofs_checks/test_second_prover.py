"""Two provers, which share no code, must agree on the relative errors that certificates rest on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from subquad.exp_poly import minimax, relative_error, taylor

SCRIPT = Path(__file__).with_name("second_prover.py")
CASES = [
    *(minimax(g, B) for g, B in ((1, 0.25), (2, 0.5), (3, 1.0), (4, 2.0), (5, 2.0), (8, 4.0))),
    minimax(12, 8.0), taylor(3, 1.0), taylor(4, 2.5),
]  # fmt: skip


@pytest.fixture(scope="module")
def others():
    problems = [[[str(c) for c in p.coefficients], p.logit_bound] for p in CASES]
    done = subprocess.run(
        [sys.executable, SCRIPT], input=json.dumps(problems), capture_output=True, text=True,
        env=os.environ | {"SYMPY_GROUND_TYPES": "python"}, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("case", range(len(CASES)))
def test_both_enclose_the_same_error(case, others):
    p, (low, high, roots) = CASES[case], others[case]
    lower, upper = relative_error(p.coefficients, p.logit_bound)
    assert low <= high <= low * (1 + 1e-12)
    assert lower <= high * (1 + 1e-15) and low <= upper * (1 + 1e-15)
    assert upper / low - 1 < 1e-11
    if p.family == "minimax":  # the error alternates: all roots of p' - p are inside
        assert roots == p.degree
