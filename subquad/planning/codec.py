"""What a plan is made of as plain JSON, and back: numbers to the last bit, nothing executed.

Finite floats are JSON numbers, which Python writes so that they read back the same; others are
{"float": "inf"}. Tuples are lists, arrays {"array": dtype, "values": [...]}, methods {"method":
name, "options": {...}}, records {"type": name, field: value}, of the types in `TYPES` alone.
"""

from __future__ import annotations

import copy
import math
import numbers
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from subquad.arrays.arithmetic import Affine
from subquad.arrays.lazy import Lazy
from subquad.bounds.certificate import Term
from subquad.cost.rates import Rates, Speed, Work
from subquad.cost.steps import Overhead
from subquad.head.frame import Frame
from subquad.head.sides import OrderStatistics
from subquad.head.stats import Stats
from subquad.methods import METHODS
from subquad.methods.anisotropic.proof import AnisotropicParameters
from subquad.methods.exact import ExactParameters
from subquad.methods.fitted.choice import FittedParameters
from subquad.methods.method import Method, Proposal, Refusal
from subquad.methods.polynomial.sums import PolynomialParameters
from subquad.methods.thresholds.division import Bucket, BucketParameters, Cell
from subquad.methods.thresholds.splits import SplitParameters

TYPES: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        Affine,
        AnisotropicParameters,
        Bucket,
        BucketParameters,
        Cell,
        ExactParameters,
        FittedParameters,
        Frame,
        Overhead,
        PolynomialParameters,
        Proposal,
        Rates,
        Refusal,
        Speed,
        SplitParameters,
        Term,
        Work,
    )
}
SIZES = ("n", "m", "d", "d_v", "dtype", "full_query_norm", "keys_weighted", "value_ratio")
UNITS = ("query_unit", "key_unit", "operands")


def encoded(x: Any) -> Any:
    """Return x as plain JSON; TypeError for what a file cannot hold."""
    if x is None or isinstance(x, str | bool):
        return x
    if isinstance(x, np.bool_):
        return bool(x)
    if isinstance(x, numbers.Integral):
        return int(x)
    if isinstance(x, numbers.Real):
        return float(x) if math.isfinite(x) else {"float": repr(float(x))}
    if isinstance(x, np.ndarray):
        return {"array": str(x.dtype), "values": encoded(x.tolist())}
    if isinstance(x, Method):
        return _method_encoded(x)
    if isinstance(x, Stats):
        return _stats_encoded(x)
    if type(x) in TYPES.values():
        names = [f.name for f in fields(x)] if is_dataclass(x) else Affine._fields
        return {"type": type(x).__name__} | {name: encoded(getattr(x, name)) for name in names}
    if isinstance(x, tuple | list):
        return [encoded(item) for item in x]
    msg = f"the plan holds a {type(x).__name__}, which a file cannot hold; pickle it instead."
    raise TypeError(msg)


def decoded(x: Any) -> Any:
    """Return what was `encoded`; ValueError, KeyError or TypeError for anything else."""
    if isinstance(x, list):
        return tuple(decoded(item) for item in x)
    if not isinstance(x, dict):
        return x
    if "float" in x:
        return float(x["float"])
    if "array" in x:
        return np.array(decoded(x["values"]), dtype=np.dtype(x["array"]))
    if "method" in x and "options" in x:
        return _method_decoded(x["method"], x["options"])
    values = {name: decoded(value) for name, value in x.items() if name != "type"}
    return _stats_decoded(values) if x["type"] == "Stats" else TYPES[x["type"]](**values)


def _method_encoded(method: Method) -> dict[str, Any]:
    """Return the name of a method of METHODS and what it was made with."""
    if type(METHODS.get(method.name)) is not type(method):
        msg = (
            f"the plan's method `{method.name}` is a {type(method).__name__}, none of METHODS: a "
            "file cannot hold it; pickle the plan instead."
        )
        raise TypeError(msg)
    options = {name: encoded(value) for name, value in vars(method).items()}
    return {"method": method.name, "options": options}


def _method_decoded(name: str, options: dict[str, Any]) -> Method:
    """Return the method of this name, that of METHODS where it was made with the same options."""
    usual, values = METHODS[name], {key: decoded(value) for key, value in options.items()}
    if values == vars(usual):
        return usual
    if values.keys() != vars(usual).keys():
        msg = f"the method {name!r} has no options {', '.join(map(repr, values))}."
        raise ValueError(msg)
    made = copy.copy(usual)
    vars(made).update(values)
    return made


def _stats_encoded(stats: Stats) -> dict[str, Any]:
    """Return sizes, largest norms and units: no order of the rows, no sample."""
    known = {name: encoded(getattr(stats, name)) for name in (*SIZES, *UNITS)}
    offset = stats.key_offset if stats.find_offset.known else 1.0
    largest = {"query_norm": stats.query_norms.largest, "key_norm": stats.key_norms.largest}
    found = largest | {"key_offset": offset}
    return {"type": "Stats"} | known | {name: encoded(x) for name, x in found.items()}


def _stats_decoded(values: dict[str, Any]) -> Stats:
    """Return Stats of which the largest norms are known."""
    queries, keys = values.pop("query_norm"), values.pop("key_norm")
    return Stats(
        query_norms=OrderStatistics.constant(values["n"], queries),
        key_norms=OrderStatistics.constant(values["m"], keys),
        query_entries=OrderStatistics.constant(values["n"], math.inf),
        key_entries=OrderStatistics.constant(values["m"], math.inf),
        find_offset=Lazy.known_to_be(values.pop("key_offset")),
        magnitudes_known=False,
        **values,
    )
