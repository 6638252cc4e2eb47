"""Plans by the fused passes run again on new data, on the stand-in: bounds hold or are refused."""

import copy
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

import subquad
from subquad.arrays.formats import FORMATS
from subquad.engine.fused.sizes import OPERANDS
from subquad.methods.polynomial import method
from subquad.planning import rerun_terms
from tests.engine.fused import stand_in_replay
from tests.oracle import row_errors

TOLERANCES = {"bfloat16": 6e-2, "bfloat16x3": 1e-2}


@pytest.fixture
def replays(monkeypatch):
    """The Units of each call of the stand-in."""
    return stand_in_replay.install(monkeypatch)


def drawn(seed=0, reach=0.4, n=302, m=277, d=16, d_v=5, lead=(), mirrored=False):
    """Return Q, K, V, float32: logits about the centres up to `reach`, keys off centre.

    Queries that are `mirrored` have their centre at 0, the others have not.
    """
    rng = np.random.default_rng(seed)
    Q, K = (rng.standard_normal((*lead, rows, d)) for rows in (n, m))
    Q, K = (x / np.linalg.norm(x, axis=-1, keepdims=True).max() for x in (Q, K))
    Q = Q * reach * np.sqrt(d) + (0.0 if mirrored else 0.1) * np.linspace(-1.0, 2.0, d)
    if mirrored:
        Q[..., n // 2 :, :] = -Q[..., : n // 2, :]
    V = rng.uniform(-1.0, 2.0, (*lead, m, d_v)) ** 3 * np.linspace(1.0, 40.0, d_v)
    V[..., 0] = 0.375
    return tuple(x.astype(np.float32) for x in (Q, K + np.linspace(0.5, -0.2, d), V))


def planned(tol, fast, **shape):
    return subquad.plan(*drawn(**shape), tol=tol, rates=fast, method="polynomial")


def sound(result, arrays, tol):
    """Assert that every row is within its bound, and its bound within tol."""
    Q, K, V = arrays
    bounds = np.asarray(result.certificate.row_bounds)
    assert np.all(bounds <= tol)
    for i in np.ndindex(Q.shape[:-2]):
        errors = row_errors(result.output[i], Q[i], K[i], V[i], 1.0 / np.sqrt(Q.shape[-1]))
        assert np.all(errors <= bounds[i])
    named = sum(term.value for term in result.certificate.terms)
    np.testing.assert_allclose(named, bounds, rtol=1e-12)


@pytest.mark.parametrize("operands", OPERANDS)
@pytest.mark.parametrize(
    "shape", [{}, {"lead": (2, 3)}, {"mirrored": True}, {"d": 48, "d_v": 1}], ids=str
)
def test_new_data_are_certified_in_the_units_of_the_plan(replays, fast, operands, shape):
    tol = TOLERANCES[operands]
    made = planned(tol, fast, **shape)
    dtypes = [own.chosen.work.dtype for own in made.heads]
    assert operands in dtypes and set(dtypes) <= set(OPERANDS)
    new = drawn(seed=7, **{"reach": 0.25, **shape})
    result = made.run(*new)
    assert sum(map(len, replays)) == len(made.heads)
    assert (replays[0][0].tilt is None) == ("mirrored" in shape)
    sound(result, new, tol)
    assert result.certificate.terms[-1].name == "conversion"
    assert "tensor cores" in " ".join(result.certificate.assumptions)


def test_values_far_from_zero_pay_for_the_conversion(replays, fast):
    made = planned(1e-2, fast)
    Q, K, V = drawn(seed=7, reach=0.3)
    near, far = made.run(Q, K, V), made.run(Q, K, V + np.float32(3e4))
    sound(far, (Q, K, V + np.float32(3e4)), 1e-2)
    assert far.certificate.terms[-1].value.max() > 30.0 * near.certificate.terms[-1].value.max()
    assert len(replays) == 2


@pytest.mark.parametrize("operands", OPERANDS)
def test_the_plans_own_data_and_some_larger_are_replayed(replays, fast, operands):
    tol, (Q, K, V) = TOLERANCES[operands], drawn()
    made = planned(tol, fast)
    for larger in (1.0, 1.09):
        new = (Q * np.float32(larger), K, V)
        result = made.run(*new)
        assert result.certificate.terms[-1].name == "conversion"
        sound(result, new, tol)
    assert len(replays) == 2


def test_room_is_left_only_within_the_tolerance(replays, fast, monkeypatch):
    """Of its bound without room a plan has none, and its own data run the long way."""
    with monkeypatch.context() as patched:
        patched.setattr(method, "ROOM", ())
        tight = planned(TOLERANCES["bfloat16"], fast).heads[0].chosen
    between = planned(TOLERANCES["bfloat16"], fast).heads[0].chosen
    assert tight.bound < between.bound
    assert between.parameters.logit_bound == method.ROOM[0] * tight.parameters.logit_bound
    made = planned(tight.bound, fast)
    assert made.heads[0].chosen.parameters == tight.parameters
    result = made.run(*drawn())
    assert result.certificate.terms[-1].name != "conversion"
    sound(result, drawn(), tight.bound)
    with_less = planned(0.5 * (tight.bound + between.bound), fast).heads[0].chosen
    assert with_less.parameters.degree == tight.parameters.degree
    assert tight.parameters.logit_bound < with_less.parameters.logit_bound
    assert with_less.parameters.logit_bound < between.parameters.logit_bound


@pytest.mark.parametrize("change", ["queries", "keys"])
def test_what_leaves_the_interval_is_planned_anew_or_refused(replays, fast, change):
    made = planned(1e-2, fast)
    Q, K, V = drawn(seed=7)
    (Q if change == "queries" else K)[11] *= 6.0
    with pytest.raises(subquad.ToleranceError, match="plan again"):
        made.run(Q, K, V)
    assert len(replays) == 1


def test_rows_out_of_balance_run_the_long_way(replays, fast):
    made = planned(1e-2, fast)
    Q, K, V = drawn(seed=7, reach=0.3)
    centre = K.mean(axis=0)
    K = ((K - centre) * np.float32(2.0**-6) + centre).astype(np.float32)
    Q = Q * np.float32(2.0**5)
    result = made.run(Q, K, V)
    assert len(replays) == 1
    assert result.certificate.terms[-1].name != "conversion"
    sound(result, (Q, K, V), 1e-2)


@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(replays, fast, which, bad):
    made = planned(1e-2, fast)
    arrays = drawn(seed=7, reach=0.3)
    arrays[which][123, 2] = bad
    with pytest.raises(ValueError, match=f"`{'QKV'[which]}`"):
        made.run(*arrays)


def test_tiny_values_run_the_long_way(replays, fast):
    made = planned(1e-2, fast)
    Q, K, V = drawn(seed=7, reach=0.3)
    V *= np.float32(2.0**-110)
    result = made.run(Q, K, V)
    assert result.certificate.terms[-1].name != "conversion"
    assert len(replays) == 1


def test_what_the_kernels_cannot_take_runs_the_long_way(replays, fast):
    made = planned(1e-2, fast)
    Q, K, V = new = drawn(seed=7, reach=0.3)
    sound(made.run(np.asfortranarray(Q), K, V), new, 1e-2)
    masked = made.run(Q, K, V, key_mask=np.ones(len(K), bool))
    sound(masked, new, 1e-2)
    assert replays == []
    with pytest.raises(ValueError, match="plan again"):
        made.run(Q[:-1], K, V)


def test_heads_of_one_degree_go_together_as_far_as_memory_does(replays, fast, monkeypatch):
    made = planned(1e-2, fast, lead=(5,), reach=0.2)
    new = drawn(seed=7, lead=(5,), reach=0.15)
    sound(made.run(*new), new, 1e-2)
    assert [len(units) for units in replays] == [5]
    monkeypatch.setattr("subquad.planning.rerun.ROWS_AT_ONCE", 2 * 302 + 1)
    sound(replace(made).run(*new), new, 1e-2)  # a plan keeps its launches
    assert [len(units) for units in replays] == [5, 2, 2, 1]


def test_heads_that_were_planned_for_fewer_keys_run_the_long_way(replays, fast):
    """A mask may leave each head another number of keys; bounds are for that number."""
    Q, K, V = drawn(lead=(2,), m=2000)
    mask = np.ones((2, 2000), bool)
    mask[1, 16:] = False
    made = subquad.plan(Q, K, V, tol=6e-2, rates=fast, method="polynomial", key_mask=mask)
    assert [own.stats.m for own in made.heads] == [2000, 16]
    new = drawn(seed=7, reach=0.2, lead=(2,), m=2000)
    with pytest.raises(ValueError, match="plan again"):
        made.run(*new)
    assert replays == []


def test_there_is_room_for_queries_as_far_as_the_interval_and_the_balance_go(replays, fast):
    head = planned(1e-2, fast).heads[0]
    root = head.chosen.parameters.logit_bound**0.5
    proofs = rerun_terms.RerunBounds((head,), np.zeros(1), 1e-2)
    form = FORMATS[head.chosen.work.dtype]
    for share in (1e-3, 0.3, 0.5, 1.0, 1.3):
        key_norm = share * root
        room = proofs.room(np.array([key_norm]))[0]
        assert 0.9 * min(root / share, root) <= room <= np.sqrt(2.0) * root
        grown = Fraction(room) * Fraction(key_norm) * (1 + 4 * Fraction(form.u))
        assert grown + Fraction(form.normal) / 16 <= Fraction(head.chosen.parameters.logit_bound)
        assert 2 * Fraction(head.chosen.parameters.logit_bound) >= Fraction(room) ** 2
    assert proofs.room(np.array([1.5 * root]))[0] < 0.0
    assert proofs.room(np.array([np.nan]))[0] < 0.0
    assert proofs.room(np.zeros(1))[0] > 0.0


def test_bounds_are_kept_and_the_exact_numbers_taken_where_they_do_not_do(replays, fast):
    made = planned(1e-2, fast, lead=(2,), reach=0.2)
    classes = np.array([[1.0, 9.0, 5.0], [1.0, 17.0, 20.0]])
    found = stand_in_replay.Found(
        np.ones(2), classes, np.array([0.26, 0.51]), np.array([2.2, 31.0])
    )
    proofs = rerun_terms.RerunBounds(made.heads, np.zeros(2), 1e-2)
    first = proofs.bounds(found)
    assert first.shape == (1 + len(proofs.names), 2)
    np.testing.assert_allclose(first[0], first[1:].sum(axis=0), rtol=1e-12)
    assert proofs.bounds(replace(found, classes=classes.copy())) is first
    worst = int(first[0].argmax())
    tight = rerun_terms.RerunBounds(made.heads, np.zeros(2), first[0, worst] * (1.0 - 1e-12))
    exact = tight.bounds(found)
    assert exact[0, worst] < first[0, worst] and tight.bounds(found) is not exact
    assert exact[0, 1 - worst] == first[0, 1 - worst]
    beyond = proofs.bounds(replace(found, classes=np.array([classes[0], [0.0, 0.0, 0.0]])))
    assert beyond[0, 0] == first[0, 0] and beyond[0, 1] == np.inf


@pytest.mark.parametrize("mean", [0.0, 0.011, 0.25, 0.9, np.nan])
def test_classes_cover_what_was_found(replays, fast, mean):
    """Steps and powers are never below the offset and the ratio that they stand for."""
    head = planned(1e-2, fast).heads[0]
    (limits,) = rerun_terms.RerunBounds((head,), np.array([10.0]), 1e-2).limits
    rng = np.random.default_rng(0)
    for size in 10.0 ** rng.uniform(-3.0, 6.0, 50):
        low, high = np.array([size, 1.0, 0.0]), np.array([size + 0.3, 1.0, 0.0])
        (near, step, power), offset, ratio = stand_in_replay.classed(0.7, mean, low, high, limits)
        assert near == 1.0
        assert ratio >= max(1.0, 2.0 * high[0] / (high[0] - size))
        assert 2.0 ** (power / 4.0) >= ratio
        assert ratio > 2.0 ** ((power - 1.0) / 4.0)
        assert step / 32.0 >= offset > (step - 1.0) / 32.0
        assert offset > mean / 0.7 if mean < 0.7 else offset == 1.0  # NaN too
    for low, high, norm in (
        ([np.nan], [1.0], 0.7),
        ([-np.inf], [1.0], 0.7),
        ([0.0], [2e30], 0.7),
        ([-1e-31], [1e-31], 0.7),
        ([0.0], [1.0], 1.7),
    ):
        own = stand_in_replay.classed(norm, mean, np.array(low), np.array(high), limits)[0]
        assert own == (0.0, 0.0, 0.0)


def test_copies_of_a_plan_have_launches_of_their_own(replays, fast):
    made, new = planned(1e-2, fast), drawn(seed=7, reach=0.3)
    first = made.run(*new)
    copied = copy.deepcopy(made)
    assert "_launches" in made._ready.__dict__
    assert "_launches" not in copied._ready.__dict__
    assert np.array_equal(copied.run(*new).output, first.output)
    assert len(replays) == 2


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_loaded_plan_runs_again_with_the_same_bits(replays, fast, tmp_path, mirrored):
    """The units of the plan are stored: the fused passes take new data in them."""
    shape = {"lead": (2,), "mirrored": mirrored}
    made, new = planned(1e-2, fast, **shape), drawn(seed=7, reach=0.3, **shape)
    made.save(tmp_path / "plan.json")
    result, again = made.run(*new), subquad.Plan.load(tmp_path / "plan.json").run(*new)
    assert len(replays) == 2
    assert np.array_equal(again.output, result.output)
    assert np.array_equal(again.certificate.row_bounds, result.certificate.row_bounds)
