"""Damaged and harmful .npz files: bad input in words that name file and member."""

import io
import re
import zipfile

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from subquad.cli import files, npz
from tests.cli.conftest import arrays

ANEW = "write the file anew with numpy.savez"


def npy(array, **own):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(array), **own)
    return stream.getvalue()


def declared(header, data=b"", version=(1, 0)):
    """Return a .npy whose header is this text, whatever it says."""
    size = len(header).to_bytes(2 if version == (1, 0) else 4, "little")
    return b"\x93NUMPY" + bytes(version) + size + header.encode("latin1") + data


def plain(shape, descr="'<f4'"):
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n"


def packed(path, kind=zipfile.ZIP_STORED, **members):
    """Write the arrays of a good head and these members, bytes as they are, to a .npz."""
    whole = {name: npy(x) for name, x in arrays().items()} | members
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, content in whole.items():
            archive.writestr(f"{name}.npy", content)
    return path


def refused(call, path, *words, command=("attend",)):
    code, out, errors = call(*command, path, *(("--tol", 0.1) if command != ("stats",) else ()))
    assert code == 2 and not out, errors
    assert f"error: `{path}` is not a readable .npz: " in errors
    for word in words:
        assert word in errors, errors
    assert "Traceback" not in errors and len(errors.splitlines()) < 4


@pytest.fixture
def path(tmp_path):
    return tmp_path / "head.npz"


@pytest.mark.parametrize("command", [("attend",), ("plan",), ("stats",)])
def test_corrupt_deflated_data(call, path, command):
    packed(path, zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("K.npy").header_offset + 45
    broken = bytearray(path.read_bytes())
    broken[start : start + 200] = bytes(x ^ 0x5A for x in broken[start : start + 200])
    path.write_bytes(broken)
    refused(call, path, "its member `K.npy` is damaged (", ANEW, command=command)


def test_a_wrong_checksum(call, path):
    packed(path)
    broken = bytearray(path.read_bytes())
    where = broken.index(arrays()["V"].tobytes())
    broken[where + 5] ^= 1
    path.write_bytes(broken)
    refused(call, path, "its member `V.npy` is damaged (Bad CRC-32", ANEW)


@pytest.mark.parametrize("damaged", [False, True])
@pytest.mark.parametrize(
    ("kind", "name"), [(zipfile.ZIP_BZIP2, "bzip2"), (zipfile.ZIP_LZMA, "LZMA")]
)
def test_what_numpy_does_not_write_is_not_decompressed(call, path, kind, name, damaged):
    packed(path, kind)
    if damaged:
        broken = bytearray(path.read_bytes())
        broken[60:200] = bytes(x ^ 0x5A for x in broken[60:200])
        path.write_bytes(broken)
    refused(call, path, f"its member `Q.npy` is compressed by {name}, which NumPy does not", ANEW)


def with_directory(path, offset, value):
    """Set two bytes of every member's record in the directory and of its own header alike."""
    broken = bytearray(path.read_bytes())
    for signature, at in ((b"PK\x01\x02", offset + 2), (b"PK\x03\x04", offset)):
        for found in re.finditer(re.escape(signature), bytes(broken)):
            broken[found.start() + at : found.start() + at + 2] = value.to_bytes(2, "little")
    path.write_bytes(broken)


def test_encrypted(call, path):
    with_directory(packed(path), 6, 1)
    refused(call, path, "its member `Q.npy` is encrypted", ANEW)


def test_a_compression_that_nobody_knows(call, path):
    with_directory(packed(path), 8, 9)
    refused(call, path, "its member `Q.npy` is compressed by a method of number 9", ANEW)


BROKEN = {
    "it ends early": declared("{'descr': '<f4', 'fortran_order': False, 'sha"),
    "brackets": declared("(" * 9000),
    "signs": declared("-" * 9000 + "1"),
    "a list": declared("[]"),
    "another key": declared(plain("(3, 2)").replace("descr", "discr")),
    "no dtype": declared(plain("(3, 2)", "'nonsense'")),
    "half a row": declared(plain("(3.5, 2)")),
    "no tuple": declared(plain("3")),
    "zeros": declared("\x00" * 64),
    "too long": declared(plain("(2, 2)") + " " * 20_000, bytes(16)),
    "half a length": b"\x93NUMPY\x01\x00\xff",
    "no version": b"\x93NUMPY",
    "four gigabytes": b"\x93NUMPY\x02\x00\xff\xff\xff\xffshort",
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_broken_headers(call, path, content):
    refused(call, packed(path, K=content), "its member `K.npy` has a broken .npy header (", ANEW)


def test_a_version_of_the_format_that_there_is_not(call, path):
    content = declared(plain("(33, 5)"), bytes(660), (9, 1))
    refused(call, packed(path, K=content), "its member `K.npy` is damaged (", "(9, 1)", ANEW)


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((10**6, 10**6), "4,000,000,000,000"),
        ((10**30, 2), f"{8 * 10**30:,}"),
        ((-40, -5), "800"),
        ((2, 2), "16"),
        ((0, 10**30), "0"),
    ],
)
def test_declared_sizes_are_compared_with_the_member(call, path, monkeypatch, shape, size):
    def opened(*_):
        pytest.fail("no array is to be read")

    monkeypatch.setattr(npz, "_array", opened)
    content = declared(plain(shape), bytes(800))
    told = f"its member `Q.npy` declares shape {shape} of float32, {size} bytes, but holds 800: "
    refused(call, packed(path, Q=content), told, "it is damaged", ANEW)


def test_no_array_can_have_such_a_shape(call, path):
    refused(call, packed(path, Q=declared(plain((0, 10**30)))), "its member `Q.npy` is damaged (")


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.array([{}]), "holds Python objects, which are never loaded; convert it to float32"),
        (np.array(["a", "b"]), "has dtype <U1, which is no number; convert it to float32"),
        (np.zeros(3, "f4,f4"), "which is no number; convert it to float32"),
        (np.array("2026-01-01", "M8[D]"), "has dtype datetime64[D], which is no number"),
    ],
)
def test_no_numbers(call, path, array, said):
    refused(call, packed(path, V=npy(array)), "its member `V.npy`", said)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_form_that_numpy_writes_is_read(path, version, kind, order):
    given = {k: np.asarray(x, order=order) for k, x in arrays(scale=np.float64(0.5)).items()}
    packed(path, kind, **{name: npy(x, version=version) for name, x in given.items()})
    found = files.load(path)
    assert found.pop("scale") == 0.5
    for name, x in found.items():
        assert np.array_equal(x, given[name]) and x.dtype == given[name].dtype


def test_members_of_another_kind_are_left_alone(call, path):
    packed(path, note=b"no array", other=declared(plain((10**9, 10**9))))
    assert call("attend", path, "--tol", 0.1)[0] == 0


def test_two_members_of_one_name(call, path):
    packed(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("K", npy(arrays()["K"]))
    refused(call, path, "it has two members `K`", ANEW)


def test_few_bytes_that_would_become_many_are_not_decompressed(call, path, monkeypatch):
    monkeypatch.setattr(npz, "_array", lambda *_: pytest.fail("no array is to be read"))
    size = npz.LARGE + 4
    with zipfile.ZipFile(packed(path), "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("Q.npy", "w") as member:
            header = declared(plain((size // 4, 1)))
            member.write(header)
            for start in range(0, size, 2**24):
                member.write(bytes(min(2**24, size - start)))
        packed_size = archive.getinfo("Q.npy").compress_size
    told = f"its member `Q.npy` is {packed_size:,} bytes that would become {size:,}"
    refused(call, path, told, f"{ANEW}, uncompressed.")


def test_arrays_larger_than_the_memory_are_not_read(path, monkeypatch):
    packed(path)
    total = sum(x.nbytes for x in arrays().values())
    names, found = npz.read(path, ("Q", "K", "V"), 2 * total)
    assert names == list(found) == ["Q", "K", "V"]
    monkeypatch.setattr(npz, "_array", lambda *_: pytest.fail("no array is to be read"))
    with pytest.raises(ValueError, match=r"its arrays take 0.0 GiB, and this machine has 0.0 GiB"):
        npz.read(path, ("Q", "K", "V"), 2 * total - 1)


def test_places_that_are_no_file(call, tmp_path):
    code, _, errors = call("stats", tmp_path)
    assert code == 2 and f"error: `{tmp_path}` is a folder; give a .npz" in errors
    (tmp_path / "empty.npz").touch()
    code, _, errors = call("stats", tmp_path / "empty.npz")
    assert code == 2 and "is not a readable .npz: it is empty" in errors


def loaded_or_refused(path):
    """Load the file; what it is refused for names it, and is one line."""
    try:
        found = files.load(path)
    except (ValueError, TypeError) as error:
        assert f"`{path}`" in str(error) or "`scale`" in str(error), error
        assert "\n" not in str(error)
        return
    assert {"Q", "K", "V"} <= found.keys()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


KINDS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
FLIPS = st.lists(st.tuples(st.integers(0, 2**31), st.integers(1, 255)), min_size=1, max_size=8)


def flipped(content, flips):
    broken = bytearray(content)
    for where, bits in flips:
        broken[where % len(broken)] ^= bits
    return bytes(broken)


@given(st.sampled_from(KINDS), FLIPS, st.integers(0, 2**31) | st.none())
def test_any_bytes_of_a_file_may_be_wrong(folder, kind, flips, cut):
    path = packed(folder / "any.npz", kind, scale=npy(0.5))
    broken = flipped(path.read_bytes(), flips)
    path.write_bytes(broken if cut is None else broken[: cut % len(broken)])
    loaded_or_refused(path)


@given(st.sampled_from(KINDS[:2]), st.sampled_from("QKV"), FLIPS)
def test_any_bytes_of_a_header_may_be_wrong(folder, kind, name, flips):
    """The archive is whole, and only what it holds is not."""
    content = npy(arrays()[name])
    broken = flipped(content[:128], flips) + content[128:]
    loaded_or_refused(packed(folder / "header.npz", kind, **{name: broken}))


@given(st.sampled_from(KINDS[:2]), FLIPS)
def test_any_bytes_of_the_directory_may_be_wrong(folder, kind, flips):
    content = packed(folder / "directory.npz", kind).read_bytes()
    start = content.index(b"PK\x01\x02")
    (folder / "directory.npz").write_bytes(content[:start] + flipped(content[start:], flips))
    loaded_or_refused(folder / "directory.npz")
