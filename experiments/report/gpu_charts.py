"""Figures of the records made on GPUs."""

from __future__ import annotations

from .figures import BLUE, GREEN, GREY, INK, ORANGE, RED, Chart, dots, figure, legend, plain_numbers


def speed(record: dict) -> Chart:
    """Return the time of every peer over ours by shape, with what is asked for."""
    from ..questions.gpu import GOALS

    names = [row["key"] for row in record["rows"]]
    peers = list(dict.fromkeys(name for row in record["rows"] for name in row["ratios"]))
    asked = [
        goal[1] if (goal := GOALS.get((r["degree"], r["operands"], r["n"], r["heads"]))) else None
        for r in record["rows"]
    ]
    with figure("gpu", 1, 1.6 + 0.34 * len(names)) as drawn:
        axes = drawn["axes"][0]
        dots(
            axes,
            names,
            [
                ([row["ratios"].get(peer) for row in record["rows"]], mark, colour, f"over {peer}")
                for peer, mark, colour in zip(peers, "osD", (BLUE, ORANGE, GREEN), strict=False)
            ],
        )
        dots(axes, names, [(asked, "|", RED, "asked for")], markeredgewidth=2.5)
        axes.set(xscale="log", xlabel="time of the peer / ours")
        plain_numbers(axes.xaxis)
        legend(drawn)
    return drawn["svg"], (
        "How many times faster than exact attention on the same device. A red bar is what is asked "
        "for of the first peer, or, where there are two, of the one in float32."
    )


def again(record: dict) -> Chart:
    """Return the time of a plan run again over the bare passes, by shape."""
    from ..questions.gpu import LENGTH, OVER_BARE

    rows = [row for row in record["rows"] if row["again"]]
    names = [row["key"] for row in rows]
    over = [row["again"]["over_bare"] for row in rows]
    with figure("gpu-again", 1, 1.6 + 0.3 * len(names)) as drawn:
        axes = drawn["axes"][0]
        axes.barh(range(len(names)), over, color=BLUE, height=0.55, alpha=0.85, label="plan.run")
        dots(axes, names, ())
        axes.axvline(1.0, color=INK, linewidth=1, label="the bare passes")
        label = f"at most, asked at n = {LENGTH:,}"
        axes.axvline(OVER_BARE, color=RED, linewidth=1.4, label=label)
        axes.set(xlabel="time / that of the bare passes", xlim=(0.9, None))
        axes.grid(axis="y", visible=False)
        legend(drawn)
    return drawn["svg"], "What a plan run again on new data takes, certificate included."


def several(record: dict) -> Chart:
    """Return the efficiency of several devices, by operands."""
    from ..questions.many_gpus import GOAL

    names = [row["key"] for row in record["rows"]]
    with figure("many-gpus", 1, 1.6 + 0.34 * len(names)) as drawn:
        axes = drawn["axes"][0]
        for place, row in enumerate(record["rows"]):
            fused = row["operands"] != "float32"
            axes.barh(
                [place],
                [row["efficiency"]],
                color=BLUE if fused else GREY,
                height=0.55,
                alpha=0.85,
                label="fused passes" if fused else "portable passes",
            )
        dots(axes, names, ())
        axes.axvline(GOAL, color=RED, linewidth=1.4, label="asked of the fused passes")
        axes.set(xlabel="efficiency", xlim=(0.0, 1.05))
        axes.grid(axis="y", visible=False)
        legend(drawn)
    return drawn["svg"], "The time of one device over that of all times their number."
