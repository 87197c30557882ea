"""Arrays x and y from files: `.npz`, and folders of IDX files as MNIST is distributed.

What a header claims is compared with the file, and with this machine's memory, before any
memory is taken; what remains unreadable is a `ValueError` of one line that names the file.
"""

import gzip
import io
import math
import os
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.lib import format as npy

__all__ = ["read_idx", "read_idx_folder", "read_npz"]

# Deflate cannot do better: the worst case of its format, 258 bytes from two bits.
_DEFLATE_LIMIT = 1032
_UNREADABLE = (OSError, EOFError, ValueError, RuntimeError, zlib.error, zipfile.BadZipFile)
_TORN_HEADER = (SyntaxError, TypeError, tokenize.TokenError)


class _Header(NamedTuple):
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def values(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.values * self.dtype.itemsize


def read_npz(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the arrays `x` and `y` of an `.npz` file; nothing in it is ever unpickled.

    Parameters
    ----------
    path : Path
        An archive as written by `numpy.savez` or `numpy.savez_compressed`.

    Returns
    -------
    tuple of numpy.ndarray
        x and y with the shapes and dtypes that the file gives them.

    Raises
    ------
    ValueError
        Not an archive, damaged, without x or y, holding Python objects, of another size than its
        headers say, or too large for this machine's memory.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            found = {name[:-4] for name in archive.namelist() if name.endswith(".npy")}
            if not {"x", "y"} <= found:
                raise ValueError(
                    f"needs arrays named x and y, holds {', '.join(sorted(found)) or 'none'}; "
                    "write it with numpy.savez(path, x=inputs, y=labels)"
                )
            return _npz_array(archive, "x"), _npz_array(archive, "y")
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path}: not an .npz archive, or a damaged one ({error})") from error
    except (*_UNREADABLE, *_TORN_HEADER) as error:
        raise ValueError(f"{path}: {_one_line(error)}") from error


def _npz_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    entry = archive.getinfo(f"{name}.npy")
    with archive.open(entry) as stream:
        header = _npy_header(stream, name)
        claimed = stream.tell() + header.nbytes
    if claimed != entry.file_size or entry.file_size > _DEFLATE_LIMIT * (entry.compress_size + 64):
        raise ValueError(
            f"{name} should take {claimed:,} bytes by its own header and {entry.file_size:,} by "
            f"the archive's, from {entry.compress_size:,} stored: a damaged or hostile file"
        )
    _refuse_beyond_memory(header, name)
    with archive.open(entry) as stream:
        return npy.read_array(stream, allow_pickle=False)


def _npy_header(stream: IO[bytes], name: str) -> _Header:
    version = npy.read_magic(stream)
    if version not in {(1, 0), (2, 0)}:
        raise ValueError(f"{name} is not a plain array (npy format {version})")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(stream)
    if dtype.hasobject:
        raise ValueError(
            f"{name} holds Python objects, which are never unpickled; "
            f"save numbers, for instance {name}.astype(float)"
        )
    return _Header(shape, dtype)


_IDX_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: Path) -> np.ndarray:
    """Read one IDX file, gzipped if its name ends in `.gz`.

    Parameters
    ----------
    path : Path
        The file: two zero bytes, a type code, the number of dimensions, the dimensions as
        big-endian 32-bit integers, the values.

    Returns
    -------
    numpy.ndarray
        The values, in the machine's byte order.

    Raises
    ------
    ValueError
        Not an IDX file, damaged, longer or shorter than its header says, or too large for this
        machine's memory.
    """
    try:
        return _idx_array(path)
    except _UNREADABLE as error:
        raise ValueError(f"{path}: {_one_line(error)}") from error


def _idx_array(path: Path) -> np.ndarray:
    zipped = path.suffix == ".gz"
    available = path.stat().st_size * (_DEFLATE_LIMIT if zipped else 1)
    with gzip.open(path) if zipped else path.open("rb") as stream:
        header = _idx_header(stream)
        if header.nbytes > available:
            raise ValueError(
                f"its header promises {header.nbytes:,} bytes, more than the file can hold"
            )
        _refuse_beyond_memory(header, "it")
        data = stream.read(header.nbytes + 1)
    if len(data) != header.nbytes:
        kind = "more" if len(data) > header.nbytes else f"{len(data):,}"
        raise ValueError(f"its header promises {header.nbytes:,} bytes of values, there are {kind}")
    values = np.frombuffer(data, header.dtype).reshape(header.shape)
    return values.astype(header.dtype.newbyteorder("="))


def _idx_header(stream: gzip.GzipFile | io.BufferedReader) -> _Header:
    start = stream.read(4)
    if len(start) < 4 or start[:2] != b"\0\0" or start[2] not in _IDX_DTYPES or not start[3]:
        raise ValueError("not an IDX file (its first four bytes are no IDX magic number)")
    sizes = stream.read(4 * start[3])
    if len(sizes) < 4 * start[3]:
        raise ValueError("an IDX file cut off within its header")
    return _Header(struct.unpack(f">{start[3]}I", sizes), np.dtype(_IDX_DTYPES[start[2]]))


def read_idx_folder(
    folder: Path,
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Read the training and the test set of a folder named as MNIST and Fashion-MNIST are.

    Parameters
    ----------
    folder : Path
        Holds `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte` and
        `t10k-labels-idx1-ubyte`, each with or without `.gz`; `.idx3` for `-idx3` is known too.

    Returns
    -------
    tuple of pairs of numpy.ndarray
        (x, y) to train on, (x, y) to test on.

    Raises
    ------
    ValueError
        A file is missing (with what the folder holds) or unreadable.
    """
    x, y = (_find_idx(folder, "train", kind) for kind in ("images-idx3", "labels-idx1"))
    x_test, y_test = (_find_idx(folder, "t10k", kind) for kind in ("images-idx3", "labels-idx1"))
    return (read_idx(x), read_idx(y)), (read_idx(x_test), read_idx(y_test))


def _find_idx(folder: Path, part: str, kind: str) -> Path:
    name = f"{part}-{kind}-ubyte"
    for stem in (name, name.replace("-idx", ".idx")):
        for path in (folder / stem, folder / f"{stem}.gz"):
            if path.is_file():
                return path
    held = sorted(entry.name for entry in folder.iterdir())
    shown = ", ".join(held[:6]) + (", …" if len(held) > 6 else "")
    raise ValueError(f"{folder}: no {name}[.gz]; the folder holds {shown or 'nothing'}")


def _refuse_beyond_memory(header: _Header, name: str) -> None:
    # As numbers of four bytes beside the original: what turning an image into floats takes.
    needed, total = header.nbytes + 4 * header.values, _memory()
    if needed > total:
        raise ValueError(
            f"{name} has shape {header.shape} and needs {needed / 2**30:,.1f} GiB, "
            f"this machine has {total / 2**30:,.1f}; save a part of it"
        )


def _memory() -> int:
    """Physical memory in bytes; no bound where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 2**62


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
