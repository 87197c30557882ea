"""Two networks of one start, each on its half of the data, and what becomes of their average.

arXiv 2405.12489, section "model fusion". The paper compares a random and a pre-trained start across
data and networks; here both are held fixed, and the start alone differs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations, pairwise
from math import ceil
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float
from torch import Tensor, nn

from spinscape.glass.matching.alignment import align_pairs
from spinscape.landscape.energy import Landscape
from spinscape.merging.averages import merged_networks
from spinscape.merging.signs import sign_consistency
from spinscape.merging.starts import both_starts, halves, trained_halves, trained_whole
from spinscape.nets import symmetry as symmetries
from spinscape.nets.datasets import Data
from spinscape.nets.losses import LossFunction
from spinscape.nets.symmetry import Symmetry
from spinscape.nets.weightspace import points as points_of
from spinscape.records import labelled, provenance
from spinscape.valleys.groups import members

__all__ = ["EPOCHS", "STARTS", "fuse_by_epoch", "independent_signs"]

SOURCE = "arXiv 2405.12489, section on model fusion"
STARTS = ("random", "pre-trained")

EPOCHS = (1, 2, 3, 5, 10, 20, 30, 50)
"""Passes of a network over its half of the data after which the paper looks."""

_KEPT = ("epochs", "steps", "snapshots", "evaluate_every", "stop_at", "patience", "keep_state")


def fuse_by_epoch(
    module: nn.Module,
    data: Data,
    *,
    seeds: int | Sequence[int] = 8,
    seed: int = 0,
    epochs: Sequence[int] = EPOCHS,
    pretraining: str | Data = "rotated",
    pretraining_epochs: int = 10,
    points: int = 11,
    loss: str | LossFunction = "cross_entropy",
    init: Callable[[nn.Module, torch.Generator], None] | None = None,
    statistics_samples: int | None = None,
    **recipe: Any,
) -> xr.Dataset:
    """Train pairs of networks on halves of the data from one start, and average them by epoch.

    Every seed has a start of its own, halves of the training split of its own, and a data order for
    each network A and B. From its random start I, and from I pre-trained on another task, A and B
    are trained on the same halves in the same order: only the start differs. All seeds are trained
    as one batch, and each as it would be alone.

    Parameters
    ----------
    module : nn.Module
        The template, initialised anew for every seed.
    data : Data
        A and B see halves of the training split; soups are chosen on the validation split;
        everything is judged on the test split.
    seeds : int or sequence of int
        How many, or which.
    seed : int
        With the number of a seed it fixes all that is random.
    epochs : sequence of int
        Passes over a half at which A and B are averaged, increasing, from 1.
    pretraining : "rotated", "classes" or Data
        As in `starts.other_task`; from it the pre-trained start comes, by the same recipe.
    pretraining_epochs : int
        Passes over that data.
    points : int
        Positions λ on the line from A to B, an odd number, so that the midpoint is among them.
    loss, init
        As in `train`.
    statistics_samples : int, optional
        Training inputs on which statistics of normalisation layers are re-estimated; all if not
        given.
    batch_size, learning_rate, momentum, …
        Further settings of `train`.

    Returns
    -------
    Dataset
        Along ``start``, ``seed`` and ``epoch``: ``loss`` and ``error [.., lam]`` on test data;
        ``gap``, the midpoint's accuracy minus the mean of both; ``best_gap``, minus the better one;
        ``loss_gap``, the midpoint's loss minus the mean of both; ``barrier``;
        ``ssr`` and ``distance [.., pair]`` for I–A, I–B, A–B outside normalisation layers, and
        ``relative_distance``, in mean lengths of both; ``group_ssr [.., pair, group]`` for all
        parameters and biases alone; ``aligned_ssr`` of A–B after permutation (if the module's units
        can be matched; the attribute ``not_aligned`` says why not). At the end ``point [start,
        seed, net, n]`` of I, A and B, ``merged_loss`` and ``merged_error [start, seed, merged]``
        (`MERGED`), ``soup_size`` and ``diverged``. Numbers of a network that diverged are NaN.

    Raises
    ------
    ValueError
        If a setting is out of range, or of those that this study sets itself.
    """
    chosen = list(range(seeds)) if isinstance(seeds, int) else [int(k) for k in seeds]
    at = _checked(chosen, epochs, points, recipe)
    if pretraining_epochs < 1:
        raise ValueError(f"pretraining_epochs={pretraining_epochs}: expected 1 or more")
    half = len(data.train.x) // 2
    batch = recipe.setdefault("batch_size", 64)
    if batch > half:
        raise ValueError(f"batch_size={batch}: half of the training data is {half}; lower it")
    each = ceil(half / batch)
    common = {"seed": seed, "loss": loss, **recipe}
    starts = both_starts(module, data, chosen, pretraining, pretraining_epochs, init, common)
    parts = torch.cat([halves(len(data.train.x), seed, k) for k in chosen])
    inputs = data.train.x[:statistics_samples]
    judge = Landscape(module, *data.test, loss, statistics_samples=inputs)
    choose = Landscape(module, *data.validation, loss, statistics_samples=inputs)
    symmetry, reason = _symmetry(module)
    lam = np.linspace(0, 1, points)
    found = []
    for start in starts:
        nets = trained_halves(module, data, start, parts, chosen, [e * each for e in at], common)
        whole = trained_whole(module, data, start, chosen, 2 * at[-1] * each, common)
        described = _described(judge, start, nets, lam, symmetry)
        found.append(described.merge(merged_networks(judge, choose, start, nets, whole)))
    result = xr.concat(found, "start").assign_coords(
        start=list(STARTS),
        seed=chosen,
        epoch=("epoch", at, {"long_name": "passes over a half of the data", "units": "epoch"}),
        lam=("lam", lam, {"long_name": "λ: 0 is A, 1 is B", "units": "1"}),
    )
    told: dict[str, Any] = {
        "module": type(module).__name__,
        "data": data.name,
        "pretraining": pretraining if isinstance(pretraining, str) else pretraining.name,
        "pretraining_epochs": pretraining_epochs,
        "statistics_samples": len(inputs),
        "loss": judge.criterion.name,
        **{name: _plain(value) for name, value in recipe.items()},
    }
    result.attrs = provenance("fusion", SOURCE, seed, **told)
    return result.assign_attrs({"not_aligned": reason} if reason else {})


def independent_signs(module: nn.Module, fused: xr.Dataset) -> xr.Dataset:
    """Compare signs of the networks A of different seeds, before and after alignment.

    Networks of different seeds have nothing in common but the data. Outside normalisation layers
    half of their signs should agree by chance. Alignment matches units that are alike, which makes
    more signs agree even in networks that have learned nothing: the same is done with the random
    starts I, for comparison.

    Parameters
    ----------
    module : nn.Module
    fused : Dataset
        Of `fuse_by_epoch`, of at least two seeds.

    Returns
    -------
    Dataset
        ``ssr [start, net, couple]`` and, if units can be matched, ``aligned_ssr``, for networks I
        and A; ``first`` and ``second [couple]``, the places of the two seeds; ``weights``, how many
        are compared. NaN where a network diverged.
    """
    count = fused.sizes["seed"]
    couples = torch.tensor(list(combinations(range(count), 2)), dtype=torch.long)
    if not len(couples):
        raise ValueError("fused: one seed has no other to compare with; ask for seeds=2 or more")
    outside = _outside(module)
    symmetry, reason = _symmetry(module)
    nets = points_of(fused["point"].sel(net=["I", "A"]).transpose("start", "net", "seed", "n"))
    plain, aligned = [], []
    for rows in nets.flatten(0, 1):
        a, b = rows[couples[:, 0]], rows[couples[:, 1]]
        plain.append(_consistency(a, b, outside))
        aligned.append(_aligned_consistency(symmetry, a, b, outside))
    dims = ("start", "net", "couple")
    shape = (*nets.shape[:2], len(couples))
    result = xr.Dataset(
        {"ssr": labelled(dims, torch.stack(plain).view(shape), "equal signs of different seeds")},
        {"start": fused["start"].values, "net": ["I", "A"]},
    )
    if symmetry is not None:
        result["aligned_ssr"] = labelled(
            dims, torch.stack(aligned).view(shape), "equal signs after permutation alignment"
        )
    for name, side in (("first", 0), ("second", 1)):
        result[name] = labelled("couple", couples[:, side], f"place of the {name} seed")
    result["weights"] = labelled((), int(outside.sum()), "weights outside normalisation layers")
    source = f"{SOURCE}; alignment: arXiv 2209.04836"
    result.attrs = provenance("independent signs", source, int(fused.attrs["seed"]))
    return result.assign_attrs({"not_aligned": reason} if reason else {})


def _checked(
    seeds: Sequence[int], epochs: Sequence[int], points: int, recipe: dict[str, Any]
) -> list[int]:
    """Refuse settings that make no study; return the epochs."""
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds={list(seeds)}: expected at least one, each number ≥ 0 once")
    at = [int(epoch) for epoch in epochs]
    if not at or at[0] < 1 or any(b <= a for a, b in pairwise(at)):
        raise ValueError(f"epochs={at}: expected increasing whole numbers from 1 (at 0, A is B)")
    if points < 3 or points % 2 == 0:
        raise ValueError(f"points={points}: expected an odd number from 3, with the midpoint in it")
    for name in _KEPT:
        if name in recipe:
            raise ValueError(f"{name}: is set by epochs= here; leave it out")
    return at


def _described(
    judge: Landscape,
    start: Float[Tensor, "seed n"],
    nets: Float[Tensor, "seed epoch 2 n"],
    lam: np.ndarray,
    symmetry: Symmetry | None,
) -> xr.Dataset:
    """Lines from A to B, their signs and distances."""
    a, b = nets.unbind(2)
    batch = a.shape[:2]
    middle = len(lam) // 2
    flat = a.flatten(0, 1)
    scanned = judge.lines(flat, b.flatten(0, 1) - flat, torch.as_tensor(lam))
    loss, error = (values.view(*batch, -1).double().cpu().numpy() for values in scanned)
    finite = (torch.isfinite(a) & torch.isfinite(b)).all(-1).cpu().numpy()
    error = np.where(np.isfinite(loss) & finite[..., None], error, np.nan)
    straight = loss[..., :1] * (1 - lam) + loss[..., -1:] * lam
    ends = np.stack([error[..., 0], error[..., -1]])
    dims = ("seed", "epoch")
    found = xr.Dataset(
        {
            "loss": labelled((*dims, "lam"), loss, "test loss on the line", judge.criterion.units),
            "error": labelled((*dims, "lam"), error, "test error on the line"),
            "gap": labelled(dims, ends.mean(0) - error[..., middle], "accuracy gap, midpoint"),
            "best_gap": labelled(
                dims, ends.min(0) - error[..., middle], "midpoint's accuracy minus the better end's"
            ),
            "loss_gap": labelled(
                dims, (loss - straight)[..., middle], "loss gap, midpoint", judge.criterion.units
            ),
            "barrier": labelled(
                dims, (loss - straight).max(-1), "barrier of the loss", judge.criterion.units
            ),
        }
    )
    return found.merge(_signs(judge.module, start, a, b, symmetry))


def _signs(
    module: nn.Module,
    start: Float[Tensor, "seed n"],
    a: Float[Tensor, "seed epoch n"],
    b: Float[Tensor, "seed epoch n"],
    symmetry: Symmetry | None,
) -> xr.Dataset:
    """SSR and distances of I–A, I–B and A–B."""
    outside = _outside(module)
    initial = start.to(a)[:, None].expand_as(a)
    pairs = {"IA": (initial, a), "IB": (initial, b), "AB": (a, b)}
    groups = {"all": torch.ones_like(outside), "bias": outside & _named(module, "*bias")}
    groups = {name: mask for name, mask in groups.items() if mask.any()}
    ssr = [_consistency(*pair, outside) for pair in pairs.values()]
    grouped = [[_consistency(*pair, m) for m in groups.values()] for pair in pairs.values()]
    lengths = [[_length(end, outside) for end in pair] for pair in pairs.values()]
    apart = torch.stack([_length(one - two, outside) for one, two in pairs.values()], -1)
    mean = torch.stack([torch.stack(both).mean(0) for both in lengths], -1)
    dims = ("seed", "epoch", "pair")
    far = "distance outside normalisation layers"
    found = xr.Dataset(
        {
            "ssr": labelled(dims, torch.stack(ssr, -1), "equal signs outside normalisation layers"),
            "group_ssr": labelled(
                (*dims, "group"),
                torch.stack([torch.stack(row, -1) for row in grouped], -2),
                "equal signs within a group of parameters",
            ),
            "distance": labelled(dims, apart, far),
            "relative_distance": labelled(dims, apart / mean, far, "mean lengths of the two"),
        },
        {"pair": list(pairs), "group": list(groups)},
    )
    if symmetry is not None:
        aligned = _aligned_consistency(symmetry, a.flatten(0, 1), b.flatten(0, 1), outside)
        found["aligned_ssr"] = labelled(
            dims[:2], aligned.view(a.shape[:2]), "equal signs of A and B after alignment"
        )
    return found


def _consistency(
    a: Float[Tensor, "*batch n"], b: Float[Tensor, "*batch n"], mask: Bool[Tensor, "n"]
) -> Float[Tensor, "*batch"]:
    """SSR of some entries; NaN where a point is not finite."""
    finite = (torch.isfinite(a) & torch.isfinite(b)).all(-1)
    mask = mask.to(a.device)
    return torch.where(finite, sign_consistency(a[..., mask], b[..., mask]), torch.nan)


def _aligned_consistency(
    symmetry: Symmetry | None,
    a: Float[Tensor, "pair n"],
    b: Float[Tensor, "pair n"],
    mask: Bool[Tensor, "n"],
) -> Float[Tensor, "pair"]:
    """SSR after the units of b were matched to those of a (rescaling changes no sign)."""
    found = torch.full((len(a),), torch.nan, dtype=torch.float64)
    finite = (torch.isfinite(a) & torch.isfinite(b)).all(-1)
    if symmetry is not None and finite.any():
        both = torch.cat([a[finite], b[finite]])
        pairs = torch.arange(len(both)).view(2, -1).T
        aligned = align_pairs(symmetry, both, pairs).points
        found[finite.cpu()] = _consistency(a[finite], aligned, mask).cpu()
    return found


def _symmetry(module: nn.Module) -> tuple[Symmetry | None, str]:
    """The module's permutations of units, or why they are not known."""
    try:
        found = symmetries.of(module)
    except TypeError as error:
        return None, str(error)
    return (found, "") if found.layers else (None, "no hidden units")


def _outside(module: nn.Module) -> Bool[Tensor, "n"]:
    """Entries outside normalisation layers."""
    return ~_named(module, "normalisation")


def _named(module: nn.Module, group: str) -> Bool[Tensor, "n"]:
    """Entries of a group, none if the module has no such parameters."""
    try:
        return members(module, group)
    except ValueError:
        return ~members(module, "all")


def _length(points: Float[Tensor, "*batch n"], mask: Tensor) -> Float[Tensor, "*batch"]:
    chosen = points[..., mask.to(points.device)]
    return torch.linalg.vector_norm(chosen, dim=-1, dtype=torch.float64)


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, Tensor) else value
