"""What each method tells its tests, a Row each; `test_protocol` and others run over the rows."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest

import subquad
from subquad import MultiThreshold, SupportBasis
from subquad.methods import Method
from tests.methods import refusals, worst
from tests.methods.shown import shown_method
from tests.methods.worst import Worst
from tests.strategies import Data


@dataclass(frozen=True)
class Row:
    """One method, by name or as an object, and what its tests cannot know without being told.

    Attributes
    ----------
    method : str or Method
        What is passed as `method=`.
    may_refuse : callable
        ``may_refuse(data)`` returns whether the method may raise ToleranceError on drawn Data;
        it must not be true where the theorem is within tol. See `refusals`.
    worst_cases : tuple of callable
        Each returns a `Worst`, on which the bound is attained up to its factor `within`.
    refused_at_most : float
        Largest share of the drawn problems that it may refuse.
    allow_exact : bool
        Whether some or all of its rows are exact, so that `allow_exact=False` leaves it out.
    plan_first : bool
        Whether a drawn problem may take it long: the tests then look at its plan before.
    small_logits : bool
        Whether one large row is enough for it to refuse.
    on_shards : bool
        Whether it runs on several devices.
    fused : bool
        Whether it has sums by the fused passes of a GPU.
    variants : tuple of Method
        The method with other settings, for the tests of plans that are run again.
    """

    method: str | Method
    may_refuse: Callable[[Data], bool]
    worst_cases: tuple[Callable[[], Worst], ...]
    refused_at_most: float = 0.2
    allow_exact: bool = False
    plan_first: bool = False
    small_logits: bool = False
    on_shards: bool = False
    fused: bool = False
    variants: tuple[Method, ...] = ()

    @property
    def object(self) -> Method:
        """The method itself."""
        return subquad.METHODS[self.method] if isinstance(self.method, str) else self.method


def cases(make: Callable[..., Worst], *arguments: tuple, **options) -> tuple:
    """Return `make` with each of the arguments, to be called later: some search for their keys."""
    return tuple(partial(make, *one, **options) for one in arguments)


def minimax_cases(method: str, *reaches: tuple, **options) -> tuple:
    """Return the worst cases of minimax polynomials for pairs (largest logit, tol)."""
    return cases(worst.of_minimax, *((method, *reach) for reach in reaches), **options)


LINE = shown_method()
ROWS = {
    "exact": Row(
        "exact", refusals.exact_cannot, (worst.half_way_output,), allow_exact=True, on_shards=True
    ),
    "polynomial": Row(
        "polynomial",
        refusals.polynomial_cannot,
        minimax_cases("polynomial", *worst.SMALL, (2.0, 5e-3)),
        plan_first=True,
        small_logits=True,
        on_shards=True,
        fused=True,
    ),
    "support_basis": Row(
        "support_basis",
        refusals.exact_cannot,
        cases(worst.single_threshold, *worst.SMALL),
        on_shards=True,
        fused=True,
        variants=(
            SupportBasis(criterion="norm"),
            SupportBasis(criterion="norm", threshold=3.0),
            SupportBasis(criterion="entry", threshold=1.0),
        ),
    ),
    "multi_threshold": Row(
        "multi_threshold",
        refusals.exact_cannot,
        # So many queries that buckets pay.
        minimax_cases("multi_threshold", *worst.SMALL, queries=40_000),
        fused=True,
        variants=(MultiThreshold(criterion="entry"),),
    ),
    # With keys of larger error its rows go exact.
    "fitted": Row(
        "fitted",
        refusals.fitted_cannot,
        minimax_cases("fitted", (0.5, 1e-2), within=2.5),
        allow_exact=True,
    ),
    # The worst keys of a minimax polynomial; no worse ones of a Taylor set are known.
    "anisotropic": Row(
        "anisotropic",
        refusals.anisotropic_cannot,
        minimax_cases("anisotropic", (0.5, 1e-2), within=16.0),
        plan_first=True,
    ),
    # By object, as from outside the package. It refuses what is not within one line of exp.
    "line": Row(
        LINE,
        refusals.line_cannot,
        cases(worst.of_line, (LINE, 0.3, 0.1), (LINE, 1.0, 0.5)),
        refused_at_most=0.5,
        small_logits=True,
    ),
}
"""Name -> row, of every method of the package and of the one that CONTRIBUTING shows."""
AUTO = Row("auto", refusals.exact_cannot, (), allow_exact=True, on_shards=True)
"""The planner's choice, where tests treat it as one more method."""
WITH_AUTO = {"auto": AUTO, **ROWS}
ON_SHARDS = {name: row for name, row in WITH_AUTO.items() if row.on_shards}


def over(rows: dict[str, Row]):
    """Return the mark that runs a test with its argument `row` for each of the rows."""
    return pytest.mark.parametrize("row", rows.values(), ids=rows)
