"""Averages of many networks: the uniform and the greedy soup of arXiv 2203.05482."""

from __future__ import annotations

from typing import NamedTuple

import torch
import xarray as xr
from jaxtyping import Bool, Float
from torch import Tensor

from spinscape.landscape.energy import Landscape
from spinscape.nets.weightspace import points as points_of
from spinscape.records import labelled

__all__ = ["MERGED", "Soup", "greedy_soup", "merged_networks", "uniform_soup"]

MERGED = ("a", "b", "midpoint", "uniform soup", "greedy soup", "best single", "whole")
"""The two networks and their midpoint at the last epoch; averages of, and the best of, all
checkpoints of both; a network of the same start that saw all the data."""


class Soup(NamedTuple):
    """Averages, one a pool of networks.

    Attributes
    ----------
    point : [..., n]
    members : [..., k]
        Which of the pool's networks are in it.
    error : [...]
        Its error on the data it was chosen by: too good, since it was chosen by them.
    """

    point: Float[Tensor, "*batch n"]
    members: Bool[Tensor, "*batch k"]
    error: Float[Tensor, "*batch"]


def uniform_soup(
    points: Float[Tensor, "*batch k n"] | xr.DataArray | xr.Dataset,
) -> Float[Tensor, "*batch n"]:
    """Return the mean of the networks of every pool.

    Parameters
    ----------
    points : [..., k, n]
        Pools of k networks each; they need not be finite, and the mean is not where one is not.
    """
    return _pools(points).mean(-2)


def greedy_soup(
    landscape: Landscape, points: Float[Tensor, "*batch k n"] | xr.DataArray | xr.Dataset
) -> Soup:
    """Average networks one after another, as long as the error on held-out data does not rise.

    Networks are tried in the order of their own error, those of equal error in the order given;
    one that makes the average worse is left out (Wortsman et al. 2022, recipe 1). A network whose
    loss is not finite comes last and is never taken. All pools are cooked at once.

    Parameters
    ----------
    landscape : Landscape
        On validation data: what the soup reaches must be judged on others.
    points : [..., k, n]
        Pools of k networks each.

    Raises
    ------
    ValueError
        If the landscape's targets are no class labels, or there is no network.
    """
    points = _pools(points)
    landscape.space.check(points, "points")
    alone = _errors(landscape, points)
    order = alone.argsort(dim=-1, stable=True)
    best = alone.gather(-1, order[..., :1])[..., 0]
    members = torch.zeros_like(alone, dtype=torch.bool).scatter_(-1, order[..., :1], True)
    total = _picked(points, order[..., 0])
    for place in range(1, points.shape[-2]):
        candidate = _picked(points, order[..., place])
        count = members.sum(-1, keepdim=True)
        error = _errors(landscape, (total + candidate) / (count + 1).to(total))
        taken = (error <= best) & torch.isfinite(error)
        total = torch.where(taken[..., None], total + candidate, total)
        best = torch.where(taken, error, best)
        members.scatter_(-1, order[..., place : place + 1], taken[..., None])
    return Soup(total / members.sum(-1, keepdim=True).to(total), members, best)


def merged_networks(
    judge: Landscape,
    choose: Landscape,
    start: Float[Tensor, "seed n"],
    nets: Float[Tensor, "seed epoch 2 n"],
    whole: Float[Tensor, "seed n"],
) -> xr.Dataset:
    """What the networks, their averages and their rival reach on test data."""
    pool = nets.flatten(1, 2)
    alone = choose.evaluate(pool)[1]
    alone = torch.where(torch.isfinite(pool).all(-1), alone, torch.inf)
    best = pool[torch.arange(len(pool), device=pool.device), alone.argmin(1)]
    greedy = greedy_soup(choose, pool)
    a, b = nets[:, -1].unbind(1)
    rows = [a, b, (a + b) / 2, uniform_soup(pool), greedy.point, best, whole]
    loss, error = judge.evaluate(torch.stack(rows, 1))
    error = torch.where(torch.isfinite(loss), error, torch.nan)
    dims = ("seed", "merged")
    return xr.Dataset(
        {
            "merged_loss": labelled(dims, loss, "test loss", judge.criterion.units),
            "merged_error": labelled(dims, error, "test error"),
            "soup_size": labelled("seed", greedy.members.sum(-1), "networks in the greedy soup"),
            "point": labelled(
                ("seed", "net", "n"), torch.stack([start.to(a), a, b], 1), "start and networks"
            ),
            "diverged": labelled(
                "seed", ~torch.isfinite(nets).all(-1).all(-1).all(-1), "a network is not finite"
            ),
        },
        {"merged": list(MERGED), "net": ["I", "A", "B"]},
    )


def _pools(points: Tensor | xr.DataArray | xr.Dataset) -> Float[Tensor, "*batch k n"]:
    found = points_of(points)
    if found.ndim < 2 or not found.shape[-2]:
        raise ValueError(
            f"points: expected pools [..., k, n] of at least one network, got {tuple(found.shape)}"
        )
    return found.detach()


def _picked(points: Float[Tensor, "*batch k n"], place: Tensor) -> Float[Tensor, "*batch n"]:
    index = place[..., None, None].expand(*place.shape, 1, points.shape[-1])
    return points.gather(-2, index).squeeze(-2)


def _errors(landscape: Landscape, points: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
    """Errors, infinite where the loss is not finite."""
    loss, error = landscape.evaluate(points)
    if bool((torch.isnan(error) & torch.isfinite(loss)).any()):
        raise ValueError(
            "landscape: its targets are no class labels, but networks are ordered by their error; "
            "pass one with labels"
        )
    return torch.where(torch.isfinite(loss), error, torch.inf)
