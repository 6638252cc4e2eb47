"""Shells of keys: balls that hold their keys, means as far off as they say, keys let go of."""

import itertools
import math

import numpy as np
import pytest

from experiments.harness import instances
from subquad.head.problem import measure_head
from subquad.head.shells import SHARES


def head(name="minilm-l5-h0-smallest", **changes):
    Q, K, V, scale = instances.real(name)
    Q, K = (x.astype(np.float64) for x in (Q, K))
    return measure_head(Q + changes.get("shift", 0.0), K, V.astype(np.float64), scale)


def prepared(of):
    """Return the keys about the Frame's centre and their weights, in extended precision."""
    side = of.frame.key
    K = (of.K.astype(np.longdouble) * side.in_scale - side.centre) * side.out_scale
    weights = of.frame.key_weights(of.K)[0]
    return K, np.ones(len(K)) if weights is None else weights


@pytest.mark.parametrize("shift", [0.0, 2.0])
def test_every_shell_of_the_table_is_what_it_says(shift):
    of = head(shift=shift)
    K, weights = prepared(of)
    norms, table = of.rows.key_norms, of.stats.shells()
    assert table.edges[0] == math.inf and table.edges[-1] == -1.0
    assert len(table.edges) == len(SHARES) + 1
    assert len(table.shells) == len(list(itertools.combinations(table.edges, 2)))
    for (low, high), shell in table.shells.items():
        inside = (norms > low) & (norms <= high)
        centre = shell.displacement(of.frame)
        away = np.linalg.norm(K[inside] - centre, axis=1).max()
        assert away <= shell.radius <= away * (1.0 + 1e-9)
        far = np.linalg.norm(centre.astype(np.longdouble))
        assert far <= shell.away <= far * (1.0 + 1e-9)
        mean = np.average(K[inside], axis=0, weights=weights[inside])
        offset = np.linalg.norm(mean - centre) / away
        assert offset <= shell.offset <= max(offset * (1.0 + 1e-6), 1e-6)
        assert shell.radius <= 1.02 * norms[inside].max()
    smaller = [s.radius / min(h, norms.max()) for (_, h), s in table.shells.items()]
    assert min(smaller) < 0.9  # here a centre of one's own is worth having


def test_the_keys_are_let_go_of():
    of = head()
    shells = of.stats.shells
    one = shells.between(0.1, 0.5)
    table = shells()
    assert shells() is table
    assert shells._arguments is None
    assert shells.between(0.1, 0.5) is one
    assert shells.between(0.1, 0.4) is None


def test_released_shells_know_what_was_asked():
    shells = head().stats.shells
    one = shells.between(0.1, 0.5)
    shells.release()
    assert shells.between(0.1, 0.5) is one
    assert shells.between(0.1, 0.4) is None
    assert not shells.at_hand


def test_a_shell_without_keys_and_one_of_a_single_key():
    of = head()
    largest = float(of.rows.key_norms.max())
    assert of.stats.shells.between(2.0 * largest, math.inf).radius == 0.0
    second = float(np.sort(of.rows.key_norms)[-2])
    alone = of.stats.shells.between(second, math.inf)
    assert alone.radius <= 1e-12 * largest
    assert alone.away == pytest.approx(largest, rel=1e-9)


def test_equal_keys_have_one_shell():
    Q = np.random.default_rng(0).standard_normal((20, 3))
    table = measure_head(Q, np.ones((20, 3)), Q, 1.0).stats.shells()
    assert table.edges == (math.inf, -1.0)
