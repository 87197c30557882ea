"""Whether flattened minima generalise better: an intervention, at equal cost and equal seeds.

A correlation over trained networks cannot say that flatness helps; making minima flatter can. Three
ways of doing so are set against the plain minimum of the same seed: averaging the weights along the
training (Izmailov et al., arXiv 1803.05407), sharpness-aware minimisation (Foret et al., arXiv
2010.01412), and averaging the points of a thermal walk. The claim is that of arXiv 2407.20724, the
method is ours.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor, nn

from spinscape.glass.rugged.flattening_kinds import share_out, trainings, walk_from
from spinscape.glass.rugged.roughness import ruggedness
from spinscape.glass.walking.langevin import Langevin
from spinscape.glass.walking.moves import Move
from spinscape.glass.walking.walks import OwnWalker
from spinscape.landscape.energy import Landscape
from spinscape.nets.datasets import Data
from spinscape.nets.losses import LossFunction
from spinscape.nets.orders import word
from spinscape.nets.populations import population
from spinscape.nets.recipes import Recipe
from spinscape.nets.weightspace import points as points_of
from spinscape.records import labelled, provenance
from spinscape.statistics import Finding, Interval, bootstrap

__all__ = ["KINDS", "flattened", "flattening_findings"]

SOURCE = "SAM: arXiv 2010.01412, weight averaging: arXiv 1803.05407; claim of arXiv 2407.20724"
KINDS = ("plain", "weight averaging", "SAM", "walk averaging")
RECIPE = ("batch_size", "learning_rate", "momentum", "weight_decay", "schedule", "batches")
TAKEN = ("local_energy", "local_energy_se", "roughness", "mean_total_variation", "rugged_slices")


def flattened(
    module: nn.Module,
    data: Data,
    *,
    replicas: int | Sequence[int] = 16,
    seed: int,
    epochs: int = 20,
    loss: str | LossFunction = "cross_entropy",
    init: Callable[[nn.Module, torch.Generator], None] | None = None,
    rho: float = 0.05,
    average_from: float = 0.75,
    walk_share: float = 0.5,
    temperature: float | None = None,
    move: Move | OwnWalker | None = None,
    walk_samples: int | None = None,
    samples: int = 1000,
    probes: int = 32,
    sigma: float = 0.2,
    directions: int = 12,
    **recipe: Any,
) -> xr.Dataset:
    """Train plain and flattened minima of the same seeds at equal cost, and measure both.

    *plain*: gradient descent with momentum for `epochs`. *weight averaging*: the mean of the points
    at the ends of the last epochs of such a training at a constant learning rate (which is the
    plain training itself, if its schedule is constant). *SAM*: half as many sharpness-aware steps.
    *walk averaging*: a shorter plain training, then a thermal walk, whose points are averaged.
    Nothing is tuned, and training losses differ: they stand beside.

    Parameters
    ----------
    module : nn.Module
        The template.
    data : Data
    replicas : int or sequence of int
        As in `train`; the same number of a replica means the same start and order of data in all
        four kinds.
    seed : int
    epochs : int
        Of the plain training, which sets the budget.
    loss, init
        As in `train`.
    rho : float
        Length of SAM's ascent.
    average_from : float
        Share of the training before weights are averaged, once an epoch.
    walk_share : float
        Share of the budget that the walk takes.
    temperature : float, optional
        Of the walk, in nats; 1/n if not given, at which a bowl of n dimensions would hold half a
        nat.
    move : Move, optional
        Of the walk; ``Langevin`` if not given. It is tuned in the first quarter of the walk, which
        does not enter the average. A network with normalisation layers needs a move without
        gradient, such as ``FilterGaussian(0.02, WeightSpace(module).filters)``.
    walk_samples, samples : int
        Training samples, from the first on, that make the landscape walked on (all if not given: a
        walk on some forgets the others) and the one that is measured.
    probes, sigma, directions
        As in `roughness.ruggedness`. All kinds of a replica are measured with the same noise.
    **recipe
        ``batch_size``, ``learning_rate``, ``momentum``, ``weight_decay``, ``schedule`` and
        ``batches`` of `train`, for all kinds alike.

    Returns
    -------
    Dataset
        Over ``kind, replica``: ``point [kind, replica, n]``; loss and error on the three splits;
        ``gap``, test loss less training loss; ``local_energy``, ``local_energy_se``,
        ``roughness``, ``mean_total_variation``, ``rugged_slices``; ``diverged``, with measures that
        are not numbers. ``cost [kind]`` in sample gradients a replica. Over ``replica``: ``seed``,
        and of the walk ``acceptance``, ``walk_energy`` (mean of the points that are averaged) and
        ``average_energy`` (at their average). Normalisation layers have their statistics
        re-estimated at every point, averages too.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit, or the walk's share is too short for four steps.
    """
    for name in recipe:
        if name not in RECIPE:
            raise TypeError(f"{name}: all kinds share {', '.join(RECIPE)} of train, and no other")
    for own in ({"optimizer": "sam", "rho": rho}, {"average_from": average_from}):
        Recipe(epochs=epochs, **recipe, **own)  # refuses what cannot be, before anything is trained
    x, y = data.train
    landscape = Landscape(module, x[:samples], y[:samples], loss)
    ground = Landscape(module, x[:walk_samples], y[:walk_samples], loss)
    heat = 1 / landscape.n if temperature is None else temperature
    if not 0 < heat < math.inf:
        raise ValueError(f"temperature={temperature}: expected a positive number, in nats")
    chosen = Langevin(2 * heat**0.5) if move is None else move
    batch_size = recipe.get("batch_size", 64)
    budget = share_out(len(x), batch_size, epochs, walk_share, chosen, len(ground.x))
    common: dict[str, Any] = {"replicas": replicas, "seed": seed, "loss": loss, "init": init}
    trained = trainings(module, data, budget, rho, average_from, common | recipe)
    numbers = [int(k) for k in trained["start"]["replica"].values]
    walked = walk_from(ground, trained["start"], heat, chosen, budget, numbers, seed)
    points = {
        "plain": points_of(trained["plain"], device=x.device),
        "weight averaging": points_of(trained["averaged"]["average"], device=x.device),
        "SAM": points_of(trained["SAM"], device=x.device),
        "walk averaging": points_of(walked, device=x.device),
    }
    probing = {"probes": probes, "sigma": sigma, "directions": directions}
    probing["seed"] = word(seed, numbers[0])
    found = [
        _measured(module, data, loss, landscape, points[kind], trained["plain"], probing)
        for kind in KINDS
    ]
    result = xr.concat(found, xr.IndexVariable("kind", list(KINDS)), combine_attrs="override")
    result["cost"] = labelled("kind", budget.cost, "cost of a replica", "sample gradients")
    result["seed"] = trained["plain"]["seed"]
    for name, of in (("acceptance",) * 2, ("walk_energy",) * 2, ("average_energy", "energy")):
        result[name] = ("replica", walked[of].values, walked[of].attrs)
    arguments = {"epochs": epochs, "rho": rho, "average_from": average_from, **_plain(recipe)}
    arguments |= {"walk_share": walk_share, "temperature": heat, "samples": len(landscape.x)}
    arguments["walk_samples"] = len(ground.x)
    arguments |= {"move": type(chosen).__name__, "burn_in": budget.burn_in}
    arguments |= {"walk_steps": budget.walk_steps, "probes": probes, "sigma": sigma}
    result.attrs.update(provenance("flattened", SOURCE, seed, **arguments))
    return result


def _measured(
    module: nn.Module,
    data: Data,
    loss: str | LossFunction,
    landscape: Landscape,
    points: Float[Tensor, "replica n"],
    plain: xr.Dataset,
    probing: dict[str, Any],
) -> xr.Dataset:
    """Losses, errors and flatness of the points of one kind."""
    result = population(module, points, data, loss=loss)
    result = result.assign_coords(replica=plain["replica"].values)
    finite = ~torch.from_numpy(result["diverged"].values)
    kept = torch.where(finite[:, None].to(points.device), points, 0.0)
    rugged = ruggedness(landscape, kept, **probing)
    for name in TAKEN:
        values = np.where(finite.numpy(), rugged[name].values, np.nan)
        result[name] = ("replica", values, rugged[name].attrs)
    gap = result["test_loss"].values - result["train_loss"].values
    result["gap"] = labelled("replica", gap, "generalisation gap of the loss", "nats")
    return result


def _plain(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe as JSON takes it."""
    return {
        name: value if isinstance(value, str) else np.asarray(value).tolist()
        for name, value in recipe.items()
    }


WORTH = 0.1  # improvements below this share of the plain minima's are none for all one cares


class _Claim(NamedTuple):
    """What flattened minima are said to be, by which measure."""

    measure: str
    name: str
    question: str
    yes: str
    no: str


CLAIMS = (
    _Claim("test_error", "test error", "Do", "generalise better", "do not generalise better"),
    _Claim("local_energy", "local energy", "Are", "are flatter", "are not flatter"),
)


def flattening_findings(
    dataset: xr.Dataset, *, level: float = 0.95, seed: int = 0
) -> list[Finding]:
    """Judge whether each way of flattening improves the test error, and whether it flattens.

    Differences are taken within a seed; the unit is the replica, and the test set is the one there
    is. The kinds are compared at once, so the intervals of one question all hold at `level`
    together (Bonferroni).
    """
    kinds = [str(kind) for kind in dataset["kind"].values if kind != KINDS[0]]
    return [_judged(dataset, claim, kind, level, seed) for claim in CLAIMS for kind in kinds]


def _judged(data: xr.Dataset, claim: _Claim, kind: str, level: float, seed: int) -> Finding:
    compared = data.sizes["kind"] - 1
    each = 1 - (1 - level) / compared
    common: dict[str, Any] = {
        "protocol": "ruggedness",
        "question": (
            f"{claim.question} minima of {kind} {claim.yes.removeprefix('are ')} than plain ones "
            "of the same cost?"
        ),
        "null": f"no improvement: a mean difference in {claim.name} of 0 within a seed",
        "null_value": 0.0,
        "rule": (
            f"The improvement is the {claim.name} of a plain minimum less that of the flattened "
            "one of the same seed and cost. Supported if the interval of its mean lies above 0, "
            f"not supported if it does not and lies below {WORTH} of the plain mean, else "
            f"undecided. {compared} kinds are compared, so that each interval is one at "
            f"{each:.1%} and all hold at {level:.0%} (Bonferroni)"
        ),
    }
    pairs = _pairs(data, kind)
    count = pairs.sizes["replica"]
    if count < 2:
        told = f"Undecided: of {data.sizes['replica']} seeds {count} have finite measures plain "
        told += f"and by {kind}, and 2 are needed"
        return Finding(**common, statement=told, value=None, verdict="undecided")
    gain, loss = (_improvement(pairs[name], each, seed) for name in (claim.measure, "test_loss"))
    slight = gain.high < WORTH * float(pairs[claim.measure].isel(kind=0).mean())
    verdict = "supported" if gain.low > 0 else "not supported" if slight else "undecided"
    answers = {
        "supported": f"Minima of {kind} {claim.yes} than plain ones",
        "not supported": f"Minima of {kind} {claim.no} than plain ones",
        "undecided": f"Whether minima of {kind} {claim.yes} than plain ones is undecided",
    }
    plain, flat = (pairs.isel(kind=k).mean("replica") for k in (0, 1))
    return Finding(
        **common,
        **gain._asdict(),
        statement=(
            f"{answers[verdict]}: over {count} pairs of equal seed and cost, plain and flattened, "
            f"the test error is {float(plain['test_error']):.2%} and "
            f"{float(flat['test_error']):.2%}, the local energy {float(plain['local_energy']):.3g} "
            f"and {float(flat['local_energy']):.3g} nats, the training loss "
            f"{float(plain['train_loss']):.3g} and {float(flat['train_loss']):.3g}; the test loss "
            f"improves by {loss.value:.3g} nats ({loss.low:.3g} to {loss.high:.3g})"
        ),
        verdict=verdict,
    )


def _pairs(data: xr.Dataset, kind: str) -> xr.Dataset:
    """Plain and flattened minima of the seeds at which both have finite measures."""
    names = ["test_error", "test_loss", "train_loss", "local_energy"]
    both = data[names].sel(kind=[KINDS[0], kind]).transpose("kind", "replica").astype(float)
    finite = np.isfinite([both[name].values for name in names]).all((0, 1))
    return both.isel(replica=np.flatnonzero(finite))


def _improvement(pairs: xr.DataArray, level: float, seed: int) -> Interval:
    """Mean of plain less flattened, with an interval over the seeds."""
    plain, flat = pairs.values
    return bootstrap(plain - flat, level=level, seed=seed)
