"""A plan in one line, and a line a head."""

import re

import numpy as np
import pytest

import subquad


def eight(tol=1e-2, far=20.0):
    rng = np.random.default_rng(0)
    Q, K, V = (0.3 * rng.standard_normal((2, 4, 900, 4)) for _ in range(3))
    Q[1, 2] *= far  # one head whose logits are too large for a polynomial
    return subquad.plan(Q, K, V, tol=tol, rates=subquad.TYPICAL)


def test_a_plan_of_eight_heads_is_one_line():
    made = eight()
    found = re.fullmatch(
        r"Plan\(7 heads by polynomial, 1 head by exact; "
        r"bound (\S+), tol 0\.01, (\S+) s predicted\)",
        repr(made),
    )
    assert found[1] == f"{max(head.chosen.bound for head in made.heads):.1e}"
    assert found[2] == f"{sum(head.seconds(head.chosen) for head in made.heads):.2g}"


def test_each_head_is_one_line():
    made = eight()
    for head in made.heads:
        p = head.chosen
        text = f"HeadPlan({p.method.name} ({p.parameters}), bound {p.bound:.1e}, tol 0.01)"
        assert repr(head) == text


def test_where_nothing_certifies_a_line_says_so():
    made = eight(tol=1e-18)
    assert repr(made) == "Plan(8 heads by nothing; bound inf, tol 1e-18, 0 s predicted)"
    assert repr(made.heads[0]) == "HeadPlan(nothing certifies, tol 1e-18)"
    rows = made.table().splitlines()[1:]
    assert all(re.search(r" nothing certifies  -      -$", row) for row in rows)


@pytest.mark.parametrize("far", [1.0, 20.0])
def test_the_table_has_each_head_in_order(far):
    made = eight(far=far)
    title, *rows = made.table().splitlines()
    assert title.split("  ")[0].strip() == "head" and title.endswith("crossover")
    assert len(rows) == 8
    for index, head, row in zip(np.ndindex(2, 4), made.heads, rows, strict=True):
        p = head.chosen
        cells = re.split(r"  +", row)
        assert cells == [
            str(index),
            f"{head.stats.logit_bound:.3g}",
            f"{p.method.name} ({p.parameters})",
            f"{p.bound:.1e}",
            head.crossover or "-",
        ]
        assert bool(head.crossover) == p.method.is_oracle


def test_the_table_of_one_head():
    made = subquad.plan(n=512, d=16, logit_bound=1.0, tol=1e-3, rates=subquad.TYPICAL)
    (_, row) = made.table().splitlines()
    assert row.startswith("()") and row.endswith(made.heads[0].crossover)
