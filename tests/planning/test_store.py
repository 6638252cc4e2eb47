"""A plan as plain JSON: a loaded one prints and runs as the saved one did, to the last bit."""

import copy
import json
import math
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import subquad
from subquad.engine.shards.fleets import ProcessFleet
from subquad.methods.exact import Exact
from subquad.planning.codec import decoded, encoded
from subquad.planning.store import VERSION, write

METHODS = {
    **{name: name for name in ("auto", *subquad.METHODS)},
    "by entry": subquad.SupportBasis(criterion="entry", threshold=0.7),
    "one bucket": subquad.MultiThreshold(buckets=1),
    "by entry in buckets": subquad.MultiThreshold(criterion="entry"),
}


def data(seed=0, lead=(2,), far=1.0, dtype="float64"):
    rng = np.random.default_rng(seed)
    Q, K = (0.4 * rng.standard_normal((*lead, rows, 5)) + 1.0 for rows in (300, 350))
    Q, K, V = Q * np.logspace(0, -1, 5), K, rng.standard_normal((*lead, 350, 3))
    Q[..., 7, :] *= far  # a row far out: a second Frame
    return tuple(x.astype(dtype) for x in (Q, K, V))


def saved_and_loaded(made, folder):
    made.save(folder / "plan.json")
    return subquad.Plan.load(folder / "plan.json")


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("far", [1.0, 30.0])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_loaded_plan_prints_and_runs_as_the_saved_one(name, far, dtype, rates, tmp_path):
    made = subquad.plan(*data(far=far, dtype=dtype), tol=0.3, method=METHODS[name], rates=rates)
    loaded = saved_and_loaded(made, tmp_path)
    assert (str(loaded), repr(loaded)) == (str(made), repr(made))
    assert loaded.table() == made.table()
    assert loaded.to_dict() == made.to_dict()
    if any(head.chosen is None for head in made.heads):
        assert name == "anisotropic" and far > 1.0
        return
    arrays, fresh = (data(seed, far=far, dtype=dtype) for seed in (0, 1))
    assert isinstance(outcome(loaded, arrays), tuple)
    for given_data in (arrays, fresh):
        assert outcome(loaded, given_data) == outcome(made, given_data)


def outcome(made, arrays):
    """Return the bits of output and bounds, or the words of the refusal."""
    try:
        result = made.run(*arrays)
    except subquad.ToleranceError as error:
        return str(error)
    assert result.plan is made
    return result.output.tobytes(), result.certificate.row_bounds.tobytes()


@pytest.mark.parametrize("options", [{"devices": ["cpu"] * 3}, {"scale": 0.3}])
def test_options_of_the_call_are_kept(options, rates, tmp_path):
    made = subquad.plan(*data(), tol=1e-1, method="polynomial", rates=rates, **options)
    loaded = saved_and_loaded(made, tmp_path)
    assert np.array_equal(loaded.run(*data()).output, made.run(*data()).output)
    assert loaded.scale == made.scale
    assert (loaded.fleet is None) == (made.fleet is None)
    assert made.fleet is None or loaded.fleet.shares == made.fleet.shares


def test_plans_that_nothing_certifies_or_without_data(rates, tmp_path):
    for made in (
        subquad.plan(*data(), tol=1e-18, rates=rates),
        subquad.plan(n=512, d=16, logit_bound=1.0, tol=1e-3, rates=rates),
    ):
        loaded = saved_and_loaded(made, tmp_path)
        assert str(loaded) == str(made)
        assert loaded.heads[0].crossover == made.heads[0].crossover


def test_a_record_is_plain_json(rates):
    record = subquad.plan(*data(far=30.0), tol=0.3, rates=rates).to_dict()
    assert record["version"] == VERSION == 1
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert subquad.Plan.from_dict(record).to_dict() == record


@given(st.lists(st.floats(width=64), max_size=5), st.booleans())
def test_floats_keep_their_bits(values, as_array):
    x = np.array(values) if as_array else tuple(values)
    found = decoded(json.loads(json.dumps(encoded(x), allow_nan=False)))
    assert type(found) is type(x)
    a, b = (np.array(y, dtype=np.float64) for y in (found, x))
    assert np.array_equal(np.isnan(a), np.isnan(b))
    assert a[~np.isnan(a)].tobytes() == b[~np.isnan(b)].tobytes()


def test_arrays_keep_their_dtype():
    for x in (np.float32([0.1, math.inf]), np.array(3.5), np.arange(3)):
        found = decoded(json.loads(json.dumps(encoded(x))))
        assert found.dtype == x.dtype and np.array_equal(found, x)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_version_is_refused(version, rates, tmp_path):
    record = subquad.plan(*data(), tol=0.3, rates=rates).to_dict() | {"version": version}
    write(record, tmp_path / "plan.json")
    with pytest.raises(ValueError, match=rf"version {version!r}, this subquad reads version 1"):
        subquad.Plan.load(tmp_path / "plan.json")


@pytest.mark.parametrize("text", ["", "{", "[" * 10**5, "\x80"])
def test_what_is_no_json_is_refused(text, tmp_path):
    (tmp_path / "plan.json").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r"`.*plan\.json` is no JSON: "):
        subquad.Plan.load(tmp_path / "plan.json")


@pytest.mark.parametrize("record", [[], 3, None, {}, {"format": "another", "version": 1}])
def test_what_is_no_plan_is_refused(record):
    with pytest.raises(ValueError, match="no plan as `Plan.to_dict`"):
        subquad.Plan.from_dict(record)


def places(x, path=()):
    """Yield the path to every entry of every dictionary in x."""
    for key, value in x.items() if isinstance(x, dict) else enumerate(x):
        if isinstance(x, dict):
            yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


def test_a_damaged_plan_is_refused_in_words(rates):
    """Every entry in turn is left out; but for a field with a default, none can be missed."""
    record = subquad.plan(*data(lead=()), tol=0.3, method="multi_threshold", rates=rates).to_dict()
    refused = 0
    for *path, last in places(record):
        broken = copy.deepcopy(record)
        inside = broken
        for key in path:
            inside = inside[key]
        del inside[last]
        try:
            subquad.Plan.from_dict(broken)
        except ValueError as error:
            refused += 1
            assert "the plan" in str(error) or "no plan" in str(error)
    assert refused > 50


def test_no_type_but_those_of_plans_is_made(rates):
    record = subquad.plan(*data(), tol=0.3, rates=rates).to_dict()
    record["rates"] = {"type": "Popen", "args": "true"}
    with pytest.raises(ValueError, match=r"the plan is damaged: KeyError\('Popen'\)"):
        subquad.Plan.from_dict(record)


class Own(Exact):
    name = "own"

    def __init__(self):
        self.shape = (1, 2)


def test_a_method_of_ones_own_is_refused(rates, tmp_path):
    made = subquad.plan(*data(), tol=0.3, method=Own(), rates=rates)
    with pytest.raises(TypeError, match="`own` is a Own, none of METHODS: a file cannot hold it"):
        made.save(tmp_path / "plan.json")
    assert list(tmp_path.iterdir()) == []


def test_processes_are_refused(rates):
    fleet = ProcessFleet(0, 1, lambda part: [part])
    made = subquad.plan(*data(lead=()), tol=0.3, devices=fleet, rates=rates)
    with pytest.raises(TypeError, match="the plan is for a ProcessFleet, which a file cannot hold"):
        made.to_dict()


def test_a_file_is_replaced_whole_or_not_at_all(rates, tmp_path, monkeypatch):
    path = tmp_path / "plan.json"
    subquad.plan(*data(), tol=0.3, rates=rates).save(path)
    before = path.read_bytes()

    def broken(*ends):
        raise OSError(28, "no space left")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="no space"):
        subquad.plan(*data(), tol=0.2, rates=rates).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
