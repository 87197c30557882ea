"""How a set of samples is cut into parts that all hold every class in its proportion."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from spinscape.nets.splits import REMAP, Data, Split

__all__ = ["cut", "stratified_order"]


def cut(
    parts: Sequence[Split],
    *,
    name: str,
    description: str,
    seed: int,
    validation: float,
    test: float,
    limit: int | None,
    classes: int | None = None,
) -> Data:
    """Make three stratified splits of one set of samples, or of two or three given ones.

    Parameters
    ----------
    parts : sequence of Split
        All samples; or those to train and to test on; or train, validation, test.
    name, description : str
        Of the result.
    seed : int
        Fixes who goes where.
    validation, test : float
        Fractions; `validation` is one of what is left when the test set is given.
    limit : int, optional
        At most so many samples altogether; given sets shrink in proportion.
    classes : int, optional
        Number of classes; counted if not given, and every class must then be trained on.

    Returns
    -------
    Data
        Every split in a stratified order: any beginning of it is stratified as well.

    Raises
    ------
    ValueError
        Fractions or limit out of range, labels other than 0 .. C - 1, fewer than two classes, a
        class with too few samples.
    """
    _refuse_settings(validation, test, limit)
    count = classes or _count_classes(torch.cat([part.y for part in parts]), name)
    orders = [
        stratified_order(part.y, np.random.default_rng([seed, position]))
        for position, part in enumerate(parts)
    ]
    total = sum(map(len, orders))
    if limit is not None and limit < total:
        orders = [order[: max(1, limit * len(order) // total)] for order in orders]
    train, held_out, judged = _three(parts, orders, validation, test)
    if classes is None:
        _refuse_untrained(train.y, count, name)
    return Data(train, held_out, judged, name, count, description)


def stratified_order(labels: Int[Tensor, " sample"], random: np.random.Generator) -> np.ndarray:
    """Draw an order in which every class is spread evenly, so that slices of it are stratified.

    One such order serves the subset and all three splits, and a class of two samples is enough;
    repeated two-way splits want more of every class each time.

    Parameters
    ----------
    labels : Tensor
        One label a sample.
    random : numpy.random.Generator
        Draws who stands where within a class.

    Returns
    -------
    numpy.ndarray
        Indices of all samples: the member of rank r in a class of m has its place at (r + u) / m,
        u uniform in [0, 1), so that of any class between t m - 1 and t m + 1 stand before t.
    """
    values = labels.numpy()
    place = np.empty(len(values))
    for label in np.unique(values):
        members = random.permutation(np.flatnonzero(values == label))
        place[members] = (np.arange(len(members)) + random.random(len(members))) / len(members)
    return np.argsort(place, kind="stable")


def _three(
    parts: Sequence[Split], orders: list[np.ndarray], validation: float, test: float
) -> tuple[Split, Split, Split]:
    if len(parts) == 3:
        return _take(parts[0], orders[0]), _take(parts[1], orders[1]), _take(parts[2], orders[2])
    pool, order = parts[0], orders[0]
    held = max(1, round(validation * len(order)))
    if len(parts) == 2:
        return _take(pool, order[held:]), _take(pool, order[:held]), _take(parts[1], orders[1])
    judged = held + max(1, round(test * len(order)))
    return _take(pool, order[judged:]), _take(pool, order[:held]), _take(pool, order[held:judged])


def _take(part: Split, indices: np.ndarray) -> Split:
    chosen = torch.from_numpy(indices)
    return Split(part.x[chosen], part.y[chosen])


def _refuse_settings(validation: float, test: float, limit: int | None) -> None:
    if not (validation > 0 and test > 0 and validation + test < 1):
        raise ValueError(
            "validation and test are fractions above 0 that leave something to train on, "
            f"got {validation} and {test}"
        )
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1 sample, got {limit}")


def _count_classes(labels: Int[Tensor, " sample"], name: str) -> int:
    found, counts = labels.unique(return_counts=True)
    if len(found) < 2:
        raise ValueError(f"{name}: all labels are {int(found[0])}; there is nothing to tell apart")
    if int(found[-1]) != len(found) - 1:
        raise ValueError(
            f"{name}: {len(found):,} different labels from {int(found[0])} to {int(found[-1])}, "
            f"needs 0 .. {len(found) - 1}: {REMAP}"
        )
    if int(counts.min()) < 2:
        raise ValueError(
            f"{name}: class {int(counts.argmin())} has one sample only, and needs another to be "
            "judged on; add samples or leave that class out"
        )
    return len(found)


def _refuse_untrained(labels: Int[Tensor, " sample"], classes: int, name: str) -> None:
    counts = torch.bincount(labels, minlength=classes)
    if not counts.all():
        raise ValueError(
            f"{name}: of {len(labels)} samples to train on none is of class "
            f"{int(counts.argmin())}; raise limit, or lower validation and test"
        )
