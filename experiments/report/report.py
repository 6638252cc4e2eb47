"""The report: one HTML page and its JSON, committed records with small runs made anew beside."""

from __future__ import annotations

import importlib.util
import re
import time
from pathlib import Path
from typing import Any

from .. import questions
from ..harness import instances
from ..harness.store import (
    RESULTS,
    Experiment,
    Progress,
    as_json,
    machine,
    read_json,
    run,
    versions,
    write_texts,
)
from ..questions import error_vs_bound
from .sections import contents, drawn, sections, verdicts
from .summary import planned
from .writing import number, tolerance

TEMPLATE = Path(__file__).with_name("page.html.j2")
LOAD_BEARING = (
    "output-bound",
    "ratio-sharp",
    "additive-sharp",
    "logit-perturbation",
    "normaliser-jensen",
    "rounding-sums",
    "rounding-storage",
    "rounding-polynomial",
    "support-split",
    "fitted-majorant",
    "box-taylor",
)
"""The main claims behind the Terms of a certificate: what `quick` checks beside the false ones."""


def write(
    out_dir: str | Path = "report",
    quick: bool = False,
    progress: Progress | None = None,
    *,
    experiments: tuple[Experiment, ...] | None = None,
) -> dict:
    """Return the report after writing index.html and report.json into `out_dir`.

    Parameters
    ----------
    out_dir : str or Path
        Made if it is missing.
    quick : bool
        Smaller sizes.
    progress : callable, optional
        Called with a line of text before each step.
    experiments : tuple of Experiment, optional
        What to run, in place of the usual sizes; what is not run is shown as it is committed.

    Raises
    ------
    ModuleNotFoundError
        If the extra `report` (matplotlib, jinja2) is not installed.
    """
    _require_extra()
    start = time.perf_counter()
    chosen = light(quick) if experiments is None else experiments
    records = {x.name: run(x, progress=progress) for x in chosen}
    report, shown = _joined(records, checked_claims(quick, progress), committed())
    report["quick"] = quick
    if progress is not None:
        progress("drawing the page")
    page = render(report, shown, start)
    out = Path(out_dir)
    write_texts({out / "index.html": page, out / "report.json": as_json(report)})
    return report


def _joined(records: dict, checked: dict, kept: dict) -> tuple[dict[str, Any], list[dict]]:
    """Return the report as its JSON has it, and the sections of the page."""
    shown = sections(records, kept)
    found = [finding for section in shown for finding in section["findings"]]
    return {
        "quick": None,
        "seconds": None,
        "records": records,
        "claims": checked,
        "findings": [*_claims_finding(checked), *found],
        "committed": kept,
    }, shown


def checked_claims(quick: bool, progress: Progress | None = None) -> dict:
    """Return the registry's records as plain data; quick: only the refuted and the load-bearing."""
    from proofs_checks import registry

    claims = registry.select()
    kept = [c for c in claims if not quick or c.expected == "refuted" or c.id in LOAD_BEARING]
    told = None if progress is None else (lambda claim: progress(f"claim {claim.id}"))
    records = [registry.to_dict(record) for record in registry.run(kept, told)]
    return {"in_registry": len(claims), "records": records}


def _claims_finding(checked: dict) -> list[dict]:
    """Return the line on the claims at the top of the page."""
    records = checked["records"]
    good = [r for r in records if r["as_expected"]]
    refuted = [r for r in good if r["expected"] == "refuted"]
    return [
        {
            "claim": "claims",
            "section": "claims",
            "quick": None,
            "verdict": "holds" if len(good) == len(records) else "does not hold",
            "statement": "Every claim relied on is checked by machine, the false ones refuted."
            if len(records) == checked["in_registry"]
            else "The main claims behind certificates, and the false ones, are checked by machine.",
            "evidence": f"{len(good)} of {len(records)} claims checked here "
            f"({checked['in_registry']} in the registry) came out as stated, "
            f"and so did the falsified twin of each; "
            f"{len(refuted)} published or plausible statements are false, shown below.",
        }
    ]


def light(quick: bool) -> tuple[Experiment, ...]:
    """Return the experiments that the report makes anew, small enough for it."""
    modules = map(questions.load, questions.names())
    return tuple(module.light(quick) for module in modules if hasattr(module, "light"))


def committed() -> dict[str, dict]:
    """Return name -> the committed record and its findings, where there is a whole one."""
    shown = [name for name in questions.names() if questions.load(name).KEPT is not None]
    return {name: found for name in shown if (found := _committed(name)) is not None}


def _require_extra() -> None:
    for name in ("matplotlib", "jinja2"):
        if importlib.util.find_spec(name) is None:
            msg = f"the report needs {name}, which is not installed: pip install 'subquad[report]'."
            raise ModuleNotFoundError(msg)


def _committed(name: str) -> dict | None:
    """Return the committed record of an experiment, with its findings, if there is a whole one."""
    path = RESULTS / f"{name}.json"
    record = read_json(path) if path.exists() else None
    if record is None or not record.get("complete"):
        return None
    return {"record": record, "findings": questions.findings(record)}


def render(report: dict, shown: list[dict], start: float) -> str:
    """Return the page of some sections; `report["seconds"]` is set to the time since `start`."""
    import jinja2

    figures = {section["name"]: drawn(section) for section in shown}
    records = {section["name"]: section["record"] for section in shown}
    bounds = records["error_vs_bound"]
    report["seconds"] = time.perf_counter() - start
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters.update(number=number, tolerance=tolerance, prose=_prose)
    environment.tests["number"] = lambda x: isinstance(x, int | float) and not isinstance(x, bool)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        report=report,
        sections=shown,
        contents=contents(shown, tolerance(bounds["settings"]["plans shown at"])),
        figures=figures,
        module=questions.load,
        findings=questions.findings,
        bounds=bounds,
        plans=planned(bounds),
        meaning=_meaning,
        real=verdicts(bounds, real=True),
        synthetic=verdicts(bounds, real=False),
        here={"versions": versions(), "machine": machine()},
        rates=next((record["rates"] for record in report["records"].values()), None),
        claims=report["claims"]["records"],
    )


def _meaning(name: str) -> str:
    """Return the one line that says what an instance is."""
    family, options = error_vs_bound.SYNTHETIC.get(name, (None, {}))
    return "" if family is None else instances.meaning(family)


def _prose(text: str) -> Any:
    """Return text with `code` marked as such, escaped; equations and powers of ten in one line."""
    from markupsafe import Markup, escape

    pieces = text.replace(" = ", "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}").split("`")
    code, whole = Markup("<code>{}</code>"), Markup('<span class="line">{}</span>')

    def plain(piece: str) -> Any:
        parts = re.split(r"(\b[\d.]+e-\d+\b)", piece)
        return Markup("").join(
            whole.format(part) if i % 2 else escape(part) for i, part in enumerate(parts)
        )

    return Markup("").join(
        code.format(piece) if i % 2 else plain(piece) for i, piece in enumerate(pieces)
    )
