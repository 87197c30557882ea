"""Sums over the entries of two tensors, from which overlap, lengths and signs are told.

Entries are widened to float32, or to float64 where any tensor is; products are summed in float64.
The sign is that of arXiv 2405.12489, sgp(x) = 1 if x > 0 else 0: a zero counts as −. One compiled
pass takes entries from where the file is mapped, piece by piece, so that threads run side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import numba
import numpy as np
import scipy.special
import torch
from jaxtyping import Float

from spinscape.merging.checkpoints import Stored

__all__ = ["FIELDS", "measures", "sums", "total"]

FIELDS = (
    "aa",  # Σ a²
    "bb",
    "ab",
    "dd",  # Σ (a − b)²
    "largest",  # max |a − b|
    "same_sign",  # from here on: how many entries
    "above_a",  # a > 0
    "above_b",
    "zero_a",
    "zero_b",
    "identical",  # bit for bit, after widening
    "wild_a",  # infinite, or no number
    "wild_b",
)
LEVEL = 0.95  # of intervals
PIECE = 4096  # entries that are widened and summed at once, in a core's first cache

_LARGEST = FIELDS.index("largest")
_SINGLE, _DOUBLE, _BRAIN, _TABLE_16, _TABLE_8 = range(5)  # how entries are widened


def sums(stored: Sequence[Stored], start: int, stop: int) -> Float[np.ndarray, "pair field"]:
    """Sum over the entries from `start` to `stop`.

    Parameters
    ----------
    stored : two or three Stored
        Floating tensors of one shape: a and b, and maybe their base.

    Returns
    -------
    array [pair, field]
        `FIELDS` of a and b, and, with a base, of a − base and b − base.
    """
    double = any(s.dtype == torch.float64 for s in stored)
    wide: Any = np.float64 if double else np.float32
    bits: Any = np.int64 if double else np.int32
    numbers = np.zeros((6, PIECE), dtype=wide)  # a, b, base, the difference, both task vectors
    found = np.zeros((len(stored) - 1, len(FIELDS)))
    _pass(
        tuple(_read(s, start, stop) for s in stored),
        tuple(_way(s.dtype, wide) for s in stored),
        tuple(_table(s.dtype) for s in stored),
        tuple(numbers),
        tuple(numbers.view(bits)),
        bits(np.iinfo(bits).max),
        np.array(np.inf, dtype=wide).view(bits)[()],
        found,
    )
    return found


def total(rows: Float[np.ndarray, "part field"]) -> Float[np.ndarray, "field"]:
    """Join the sums over parts."""
    found = rows.sum(0)
    found[_LARGEST] = rows[:, _LARGEST].max(initial=0.0)
    return found


def measures(
    rows: Float[np.ndarray, "part field"], sizes: Float[np.ndarray, "part"]
) -> dict[str, tuple[np.ndarray, str]]:
    """Overlap, lengths, distances and signs with their long names, from sums and their sizes."""
    of = dict(zip(FIELDS, rows.T, strict=True))
    n = np.where(sizes > 0, sizes, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        norm_a, norm_b, distance = (np.sqrt(of[key] + 0 * n) for key in ("aa", "bb", "dd"))
        same = (of["ab"] == of["aa"]) & (of["ab"] == of["bb"]) & (of["aa"] > 0)
        overlap = np.where(same, 1.0, np.clip(of["ab"] / (norm_a * norm_b), -1, 1))
        ssr, above_a, above_b = (of[key] / n for key in ("same_sign", "above_a", "above_b"))
        low, high = _wilson(ssr, n)
        return {
            "measured": (sizes, "entries measured"),
            "overlap": (overlap, "overlap a·b / (‖a‖‖b‖)"),
            "norm_a": (norm_a, "length ‖a‖"),
            "norm_b": (norm_b, "length ‖b‖"),
            "norm_ratio": (norm_b / norm_a, "ratio of lengths ‖b‖ / ‖a‖"),
            "distance": (distance, "distance ‖a − b‖"),
            "relative_distance": (distance / norm_a, "relative distance ‖a − b‖ / ‖a‖"),
            "largest": (of["largest"] + 0 * n, "largest difference |a − b| of an entry"),
            "ssr": (ssr, "sign consistency: share of entries of one sign, zero counting as −"),
            "ssr_low": (low, "sign consistency, lower end if entries are independent"),
            "ssr_high": (high, "sign consistency, upper end if entries are independent"),
            "ssr_chance": (
                above_a * above_b + (1 - above_a) * (1 - above_b),
                "sign consistency of independent signs, as many positive",
            ),
            "zeros_a": (of["zero_a"] / n, "share of exact zeros in a"),
            "zeros_b": (of["zero_b"] / n, "share of exact zeros in b"),
            "identical": (of["identical"] / n, "share of entries identical bit for bit"),
        }


def _wilson(share: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's interval (1927), as `statistics.share` gives it of flags, of many shares at once."""
    z2 = scipy.special.ndtri((1 + LEVEL) / 2) ** 2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = np.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n**2))) / (1 + z2 / n)
    low, high = np.clip(middle - half, 0, share), np.clip(middle + half, share, 1)
    return np.where(share == 0, 0, low), np.where(share == 1, 1, high)


def _read(stored: Stored, start: int, stop: int) -> np.ndarray:
    raw = stored.raw(start, stop).view()
    if raw.ctypes.data % stored.dtype.itemsize:
        raw = raw.copy()
    raw.flags.writeable = False  # mapped or copied, one type for the compiler
    return raw


def _way(dtype: torch.dtype, wide: Any) -> int:
    if dtype == torch.bfloat16 and wide == np.float32:
        return _BRAIN
    return {8: _DOUBLE, 4: _SINGLE, 2: _TABLE_16, 1: _TABLE_8}[dtype.itemsize]


@cache
def _table(dtype: torch.dtype) -> np.ndarray:
    """What each code of a type of one or two bytes stands for; of wider types nothing."""
    if dtype.itemsize > 2:
        return np.zeros(0, dtype=np.float32)
    kind = torch.uint8 if dtype.itemsize == 1 else torch.int16
    codes = torch.arange(2 ** (8 * dtype.itemsize)).to(kind)
    return codes.view(dtype).to(torch.float32).numpy()


def _reordered(function: Any) -> Any:
    """Compile with additions in any order, so that many are done at once (see `compiled`)."""
    flags = {"contract", "nsz", "reassoc"}
    kernel = partial(numba.njit, nogil=True, error_model="numpy", fastmath=flags)
    try:
        return kernel(cache=True)(function)
    except RuntimeError:  # no folder can be written: compiled again in every process
        return kernel()(function)


@_reordered
def _pass(raw, ways, tables, numbers, bits, magnitude, infinity, found):  # type: ignore[no-untyped-def]
    """Sum piece by piece: what one loop has read is in the first cache for the next.

    Loops are apart, since only simple ones are turned into vector instructions.
    """
    size = raw[0].size // _width(ways[0])
    for start in range(0, size, numbers[0].size):
        n = min(numbers[0].size, size - start)
        for k in range(len(raw)):
            width = _width(ways[k])
            piece = raw[k][start * width : (start + n) * width]
            _widen(piece, ways[k], tables[k], numbers[k], bits[k])
        _tally(0, 1, n, numbers, bits, magnitude, infinity, found[0])
        if len(raw) == 3:
            _subtract(numbers[0][:n], numbers[2][:n], numbers[4])
            _subtract(numbers[1][:n], numbers[2][:n], numbers[5])
            _tally(4, 5, n, numbers, bits, magnitude, infinity, found[-1])


@_reordered
def _width(way):  # type: ignore[no-untyped-def]
    if way == _SINGLE:
        return 4
    if way == _DOUBLE:
        return 8
    return 1 if way == _TABLE_8 else 2


@_reordered
def _widen(raw, way, table, numbers, bits):  # type: ignore[no-untyped-def]
    if way == _SINGLE:
        _copy(raw.view(np.float32), numbers)
    elif way == _DOUBLE:
        _copy(raw.view(np.float64), numbers)
    elif way == _BRAIN:
        _shift(raw.view(np.uint16), bits)
    elif way == _TABLE_16:
        _look_up(raw.view(np.uint16), table, numbers)
    else:
        _look_up(raw, table, numbers)


@_reordered
def _copy(values, found):  # type: ignore[no-untyped-def]
    for i in range(values.size):
        found[i] = values[i]


@_reordered
def _shift(codes, found):  # type: ignore[no-untyped-def]
    for i in range(codes.size):
        found[i] = np.int32(np.uint32(codes[i]) << np.uint32(16))


@_reordered
def _look_up(codes, table, found):  # type: ignore[no-untyped-def]
    for i in range(codes.size):
        found[i] = table[codes[i]]


@_reordered
def _tally(x, y, n, numbers, bits, magnitude, infinity, found):  # type: ignore[no-untyped-def]
    """Add `FIELDS` of the pieces x and y."""
    finite = _products(numbers[x][:n], numbers[y][:n], found)
    _subtract(numbers[x][:n], numbers[y][:n], numbers[3])
    bits[3][0] = _furthest(bits[3][:n], magnitude)
    found[4] = max(found[4], np.float64(numbers[3][0]))
    _signs(bits[x][:n], bits[y][:n], magnitude, found)
    if not finite:
        found[11] += _wild(bits[x][:n], infinity)
        found[12] += _wild(bits[y][:n], infinity)


@_reordered
def _products(a, b, found):  # type: ignore[no-untyped-def]
    aa = bb = ab = dd = 0.0
    for i in range(a.size):
        x, y = np.float64(a[i]), np.float64(b[i])
        aa += x * x
        bb += y * y
        ab += x * y
        dd += (x - y) * (x - y)
    found[0] += aa
    found[1] += bb
    found[2] += ab
    found[3] += dd
    return np.isfinite(aa) and np.isfinite(bb)


@_reordered
def _subtract(a, b, found):  # type: ignore[no-untyped-def]
    for i in range(a.size):
        found[i] = a[i] - b[i]


@_reordered
def _furthest(bits, magnitude):  # type: ignore[no-untyped-def]
    found = bits[0] & magnitude
    for i in range(bits.size):
        found = max(found, bits[i] & magnitude)
    return found


@_reordered
def _signs(a, b, magnitude, found):  # type: ignore[no-untyped-def]
    """Count by bits: as an integer, a number is positive where it is as a float."""
    one, none = np.int32(1), np.int32(0)
    same = above_a = above_b = zero_a = zero_b = identical = none
    for i in range(a.size):
        x, y = a[i], b[i]
        same = np.int32(same + (one if (x > 0) == (y > 0) else none))
        above_a = np.int32(above_a + (one if x > 0 else none))
        above_b = np.int32(above_b + (one if y > 0 else none))
        zero_a = np.int32(zero_a + (one if (x & magnitude) == 0 else none))
        zero_b = np.int32(zero_b + (one if (y & magnitude) == 0 else none))
        identical = np.int32(identical + (one if x == y else none))
    found[5] += same
    found[6] += above_a
    found[7] += above_b
    found[8] += zero_a
    found[9] += zero_b
    found[10] += identical


@_reordered
def _wild(bits, infinity):  # type: ignore[no-untyped-def]
    count = 0
    for i in range(bits.size):
        count += (bits[i] & infinity) == infinity
    return count
