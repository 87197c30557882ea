"""Two checkpoints, compared from their files alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float

from spinscape.merging.checkpoints import Stored, stored_tensors
from spinscape.merging.tensor_signs import FIELDS, measures, sums, total
from spinscape.records import labelled, provenance

__all__ = ["compare"]

SLICE_BYTES = 2**26  # of a tensor, the work of one thread at a time
SOURCE = "arXiv 2405.12489, section 5: sign consistency of raw parameters, sgp(0) = 0"

_STATISTICS = ("running_mean", "running_var")  # measured from data, not trained

Progress: TypeAlias = Callable[[int, int], object]


def compare(
    path_a: str | Path,
    path_b: str | Path,
    *,
    base: str | Path | None = None,
    progress: Progress | None = None,
    threads: int | None = None,
) -> xr.Dataset:
    """Compare two checkpoints tensor by tensor, group by group and as a whole.

    Files are mapped and read in slices of at most 64 MiB, so memory stays small however large
    they are. Numbers are widened to float32 (float64 where any is), and products summed in
    float64, in an order that does not depend on `threads`. Tensors are matched by name; those in
    one file alone, of two shapes, or of integers are listed with their `status` and take part in
    no sum. Running means and variances of normalisation layers, known by their names, are measured
    but no part of a block or the whole. Tied tensors count once under each name they are saved by.

    Parameters
    ----------
    path_a, path_b : path
        Safetensors files, folders or indices of them, or state dicts of ``torch.save``. Nothing
        in them is run.
    base : path, optional
        The checkpoint both came from. Task vectors, θ − base, are then compared too: variables
        whose names have ``task_`` before them.
    progress : callable, optional
        Called with (slices done, slices in all).
    threads : int, optional
        Threads at work; by default as many as PyTorch uses.

    Returns
    -------
    Dataset
        Along `tensor`: `status` ("compared", "only in A", "only in B", "reshaped", "not
        floating"), `shape_a`, `dtype_a`, …, `size`, `equal` (bit for bit after widening; integers
        too, if of one type), `remark` (why numbers are missing), and the measures. Along `group`,
        under names that begin with ``group_``: the measures over blocks (`grouping` = "block":
        names up to their first number, else their first part) and over kinds ("kind": "weights"
        of two or more axes, "vectors" of fewer, running "statistics"). Without dimension, under
        names that begin with ``whole_``: over all tensors. Measures:

        - `overlap`, a·b / (‖a‖‖b‖); `norm_a`, `norm_b`, `norm_ratio`, ‖b‖ / ‖a‖;
        - `distance`, ‖a − b‖; `relative_distance`, that over ‖a‖; `largest`, max |a − b|;
        - `ssr`, the share of entries of one sign (a zero counts as −); `ssr_low`, `ssr_high`, its
          95 % Wilson interval if entries were independent of each other, which those of one
          network are not quite; `ssr_chance`, what it would be if the signs of a and b were
          independent: 1/2 only where half of them are positive;
        - `zeros_a`, `zeros_b`, shares of exact zeros; `identical`, of bit-identical entries.

        A tensor with a value that is not finite has `nonfinite_a` or `nonfinite_b` > 0, no
        measures, and no part in groups and whole (`measured` entries).

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a file is damaged or would have to be run, or nothing in them can be compared.
    """
    if threads is not None and threads < 1:
        raise ValueError(f"threads={threads}: expected at least 1, or None")
    a, b = stored_tensors(path_a), stored_tensors(path_b)
    origin = None if base is None else stored_tensors(base)
    pairs = [_Pair(name, a.get(name), b.get(name), origin) for name in {**a, **b}]
    if not any(pair.status == "compared" for pair in pairs):
        raise ValueError(
            f"{path_a} and {path_b} share no floating tensor of one name and shape: the first of "
            f"A is {_told(a)}, of B {_told(b)}; compare checkpoints of one architecture"
        )
    tallies = _tallies(pairs, threads or torch.get_num_threads(), progress)
    arguments = {"path_a": str(path_a), "path_b": str(path_b)}
    arguments["base"] = "" if base is None else str(base)
    found = xr.Dataset(
        _descriptions(pairs, tallies[:, 0], with_base=base is not None),
        attrs=provenance("merging.compare", SOURCE, seed=0, **arguments),
    )
    sizes = np.array([pair.size for pair in pairs])
    found = found.assign(_measured(pairs, sizes, tallies[:, 0], prefix=""))
    if base is not None:
        found = found.assign(_measured(pairs, sizes, tallies[:, 1], prefix="task_"))
    return found.assign_coords(_coordinates(pairs))


@dataclass(frozen=True)
class _Pair:
    """One name, and what is stored under it."""

    name: str
    a: Stored | None
    b: Stored | None
    bases: Mapping[str, Stored] | None

    @property
    def status(self) -> str:
        if self.a is None or self.b is None:
            return "only in B" if self.a is None else "only in A"
        if self.a.shape != self.b.shape:
            return "reshaped"
        floating = self.a.dtype.is_floating_point and self.b.dtype.is_floating_point
        return "compared" if floating else "not floating"

    @property
    def base_status(self) -> str:
        """As `status`, of the tensor in the base."""
        base = None if self.bases is None else self.bases.get(self.name)
        if base is None or self.status != "compared":
            return "" if self.status != "compared" else "missing"
        if base.shape != self.any.shape:
            return "reshaped"
        return "used" if base.dtype.is_floating_point else "not floating"

    @property
    def any(self) -> Stored:
        found = self.a or self.b
        assert found is not None
        return found

    @property
    def size(self) -> int:
        return self.any.size if self.status == "compared" else 0

    @property
    def stored(self) -> list[Stored]:
        """The tensors to sum over: two, or three with the base."""
        found = [self.a, self.b]
        if self.base_status == "used" and self.bases is not None:
            found.append(self.bases[self.name])
        return [s for s in found if s is not None]

    @property
    def block(self) -> str:
        parts = self.name.split(".")
        numbers = [i for i, part in enumerate(parts) if part.isdecimal()]
        return ".".join(parts[: numbers[0] + 1] if numbers else parts[:1])

    @property
    def kind(self) -> str:
        if self.name.rpartition(".")[2] in _STATISTICS:
            return "statistics"
        return "weights" if len(self.any.shape) > 1 else "vectors"

    def equal(self, identical: float) -> bool:
        """Whether all entries are the same, of which so many floating ones are identical."""
        if self.a is None or self.b is None or self.status in ("reshaped", "compared"):
            return self.status == "compared" and identical == self.size
        return self.a.dtype == self.b.dtype and all(
            np.array_equal(self.a.raw(start, stop), self.b.raw(start, stop))
            for start, stop in _slices([self.a])
        )


def _told(tensors: Mapping[str, Stored]) -> str:
    name, first = next(iter(tensors.items()))
    return f"{name!r} {tuple(first.shape)} {_short(first.dtype)}"


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _slices(stored: list[Stored]) -> Iterator[tuple[int, int]]:
    """Cut into slices that take at most `SLICE_BYTES` of the widest, or of the work to gather."""
    widths = [s.dtype.itemsize if s.strides is None else 512 for s in stored]
    step = max(1, SLICE_BYTES // max(widths))
    for start in range(0, stored[0].size, step):
        yield start, min(start + step, stored[0].size)


def _tallies(
    pairs: list[_Pair], threads: int, progress: Progress | None
) -> Float[np.ndarray, "tensor 2 field"]:
    """Sums over each tensor that is compared: of a and b, and of task vectors (else NaN)."""
    found = np.zeros((len(pairs), 2, len(FIELDS)))
    work = [
        (row, pair.stored, start, stop)
        for row, pair in enumerate(pairs)
        if pair.size
        for start, stop in _slices(pair.stored)
    ]
    parts: dict[int, list[np.ndarray]] = {}
    pool = ThreadPoolExecutor(threads)
    try:
        done = pool.map(lambda item: sums(*item[1:]), work)
        for number, ((row, *_), part) in enumerate(zip(work, done, strict=True), 1):
            parts.setdefault(row, []).append(part)
            if progress is not None:
                progress(number, len(work))
    finally:  # an interruption does not wait for what has not begun
        pool.shutdown(cancel_futures=True)
    for row, rows in parts.items():
        for kind in range(len(rows[0])):
            found[row, kind] = total(np.stack([part[kind] for part in rows]))
    found[[pair.base_status != "used" for pair in pairs], 1] = np.nan
    return found


def _measured(pairs: list[_Pair], sizes: np.ndarray, rows: np.ndarray, prefix: str) -> dict:
    """All measures, of each tensor, each group and the whole."""
    of = dict(zip(FIELDS, rows.T, strict=True))
    wild = of["wild_a"] + of["wild_b"] > 0
    with np.errstate(invalid="ignore"):
        squared = np.isfinite(of["aa"] + of["bb"] + of["dd"])
    usable = (sizes > 0) & ~wild & squared
    vector = "θ − base" if prefix else "parameters"
    found = {
        f"{prefix}nonfinite_{side}": labelled(
            "tensor", of[f"wild_{side}"], f"entries of {side} that are not finite: {vector}"
        )
        for side in "ab"
    }
    reasons = [
        (sizes == 0, ""),
        (np.isnan(of["aa"]) & ~wild, "no base"),
        (wild, "not finite"),
        (~squared, "squares overflow"),
        ((of["aa"] == 0) | (of["bb"] == 0), "all zero: no overlap"),
    ]
    remarks = np.select([where for where, _ in reasons], [why for _, why in reasons], "")
    found[f"{prefix}remark"] = labelled("tensor", remarks, f"why measures are missing: {vector}")
    alone = np.where(usable[:, None], rows, np.nan)
    found |= _labelled(alone, np.where(usable, sizes, 0), prefix, "tensor", vector)
    sets = list(_groups(pairs).values())
    kept = np.where(usable[:, None], rows, 0.0)
    joined = np.stack([total(kept[chosen]) for chosen in sets])
    counted = np.array([sizes[chosen][usable[chosen]].sum() for chosen in sets])
    found |= _labelled(joined[:-1], counted[:-1], f"{prefix}group_", "group", vector)
    whole = _labelled(joined[-1:], counted[-1:], f"{prefix}whole_", "group", vector)
    found |= {name: ((), value[0], notes) for name, (_, value, notes) in whole.items()}
    return found


def _labelled(rows: np.ndarray, sizes: np.ndarray, prefix: str, dim: str, vector: str) -> dict:
    return {
        prefix + name: labelled(dim, values, f"{told}: {vector}")
        for name, (values, told) in measures(rows, sizes).items()
    }


def _groups(pairs: list[_Pair]) -> dict[tuple[str, str], list[int]]:
    """Rows of the tensors in each group, by grouping and name; the whole comes last."""
    found: dict[tuple[str, str], list[int]] = {}
    whole = [
        row
        for row, pair in enumerate(pairs)
        if pair.status == "compared" and pair.kind != "statistics"
    ]
    for row in whole:
        found.setdefault(("block", pairs[row].block), []).append(row)
    for kind in ("weights", "vectors", "statistics"):
        rows = [i for i, p in enumerate(pairs) if p.status == "compared" and p.kind == kind]
        if rows:
            found["kind", kind] = rows
    return {**found, ("whole", ""): whole}


def _coordinates(pairs: list[_Pair]) -> dict[str, Any]:
    groups = [key for key in _groups(pairs) if key[0] != "whole"]
    return {
        "tensor": [pair.name for pair in pairs],
        "block": ("tensor", [pair.block for pair in pairs]),
        "kind": ("tensor", [pair.kind for pair in pairs]),
        "group": [name for _, name in groups],
        "grouping": ("group", [grouping for grouping, _ in groups]),
    }


def _descriptions(pairs: list[_Pair], rows: np.ndarray, *, with_base: bool) -> dict[str, Any]:
    """What each tensor is, in either file, and whether both are the same."""
    identical = rows[:, FIELDS.index("identical")]
    equal = [pair.equal(count) for pair, count in zip(pairs, identical, strict=True)]
    found = {
        "equal": labelled("tensor", equal, "whether all entries are identical, bit for bit"),
        "status": labelled("tensor", [p.status for p in pairs], "whether it is compared"),
        "size": labelled("tensor", [p.any.size for p in pairs], "entries (of A if it has it)"),
    }
    for side in "ab":
        stored = [getattr(pair, side) for pair in pairs]
        shapes = ["" if s is None else "×".join(map(str, s.shape)) or "scalar" for s in stored]
        dtypes = ["" if s is None else _short(s.dtype) for s in stored]
        found[f"shape_{side}"] = labelled("tensor", shapes, f"shape in {side.upper()}")
        found[f"dtype_{side}"] = labelled("tensor", dtypes, f"type in {side.upper()}")
    if with_base:
        statuses = [pair.base_status for pair in pairs]
        found["base_status"] = labelled("tensor", statuses, "whether it has a base")
    return found
