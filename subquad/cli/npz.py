"""Reads the arrays of a .npz file that may be damaged, or made to harm.

What the directory of the archive and the headers of its arrays declare is compared first, with each
other and with the memory of the machine: nothing is allocated, and no more than the headers is
decompressed, before that. Objects, which only a pickle brings, are never loaded.
"""

from __future__ import annotations

import io
import math
import struct
import warnings
import zipfile
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

WRITTEN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""What NumPy writes. Of bzip2 and LZMA zipfile bounds no piece: few bytes may become gigabytes."""
HEADER_BYTES = 2**14
"""Bytes of a member in which its header must end; NumPy reads headers of up to 10,000."""
EXPANSION, LARGE = 100, 2**28
"""An array of more than LARGE bytes may be at most EXPANSION times as large as its member."""

_DAMAGE = (
    zlib.error,
    struct.error,
    zipfile.BadZipFile,
    EOFError,
    OSError,
    NotImplementedError,  # of zipfile, for later versions of the format
    ValueError,
    OverflowError,
    MemoryError,
)
"""What zipfile and NumPy raise on bytes that are not what they should be."""
_ANEW = "write the file anew with numpy.savez"


@dataclass(frozen=True)
class _Header:
    """What a member says of its array: shape, dtype, and the bytes of header before the data."""

    shape: tuple[int, ...]
    dtype: np.dtype
    size: int

    @property
    def data_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def read(file: Path, wanted: Collection[str], memory: float) -> tuple[list[str], dict]:
    """Return the names of all members, without ".npy", and the arrays that are wanted, by name.

    Raises
    ------
    ValueError
        Where an array cannot be read, with the member and why; where the arrays take more than
        half of `memory`, in bytes.
    """
    with file.open("rb") as stream, _opened(stream) as archive:
        members = _members(archive, wanted)
        headers = {name: _header(archive, members[name]) for name in wanted if name in members}
        total = sum(header.data_bytes for header in headers.values())
        if not total <= memory / 2:
            msg = (
                f"its arrays take {total / 2**30:,.1f} GiB, and this machine has "
                f"{memory / 2**30:,.1f} GiB, of which they may take half; pass fewer rows."
            )
            raise ValueError(msg)
        return list(members), {name: _array(archive, members[name]) for name in headers}


def _opened(stream: BinaryIO) -> zipfile.ZipFile:
    start = stream.read(len(np.lib.format.MAGIC_PREFIX))
    if start == np.lib.format.MAGIC_PREFIX:
        msg = "it is a .npy, one array without a name; it needs Q, K and V."
        raise ValueError(msg)
    try:
        return zipfile.ZipFile(stream)
    except _DAMAGE as error:
        kind = "empty" if not start else "no zip archive, or a damaged one"
        msg = f"it is {kind} ({error}); {_ANEW}."
        raise ValueError(msg) from None


def _members(archive: zipfile.ZipFile, wanted: Collection[str]) -> dict[str, zipfile.ZipInfo]:
    """Return the members by name; ValueError where one that is wanted is there twice."""
    members: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        if name in members and name in wanted:
            msg = f"it has two members `{name}`; {_ANEW}."
            raise ValueError(msg)
        members[name] = info
    return members


def _header(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Header:
    """Return the header of a member; ValueError unless plain numbers of the declared size."""
    name = f"its member `{info.filename}`"
    start = _start(archive, info, name)
    if not start.startswith(np.lib.format.MAGIC_PREFIX):
        msg = f"{name} is {info.file_size} bytes and no array; write it with numpy.savez."
        raise ValueError(msg)
    header = _parsed(start, name)
    found = info.file_size - header.size
    if min(header.shape, default=0) < 0 or header.data_bytes != found:
        msg = (
            f"{name} declares shape {header.shape} of {header.dtype}, {header.data_bytes:,} "
            f"bytes, but holds {found:,}: it is damaged; {_ANEW}."
        )
        raise ValueError(msg)
    if found > LARGE and found > EXPANSION * info.compress_size:
        msg = (
            f"{name} is {info.compress_size:,} bytes that would become {found:,}, more than "
            f"{EXPANSION} times as many: it is no data, or nearly constant; {_ANEW}, uncompressed."
        )
        raise ValueError(msg)
    return header


def _start(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> bytes:
    """Return the first HEADER_BYTES of a member; ValueError unless NumPy may have written it."""
    if info.flag_bits & 1:
        msg = f"{name} is encrypted; {_ANEW}."
        raise ValueError(msg)
    if info.compress_type not in WRITTEN:
        kind = {zipfile.ZIP_BZIP2: "bzip2", zipfile.ZIP_LZMA: "LZMA"}.get(
            info.compress_type, f"a method of number {info.compress_type}"
        )
        msg = f"{name} is compressed by {kind}, which NumPy does not write; {_ANEW}."
        raise ValueError(msg)
    try:
        with archive.open(info) as member:
            return member.read(HEADER_BYTES)
    except _DAMAGE as error:
        raise _damaged(info, error) from None


def _parsed(start: bytes, name: str) -> _Header:
    """Return the header with which a member starts; ValueError unless its dtype is a number's."""
    stream = io.BytesIO(start)
    try:
        with warnings.catch_warnings(action="ignore"):  # of headers that Python 2 wrote
            version = np.lib.format.read_magic(stream)
            if version == (1, 0):
                shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
            else:  # 3.0 is 2.0 with other letters in the names of fields
                shape, _, dtype = np.lib.format.read_array_header_2_0(stream)
    except Exception as error:  # noqa: BLE001  the parser of Python raises nearly anything
        msg = f"{name} has a broken .npy header ({_shortened(error)}); {_ANEW}."
        raise ValueError(msg) from None
    if dtype.hasobject:
        msg = (
            f"{name} holds Python objects, which are never loaded; convert it to float32 or "
            "float64 before numpy.savez."
        )
        raise ValueError(msg)
    if dtype.kind not in "biufc":
        msg = f"{name} has dtype {dtype}, which is no number; convert it to float32 or float64."
        raise ValueError(msg)
    return _Header(tuple(int(size) for size in shape), dtype, stream.tell())


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    """Return the array of a member whose header was checked."""
    try:
        with archive.open(info) as member, warnings.catch_warnings(action="ignore"):
            array = np.lib.format.read_array(member, allow_pickle=False)
            member.read(1)  # the end is where zipfile compares the checksum
    except _DAMAGE as error:
        raise _damaged(info, error) from None
    return array


def _damaged(info: zipfile.ZipInfo, error: Exception) -> ValueError:
    return ValueError(f"its member `{info.filename}` is damaged ({_shortened(error)}); {_ANEW}.")


def _shortened(error: Exception) -> str:
    """Return the first line of what an error says, its kind where it says nothing."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0] if len(lines[0]) <= 120 else f"{lines[0][:117]}..."
