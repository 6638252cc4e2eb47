"""The peers against exact attention, the cost model's tally, and crossings: on known numbers."""

import numpy as np
import pytest

from experiments import questions
from experiments.harness import instances, store
from experiments.harness.measure import oracle
from experiments.questions import cost_model, crossover_lengths, peers
from experiments.report import cost_model_tables
from subquad import TYPICAL


def test_materialised_features_are_the_second_order_expansion():
    Q, K, V, scale = instances.subgaussian(700, 5, m=530, d_v=3, seed=3, sigma=0.5)
    logits = scale * Q @ K.T
    weights = 1 + logits + logits**2 / 2
    expected = weights @ V / weights.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(peers.materialised(Q, K, V, scale), expected, rtol=1e-10)
    exact = oracle(Q, K, V, scale)
    assert 1e-6 < np.abs(expected - exact).max() < 0.05


def test_linear_attention_is_the_weighted_mean_it_says():
    Q, K, V, scale = instances.subgaussian(40, 4, m=30, seed=5)
    root = np.sqrt(scale)
    phi = [np.where(x > 0, x * root + 1, np.exp(x * root)) for x in (Q, K)]
    weights = phi[0] @ phi[1].T
    expected = weights @ V / weights.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(peers.linear_elu(Q, K, V, scale), expected, rtol=1e-10)


def test_a_record_of_peers():
    record = store.run(peers.experiment(n=300, repeats=1), rates=TYPICAL)
    assert len(record["rows"]) == len(peers.CASES)
    for row in record["rows"]:
        assert {"ours", "NumPy softmax", "linear, elu + 1"} <= row["ways"].keys()
        assert row["ways"]["ours"]["measured"] <= row["ways"]["ours"]["bound"] <= row["tol"]
        assert row["ways"]["NumPy softmax"]["measured"] < 1e-5
        for way in row["ways"].values():
            assert 0 < way["least"] <= way["median"] <= way["most"]
        assert record["derived"][row["case"]]["ours"] == 1.0
    for line in peers.table_rows(record):
        assert len(line) == len(peers.HEADER)
    assert len(questions.findings(record)) == 2


def cell(chosen, predicted, seconds):
    regret = seconds[chosen] / min(seconds.values())
    return {"chosen": chosen, "predicted": predicted, "seconds": seconds, "regret": regret}


def test_the_tally_of_the_cost_model():
    right = cell("a", {"a": 1.0, "b": 2.0}, {"a": 1.0, "b": 3.2})
    wrong = cell("b", {"a": 2.0, "b": 1.0}, {"a": 1.0, "b": 1.4})
    found = cost_model_tables.tally([right, wrong])
    assert (found["cells"], found["right"], found["nearly_right"]) == (2, 1, 1)
    near = cell("b", {"a": 2.0, "b": 1.0}, {"a": 1.0, "b": 1.08})
    again = cost_model_tables.tally([right, near])
    assert (again["right"], again["nearly_right"]) == (1, 2)
    assert found["regret"]["worst"] == pytest.approx(1.4)
    assert found["within_1.5"] == 0.5  # 1 and 1/1.4 are, 1/1.6 and 2 are not
    assert found["predicted_over_measured"]["a"] == {
        "runs": 2,
        "within_1.5": 0.5,
        "least": 1.0,
        "median": 1.5,
        "most": 2.0,
    }
    left_out = {**wrong, "seconds": {}, "regret": None}
    assert cost_model_tables.tally([right, wrong, left_out])["cells"] == 2


def test_a_record_of_the_cost_model():
    small = cost_model.experiment(lengths=(256,), dimensions=(4,), betas=(0.5,), turns=1)
    record = store.run(small, rates=TYPICAL)
    (row,) = record["rows"]
    assert row["chosen"] in row["seconds"] and row["regret"] >= 1.0
    assert len(cost_model.table_rows(record)[0]) == len(cost_model.HEADER)
    assert row["predicted"].keys() >= row["seconds"].keys() == row["turns"].keys()
    assert len(questions.findings(record)) == 2


def way(n, *turns, rows=None):
    """Return a way whose calls take the given seconds."""
    found = cost_model._Way(n, rows or (n,), [])
    for turn, seconds in enumerate(turns):
        found.note(turn, seconds)
    return found


def test_regret_is_of_the_same_turns():
    """The host slows down by three in the third turn: neither way looks slower for it."""
    ways = {"a": way(9, [9.0], [1.1], [3.3], [1.1]), "b": way(9, [1.0], [1.0], [3.0])}
    assert ways["a"].seconds == pytest.approx(1.1)  # without the turn to warm up
    assert cost_model._regret(ways, "a") == pytest.approx(1.1)
    assert cost_model._regret(ways, "b") == 1.0


def test_exact_rows_are_laid_on_by_the_line():
    """Ten seconds whatever the rows, and one for each."""
    assert way(100, [20.0, 30.0], rows=(10, 20)).seconds == pytest.approx(110.0)


def test_crossings_are_read_off_between_lengths():
    assert crossover_lengths.crossing([]) is None
    assert crossover_lengths.crossing([(256, 0.2), (512, 0.9)]) is None
    assert crossover_lengths.crossing([(256, 1.2), (512, 2.0)]) == 256
    assert crossover_lengths.crossing([(256, 0.5), (512, 2.0)]) == pytest.approx(256 * 2**0.5)
    twice = [(256, 0.5), (512, 1.1), (1024, 0.25), (2048, 4.0)]
    assert crossover_lengths.crossing(twice) == pytest.approx(1024 * 2**0.5)


def test_a_record_of_crossings():
    small = crossover_lengths.experiment(dimensions=(3,), degrees=(2,), longest=256, repeats=1)
    record = store.run(small, rates=TYPICAL)
    (row,) = record["rows"]
    assert [t["n"] for t in row["tried"]] == [256]
    assert row["degree"] == 2
    assert len(crossover_lengths.table_rows(record)[0]) == len(crossover_lengths.HEADER)
    assert len(questions.findings(record)) == 1
