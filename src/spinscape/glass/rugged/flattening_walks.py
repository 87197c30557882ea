"""The average of the points that a thermal walk visits.

In a valley that is convex the average lies below the walk: for any convex energy E(⟨w⟩) ≤ ⟨E(w)⟩,
and in a bowl in equilibrium the variance about the bottom falls from T/k a coordinate to
(T/k)·2τ/t after t steps of autocorrelation time τ. It is what stochastic weight averaging does
(Izmailov et al., arXiv 1803.05407), with the noise of a temperature in place of that of batches.
"""

from collections.abc import Sequence
from typing import Any

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from spinscape.glass.energies import EnergyLike, batch_of, energy_function
from spinscape.glass.walking.moves import Move, generators
from spinscape.glass.walking.rules import levels, rule_of
from spinscape.glass.walking.tuning import target_of, tuned
from spinscape.glass.walking.walks import OwnWalker, Walker
from spinscape.records import labelled, provenance

__all__ = ["thermal_average"]

SOURCE = "average of a thermal walk's points, after arXiv 1803.05407; for arXiv 2407.20724"


def thermal_average(
    energy: EnergyLike,
    points: "Float[Tensor, 'walker n'] | xr.DataArray | xr.Dataset",
    *,
    temperature: float | Sequence[float],
    move: Move | OwnWalker,
    steps: int,
    burn_in: int = 0,
    every: int = 1,
    walkers: Sequence[int] | None = None,
    seed: int,
) -> xr.Dataset:
    """Walk at a temperature and average the points on the way.

    Parameters
    ----------
    energy : Energy or callable
        A `Landscape`, anything with ``.energy(points [..., n])``, or such a function.
    points : [walker, n]
        Where the walkers start.
    temperature : float or one per walker
        In units of the energy (nats).
    move : Move
        As in `walks.walk`: ``Langevin(step)``, ``FilterGaussian(step, filters)`` and so on.
    steps : int
        Steps of which points are averaged.
    burn_in : int
        Steps before these, in which each walker's step size is tuned, then frozen (`tuning`).
    every : int
        Steps between two points of the average.
    walkers : sequence of int, optional
        Number of each walker, 0, 1, … if not given; its steps depend on `seed` and it alone.
    seed : int

    Returns
    -------
    Dataset
        Over ``walker``: ``point [walker, n]``, the average; ``energy`` there, ``walk_energy``, the
        mean energy of the points that are averaged, ``start_energy``; ``acceptance`` after the
        burn-in; ``step_scale``. In the attributes ``averaged``, how many points.

    Raises
    ------
    ValueError
        If a number is out of range, or an energy is not finite at the start.
    """
    start, rule = batch_of(points), rule_of("thermal")
    numbers = list(range(len(start))) if walkers is None else [int(k) for k in walkers]
    if len(numbers) != len(start) or min(numbers) < 0:
        raise ValueError(
            f"walkers={numbers}: expected a number, 0 or more, for each of {len(start)} points"
        )
    if not 1 <= every <= steps:
        raise ValueError(f"every={every}: expected from 1 to the {steps} steps")
    aim = target_of(move, rule, burn_in, None)
    walker = _walker(energy, move, levels(rule, "temperature", temperature, start))
    every_stream = generators(seed, max(numbers) + 1)
    streams = [every_stream[k] for k in numbers]
    state = walker.init(start)
    first = walker.energies(state)
    if aim is not None:
        state = tuned(walker, state, streams, burn_in, aim)
    mean, level, accepted = torch.zeros_like(start), torch.zeros_like(first), 0.0
    for time in range(1, steps + 1):
        state, info = walker.step(state, streams)
        accepted = accepted + info.accepted.double()
        if time % every == 0:
            mean += (state.point - mean) / (time // every)
            level += (walker.energies(state) - level) / (time // every)
    dims = ("walker", "n")
    result = xr.Dataset({"point": labelled(dims, mean, "average of the points of the walk")})
    result["energy"] = labelled("walker", energy_function(energy)(mean), "energy there", "nats")
    result["walk_energy"] = labelled("walker", level, "mean energy of these points", "nats")
    result["start_energy"] = labelled("walker", first, "energy at the start", "nats")
    result["acceptance"] = labelled("walker", accepted / steps, "fraction of steps accepted")
    result["step_scale"] = labelled("walker", state.scale, "tuned size of a step, over the move's")
    moved = {"name": type(move).__name__, "step": move.step}
    settings: dict[str, Any] = {"move": moved, "steps": steps, "burn_in": burn_in, "every": every}
    settings["temperature"] = torch.as_tensor(temperature).tolist()
    result.attrs.update(provenance("thermal_average", SOURCE, seed, **settings))
    result.attrs["averaged"] = steps // every
    return result


def _walker(energy: EnergyLike, move: Any, temperature: Tensor | None) -> Any:
    own = getattr(move, "walker", None)
    if own is not None:
        return own(energy, rule_of("thermal"), temperature, None)
    return Walker(energy_function(energy), move, rule_of("thermal"), temperature)
