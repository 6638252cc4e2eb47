"""A method run with given parameters on one head, whatever a planner would have chosen."""

from __future__ import annotations

from typing import Any

import numpy as np

from subquad.bounds.certificate import total
from subquad.head.problem import Head
from subquad.methods.method import Method, storage_term

from .measure import value_radius


def bounds_and_errors(
    view: Head,
    method: Method,
    parameters: Any,
    dtype: str,
    exact: np.ndarray,
    rows: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return each row's bound and measured error in value_radius, no row sent to exact after it.

    `dtype` is that of the computation; `exact` holds the true output of the given rows (all by
    default). Where a row has no finite bound its error is given as 0.
    """
    output, terms = method.run(view, parameters).finish()
    stored = storage_term(view.stats, dtype).value
    bounds = np.asarray(total(terms, terms[0].value)) + float(stored)
    output = view.frame.restore(output, "float64")
    if rows is not None:
        output, bounds = output[rows], bounds[rows]
    away = np.abs(output - exact) / value_radius(view.V)
    return bounds, np.where(np.isfinite(bounds), away.max(axis=1), 0.0)
