"""What the sections of the report show: which record, and its rows as the page has them."""

from __future__ import annotations

from .summary import crossover_of, planned

METHODS_SHOWN = ("verdict", "thresholds", "certificates", "bridge")
"""Experiments on methods: each a section with its findings, its figure and its table."""


def shown(records: dict[str, dict], committed: dict[str, dict]) -> dict[str, dict]:
    """Return the records behind the sections of METHODS_SHOWN: made anew, or else committed.

    The verdict is shown on all heads of the encoder where that run is kept: its plans depend on
    no clock, and what is made anew here is compared with it.
    """
    found = {}
    for name in METHODS_SHOWN:
        kept, fresh = committed.get(name, {}).get("record"), records.get(name)
        larger = name == "verdict" and kept and fresh and len(kept["rows"]) > len(fresh["rows"])
        chosen = kept if larger or fresh is None else fresh
        if chosen is not None:
            found[name] = chosen
    return found


def agreement(fresh: dict, kept: dict) -> tuple[int, int]:
    """Return how many gains of a verdict made anew are those of the kept one, and of how many."""

    def gains(record: dict) -> dict[tuple, float]:
        return {
            (_head(row["head"]), row["tol"], n, by): entry["gain"]
            for row in record["rows"]
            for by in ("by_count", "by_rates")
            for n, entry in row[by].items()
        }

    before = gains(kept)
    both = [(gain, before[key]) for key, gain in gains(fresh).items() if key in before]
    return sum(abs(a - b) <= 0.01 * b for a, b in both), len(both)


def _head(name: str) -> str:
    """Return layer and head of a name, without why it was shipped."""
    return "-".join(name.split("-")[:3])


def anew(records: dict[str, dict], sections: dict[str, dict]) -> tuple[int, int] | None:
    """Return `agreement` where the verdict shown is a kept one and some was made anew."""
    if "verdict" not in records or records["verdict"] is sections["verdict"]:
        return None
    return agreement(records["verdict"], sections["verdict"])


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


def slopes(record: dict) -> list[list]:
    """Return the fitted exponents and the speed-ups of every way."""
    return [
        [
            family,
            name,
            fit["slope"],
            fit.get("low"),
            fit.get("high"),
            fit["points"],
            fit.get("faster_from"),
            fit.get("times_faster_than_exact"),
        ]
        for family, ways in record["derived"].items()
        for name, fit in ways.items()
    ]
