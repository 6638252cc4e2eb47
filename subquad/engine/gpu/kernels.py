"""The portable CUDA kernels: compiled when a device first needs them, then launched."""

from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import cupy

C_TYPES = {"float16": "half16", "float32": "float", "float64": "double"}
THREADS = 256

_ANY, _COMPUTE = ("half16", "float", "double"), ("float", "double")
_KERNELS = {
    "affine": (_ANY, _COMPUTE),
    "weighted": (_ANY, _COMPUTE),
    "restored": (_ANY,),
    "measures": (_ANY,),
    "dots": (_ANY,),
    "extremes": (_ANY,),
    "column_sums": (_ANY,),
    "monomials": (_COMPUTE,),
    "add_slices": (_COMPUTE,),
    "power_sums": (_COMPUTE,),
    "weigh": (_COMPUTE,),
    "stack_norms": (_ANY,),
    "stack_sums": (_ANY,),
    "stack_ends": (_ANY,),
    "stack_rows": (_ANY,),
}
_ROW_KERNELS = ("column_ends", "key_logits")
_COLUMNS = range(1, 5)
"""Columns of a lane, where one warp takes a row."""
EXPRESSIONS = (
    *(f"{name}<{','.join(types)}>" for name, sets in _KERNELS.items() for types in product(*sets)),
    *(f"{name}<{j}>" for name in _ROW_KERNELS for j in _COLUMNS),
    "key_weights",
    "column_ends4",
    "key_report",
    "query_report",
)
OPTIONS = ("--std=c++17", "--fmad=false")
"""Nothing that loosens the arithmetic: no --use_fast_math, and no products fused into sums."""


def source() -> str:
    """Return the CUDA source of every kernel here."""
    files = ("gpu/portable.cu", "gpu/given.cu", "gpu/measures.cu", "fused/rerun.cu")
    engine = Path(__file__).parent.parent
    return "".join((engine / name).read_text(encoding="utf-8") for name in files)


@lru_cache(maxsize=1)
def _module() -> Any:
    return cupy.RawModule(code=source(), options=OPTIONS, name_expressions=EXPRESSIONS)


def launch(name: str, types: tuple[Any, ...], grid: Any, arguments: tuple[Any, ...]) -> None:
    """Run one kernel in blocks of THREADS on the current stream.

    `types` are arrays or dtypes, one for each template parameter; `grid` is the number of blocks,
    an int or up to three of them; nothing is run where one is 0.
    """
    shape = (grid,) if isinstance(grid, int) else tuple(grid)
    if 0 in shape:
        return
    names = (C_TYPES[str(getattr(t, "dtype", t))] for t in types)
    kernel = _module().get_function(f"{name}<{','.join(names)}>")
    kernel(shape, (THREADS,), arguments)


def row_kernel(name: str, columns: int = 0) -> Any:
    """Return a kernel of one warp a row, `columns` of them a lane; 0 for one that has no rows."""
    return _module().get_function(f"{name}<{columns}>" if columns else name).kernel


def blocks_for(items: int, most: int = 1 << 16) -> int:
    """Return how many blocks of THREADS share `items`; beyond `most` the kernels loop."""
    return min(-(-items // THREADS), most)
