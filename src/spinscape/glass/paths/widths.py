"""Barriers between solutions of different widths: whether they fall as networks grow wider.

Between wide two-layer networks the barrier modulo permutation falls as m^(−½) after a peak, says
arXiv 2503.06001. The barrier without alignment is the comparison.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from spinscape.glass.paths.barriers import SOURCE
from spinscape.records import provenance
from spinscape.statistics import Finding, Interval, bootstrap

__all__ = ["barriers_by_width", "decay", "width_findings"]

VARIABLES = ("barrier", "barrier_mean", "distance", "pair")


def barriers_by_width(paths: Mapping[int, xr.Dataset]) -> xr.Dataset:
    """Join the barriers that `interpolation.permutation_paths` found at several widths.

    Parameters
    ----------
    paths : mapping of int to Dataset
        By the number of hidden units, two widths or more; as many pairs at each.

    Returns
    -------
    Dataset
        Over ``width, kind, path``: ``barrier``, ``barrier_mean``, ``distance``; ``pair`` [width,
        path, end], replicas numbered anew at every width.

    Raises
    ------
    ValueError
        If there are fewer than two widths, or numbers of paths or their kinds differ.
    """
    widths = sorted(paths)
    if len(widths) < 2 or widths[0] < 1:
        raise ValueError(f"paths: of widths {widths}, expected two or more, all positive")
    shapes = {
        width: (tuple(map(str, paths[width]["kind"].values)), paths[width].sizes["path"])
        for width in widths
    }
    if len(set(shapes.values())) > 1:
        raise ValueError(f"paths: kinds and numbers of paths differ: {shapes}; make them equal")
    parts = [paths[width][list(VARIABLES)] for width in widths]
    joined = xr.concat(parts, dim="width", combine_attrs="drop").assign_coords(
        width=("width", widths, {"long_name": "hidden units", "units": "1"})
    )
    for name in VARIABLES:
        joined[name].attrs.update(parts[0][name].attrs)
    seeds = [int(paths[width].attrs.get("seed", 0)) for width in widths]
    attrs = provenance("barriers_by_width", SOURCE, seeds[0], widths=widths, seeds=seeds)
    return joined.assign_attrs(attrs)


def decay(
    barriers: xr.Dataset, kind: str = "aligned", *, level: float = 0.95, seed: int = 0
) -> Interval:
    """Exponent x of the mean barrier ∝ widthˣ, with a bootstrap interval.

    A straight line through the logarithms of the mean barriers at all widths; replicas are drawn
    again, at each width on its own, and a pair counts as often as the product of its replicas.

    Raises
    ------
    ValueError
        If a barrier is not finite, a mean barrier not above 0, or a width has too few replicas.
    """
    heights = barriers["barrier"].sel(kind=kind).transpose("width", "path").values.astype(float)
    if not np.isfinite(heights).all() or not np.all(heights.mean(1) > 0):
        raise ValueError(f"barriers: no exponent from mean barriers {heights.mean(1).tolist()}")
    place = np.log(barriers["width"].values.astype(float))
    place -= place.mean()
    ends = [
        np.unique(pairs, return_inverse=True)[1].reshape(pairs.shape)
        for pairs in barriers["pair"].transpose("width", "path", "end").values
    ]

    def exponent(*drawn: np.ndarray, axis: int = -1) -> np.ndarray:
        means = [_mean_of_pairs(*each) for each in zip(drawn, heights, ends, strict=True)]
        slopes = [at * np.log(mean) for at, mean in zip(place, means, strict=True)]
        return sum(slopes[1:], slopes[0]) / (place @ place)

    replicas = tuple(np.arange(pairs.max() + 1) for pairs in ends)
    return bootstrap(replicas, exponent, level=level, seed=seed)


def width_findings(barriers: xr.Dataset, *, level: float = 0.95, seed: int = 0) -> list[Finding]:
    """Judge whether barriers fall with the width, between solutions as trained and aligned."""
    return [
        _falls(barriers, "independent", "as trained", level, seed),
        _falls(barriers, "aligned", "after alignment", level, seed),
    ]


def _falls(barriers: xr.Dataset, kind: str, how: str, level: float, seed: int) -> Finding:
    common: dict[str, Any] = {
        "protocol": "permutation",
        "question": f"Does the barrier between two solutions, {how}, fall as networks grow wider?",
        "null": "barriers that do not depend on the width: exponent 0",
        "null_value": 0.0,
        "rule": (
            "The mean barrier goes as a power of the width: supported if the interval of the "
            "exponent over all widths lies below 0, not supported if it lies above, else undecided"
        ),
    }
    try:
        power = decay(barriers, kind, level=level, seed=seed)
    except ValueError as reason:
        told = f"The exponent is undefined ({reason})"
        return Finding(**common, statement=told, value=None, verdict="undecided")
    verdict = "supported" if power.high < 0 else "not supported" if power.low > 0 else "undecided"
    answers = {
        "supported": f"The barrier {how} falls with the width",
        "not supported": f"The barrier {how} does not fall with the width",
        "undecided": f"Whether the barrier {how} falls with the width is undecided",
    }
    means = barriers["barrier"].sel(kind=kind).mean("path")
    widths = [int(width) for width in barriers["width"].values]
    highest = widths[int(means.values.argmax())]
    beside = "; arXiv 2503.06001 has -0.5 after the highest" if kind == "aligned" else ""
    told = (
        f"{answers[verdict]}: it goes from {float(means[0]):.3g} nats on average at {widths[0]} "
        f"hidden units to {float(means[-1]):.3g} at {widths[-1]}, as the width to the power "
        f"{power.value:.3g} over {len(widths)} widths, and is highest at {highest}{beside}"
    )
    return Finding(**common, **power._asdict(), statement=told, verdict=verdict)


def _mean_of_pairs(drawn: np.ndarray, heights: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Mean over pairs, each as often as the product of how often its two replicas were drawn."""
    replicas = np.arange(ends.max() + 1)
    counts = (drawn[..., None] == replicas).sum(-2)
    weights = counts[..., ends[:, 0]] * counts[..., ends[:, 1]]
    total = weights.sum(-1).astype(float)
    return (weights @ heights) / np.where(total > 0, total, np.nan)
