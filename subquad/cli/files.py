"""Files of the command line: arrays read from a .npz, and paths that it may write to."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from subquad.arrays import arguments
from subquad.attention import exact_attention
from subquad.cli import npz
from subquad.cli.words import spoken
from subquad.cost.rates import memory_bytes

OPTIONAL = ("scale", "key_mask")


def load(file: Path) -> dict:
    """Return the arrays of a .npz by name, Q, K, V and those of OPTIONAL that it has.

    float16 comes as float32, the scale as a float. ValueError where the file cannot be read, misses
    an array, or has one that `attention` does not take.
    """
    if not file.exists():
        msg = f"`{file}` does not exist; give a .npz with arrays Q, K and V."
        raise ValueError(msg)
    if file.is_dir():
        msg = f"`{file}` is a folder; give a .npz with arrays Q, K and V."
        raise ValueError(msg)
    try:
        names, arrays = npz.read(file, ("Q", "K", "V", *OPTIONAL), memory_bytes())
    except OSError as error:
        msg = f"`{file}` cannot be read: {error.strerror or error}."
        raise ValueError(msg) from None
    except ValueError as error:
        msg = f"`{file}` is not a readable .npz: {error}"
        raise ValueError(msg) from None
    with spoken(file=file):
        arguments.refuse_options({k: None for k in names if k in arguments.NOT_BUILT}, ())
        _check_names(file, names)
        if "scale" in arrays:
            arrays["scale"] = _scale(arrays["scale"])
    return {
        k: v.astype(np.float32) if getattr(v, "dtype", None) == np.float16 else v
        for k, v in arrays.items()
    }


def _check_names(file: Path, names: list[str]) -> None:
    """Raise ValueError where Q, K or V is missing, saying what there is."""
    missing = [name for name in "QKV" if name not in names]
    if missing:
        shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        msg = (
            f"`{file}` has no array {', '.join(missing)}; it needs Q, K and V, and has "
            f"{shown or 'nothing'}."
        )
        raise ValueError(msg)


def _scale(array: np.ndarray) -> float:
    if array.ndim > 0:
        msg = f"`scale` has shape {array.shape}; it must be one number, of shape ()."
        raise ValueError(msg)
    return arguments.check_real("scale", array[()])


def output(option: str, path: Path, file: Path) -> Path:
    """Return the path with the suffix .npz; ValueError unless it can be written, and is not `file`.

    The path of a folder is refused; no file is made next to the folder.
    """
    if path.is_dir():
        msg = f"`{option}` is {path}, a folder; name a file."
        raise ValueError(msg)
    if path.suffix != ".npz":
        path = path.with_name(path.name + ".npz")
    check_not_input(option, path, file)
    check_writable(option, path)
    return path


def check_writable(option: str, path: Path) -> None:
    """Raise ValueError unless a file can be written there; one that exists is left as it is."""
    path = path.resolve()
    if not path.parent.is_dir():
        msg = f"`{option}` is {path}, but the folder {path.parent} does not exist."
        raise ValueError(msg)
    if path.is_dir():
        msg = f"`{option}` is {path}, a folder; name a file."
        raise ValueError(msg)
    exists = path.exists()
    if exists and not path.is_file():
        return  # a device or a pipe, which to open is to use
    try:
        path.open("ab").close()
    except OSError as error:
        msg = f"`{option}` is {path}, which cannot be written: {error.strerror}."
        raise ValueError(msg) from None
    if not exists:
        path.unlink()


def check_not_input(option: str, path: Path, file: Path) -> None:
    """Raise ValueError where what is to be written is, by whatever name, the file that is read."""
    if path.exists() and path.samefile(file):
        msg = f"`{option}` is {path}, the input, which would be lost; name another file."
        raise ValueError(msg)


def make_folder(option: str, folder: Path, names: tuple[str, ...]) -> None:
    """Make the folder where it is missing; ValueError unless files of these names can be written.

    A folder that is made stays.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"`{option}` is {folder}, a folder that cannot be made: {error.strerror}."
        raise ValueError(msg) from None
    for name in names:
        check_writable(option, folder / name)


def measured(arrays: dict, output: np.ndarray) -> float:
    """Return max |output - exact| / value_radius against float64; 0 for constant columns."""
    Q, K, V = (arrays[name].astype(np.float64) for name in "QKV")
    mask = arrays.get("key_mask")
    exact = exact_attention(Q, K, V, scale=arrays.get("scale"), key_mask=mask)
    lead = V.shape[:-1] if mask is None else np.broadcast_shapes(mask.shape, V.shape[:-1])
    kept = np.ones(lead, bool) if mask is None else np.broadcast_to(mask, lead)
    high = np.max(np.where(kept[..., None], V, -np.inf), axis=-2, keepdims=True)
    low = np.min(np.where(kept[..., None], V, np.inf), axis=-2, keepdims=True)
    radius = (high - low) / 2.0
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.where(radius > 0.0, np.abs(output - exact) / radius, 0.0)
    return float(error.max())
