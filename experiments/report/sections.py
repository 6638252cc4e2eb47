"""What the page shows: one section a question, one verdict a claim, from the strongest record.

The strongest is the committed one, whose run was long, where there is one. What is run anew for
the page stands beside it: on the cases that both made, does it come to the same verdict?
"""

from __future__ import annotations

import importlib
import re
from typing import Any

from .. import questions
from .summary import crossover_of, planned

CLAIMS_QUESTION = (
    "Are the statements that certificates rest on true, and which published ones are not?"
)
CHOSEN = (
    (
        "real",
        "Real heads: what is chosen at tol {}",
        "Which method is cheapest on the heads of a sentence encoder, and from which length would "
        "it be another?",
    ),
    (
        "families",
        "Synthetic families: what is chosen at tol {}",
        "Which method is cheapest on data that are made?",
    ),
    (
        "plans",
        "The plans",
        "What would every method cost, with which parameters and bound, and why was it not taken?",
    ),
)
"""Sections on the plans of `error_vs_bound`: id, title and question."""
HOW_QUESTION = "On which machine, with which versions, and against what is an error measured?"


def sections(records: dict[str, dict], committed: dict[str, dict]) -> list[dict]:
    """Return a section for each experiment that is shown, in the order of their places.

    Parameters
    ----------
    records : dict
        Name -> the record made for this page.
    committed : dict
        Name -> {"record", "findings"} of the record kept with the code.
    """
    found = []
    for name in questions.names():
        fresh, kept = records.get(name), committed.get(name, {}).get("record")
        record = kept or fresh
        if record is None or questions.load(name).KEPT is None:
            continue
        said = quick_verdicts(fresh, kept) if fresh and kept else {}
        found.append(
            {
                "name": name,
                "record": record,
                "fresh": fresh if kept else None,
                "findings": [
                    {**finding, "section": name, "quick": said.get(finding["claim"])}
                    for finding in questions.findings(record)
                ],
            }
        )
    return found


def contents(shown: list[dict], plans_at: str) -> list[dict[str, str]]:
    """Return the sections of the page in order: `id`, `title` and the `question` it answers.

    Parameters
    ----------
    shown : list of dict
        Those of `sections`; "error_vs_bound" is followed by what was chosen on its instances.
    plans_at : str
        The tolerance at which that was.
    """
    found = [("claims", "The claims", CLAIMS_QUESTION)]
    for section in shown:
        module = questions.load(section["name"])
        found.append((section["name"], module.KEPT.title, section["record"]["question"]))
        if section["name"] == "error_vs_bound":
            found += [(name, title.format(plans_at), asked) for name, title, asked in CHOSEN]
    found.append(("how", "How it was measured", HOW_QUESTION))
    return [dict(zip(("id", "title", "question"), part, strict=True)) for part in found]


def quick_verdicts(fresh: dict, kept: dict) -> dict[str, dict]:
    """Return, by claim, the verdict of the run made anew and whether the kept record agrees.

    Both are judged on the cases that they have in common, since a shorter run sees fewer.
    """
    module = questions.load(fresh["experiment"])
    alike = getattr(module, "same_case", lambda key: key)
    shared = {alike(row["key"]) for row in fresh["rows"]}
    shared &= {alike(row["key"]) for row in kept["rows"]}
    if not shared:
        return {}
    derive = module.experiment(True).derive

    def verdicts(record: dict) -> dict[str, str]:
        rows = [row for row in record["rows"] if alike(row["key"]) in shared]
        part = {**record, "rows": rows, "derived": derive(rows) if derive else {}}
        return {finding["claim"]: finding["verdict"] for finding in questions.findings(part)}

    before, now = verdicts(kept), verdicts(fresh)
    return {
        claim: {
            "verdict": verdict,
            "agrees": verdict == before[claim],
            "kept": before[claim],
            "cases": len(shared),
            "of": len(kept["rows"]),
        }
        for claim, verdict in now.items()
        if claim in before
    }


def drawn(section: dict) -> list[dict[str, str]]:
    """Return the figures of a section: `svg`, `caption`, and the id that the former calls it by."""
    found = []
    for path in questions.load(section["name"]).KEPT.charts:
        module, _, function = path.partition(".")
        draw: Any = getattr(importlib.import_module(f".{module}", __package__), function)
        svg, caption = draw(section["record"])
        label = re.search(r'aria-labelledby="([^"]+)"', svg)
        assert label is not None
        found.append({"svg": svg, "caption": caption, "id": label[1]})
    return found


def verdicts(record: dict, real: bool) -> list[dict]:
    """Return, per instance, what was chosen, its bound and errors, and from when exact loses."""
    rows = []
    for row in planned(record):
        if row["real"] != real:
            continue
        own = next((m for m in row["methods"] if m["method"] == row["chosen"]), None)
        kind = "bad" if own is None else "plain" if row["chosen"] == "exact" else "good"
        rows.append(
            {
                "name": row["instance"],
                "logit_bound": row["logit_bound"],
                "kind": kind,
                "chosen": (row["chosen"] or "nothing certifies").partition(" by ")[0],
                "parameters": own["parameters"] if own else "",
                "bound": own and own["bound"],
                "measured": own and own["measured"],
                "mean_v": row["mean_v"]["measured"],
                "first_order": row["first_order"]["measured"],
                "trivial": row["trivial"],
                "change": _change(row["crossover"]),
            }
        )
    return rows


def _change(crossover_line: str | None) -> dict:
    """Return from which length which method would be cheaper, where the plan is for exact."""
    if not crossover_line:
        return {"n": "", "method": ""}
    found = crossover_of(crossover_line)
    if found is None:
        return {"n": "none up to 2.8e14", "method": ""}
    method, length, too_large = found
    return {"n": f"{length:,}", "method": method + (", too much memory" if too_large else "")}
