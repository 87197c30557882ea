"""Whether a walk has come to equilibrium: R-hat and effective sample sizes, start by start.

Rank-normalised split R-hat and the bulk and tail effective sample sizes of Vehtari, Gelman,
Simpson, Carpenter & Bürkner (2021, Bayesian Analysis 16, 667), as `arviz_stats` computes them. The
walkers of one start are the chains; a single walker is split in two, which finds a drift but not a
second well.
"""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from arviz_stats.base import array_stats

from spinscape.glass.walking.starts import starts_of
from spinscape.records import labelled

__all__ = ["equilibrium", "equilibrium_note"]

FEWEST = 8  # a lone walker's halves are split once more, into two records each
TAIL = (0.05, 0.95)  # quantiles of the tail's effective sample size, Vehtari et al.'s


def equilibrium(
    walk: xr.Dataset,
    *,
    variables: Sequence[str] = ("energy",),
    discard: float = 0.5,
    largest_rhat: float = 1.01,
    least_ess: float = 400.0,
) -> xr.Dataset:
    """R-hat, effective sample sizes and the verdict on each start of a walk.

    A start's walk is `equilibrated` if, of every variable, R-hat is below `largest_rhat` and both
    effective sample sizes are above `least_ess` (the limits of Vehtari et al. 2021). Draws are the
    recorded steps, so that fewer records than `least_ess` cannot pass. A variable that is constant
    or not finite does not pass.

    Parameters
    ----------
    walk : Dataset
        Of `walk`; walkers with the same ``start [walker]`` are chains of one walk.
    variables : sequence of str
        Any over ``walker, step``.
    discard : float
        Fraction of the record that is left out at its beginning.
    largest_rhat, least_ess : float
        The rule.

    Returns
    -------
    Dataset
        ``rhat``, ``ess_bulk``, ``ess_tail`` over ``variable, solution``; ``equilibrated
        [solution]``.

    Raises
    ------
    ValueError
        If a variable is missing, `discard` is no fraction, or fewer than eight records are left.
    """
    missing = [name for name in variables if name not in walk]
    if missing or not variables:
        raise ValueError(f"variables={list(variables)}: the walk has no {missing or 'such'}")
    if not 0 <= discard < 1:
        raise ValueError(f"discard={discard}: expected a fraction from 0 to below 1")
    kept = walk.isel(step=slice(int(discard * walk.sizes["step"]), None))
    if kept.sizes["step"] < FEWEST:
        raise ValueError(
            f"walk: {kept.sizes['step']} records are left, expected {FEWEST} or more; raise record"
        )
    starts = starts_of(walk)
    labels = np.unique(starts)
    numbers = np.full((3, len(variables), len(labels)), np.nan)
    for v, name in enumerate(variables):
        values = kept[name].transpose("walker", "step").values.astype(float)
        for s, label in enumerate(labels):
            chains = values[starts == label]
            if np.isfinite(chains).all() and (np.ptp(chains, axis=1) > 0).all():
                numbers[:, v, s] = _diagnosed(chains)
    rhat, bulk, tail = numbers
    passed = (rhat < largest_rhat) & (bulk > least_ess) & (tail > least_ess)
    dims = ("variable", "solution")
    result = xr.Dataset(coords={"variable": list(variables), "solution": labels})
    result["rhat"] = labelled(dims, rhat, "rank-normalised split R-hat")
    result["ess_bulk"] = labelled(dims, bulk, "effective sample size of the bulk")
    result["ess_tail"] = labelled(dims, tail, "effective sample size of the tails")
    result["equilibrated"] = labelled("solution", passed.all(0), "whether the walk equilibrated")
    return result.assign_attrs(
        discard=discard, largest_rhat=largest_rhat, least_ess=least_ess, draws=kept.sizes["step"]
    )


def _diagnosed(chains: np.ndarray) -> tuple[float, float, float]:
    if len(chains) == 1:  # arviz_stats asks for two chains or more
        half = chains.shape[1] // 2
        chains = np.stack([chains[0, :half], chains[0, -half:]])
    axes = {"chain_axis": 0, "draw_axis": 1}
    return (
        float(array_stats.rhat(chains, **axes)),
        float(array_stats.ess(chains, method="bulk", **axes)),
        float(array_stats.ess(chains, method="tail", prob=TAIL, **axes)),
    )


def equilibrium_note(walk: xr.Dataset) -> str:
    """What a statement adds on a walk's equilibrium, with the numbers."""
    try:
        found = equilibrium(walk)
    except ValueError as reason:
        return f"; whether the walk is in equilibrium cannot be told ({reason})"
    passed, count = int(found["equilibrated"].sum()), found.sizes["solution"]
    limits = f"R-hat < {found.attrs['largest_rhat']:g}, ESS > {found.attrs['least_ess']:g}"
    which = "in equilibrium" if passed == count else "not in equilibrium"
    told = f"{passed} of {count} starts pass {limits}"
    rhat = found["rhat"].values
    ess = np.minimum(found["ess_bulk"].values, found["ess_tail"].values)
    if np.isfinite(rhat).any():
        told += (
            f"; worst R-hat {np.nanmax(rhat):.3g}, least ESS {np.nanmin(ess):.3g} from "
            f"{found.attrs['draws']} records a walker"
        )
    return f"; by its loss the walk is {which} ({told})"
