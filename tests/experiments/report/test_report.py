"""The page has every section, no NaN, and the numbers of its JSON; the experiments' tables too."""

import copy
import dataclasses
import html
import importlib.util
import json
import re
from functools import partial
from pathlib import Path

import pytest

import subquad
from experiments import __main__, questions
from experiments.harness import finding, instances, store
from experiments.questions import (
    bench,
    crossover,
    error_vs_bound,
    error_vs_threshold,
    thresholds,
    verdict,
)
from experiments.report import report, sections, summary, verdict_tables
from experiments.report.writing import number, text_table, tolerance
from proofs_checks import registry
from subquad import TYPICAL

HEAD = "minilm-l0-h11-smallest"


@pytest.fixture(scope="module")
def small():
    return (
        dataclasses.replace(  # what is too dear to be run must not depend on a clock
            error_vs_bound.experiment(
                n=160, d=8, heads=(HEAD,), families=("bounded(0.5)", "outliers"), tols=(1e-1, 1e-2)
            ),
            rates=TYPICAL,
        ),
        crossover.experiment(d=4, lengths=(128, 192, 256), repeats=1),
        error_vs_threshold.experiment(True, n=256, d=16, count=3),
        thresholds.experiment(n=128, repeats=0, only=("outliers", "minilm-l5-h0-smallest")),
        verdict.experiment(heads={HEAD: partial(instances.real, HEAD)}, tols=(1e-1,)),
    )


FEW_CLAIMS = ("ratio-sharp", "additive-sharp", "sb-eq44")
KEPT = ("thresholds", "verdict", "gpu")
"""Of the committed records, those on the page of these tests; see test_charts for the others."""


@pytest.fixture(scope="module")
def written(small, tmp_path_factory):
    """Write a page of small runs beside a few committed records, with few of the claims."""
    out = tmp_path_factory.mktemp("report")
    said = []
    claims = [claim for claim in registry.select() if claim.id in FEW_CLAIMS]
    assert len(claims) == len(FEW_CLAIMS)
    kept = {name: found for name, found in report.committed().items() if name in KEPT}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "select", lambda: claims)
        patch.setattr(report, "committed", lambda: kept)
        found = report.write(out, quick=True, progress=said.append, experiments=small)
    page = (out / "index.html").read_text(encoding="utf-8")
    return found, page, json.loads((out / "report.json").read_text()), said


def shown(page):
    return {
        html.unescape(re.sub("<[^>]+>", "", cell)).strip()
        for cell in re.findall(r"<td[^>]*>(.*?)</td>", page)
    }


def test_every_section_is_there_and_in_the_contents(written):
    _, page, _, said = written
    made = {"error_vs_bound", "crossover", "error_vs_threshold"}
    ids = {"asked", "verdicts", "claims", "real", "families", "plans", "how", *made, *KEPT}
    assert set(re.findall(r'<section id="([^"]+)">', page)) == ids
    contents = page[page.index("<nav") : page.index("</nav>")]
    listed = re.findall(r'href="#([^"]+)"', contents)
    assert listed == re.findall(r'<section id="([^"]+)">', page)[2:]
    assert set(listed) == ids - {"asked", "verdicts"}
    figures = sum(len(questions.load(name).KEPT.charts) for name in (*made, *KEPT))
    assert page.count("<svg") == figures == page.count("<figcaption")
    assert said[-1] == "drawing the page"


def sections_of(page):
    found = re.split(r'<section id="([^"]+)">', page)
    return dict(zip(found[1::2], found[2::2], strict=True))


def verdicts_of(text):
    """Return (statement, verdict) of each finding that bears a badge."""
    pattern = (
        r'<li><span class="badge \w+">([^<]+)</span>(?:<div><p[^>]*>| <span>)(.*?)</(?:p|span)>'
    )
    return [(re.sub("<[^>]+>", "", told), verdict) for verdict, told in re.findall(pattern, text)]


def test_the_question_stands_before_its_verdicts(written):
    _, page, _, _ = written
    parts = sections_of(page)
    names = [name for name in questions.names() if name in parts]
    assert len(names) > 5
    for name in names:
        text = html.unescape(parts[name])
        assert 0 < text.index(questions.load(name).QUESTION) < text.index('class="badge')
        assert questions.load(name).QUESTION in html.unescape(parts["asked"])
    assert page.index("</nav>") < page.index('id="verdicts"') < page.index('class="badge')


def test_every_verdict_has_its_colour_and_is_counted(written):
    _, page, kept, _ = written
    colours = {"holds": "good", "partly": "mixed", "does not hold": "bad"}
    style = page[: page.index("</style>")]
    for word, colour in colours.items():
        assert f".{colour} {{ color: var(--{colour}); }}" in style
        count = sum(f["verdict"] == word for f in kept["findings"])
        badge = f'<span class="badge {colour}">{word}</span>'
        assert f"{badge} {count}:" in page
        assert page.count(badge) == 2 * count + 1  # listed, in its section, and in the key


def test_a_claim_has_one_verdict(written):
    """That of the committed record, though the run made for the page says otherwise."""
    _, page, kept, _ = written
    parts = sections_of(page)
    listed = verdicts_of(parts.pop("verdicts"))
    assert len(dict(listed)) == len(listed) == len(kept["findings"])
    told = [pair for name in parts for pair in verdicts_of(parts[name]) if pair[1] != "refuted"]
    assert sorted(told) == sorted(listed)
    committed = kept["committed"]["thresholds"]["findings"]
    anew = questions.findings(kept["records"]["thresholds"])
    shown_there = [f for f in kept["findings"] if f["section"] == "thresholds"]
    assert [f["verdict"] for f in shown_there] == [f["verdict"] for f in committed]
    assert [f["verdict"] for f in anew] != [f["verdict"] for f in committed]
    assert "The run made for this page, on 24 of the 89 cases" in parts["thresholds"]
    assert kept["findings"][1]["quick"] is None  # of a record without a longer one


def test_every_table_and_figure_can_be_scrolled(written):
    _, page, _, _ = written
    assert page.count("<table") == len(re.findall(r'<div class="scroll" tabindex="0"><table', page))
    assert page.count("<svg") == len(re.findall(r'<div class="scroll" tabindex="0"><svg', page))


def test_figures_are_in_the_colours_of_the_page(written):
    _, page, _, _ = written
    style = page[: page.index("</style>")]
    used = set(re.findall(r"var\((--\w+)\)", page[page.index("</style>") :]))
    assert len(used) > 6
    for name in used:
        assert style.count(f" {name}:") == 2, name  # light and dark
    assert "#0000c" not in page


def test_page_is_self_contained_and_well_formed(written):
    _, page, _, _ = written
    assert "<script" not in page
    assert not re.search(r'(src|href)="(?!#)', page.replace('xlink:href="#', ""))
    body = re.sub("<pre>.*?</pre>", "", page[page.index("<body>") :], flags=re.DOTALL)
    text = re.sub("<[^>]+>", " ", body)  # a plan may say that a refused bound is infinite
    assert not re.search(r"\b(nan|NaN|inf|None)\b", text)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_page_and_json_have_the_same_numbers(written):
    made, page, kept, _ = written
    assert made == kept
    cells = shown(page)
    for name, module in (
        ("error_vs_bound", error_vs_bound),
        ("crossover", crossover),
        ("error_vs_threshold", error_vs_threshold),
        ("thresholds", thresholds),
    ):
        rows = module.table_rows(kept["records"][name])
        assert rows
        for row in rows:
            assert {number(x) for x in row if isinstance(x, float)} <= cells
    bare = re.sub(r"</?code>|<span class=\"line\">([^<]*)</span>", r"\1", page)
    text = html.unescape(bare).replace("\N{NO-BREAK SPACE}", " ")
    for found in kept["findings"]:
        assert found["statement"].replace("`", "") in text
        assert found["evidence"].replace("`", "") in text


ERRORS = {"measured", "bound", "own polynomial", "a priori", "output l1"}
NULLS = {"mean(V)", "first order"}


def test_every_error_table_has_the_null_models():
    """In its header, and in its rows: a number wherever there is one of an error."""
    checked = 0
    for name, found in report.committed().items():
        header = questions.load(name).HEADER
        if not ERRORS & {*header}:
            continue
        checked += 1
        assert NULLS <= {*header}, name
        for row in questions.load(name).table_rows(found["record"]):
            own = dict(zip(header, row, strict=True))
            if any(isinstance(own.get(key), float) for key in ERRORS):
                assert all(isinstance(own[null], float) for null in NULLS), (name, row)
    assert checked > 10


def test_every_error_table_of_the_page_has_the_null_models(written):
    _, page, _, _ = written
    headers = [re.findall(r"<th[^>]*>(.*?)</th>", x) for x in page.split("<thead>")[1:]]
    of_errors = [header for header in headers if ERRORS & {*header}]
    assert len(of_errors) > 6
    assert all(NULLS <= {*header} for header in of_errors)


def test_every_run_keeps_its_bound(written):
    _, _, kept, _ = written
    flat = error_vs_bound.runs(kept["records"]["error_vs_bound"]["rows"])
    assert {run["method"] for run in flat} >= {"exact", "polynomial", "support_basis by norm"}
    for run in flat:
        assert run["measured"] <= run["bound"] <= run["tol"]
    tally = kept["records"]["error_vs_bound"]["derived"]
    assert tally["runs"] == tally["within_bound"] == tally["within_tol"] == len(flat)


def test_trivial_rows_are_those_that_mean_v_meets(written):
    _, _, kept, _ = written
    for row in kept["records"]["error_vs_bound"]["rows"]:
        assert row["trivial"] == (row["mean_v"]["measured"] <= row["tol"])
    assert any(row["trivial"] for row in kept["records"]["error_vs_bound"]["rows"])


def test_polynomial_refuses_outliers(written):
    _, _, kept, _ = written
    rows = kept["records"]["crossover"]["rows"]
    refused = [row["family"] for row in rows if "refused" in row["methods"]["polynomial"]]
    assert set(refused) == {"outliers"}


def test_sweep_counts_rows_as_the_paper_does():
    swept = error_vs_threshold.thresholds()
    assert len(swept) == 29
    assert (0.15 < swept[0], swept[-1]) == (True, 0.5)
    expected = {0.16: 0.9999, 0.2: 0.949, 0.25: 0.551, 0.3: 0.159, 0.35: 0.029, 0.4: 0.004}
    for threshold, share in expected.items():
        assert error_vs_threshold.share_above(threshold, 64) == pytest.approx(share, abs=6e-4)


def test_missing_extra_says_what_to_install(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "jinja2" else find(name)
    )
    with pytest.raises(ModuleNotFoundError, match=r"needs jinja2.*subquad\[report\]"):
        report.write(tmp_path)


def test_committed_records_are_whole():
    for path in store.RESULTS.glob("*.json"):
        record = store.read_json(path)
        assert record["complete"], path.name
        assert path.stem == record["experiment"]
        assert questions.findings(record)


def test_numbers_stand_in_charts_and_not_in_paragraphs():
    """The evidence of a verdict is a few numbers; every committed record has a chart of all."""
    for name, found in report.committed().items():
        assert questions.load(name).KEPT.charts, name
        for said in found["findings"]:
            numbers = re.findall(r"(?<![\w-])\d[\d,]*(?:\.\d+)?(?:e-?\d+)?", said["evidence"])
            assert len(numbers) <= 9, (name, said["evidence"])
            assert len(said["evidence"]) <= 280, (name, said["evidence"])


def test_a_section_shows_the_committed_record_and_the_new_one_beside():
    kept = report.committed()
    fresh = {"thresholds": part(kept["thresholds"]["record"], "outliers")}
    by_name = {s["name"]: s for s in sections.sections(fresh, kept)}
    assert list(by_name) == [name for name in questions.names() if name in kept]
    assert by_name["thresholds"]["record"] is kept["thresholds"]["record"]
    assert by_name["thresholds"]["fresh"] is fresh["thresholds"]
    assert by_name["gpu"]["fresh"] is None
    (alone,) = sections.sections(fresh, {})
    assert alone["record"] is fresh["thresholds"] and alone["fresh"] is None
    assert all(f["quick"] is None for f in alone["findings"])


def part(record, instance):
    """Return the rows of one instance, as a run of that one alone has them."""
    rows = [row for row in record["rows"] if row["instance"] == instance]
    return {**record, "rows": rows, "derived": thresholds.verdict(rows)}


def test_a_run_agrees_where_the_verdict_is_the_same_on_the_cases_of_both():
    """On outliers several thresholds hold, on all instances partly: no contradiction."""
    kept = report.committed()["thresholds"]["record"]
    fresh = part(kept, "outliers")
    said = sections.quick_verdicts(fresh, kept)["norm against entry"]
    assert said["verdict"] == said["kept"] == finding.HOLDS and said["agrees"]
    assert (said["cases"], said["of"]) == (len(fresh["rows"]), len(kept["rows"]))
    whole = {f["claim"]: f["verdict"] for f in questions.findings(kept)}
    assert whole["norm against entry"] == finding.PARTLY
    other = copy.deepcopy(fresh)
    for row in thresholds.by_way(other["rows"]):
        row["gain_by_count"] = 2.0
    said = sections.quick_verdicts(other, kept)["norm against entry"]
    assert (said["verdict"], said["kept"], said["agrees"]) == (finding.FAILS, finding.HOLDS, False)
    assert sections.quick_verdicts({**fresh, "rows": []}, kept) == {}


def test_numbers_that_json_has_not_leave_the_old_page(tmp_path, monkeypatch):
    """The page and its JSON are both made before the first of them is replaced."""
    claims = {"in_registry": 0, "records": [], "seconds": float("nan")}
    monkeypatch.setattr(report, "checked_claims", lambda *_: claims)
    monkeypatch.setattr(report, "render", lambda *_: "the new page")
    (tmp_path / "index.html").write_text("the old page")
    with pytest.raises(ValueError, match="not JSON compliant"):
        report.write(tmp_path, quick=True, experiments=())
    assert (tmp_path / "index.html").read_text() == "the old page"


def test_a_failure_while_writing_leaves_the_old_page(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "checked_claims", lambda *_: {"in_registry": 0, "records": []})
    monkeypatch.setattr(report, "render", lambda *_: "the new page")
    (tmp_path / "index.html").write_text("the old page")
    whole = Path.write_text

    def half(path, text, *args, **options):
        whole(path, text[: len(text) // 2], *args, **options)
        msg = "no space left"
        raise OSError(msg)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", half)
        with pytest.raises(OSError, match="no space left"):
            report.write(tmp_path, quick=True, experiments=())
    assert (tmp_path / "index.html").read_text() == "the old page"
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]
    report.write(tmp_path, quick=True, experiments=())
    assert (tmp_path / "index.html").read_text() == "the new page"


def test_quick_checks_the_load_bearing_claims_and_the_false_ones(monkeypatch):
    checked = []
    monkeypatch.setattr(registry, "run", lambda claims, _: checked.append(list(claims)) or [])
    assert report.checked_claims(True) == {"in_registry": len(registry.select()), "records": []}
    refuted = {claim.id for claim in registry.select() if claim.expected == "refuted"}
    assert {claim.id for claim in checked[0]} == refuted | {*report.LOAD_BEARING}
    report.checked_claims(False)
    assert checked[1] == list(registry.select())


def test_agreement_compares_the_same_heads_and_lengths():
    def record(head, gain):
        by = {"4096": {"gain": 1.0}, "65536": {"gain": gain}}
        return {"rows": [{"head": head, "tol": 0.1, "by_count": by, "by_rates": by}]}

    kept = record("minilm-l0-h7", 2.0)
    assert verdict_tables.agreement(record("minilm-l0-h7-median", 2.01), kept) == (4, 4)
    assert verdict_tables.agreement(record("minilm-l0-h7-median", 2.1), kept) == (2, 4)
    assert verdict_tables.agreement(record("minilm-l0-h70", 2.0), kept) == (0, 0)
    assert verdict.same_case("minilm-l0-h7-median at 0.1") == "minilm-l0-h7 at 0.1"


def test_committed_verdict_is_on_all_heads():
    record = store.read_json(store.RESULTS / "verdict.json")
    assert record["settings"]["heads"] == 72
    assert len(record["rows"]) == 72 * 3
    assert record["derived"]["sound"] == record["derived"]["runs"] == 216


def test_bench_in_small(monkeypatch):
    monkeypatch.setattr(bench, "GEMM_SIZE", 256)
    record = store.run(bench.experiment(n=512, d=4, repeats=1), rates=TYPICAL)
    over = record["derived"]["over_ours_clean"]
    assert over["ours, clean"] == 1.0
    assert record["derived"]["polynomial_refuses_outliers"] is True
    assert len(bench.table_rows(record)) == len(over)
    ways = {row[0]: dict(zip(bench.HEADER, row, strict=True)) for row in bench.table_rows(record)}
    assert ways[bench.GEMM]["floor / it"] == 1.0
    beside = sum(ways[name]["seconds"] for name in (bench.PLANNING, bench.CERTIFYING))
    share = record["derived"]["share_of_planning_and_certificate"]["ours, clean"]
    assert share == pytest.approx(beside / ways["ours, clean"]["seconds"]) and beside > 0.0
    assert len(questions.findings(record)) == 2


def test_verdicts_follow_the_numbers():
    record = {
        "experiment": "error_vs_bound",
        "complete": True,
        "settings": {"plans shown at": 1e-2},
        "rows": [],
        "derived": {
            "runs": 2,
            "within_bound": 2,
            "within_tol": 2,
            "median_ratio": 5.0,
            "smallest_ratio": 1.5,
            "trivial": 0,
        },
    }
    assert questions.findings(record)[0]["verdict"] == finding.HOLDS
    record["derived"]["within_bound"] = 1
    assert questions.findings(record)[0]["verdict"] == finding.FAILS
    record["complete"] = False
    assert questions.findings(record) == []


def test_crossover_line_of_a_plan():
    Q, K, V, scale = instances.bounded(64, 16, beta=1.0, seed=3)
    for memory, too_much in ((None, False), (1e4, True)):
        rates = dataclasses.replace(TYPICAL, memory=memory)
        head = subquad.plan(Q, K, V, tol=1e-2, scale=scale, rates=rates).heads[0]
        method, length, found = summary.crossover_of(head.crossover)
        assert (method, found) == ("polynomial", too_much)
        assert f"n = {length:,}" in head.crossover
    assert summary.crossover_of("no other method wins at these bounds up to n = 2.8e+14") is None


def test_numbers_as_written():
    given = [0, 0.0, 1234, 0.5, 12.345, 4321.0, 2e5, 1.5e-7, None, "x", True]
    assert [number(x) for x in given] == [
        "0",
        "0",
        "1,234",
        "0.500",
        "12.3",
        "4,321",
        "2.0e+05",
        "1.5e-07",
        "–",
        "x",
        "True",
    ]
    assert [tolerance(t) for t in (1e-2, 4e-4, 1.0)] == ["1e-2", "4e-4", "1e0"]
    found = text_table(("a", "b"), [["x", 1.0], ["long", None]])
    assert found == "a        b\nx     1.00\nlong     –"


def test_unknown_experiment_lists_the_names(capsys):
    assert __main__.main(["nothing"]) == 2
    said = capsys.readouterr().err
    assert "'nothing'" in said
    for name in questions.names():
        assert name in said


def test_command_writes_where_told(tmp_path, capsys, monkeypatch):
    small = crossover.experiment(d=2, lengths=(64, 80, 96), repeats=1)
    monkeypatch.setattr(crossover, "experiment", lambda quick: small)
    assert __main__.main(["crossover", "--out", str(tmp_path / "x.json")]) == 0
    printed = capsys.readouterr()
    assert crossover.QUESTION in printed.out
    assert "support_basis" in printed.out
    assert "crossover 1/6" in printed.err
    assert json.loads((tmp_path / "x.json").read_text())["complete"]


def test_real_heads_exist():
    assert HEAD in instances.real_names()
