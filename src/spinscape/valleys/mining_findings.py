"""What curves, mined directions and curvature say, each against its null."""

from __future__ import annotations

import numpy as np
import xarray as xr

from spinscape.statistics import Finding, Interval, bootstrap, numbers_of, share

__all__ = [
    "along_hessian_finding",
    "collapse_finding",
    "construction_finding",
    "curvature_finding",
    "existence_finding",
    "noise_finding",
]

MOSTLY = 0.9
CLOSE = (0.8, 1.25)


def noise_finding(noise: xr.Dataset, untrained: xr.Dataset | None) -> Finding:
    """Whether the loss along Gaussian noise is a v-basin, as arXiv 2405.12493 says.

    Parameters
    ----------
    noise : Dataset
        `scan` of a trained network along Gaussian directions.
    untrained : Dataset, optional
        The same of an untrained network: the null.
    """
    basins = share(noise["label"].values == "v-basin")
    null = None if untrained is None else float((untrained["label"] == "v-basin").mean())
    verdict = "undecided"
    if basins.low > MOSTLY:
        verdict = "supported"
    elif basins.high < MOSTLY:
        verdict = "not supported"
    beside = "" if null is None else f"; {null:.0%} around an untrained network"
    return Finding(
        protocol="curves",
        question="Along Gaussian noise, is the loss a v-basin with the network at its bottom?",
        statement=(
            f"of {noise.sizes['direction']} directions {basins.value:.0%} are v-basins "
            f"(labels: {_counted(noise)}){beside}"
        ),
        **numbers_of(basins),
        null="" if null is None else "the share at an untrained network",
        null_value=null,
        rule=(
            f"supported if the 95 % interval (Wilson) of the share lies above {MOSTLY}, not "
            "supported if below, else undecided"
        ),
        verdict=verdict,
    )


def construction_finding(built: xr.Dataset) -> Finding:
    """Whether directions built by hand give the curve types that they should.

    Parameters
    ----------
    built : Dataset
        With ``label`` and ``expected`` along one dimension.
    """
    right = built["label"].values == built["expected"].values
    told = ", ".join(
        f"{expected}: {label}"
        for expected, label in zip(built["expected"].values, built["label"].values, strict=True)
    )
    kind = "surfaces" if "a" in built.dims else "curves"
    return Finding(
        protocol=kind,
        question=f"Do {kind} built by hand look as they should?",
        statement=f"{int(right.sum())} of {len(right)} do ({told})",
        **numbers_of(share(right)),
        rule="supported if each gets its own label, else not supported",
        verdict="supported" if right.all() else "not supported",
    )


def existence_finding(mined: xr.Dataset, noise: xr.Dataset, where: str) -> Finding:
    """Whether a shape exists around a network, on data that was not mined.

    Parameters
    ----------
    mined : Dataset
        Of `mine`.
    noise : Dataset
        `scan`, or for a surface `surfaces`, at the same point along Gaussian directions: how often
        the shape comes by chance.
    where : str
        What λ = 0 is, in words.
    """
    shape = mined.attrs["shape"]
    successes = int(mined["success"].sum())
    rate = share(mined["success"].values)
    null = float((noise["label"] == shape).mean())
    among = "planes" if "a" in mined.dims else "directions"
    lost = int(mined["collapsed"].sum())
    verdict = "undecided"
    if successes == 0:
        verdict = "not supported"
    elif rate.low > null or null > 0.5:
        verdict = "supported"
    flat = f"; {lost} given up as flat" if lost else ""
    caveat = "; this says that it exists, not that it is typical" if successes else ""
    return Finding(
        protocol="surfaces" if "a" in mined.dims else "mining",
        question=f"Is there a {shape} around {where}?",
        statement=(
            f"mining found a {shape} from {successes} of {mined.sizes['seed']} starts, judged on "
            f"held-out data ({_counted(mined)}){flat}{caveat}"
        ),
        **numbers_of(rate),
        null=f"the share of {noise['label'].size} Gaussian {among} with this label",
        null_value=null,
        rule=(
            "supported if the 95 % interval (Wilson) of the success rate lies above the share of "
            "unmined directions with that label, or if these show it themselves (more than half), "
            "not supported if no start succeeds, else undecided"
        ),
        verdict=verdict,
    )


def along_hessian_finding(mined: xr.Dataset, seed: int) -> Finding | None:
    """Whether mined directions lie along the Hessian's top eigenvectors more than noise does.

    None with fewer than two directions that succeeded, or without eigenvectors.
    """
    top = [name for name in mined["reference"].values if str(name).startswith("Hessian")]
    kept = mined.isel(seed=np.flatnonzero(mined["success"].values))
    if not top or kept.sizes["seed"] < 2:
        return None
    cosine = kept["overlap"].sel(reference=top).values
    spread = np.sqrt((cosine**2).mean((1, 2))) / float(mined["overlap_null"])
    value = bootstrap(spread, seed=seed)
    verdict = "undecided"
    if value.low > 1:
        verdict = "supported"
    elif value.high < 1:
        verdict = "not supported"
    shape = mined.attrs["shape"]
    return Finding(
        protocol="mining",
        question=f"Do directions of a {shape} lie along the top of the Hessian's spectrum?",
        statement=(
            f"directions of a {shape}: cosine with the top {len(top)} eigenvectors "
            f"{value.value:.2g} times that of noise (root mean square)"
        ),
        **numbers_of(value),
        null="random directions",
        null_value=1.0,
        rule="supported if the interval lies above 1, not supported if below, else undecided",
        verdict=verdict,
    )


def curvature_finding(measured: np.ndarray, foretold: xr.Dataset, where: str, seed: int) -> Finding:
    """Whether tr H / n foretells the curvature along noise.

    Parameters
    ----------
    measured : array [direction]
        dᵀHd along Gaussian directions.
    foretold : Dataset
        Of `curvature.trace` and `curvature.predicted`, at one point.
    where : str
        Which network.
    """
    ratio = measured / float(foretold["foretold"])
    value = _widened(
        bootstrap(ratio, seed=seed), abs(float(foretold["trace_error"] / foretold["trace"]))
    )
    verdict = "undecided"
    if CLOSE[0] <= value.low and value.high <= CLOSE[1]:
        verdict = "supported"
    elif value.high < CLOSE[0] or value.low > CLOSE[1]:
        verdict = "not supported"
    found = float(np.std(ratio, ddof=1))
    return Finding(
        protocol="curvature",
        question=f"Does the trace of the Hessian foretell the curvature along noise? ({where})",
        statement=(
            f"measured over foretold curvature is {value.value:.2f}; its relative spread is "
            f"{found:.2f}, foretold {float(foretold['foretold_spread']):.2f}"
        ),
        **numbers_of(value),
        null="tr H ‖d‖²/n",
        null_value=1.0,
        rule=(
            f"supported if the interval (over directions, and the error of the trace) lies within "
            f"{CLOSE[0]} to {CLOSE[1]}, not supported if outside, else undecided"
        ),
        verdict=verdict,
    )


def collapse_finding(sweep: xr.Dataset) -> Finding:
    """Whether short and weakly rewarded directions collapse into flat ones.

    Parameters
    ----------
    sweep : Dataset
        ``success`` and ``flat`` [s, weight, seed].
    """
    easy = sweep.isel(s=-1, weight=-1)
    hard = sweep.isel(s=0, weight=0)
    failed = share(hard["flat"].values)
    null = float(easy["flat"].mean())
    verdict = "undecided"
    if failed.low > null:
        verdict = "supported"
    elif failed.high <= null or not hard["flat"].any():
        verdict = "not supported"
    return Finding(
        protocol="sweep",
        question="Do short, weakly rewarded directions collapse into flat ones?",
        statement=(
            f"at s = {float(hard['s']):g} and w = {float(hard['weight']):g}, "
            f"{int(hard['flat'].sum())} of {hard.sizes['seed']} end flat and "
            f"{int(hard['success'].sum())} succeed; at s = {float(easy['s']):g} and "
            f"w = {float(easy['weight']):g}, {int(easy['flat'].sum())} and "
            f"{int(easy['success'].sum())}"
        ),
        **numbers_of(failed),
        null="the share at the longest and best rewarded directions",
        null_value=null,
        rule=(
            "supported if the interval of the share lies above that of the longest and best "
            "rewarded directions, not supported if none collapses, else undecided"
        ),
        verdict=verdict,
    )


def _widened(found: Interval, relative: float) -> Interval:
    """Add an independent relative standard error to an interval."""
    extra = 1.96 * relative * found.value
    low = found.value - np.hypot(found.value - found.low, extra)
    high = found.value + np.hypot(found.high - found.value, extra)
    return Interval(found.value, float(low), float(high), found.level)


def _counted(labelled: xr.Dataset) -> str:
    """How often each label came, the most frequent first."""
    names, counts = np.unique(labelled["label"].values.astype(str), return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return ", ".join(f"{counts[k]} {names[k]}" for k in order)
