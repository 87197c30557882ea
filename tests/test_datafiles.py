"""Files of arrays: what is written is read, and what is damaged or hostile is refused in time."""

import gzip
import io
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spinscape.nets import datafiles
from spinscape.nets.datafiles import read_idx, read_idx_folder, read_npz

X = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
Y = np.array([0, 1], dtype=np.uint8)


def idx_bytes(array, code=0x08):
    header = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()


def npz_with(path, **entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(f"{name}.npy", content)
    return path


def npy_bytes(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_round_trip(tmp_path, save):
    save(tmp_path / "a.npz", x=X.astype(">f8"), y=Y, other=np.zeros(3))
    x, y = read_npz(tmp_path / "a.npz")
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(y, Y)


def test_npz_keeps_fortran_order(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.asfortranarray(X), y=Y)
    np.testing.assert_array_equal(read_npz(tmp_path / "a.npz")[0], X)


def test_npz_without_labels_names_what_it_holds(tmp_path):
    np.savez(tmp_path / "a.npz", x=X, target=Y)
    with pytest.raises(ValueError, match=r"a\.npz: needs arrays named x and y, holds target, x"):
        read_npz(tmp_path / "a.npz")


def test_npz_entry_that_is_no_array(tmp_path):
    np.savez(tmp_path / "a.npz", x=X)
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        archive.writestr("y", "0 1")
    with pytest.raises(ValueError, match="needs arrays named x and y, holds x"):
        read_npz(tmp_path / "a.npz")


def test_npz_of_objects_is_never_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return pytest.fail, ("unpickled",)

    np.savez(tmp_path / "a.npz", x=np.array([Trap(), None], dtype=object), y=Y)
    with pytest.raises(ValueError, match="x holds Python objects"):
        read_npz(tmp_path / "a.npz")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"a text\n", npy_bytes(X)])
def test_npz_that_is_none(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.npz: not an \.npz archive"):
        read_npz(tmp_path / "a.npz")


def test_npz_header_that_promises_more_than_the_entry_takes_no_memory(tmp_path):
    honest = npy_bytes(np.zeros((4, 10), np.float64))
    bomb = honest.replace(b"(4, 10), }     ", b"(4, 1000000), }")
    assert bomb != honest
    npz_with(tmp_path / "a.npz", x=bomb, y=npy_bytes(Y))
    tracemalloc.start()
    with pytest.raises(ValueError, match="x should take 32,000,128 bytes by its own header"):
        read_npz(tmp_path / "a.npz")
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()


def test_npz_bomb_is_refused_by_the_memory_of_the_machine(tmp_path, monkeypatch):
    npz_with(tmp_path / "a.npz", x=npy_bytes(np.zeros((1000, 1000), np.uint8)), y=npy_bytes(Y))
    assert (tmp_path / "a.npz").stat().st_size < 3000
    monkeypatch.setattr(datafiles, "_memory", lambda: 4_000_000)
    with pytest.raises(ValueError, match=r"x has shape \(1000, 1000\) and needs 0.0 GiB"):
        read_npz(tmp_path / "a.npz")


def test_npz_with_a_flipped_bit(tmp_path):
    np.savez(tmp_path / "a.npz", x=X, y=Y)
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[content.index(X.tobytes())] ^= 1
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ValueError, match="CRC"):
        read_npz(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("code", "dtype"),
    [(0x08, "u1"), (0x09, "i1"), (0x0B, ">i2"), (0x0C, ">i4"), (0x0D, ">f4"), (0x0E, ">f8")],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_idx_round_trip(tmp_path, code, dtype, zipped):
    content = idx_bytes(X.astype(dtype), code)
    path = tmp_path / ("a.gz" if zipped else "a")
    path.write_bytes(gzip.compress(content) if zipped else content)
    values = read_idx(path)
    np.testing.assert_array_equal(values, X)
    assert values.dtype == np.dtype(dtype).newbyteorder("=")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no IDX magic"),
        (b"\x89PNG", "no IDX magic"),
        (idx_bytes(X)[:7], "cut off within its header"),
        (idx_bytes(X)[:-1], "more than the file can hold|there are 23"),
        (idx_bytes(X) + b"!", "24 bytes of values, there are more"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "more than the file can hold"),
    ],
)
def test_idx_that_is_damaged(tmp_path, content, message):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_idx(tmp_path / "a")


def test_idx_cut_off_within_the_compressed_stream(tmp_path):
    content = gzip.compress(idx_bytes(np.random.default_rng(0).integers(0, 256, 500, np.uint8)))
    (tmp_path / "a.gz").write_bytes(content[:-20])
    with pytest.raises(ValueError, match="end-of-stream"):
        read_idx(tmp_path / "a.gz")


def test_idx_gz_that_is_no_gz(tmp_path):
    (tmp_path / "a.gz").write_bytes(idx_bytes(X))
    with pytest.raises(ValueError, match="Not a gzipped file"):
        read_idx(tmp_path / "a.gz")


def test_idx_bomb_is_refused_by_the_memory_of_the_machine(tmp_path, monkeypatch):
    (tmp_path / "a.gz").write_bytes(gzip.compress(idx_bytes(np.zeros((1000, 1000), np.uint8))))
    monkeypatch.setattr(datafiles, "_memory", lambda: 4_000_000)
    with pytest.raises(ValueError, match="this machine has"):
        read_idx(tmp_path / "a.gz")


@pytest.mark.parametrize("dot", ["-", "."])
@pytest.mark.parametrize("zipped", [False, True])
def test_idx_folder_keeps_its_test_set(tmp_path, dot, zipped):
    for part, k in (("train", 0), ("t10k", 1)):
        for kind, array in ((f"images{dot}idx3", X + k), (f"labels{dot}idx1", Y)):
            content = idx_bytes(array)
            path = tmp_path / f"{part}-{kind}-ubyte{'.gz' if zipped else ''}"
            path.write_bytes(gzip.compress(content) if zipped else content)
    (x, y), (x_test, _) = read_idx_folder(tmp_path)
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(x_test, X + 1)
    np.testing.assert_array_equal(y, Y)


def test_idx_folder_names_what_is_missing(tmp_path):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx_bytes(X))
    with pytest.raises(ValueError, match=r"no train-labels-idx1-ubyte\[\.gz\]; the folder holds t"):
        read_idx_folder(tmp_path)


@settings(max_examples=200, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=6))
@pytest.mark.parametrize("kind", ["npz", "idx.gz", "idx"])
def test_a_damaged_file_is_read_or_refused_in_one_line(tmp_path_factory, kind, changes):
    path = tmp_path_factory.getbasetemp() / f"damaged.{kind}"
    content = idx_bytes(X)
    if kind == "npz":
        stream = io.BytesIO()
        np.savez_compressed(stream, x=X, y=Y)
        content = stream.getvalue()
    content = bytearray(gzip.compress(content) if kind == "idx.gz" else content)
    for place, value in changes:
        content[place % len(content)] = value
    path.write_bytes(content)
    refusal = outcome(read_npz if kind == "npz" else read_idx, path)
    assert refusal is None or (refusal.startswith(str(path)) and "\n" not in refusal)


def outcome(read, path):
    try:
        read(path)
    except ValueError as error:
        return str(error)
