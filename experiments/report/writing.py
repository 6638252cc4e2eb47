"""How numbers are written, on paper and on the screen alike."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

NONE = "\N{EN DASH}"


def number(value: Any) -> str:
    """Return a float in three significant digits, or its whole part where that has more.

    Integers with their thousands apart, a dash for None, text as it is.
    """
    if value is None:
        return NONE
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if value == 0.0:
        return "0"
    if not 1e-3 <= abs(value) < 1e5:
        return f"{value:.1e}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(digits, 4)}f}"


def tolerance(value: float) -> str:
    """Return a tolerance in one digit and a power of ten, 0.0004 as 4e-4."""
    mantissa, _, exponent = f"{value:.0e}".partition("e")
    return f"{mantissa}e{int(exponent)}"


def text_table(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """Return rows under a header as aligned text: numbers to the right, words to the left."""
    rows = [list(row) for row in rows]
    cells = [list(header), *([number(x) for x in row] for row in rows)]
    numeric = [
        all(x is None or isinstance(x, int | float) and not isinstance(x, bool) for x in column)
        for column in zip(*rows, strict=True)
    ] or [False] * len(cells[0])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            c.rjust(w) if right else c.ljust(w)
            for c, w, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in cells
    ]
    return "\n".join(lines)
