"""The plan: what it prints, what it chooses, what running it again re-checks, how it refuses."""

import gc
import math
import re
import sys
import weakref

import numpy as np
import pytest

import subquad
from subquad.methods.method import Proposal, Refusal
from subquad.methods.polynomial.sums import parameters_for
from subquad.planning import choose
from subquad.planning.refusal import rounded_up
from tests import oracle


def data(n=500, m=600, d=6, size=0.4, seed=0, lead=(), dtype=float):
    rng = np.random.default_rng(seed)
    Q = size * rng.standard_normal((*lead, n, d))
    K = size * rng.standard_normal((*lead, m, d))
    return [x.astype(dtype) for x in (Q, K, rng.standard_normal((*lead, m, 3)))]


def table_rows(text):
    """Return the rows of a printed plan as (method, whole line)."""
    return [
        (line.split()[0], line)
        for line in text.splitlines()
        if line.split()[:1]
        and line.split()[0] in subquad.METHODS
        and " would win from " not in line
    ]


def test_every_method_is_printed_with_parameters_bound_cost_and_reason(rates):
    made = subquad.plan(*data(), tol=1e-2, rates=rates)
    head, text = made.heads[0], str(made)
    rows = table_rows(text)
    assert {name for name, _ in rows} == set(subquad.METHODS)
    assert len(rows) == len(head.options)
    for option, (name, line) in zip(head.options, rows, strict=True):
        assert option.method.name == name
        assert str(option.parameters) in line
        if isinstance(option, Proposal):
            assert f"{option.bound:.1e}" in line
            assert f"{option.work.flops:.1e}" in line
            assert f"{head.seconds(option):.2g}" in line
            assert "certified" in line
        else:
            assert option.reason in line
    assert [line for _, line in rows if "<- chosen" in line] == [
        rows[head.options.index(head.chosen)][1]
    ]
    first = text.splitlines()[0]
    for part in (
        "n 500",
        "m 600",
        "d 6",
        "d_v 3",
        "float64",
        "tol 1.0e-02",
        f"logit bound {head.stats.logit_bound:.3g}",
    ):
        assert part in first
    assert text.splitlines()[-1].startswith("rates (float32 / float64): exact 2.0e+11 / 1.0e+11")


def test_the_plan_of_a_result_is_the_plan(rates):
    Q, K, V = data()
    assert str(subquad.attention(Q, K, V, tol=1e-2, rates=rates).plan) == str(
        subquad.plan(Q, K, V, tol=1e-2, rates=rates)
    )


def test_the_cheapest_certified_is_chosen(rates):
    for tol in (1e-1, 1e-3, 1e-6):
        head = subquad.plan(*data(), tol=tol, rates=rates).heads[0]
        proposals = [o for o in head.options if isinstance(o, Proposal)]
        assert all(o.bound <= tol for o in proposals)
        assert head.seconds(head.chosen) == min(map(head.seconds, proposals))


def test_what_cannot_win_says_so(rates):
    """Searches that a way already found ends early: how much at least, or that none was made."""
    Q, K, V = data(300_000, 300_000, d=8, size=0.1, dtype=np.float32)
    head = subquad.plan(Q, K, V, tol=1e-2, rates=rates).heads[0]
    assert head.chosen.method.name == "polynomial"
    for name in ("multi_threshold", "fitted"):
        reason = next(o for o in head.options if o.method.name == name).reason
        least, best = re.fullmatch(r"at least (\S+) s, the best so far (\S+) s", reason).groups()
        assert float(least) >= float(best)
        alone = subquad.plan(Q, K, V, tol=1e-2, method=name, rates=rates).heads[0]
        assert alone.seconds(alone.chosen) >= 0.95 * float(least)  # printed with two digits
    small = subquad.plan(*data(), tol=1e-2, rates=rates).heads[0]
    reasons = [o.reason for o in small.options if o.method.name == "fitted"]
    assert reasons[0].startswith("not searched: the best so far takes")


@pytest.mark.parametrize("size", [0.3, 1.0, 10.0])
@pytest.mark.parametrize(("n", "m"), [(1600, 1600), (1400, 1800)])
def test_no_reason_names_infinite_seconds(n, m, size, rates):
    """At d = 80 degree 2 has 3,321 features, more than rows and keys, and degree 1 is too low."""
    head = subquad.plan(*data(n, m, d=80, size=size), tol=1e-2, rates=rates).heads[0]
    reason = next(o.reason for o in head.options if o.method.name == "support_basis")
    assert reason.startswith(f"no threshold leaves logits within reach of {n + m:,} features")
    for option in head.options:
        assert not re.search(r"\b(inf|nan)\b", getattr(option, "reason", ""))
    alone = subquad.plan(
        *data(n, m, d=80, size=size), tol=1e-2, method="support_basis", rates=rates
    )
    assert "every pair exact" in str(alone.heads[0].parameters)


def test_a_method_of_the_users_is_not_told_of_a_budget(rates):
    """`budget` goes only to methods whose `fit` takes it."""
    from subquad.methods.exact import Exact

    class Own(Exact):
        name = "own"

        def fit(self, stats, tol, rates):
            yield from super().fit(stats, tol, rates)

    stats = subquad.plan(*data(), tol=1e-2, rates=rates).heads[0].stats
    head = choose.choose((stats,), 1e-2, (Exact(), Own()), rates)
    assert [o.method.name for o in head.options] == ["exact", "own"]


def test_a_result_does_not_keep_the_arrays(rates):
    Q, K, V = data()
    known = [weakref.ref(x) for x in (Q, K, V)]
    result = subquad.attention(Q, K, V, tol=1e-2, method="polynomial", rates=rates)
    del Q, K, V
    gc.collect()
    assert result.plan.heads[0].chosen is not None
    assert [x() for x in known] == [None, None, None]


def test_the_rates_decide(rates):
    slow = subquad.Speed(1e3, 1e3, 2e11, 2e9, 4e8)
    fast = subquad.Speed(1e15, 1e15, 1e3, 1e3, 4e8)
    sizes = {"n": 4096, "d": 4, "logit_bound": 0.5, "tol": 1e-2}
    assert subquad.plan(**sizes, rates=subquad.Rates(slow, slow)).heads[0].chosen.method.name == (
        "polynomial"
    )
    assert subquad.plan(**sizes, rates=subquad.Rates(fast, fast)).heads[0].chosen.method.name == (
        "exact"
    )


def test_equal_costs_go_to_the_first_method(rates):
    """With no cost but the call, all tie; the order of METHODS decides, `exact` first."""
    free = subquad.Speed(*[math.inf] * 5)
    for _ in range(2):
        made = subquad.plan(n=64, d=2, logit_bound=0.1, tol=0.1, rates=subquad.Rates(free, free))
        assert made.heads[0].chosen.method.name == next(iter(subquad.METHODS))


def test_without_data(rates):
    made = subquad.plan(n=262_144, d=8, logit_bound=0.5, tol=1e-3, rates=rates)
    head = made.heads[0]
    assert head.chosen.method.name == "polynomial"
    assert (head.chosen.parameters.degree, head.chosen.parameters.r) == (3, 165)
    assert (head.stats.m, head.stats.d_v) == (262_144, 8)
    refused = [o for o in head.options if o.method.name == "support_basis"]
    assert all(isinstance(o, Refusal) and "give data" in o.reason for o in refused)
    assert "needs the rows' magnitudes: give data" in str(made)
    zero = subquad.plan(n=10, d=1, logit_bound=0.0, tol=1e-6, rates=rates)
    assert zero.heads[0].chosen is not None
    huge = subquad.plan(n=10, d=1, logit_bound=1e9, tol=1e-3, rates=rates)
    assert huge.heads[0].chosen.method.name == "exact"


def test_a_bound_without_data_covers_data_that_keep_to_it(rates):
    """Sizes, logit bound and V of mid-range 0: the a priori bound of the plan is the larger one."""
    Q, K, V = data(200, 300)
    V -= (V.max(axis=0) + V.min(axis=0)) / 2
    stats = subquad.plan(Q, K, V, tol=1e-2, rates=rates).heads[0].stats
    for name in ("exact", "polynomial"):
        bare = subquad.plan(
            n=200,
            m=300,
            d=6,
            d_v=3,
            logit_bound=stats.logit_bound,
            dtype="float64",
            tol=1e-2,
            method=name,
            rates=rates,
        )
        (proposal,) = bare.heads[0].options
        own = subquad.METHODS[name].certify(stats, proposal.parameters)
        if name == "polynomial":
            assert sum(float(t.value) for t in own) <= proposal.bound


def test_run_again_on_new_data(rates):
    made = subquad.plan(*data(seed=1), tol=1e-2, rates=rates)
    Q, K, V = data(seed=1)
    other = 0.9 * Q, 0.9 * K, V[::-1]
    result = made.run(*other)
    assert np.all(
        oracle.row_errors(result.output, *other, 6**-0.5) <= result.certificate.row_bounds
    )
    assert result.certificate.bound <= 1e-2
    assert result.plan is made


def test_run_again_rechecks_the_bound(rates):
    made = subquad.plan(*data(), tol=1e-2, method="polynomial", rates=rates)
    Q, K, V = data()
    words = (
        r"the plan's polynomial .*tol is 0\.01 "
        r"\(logit bound 3\.6\d*, of the plan's data 1\.2\d*\): plan"
    )
    with pytest.raises(subquad.ToleranceError, match=words):
        made.run(3.0 * Q, K, V)


def test_run_again_rechecks_the_split(rates):
    """More large keys than planned: the bound may hold, but it is proved again, not assumed."""
    Q, K, V = data(300, 300)
    K[::50] *= 40.0
    made = subquad.plan(Q, K, V, tol=1e-2, method="support_basis", rates=rates)
    K[::2] *= 40.0
    try:
        result = made.run(Q, K, V)
    except subquad.ToleranceError:
        return
    assert np.all(
        oracle.row_errors(result.output, Q, K, V, 6**-0.5) <= result.certificate.row_bounds
    )
    assert result.certificate.bound <= 1e-2


@pytest.mark.parametrize(
    "change", [dict(n=501), dict(d=5), dict(lead=(2,))], ids=["n", "d", "lead"]
)
def test_run_again_needs_the_same_shape(change, rates):
    made = subquad.plan(*data(), tol=1e-2, rates=rates)
    with pytest.raises(ValueError, match=re.escape("the plan is for (lead, n, d, d_v) = ((), 500")):
        made.run(*data(**change))


def test_run_again_needs_as_many_keys(rates):
    made = subquad.plan(*data(), tol=1e-2, rates=rates)
    with pytest.raises((ValueError, subquad.ToleranceError), match="plan again") as caught:
        made.run(*data(m=599))
    assert "600" in str(caught.value) and "599" in str(caught.value)


def test_crossover_of_an_exact_choice(rates):
    """Names the method and the length; planning at that length without data agrees."""
    made = subquad.plan(n=512, d=16, logit_bound=1.0, tol=1e-3, rates=rates)
    head = made.heads[0]
    assert head.chosen.method.name == "exact"
    found = re.search(r"polynomial \((.*)\) would win from n = ([\d,]+), at", head.crossover)
    assert head.crossover in str(made)
    length = int(found[2].replace(",", ""))
    assert length > 512
    for n, winner in ((length, "polynomial"), (length // 2, "exact")):
        made = subquad.plan(n=n, d=16, logit_bound=1.0, tol=1e-3, rates=rates)
        assert made.heads[0].chosen.method.name == winner
        if winner == "polynomial":
            assert str(made.heads[0].chosen.parameters) == found[1]
            assert made.heads[0].crossover == ""


def test_no_crossover_is_said(rates):
    made = subquad.plan(n=512, d=64, logit_bound=30.0, tol=1e-6, rates=rates)
    assert made.heads[0].crossover.startswith("no other method wins at these bounds up to n = ")
    assert made.heads[0].crossover in str(made)


def test_a_method_by_instance(rates):
    method = subquad.SupportBasis(criterion="entry", threshold=0.7)
    result = subquad.attention(*data(), tol=1e-2, method=method, rates=rates)
    assert result.plan.method == "support_basis"
    assert {o.parameters.criterion for o in result.plan.heads[0].options} == {"entry"}
    assert result.plan.heads[0].chosen.method is method


def test_nothing_certifies(rates):
    """plan() says so; attention() raises, naming the best bound, its method, and what to change."""
    Q, K, V = (x.astype(np.float32) for x in data(size=4.0))
    options = {"tol": 1e-9, "rates": rates}
    made = subquad.plan(Q, K, V, **options)
    head = made.heads[0]
    assert head.chosen is None
    assert all(isinstance(o, Refusal) for o in head.options)
    assert head.crossover == ""
    assert "chosen" not in str(made)
    best, name = min(
        (o.best_bound, o.method.name) for o in head.options if o.best_bound is not None
    )
    with pytest.raises(subquad.ToleranceError) as caught:
        subquad.attention(Q, K, V, **options)
    text = str(caught.value)
    assert "no allowed method proves tol=1e-09 (asked for method='auto')" in text
    named = f"{rounded_up(best):.3e}"
    assert f"Best bound reached: {named} by {name}; `tol` would have to be at least that" in text
    assert subquad.attention(Q, K, V, **options | {"tol": float(named)}).certificate.bound > 1e-9
    for option in head.options:
        assert f"{option.method.name}: {option.reason}" in text
    assert best > 1e-9


def test_a_named_method_that_cannot_says_what_would_help(rates):
    Q, K, V = data(size=10.0)
    with pytest.raises(subquad.ToleranceError) as caught:
        subquad.attention(Q, K, V, tol=1e-2, method="polynomial", rates=rates)
    bound = subquad.plan(Q, K, V, tol=1e-2, rates=rates).heads[0].stats.logit_bound
    assert f"polynomial: logit bound {bound:.3g} exceeds 64" in str(caught.value)
    assert 'method="auto" with allow_exact=True may take the exact method' in str(caught.value)
    assert f"a smaller logit bound (now {bound:.3g})" in str(caught.value)


def test_the_head_that_fails_is_named(rates):
    Q, K, V = data(lead=(2, 3))
    Q[1, 2] *= 100.0
    with pytest.raises(subquad.ToleranceError, match=re.escape("in head (1, 2) (asked for")):
        subquad.attention(Q, K, V, tol=1e-2, method="polynomial", rates=rates)


def test_allow_exact(rates):
    Q, K, V = data(size=2.0, d=6)
    assert subquad.attention(Q, K, V, tol=1e-4, rates=rates).plan.heads[0].chosen.method.name == (
        "exact"
    )
    made = subquad.plan(Q, K, V, tol=1e-4, allow_exact=False, rates=rates)
    assert {o.method.name for o in made.heads[0].options} == set(subquad.METHODS) - {"exact"}


FITTED_BARRED = "fitted: may send rows to `exact`, which allow_exact=False excludes"


def test_fitted_without_the_exact_method_says_why_not(rates):
    """Its bound is predicted: no best bound is claimed, and no other tolerance asked for."""
    options = {"tol": 0.1, "method": "fitted", "allow_exact": False, "rates": rates}
    text = (
        "no allowed method proves tol=0.1 (asked for method='fitted'). "
        f"{FITTED_BARRED}. "
        'allow_exact=True allows fitted, and with method="auto" the exact method.'
    )
    with pytest.raises(subquad.ToleranceError, match=f"^{re.escape(text)}$"):
        subquad.attention(*data(), **options)
    made = subquad.plan(*data(), **options)
    ((_, line),) = table_rows(str(made))
    assert re.search(r"degree \d+, r \d+, .* +- +- +- +" + re.escape(FITTED_BARRED[8:]), line)
    allowed = subquad.plan(*data(), **options | {"allow_exact": True})
    assert allowed.heads[0].chosen.fallback == 1.0
    assert "predicted, to be certified by the run, cheapest   <- chosen" in str(allowed)


def test_auto_without_the_exact_method_where_only_fitted_would_do(rates, monkeypatch):
    exact = ("support_basis", "multi_threshold")  # these may do every pair exactly
    some = {name: method for name, method in subquad.METHODS.items() if name not in exact}
    # Not METHODS itself, less two: put back, they would be the last for all tests that follow.
    monkeypatch.setattr(sys.modules["subquad.planning.make"], "METHODS", some)
    arrays = data(size=1.5, dtype=np.float32)
    options = {"tol": 1e-5, "allow_exact": False, "rates": rates}
    head = subquad.plan(*arrays, **options).heads[0]
    polynomial, fitted, anisotropic = head.options
    assert head.chosen is None and all(isinstance(o, Refusal) for o in head.options)
    assert fitted.best_bound is None and polynomial.best_bound > 1e-5
    text = (
        f"no allowed method proves tol=1e-05 (asked for method='auto'). polynomial: "
        f"{polynomial.reason}; {FITTED_BARRED}; anisotropic: {anisotropic.reason}. Best bound "
        f"reached: {rounded_up(polynomial.best_bound):.3e} by polynomial; `tol` would have to be "
        'at least that. allow_exact=True allows fitted, and with method="auto" the exact method; a '
        f"smaller logit bound (now {head.stats.logit_bound:.3g}) would let a polynomial do."
    )
    with pytest.raises(subquad.ToleranceError, match=f"^{re.escape(text)}$"):
        subquad.attention(*arrays, **options)


def test_heads_are_grouped_by_choice(rates):
    Q, K, V = data(lead=(4,), n=800, m=800)
    Q[3] *= 12.0
    made = subquad.plan(Q, K, V, tol=1e-2, rates=rates)
    text = str(made)
    assert len(made.heads) == 4
    titles = re.findall(r"(\d) of 4 heads: (\w+) .* logit bounds \S+ to \S+; the median one:", text)
    assert sum(int(count) for count, _ in titles) == 4
    assert {name for _, name in titles} == {h.chosen.method.name for h in made.heads}
    assert len(titles) >= 2


def test_memory_is_a_limit(monkeypatch, rates):
    """A State that would not fit is shown, certified, and not chosen."""
    sizes = {"n": 2**22, "d": 64, "logit_bound": 0.5, "tol": 1e-2, "rates": rates}
    free = subquad.plan(**sizes).heads[0]
    assert free.chosen.method.name == "polynomial"
    monkeypatch.setattr(choose, "memory_bytes", lambda: free.chosen.work.state_bytes)
    made = subquad.plan(**sizes)
    assert made.heads[0].chosen.method.name == "exact"
    assert "certified, but the passes need" in str(made)
    with pytest.raises(subquad.ToleranceError, match="certified, but the passes need"):
        Q, K, V = data()
        monkeypatch.setattr(choose, "memory_bytes", lambda: 8.0)
        subquad.attention(Q, K, V, tol=1e-2, method="polynomial", rates=rates)


def test_the_memory_counted_covers_the_feature_tiles(rates):
    """Beside the State one thread holds a tile of all monomials below the top degree."""
    from subquad.engine import tile_size
    from subquad.features import feature_dimension

    stats = subquad.plan(n=8, d=16, logit_bound=6.0, tol=1.0, rates=rates).heads[0].stats
    p = parameters_for(14, 6.1, "float64", 16)
    tile = 8.0 * feature_dimension(16, 13) * tile_size(16, 14)
    assert subquad.METHODS["polynomial"].work(stats, p).state_bytes >= tile > 2**35
