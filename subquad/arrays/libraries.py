"""Where the caller's arrays live: torch tensors enter as NumPy or CuPy arrays and leave as tensors.

A CPU tensor shares its memory with a NumPy array, a CUDA tensor with a CuPy array by DLPack, both
ways without a copy; what is returned is on the device of the input. torch itself is never
imported: only the caller's own import can have brought a tensor here. CuPy's arrays are worked on
with their own device as the current one.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Hashable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, TypeVar, cast

import array_api_compat
import numpy as np

from subquad.arrays.arguments import refuse_options

Function = TypeVar("Function", bound=Callable[..., Any])


def at_home(function: Function) -> Function:
    """Return `function` taking torch tensors as well, its arrays returned as tensors then.

    A keyword that it does not name is a TypeError with the nearest one (`refuse_options`). It may
    return an array or what has an `output` and a `certificate`; anything else is returned
    as it is. Raises TypeError for tensors mixed with other arrays, for those that require grad, and
    for dtypes or devices that the engine lacks; ValueError for arrays on several devices.
    """
    parameters = inspect.signature(function).parameters
    names = list(parameters)
    allowed = tuple(name for name, x in parameters.items() if x.kind is x.KEYWORD_ONLY)
    keywords = set(allowed)

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        if not options.keys() <= keywords:
            refuse_options(options, allowed)
        given = [library_of(x) for x in (*args, *options.values())]
        if not any(given) or ("torch" not in given and on_current_device(args, options)):
            return function(*args, **options)
        return moved(args, options)

    def moved(args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        named = (*zip(names, args, strict=False), *options.items())
        arrays = {name: x for name, x in named if library_of(x)}
        from_torch = any(library_of(x) == "torch" for x in arrays.values())
        if from_torch:
            _check_alone(named)
        _check_one_device(arrays)
        args = tuple(_entered(n, x) for n, x in zip(names, args, strict=False)) + args[len(names) :]
        options = {name: _entered(name, x) for name, x in options.items()}
        with _device_of([*args, *options.values()]):
            result = function(*args, **options)
            return _returned(result) if from_torch else result

    return cast(Function, call)


def library_of(x: Any) -> str:
    """Return "torch" or "cupy" for their arrays, "" for anything else."""
    return _library_of(cast(Hashable, type(x)))


@functools.lru_cache(maxsize=256)
def _library_of(kind: Any) -> str:
    origins = {base.__module__.partition(".")[0] for base in kind.__mro__}
    if "torch" in origins and issubclass(kind, sys.modules["torch"].Tensor):
        return "torch"
    if "cupy" in origins and issubclass(kind, sys.modules["cupy"].ndarray):
        return "cupy"
    return ""


def on_current_device(args: tuple[Any, ...], options: dict[str, Any]) -> bool:
    """Return whether all of CuPy's arrays are on the current device."""
    arrays = [x for x in (*args, *options.values()) if library_of(x) == "cupy"]
    current = sys.modules["cupy"].cuda.runtime.getDevice()
    return all(x.data.device_id == current for x in arrays)


def _check_alone(given: tuple[tuple[str, Any], ...]) -> None:
    """Raise TypeError where tensors and arrays of another library are passed together."""
    for name, x in given:
        if array_api_compat.is_array_api_obj(x) and not array_api_compat.is_torch_array(x):
            first = next(n for n, y in given if array_api_compat.is_torch_array(y))
            msg = (
                f"`{name}` is a {type(x).__module__}.{type(x).__name__} but `{first}` is a "
                "torch.Tensor; pass all arrays from one library."
            )
            raise TypeError(msg)


def _check_one_device(arrays: dict[str, Any]) -> None:
    devices = {name: str(array_api_compat.device(x)) for name, x in arrays.items()}
    if len(set(devices.values())) > 1:
        shown = ", ".join(f"`{name}` {device}" for name, device in devices.items())
        msg = f"the arrays are on different devices ({shown}); move them to one."
        raise ValueError(msg)


def _entered(name: str, x: Any) -> Any:
    """Return a tensor as a NumPy or CuPy array of the same memory; anything else as it is."""
    if not array_api_compat.is_torch_array(x):
        return x
    torch = sys.modules["torch"]
    if x.requires_grad and torch.is_grad_enabled():
        msg = (
            f"`{name}` requires grad, but no gradient is computed here yet and it would be lost "
            f"in silence: pass {name}.detach(), or call this under torch.no_grad()."
        )
        raise TypeError(msg)
    if x.layout != torch.strided:
        msg = f"`{name}` has layout {x.layout}; pass a dense tensor, {name}.to_dense()."
        raise TypeError(msg)
    if x.dtype == torch.bfloat16:
        msg = (
            f"`{name}` has dtype torch.bfloat16, which NumPy and CuPy do not support: pass "
            f"{name}.float(), the same numbers in float32."
        )
        raise TypeError(msg)
    if x.device.type == "cpu":
        return x.detach().resolve_conj().resolve_neg().numpy()
    if x.device.type != "cuda":
        msg = f"`{name}` is on {x.device}; the engine runs on cpu and cuda: move it there."
        raise TypeError(msg)
    try:
        import cupy
    except ImportError:
        msg = (
            f"`{name}` is on {x.device}, where the engine needs CuPy: install "
            "subquad[cuda12] or subquad[cuda13], or move the tensors to the CPU."
        )
        raise TypeError(msg) from None
    with cupy.cuda.Device(x.device.index):
        return cupy.from_dlpack(x.detach().resolve_conj().resolve_neg())


def _device_of(arguments: list[Any]) -> Any:
    """Return a context in which the device of the CuPy arrays, where there are any, is current."""
    return next((x.device for x in arguments if array_api_compat.is_cupy_array(x)), nullcontext())


def _returned(result: Any) -> Any:
    """Return a result with its arrays as tensors."""
    if hasattr(result, "output") and hasattr(result, "certificate"):
        old = result.certificate
        terms = tuple(replace(term, value=_left(term.value)) for term in old.terms)
        certificate = replace(old, terms=terms, row_bounds=_left(old.row_bounds))
        return replace(result, output=_left(result.output), certificate=certificate)
    return _left(result)


def _left(x: Any) -> Any:
    """Return a NumPy or CuPy array as a tensor of the same memory; anything else as it is."""
    torch = sys.modules["torch"]
    if array_api_compat.is_numpy_array(x):
        return torch.from_numpy(np.require(x, requirements=["C", "W"]))
    return torch.from_dlpack(x) if array_api_compat.is_cupy_array(x) else x
