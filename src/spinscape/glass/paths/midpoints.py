"""REPAIR: a network halfway between two others, its hidden units' mean and spread restored.

Halfway between aligned units whose pre-activations have spread σ and correlation ρ, the variance is
σ²(1 + ρ)/2: less than at the ends unless they do the same. REPAIR (Jordan et al., arXiv 2211.08403)
rescales and shifts every pre-activation so that its mean and standard deviation on data are again
those of the ends, interpolated. In a chain of linear layers that folds into weights and biases.
"""

from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from spinscape.glass.energies import batch_of
from spinscape.glass.matching.alignment import align_pairs
from spinscape.glass.matching.hidden_units import HiddenUnits, hidden_units_of
from spinscape.glass.paths.pairings import balanced_pairs
from spinscape.glass.paths.unit_moments import Moments, moments_of
from spinscape.glass.walking.moves import generators
from spinscape.landscape.energy import Landscape
from spinscape.nets import symmetry as symmetries
from spinscape.nets.chunks import pieces
from spinscape.nets.weightspace import points as points_of
from spinscape.records import labelled, provenance
from spinscape.statistics import Finding, Interval, pair_bootstrap

__all__ = ["STATES", "repair", "repair_findings", "repaired_midpoints"]

SOURCE = "REPAIR, arXiv 2211.08403, of aligned pairs; statistics of hidden pre-activations"
STATES = ("plain", "repaired", "permuted statistics")
BLOCK_ELEMENTS = 2**22
"""Numbers in one block of points or of pre-activations: 16 MiB in single precision."""


def repair(
    landscape: Landscape,
    a: "Float[Tensor, '*pair n'] | xr.DataArray | xr.Dataset",
    b: "Float[Tensor, '*pair n'] | xr.DataArray | xr.Dataset",
    *,
    lam: float = 0.5,
) -> xr.Dataset:
    """Interpolate between a and b, and restore the statistics of the hidden units.

    Layer by layer, the pre-activations of every hidden unit are shifted and rescaled, by its bias
    and incoming weights, so that their mean and standard deviation on the landscape's samples are
    those of a and b, interpolated. Later layers are measured after earlier ones are repaired.

    Parameters
    ----------
    landscape : Landscape
        Of a chain whose hidden layers have biases; its samples are those of the statistics.
    a, b : [n] or [pair, n]
        Networks whose units are matched already (`alignment.align`).
    lam : float
        Where between a (0) and b (1).

    Returns
    -------
    Dataset
        ``point`` [n] or [pair, n], the repaired network; over ``state`` (plain, repaired):
        ``loss``, ``error``.

    Raises
    ------
    TypeError
        If the module is no chain.
    ValueError
        If a hidden layer has no bias, or a and b differ in shape.
    """
    units = _repairable(landscape)
    first, second = batch_of(a, "a"), batch_of(b, "b")
    if first.shape != second.shape or first.device != second.device:
        raise ValueError(
            f"a is {tuple(first.shape)} on {first.device}, b is {tuple(second.shape)} on "
            f"{second.device}: expected as many points of one length on one device"
        )
    plain = torch.lerp(first, second, lam)
    blocks = []
    for rows in pieces(len(plain), _pairs_at_once(units, landscape.n)):
        ends = moments_of(units, landscape.x, (first[rows], second[rows]), len(units.layers))
        blocks.append(_repaired(units, landscape.x, plain[rows], _goal(ends, lam)))
    found = torch.cat(blocks)
    loss, error = landscape.evaluate(torch.stack([plain, found]))
    dims = ("state", "pair")
    result = xr.Dataset(
        {
            "point": labelled(("pair", "n"), found, "repaired network"),
            "loss": labelled(dims, loss, "loss", "nats"),
            "error": labelled(dims, error, "error rate"),
        },
        coords={"state": list(STATES[:2])},
        attrs=provenance("repair", SOURCE, 0, lam=lam),
    )
    return result.isel(pair=0) if points_of(a).ndim == 1 else result


def repaired_midpoints(
    landscape: Landscape,
    points: "Float[Tensor, 'replica n'] | xr.DataArray | xr.Dataset",
    *,
    pairs: int = 96,
    seed: int = 0,
) -> xr.Dataset:
    """Loss halfway between aligned solutions, before and after REPAIR.

    The null gives every unit the goal of another one of its layer, at random (*permuted
    statistics*): what remains is that any rescaling were good.

    Parameters
    ----------
    landscape : Landscape
        Of a chain whose hidden layers have biases.
    points : [replica, n]
        At least two solutions; they are aligned by their weights here.
    pairs : int
        How many pairs, at most all of them (`pairings.balanced_pairs`).
    seed : int
        Of the choice of pairs and of the permuted statistics.

    Returns
    -------
    Dataset
        Over ``state, path``: ``loss``, ``error``, ``excess`` (the loss above the mean of the
        ends'); over ``layer, path``: ``variance`` of the plain midpoint's pre-activations in units
        of the repaired one's, both summed over units, ``variance_law`` what the ends' variances and
        covariances foretell (exact in the first layer), ``correlation`` of matched units (sum of
        covariances over sum of products of spreads); ``pair`` [path, end].

    Raises
    ------
    TypeError
        If the module is no chain.
    ValueError
        If a hidden layer has no bias, there are fewer than two points, or no pairs are asked for.
    """
    units = _repairable(landscape)
    states = batch_of(points)
    if len(states) < 2:
        raise ValueError(f"points: expected at least two solutions, got {len(states)}")
    if pairs < 1:
        raise ValueError(f"pairs={pairs}: expected 1 or more")
    symmetry = symmetries.of(landscape.module)
    chosen = balanced_pairs(len(states), pairs, seed)
    streams = generators(seed, len(chosen))
    blocks = []
    for rows in pieces(len(chosen), _pairs_at_once(units, landscape.n)):
        near = symmetry.balance(states[chosen[rows, 0].to(states.device)])
        far = align_pairs(symmetry, states, chosen[rows], seed=seed).points
        drawn = [symmetry.random_permutation(stream) for stream in streams[rows]]
        orders = [torch.stack(layer) for layer in zip(*drawn, strict=True)]
        blocks.append(_of_pairs(landscape, units, near, far, orders))
    loss, error, variance, law, correlation = (
        torch.cat(parts, 1) for parts in zip(*blocks, strict=True)
    )
    ends = landscape.loss(states)[chosen.to(states.device)].mean(1)
    both, layers = ("state", "path"), ("layer", "path")
    arguments = {"pairs": len(chosen), "symmetry": symmetry.describe()}
    return xr.Dataset(
        {
            "loss": labelled(both, loss, "loss", "nats"),
            "error": labelled(both, error, "error rate"),
            "excess": labelled(both, loss - ends, "loss above the ends' mean", "nats"),
            "variance": labelled(layers, variance, "variance halfway, before / after repair"),
            "variance_law": labelled(layers, law, "the same from variances and correlations"),
            "correlation": labelled(layers, correlation, "correlation of matched units"),
            "pair": labelled(("path", "end"), chosen, "replicas at the ends"),
        },
        coords={"state": list(STATES)},
        attrs=provenance("repaired_midpoints", SOURCE, seed, **arguments),
    )


def repair_findings(midpoints: xr.Dataset, *, level: float = 0.95, seed: int = 0) -> list[Finding]:
    """Judge whether REPAIR removes the loss in excess halfway between aligned solutions."""
    common: dict[str, Any] = {
        "protocol": "permutation",
        "question": "Does restoring the units' statistics remove the loss halfway between "
        "aligned solutions?",
        "null": "no repair, which removes nothing, or one to statistics permuted among the units",
        "null_value": 0.0,
        "rule": (
            "Of the median loss above the ends' mean, REPAIR removes a share: supported if its "
            "interval lies above 0 and above the share that permuted statistics remove, not "
            "supported if it lies below either, else undecided"
        ),
    }
    excess = {state: midpoints["excess"].sel(state=state).values.astype(float) for state in STATES}
    share = _share(midpoints, excess, level, seed)
    if share is None:
        told = f"The share is undefined: {midpoints.sizes['path']} pairs, no excess or too few"
        return [Finding(**common, statement=told, value=None, verdict="undecided")]
    plain, repaired, permuted = (float(np.median(excess[state])) for state in STATES)
    chance = 1 - permuted / plain
    bar = max(0.0, chance)
    verdict = (
        "supported" if share.low > bar else "not supported" if share.high < bar else "undecided"
    )
    answers = {
        "supported": "REPAIR removes part of the loss halfway",
        "not supported": "REPAIR removes nothing of the loss halfway",
        "undecided": "Whether REPAIR removes some of the loss halfway is undecided",
    }
    first = midpoints.isel(layer=0)
    told = (
        f"{answers[verdict]}: between {midpoints.sizes['path']} aligned pairs the loss is "
        f"{plain:.3g} nats above the ends' (median), after REPAIR {repaired:.3g}, a share of "
        f"{share.value:.0%} removed (with permuted statistics {chance:.0%}); matched units of the "
        "first layer are correlated by "
        f"{float(first['correlation'].mean()):.2f}, which left them "
        f"{float(first['variance'].mean()):.0%} of their variance"
    )
    return [Finding(**common, **share._asdict(), statement=told, verdict=verdict)]


def _share(
    midpoints: xr.Dataset, excess: dict[str, np.ndarray], level: float, seed: int
) -> Interval | None:
    """Share of the median excess that goes, replicas redrawn.

    Medians, for a poorly trained end alone can put the middle below the ends' mean, and a mean
    excess near 0 bounds no share.
    """
    plain, repaired = excess[STATES[0]], excess[STATES[1]]
    pairs = midpoints["pair"].transpose("path", "end").values
    if len(pairs) < 2 or not np.isfinite(list(excess.values())).all() or np.median(plain) <= 0:
        return None

    def share(rows: np.ndarray) -> float:
        drawn = rows.astype(int)
        before, after = np.median(plain[drawn]), np.median(repaired[drawn])
        return float(1 - after / before) if before > 0 else np.nan

    return pair_bootstrap(np.arange(len(pairs)), pairs, share, level=level, seed=seed)


def _repairable(landscape: Landscape) -> HiddenUnits:
    units = hidden_units_of(landscape.module)
    for layer in units.layers:
        if layer.bias is None:
            raise ValueError(
                f"landscape: hidden layer {layer.name!r} has no bias, by which REPAIR shifts means"
            )
    if not units.layers:
        raise ValueError("landscape: the module has no hidden units to repair")
    return units


def _pairs_at_once(units: HiddenUnits, n: int) -> int:
    return max(1, min(BLOCK_ELEMENTS // n, units.points_at_once(BLOCK_ELEMENTS)))


def _goal(ends: list[Moments], lam: float) -> list[tuple[Tensor, Tensor]]:
    """Mean and standard deviation that each layer's units are to have."""
    spreads = [layer.variance.sqrt() for layer in ends]
    return [
        (layer.mean[0].lerp(layer.mean[1], lam), spread[0].lerp(spread[1], lam))
        for layer, spread in zip(ends, spreads, strict=True)
    ]


def _repaired(
    units: HiddenUnits, x: Tensor, points: Tensor, goal: list[tuple[Tensor, Tensor]]
) -> Tensor:
    """Shift and rescale one layer after the other until its moments are the goal."""
    points = points.clone()
    for k, (layer, (mean, spread)) in enumerate(zip(units.layers, goal, strict=True)):
        now = moments_of(units, x, (points,), k + 1)[k]
        centre, width = now.mean[0], now.variance[0].sqrt()
        rounding = 8 * torch.finfo(points.dtype).eps * (centre.abs() + spread)
        factor = torch.where(width > rounding, spread / width, 1.0)
        layer.weights_in(points).mul_(factor[..., None].to(points.dtype))
        bias = (points[:, layer.bias].double() - centre) * factor + mean
        points[:, layer.bias] = bias.to(points.dtype)
    return points


def _of_pairs(
    landscape: Landscape,
    units: HiddenUnits,
    near: Float[Tensor, "pair n"],
    far: Float[Tensor, "pair n"],
    orders: list[Int[Tensor, "pair width"]],
) -> tuple[Tensor, ...]:
    """Losses and errors [state, pair]; variances, their law and correlations [layer, pair]."""
    x, plain = landscape.x, torch.lerp(near, far, 0.5)
    ends = moments_of(units, x, (near, far), len(units.layers))
    goal = _goal(ends, 0.5)
    permuted = [
        (mean.gather(1, order.to(mean.device)), spread.gather(1, order.to(mean.device)))
        for (mean, spread), order in zip(goal, orders, strict=True)
    ]
    states = [plain, _repaired(units, x, plain, goal), _repaired(units, x, plain, permuted)]
    loss, error = landscape.evaluate(torch.stack(states))
    halfway = moments_of(units, x, (plain,), len(units.layers))
    rows = []
    for (_, spread), both, middle in zip(goal, ends, halfway, strict=True):
        whole = spread.square().sum(1)
        law = (both.variance.sum(0) + 2 * both.covariance) / 4
        correlation = both.covariance.sum(1) / both.variance.prod(0).sqrt().sum(1)
        rows.append((middle.variance[0].sum(1) / whole, law.sum(1) / whole, correlation))
    return (loss, error, *(torch.stack(values) for values in zip(*rows, strict=True)))
