"""P(q), the distribution of the overlap of two replicas, beside that of surrogates without a tree.

In mean-field theory a glass that breaks replica symmetry has a broad P(q), which stays broad as the
system grows and differs from sample to sample (Parisi, Phys. Rev. Lett. 50, 1946 (1983)). Here q is
the cosine of two aligned, balanced networks, or a functional overlap, taken from the Datasets of
`hierarchy`. One set of solutions of one size cannot show replica symmetry breaking: broad beyond
chance is necessary, not sufficient, and several independent sets tell whether P(q) differs between
them by more than the few replicas in each explain.
"""

from typing import Any

import numpy as np
import scipy.stats
import xarray as xr

from spinscape.glass.trees.clustering import BY, distance_kind, judged, which_null
from spinscape.glass.trees.surrogates import LEAST_SURROGATES, LEVEL, RATIO, Verdict, judge
from spinscape.records import labelled, provenance
from spinscape.statistics import Finding, Interval, p_value

__all__ = ["overlap_distribution", "overlap_findings"]

SOURCE = "P(q): Parisi 1983; its nulls are those of `hierarchy`"
LEAST_SETS = 3
CAVEAT = (
    "Broken replica symmetry would need more: a P(q) that stays broad as networks grow and differs "
    "between data sets"
)


def overlap_distribution(tree: xr.Dataset, *, bins: int = 60) -> xr.Dataset:
    """Return P(q) of one set of replicas, or of several, with that of the surrogates.

    Parameters
    ----------
    tree : Dataset
        Of `hierarchy` (one set) or of `hierarchy_of_sets`.
    bins : int
        Of the histograms, equal over the range of all overlaps.

    Returns
    -------
    Dataset
        ``density`` [set, bin] and ``density_null`` [set, null, bin] (all surrogates together), over
        the centres ``q`` [bin], from 200 quantiles of every set; ``mean`` and ``width`` (standard
        deviation over pairs) [set], their jackknife errors over replicas ``mean_error``,
        ``width_error`` [set], and those of the surrogates, ``mean_null`` and ``width_null`` [set,
        null, surrogate]; ``replicas`` [set].

    Raises
    ------
    ValueError
        If there are fewer than two bins, or a replica lies at the origin, where it has no overlap.
    """
    if bins < 2:
        raise ValueError(f"bins: expected at least 2, got {bins}")
    sets = tree if "set" in tree.dims else tree.expand_dims("set")
    data = sets["overlap_quantiles"].transpose("set", "quantile").values
    null = sets["overlap_quantiles_null"].transpose("set", "null", "surrogate", "quantile").values
    if not (np.isfinite(data).all() and np.isfinite(null).all()):
        raise ValueError("tree: a replica lies at the origin, where no overlap is defined")
    edges = _edges(data, null, bins)
    replicas = tree["replicas"].values if "set" in tree.dims else [tree.sizes["replica"]]
    density = np.array([_density(one, edges) for one in data])
    of_null = np.array([[_density(one, edges) for one in each] for each in null])
    label = "probability density of the overlap"
    variables: dict[str, Any] = {
        "density": labelled(("set", "bin"), density, label),
        "density_null": labelled(("set", "null", "bin"), of_null, f"{label}, surrogates"),
        "replicas": labelled("set", replicas, "replicas of the set"),
    }
    for name in ("mean", "width"):
        for suffix in ("", "_error", "_null"):
            variables[f"{name}{suffix}"] = sets[f"overlap_{name}{suffix}"]
    if "judged" in tree:
        variables["judged"] = tree["judged"]
    centres = labelled("bin", (edges[1:] + edges[:-1]) / 2, "overlap q")
    found = xr.Dataset(variables, coords={"q": centres, "null": tree["null"].values})
    attrs = provenance("overlap_distribution", SOURCE, int(tree.attrs["seed"]), bins=bins)
    return found.assign_attrs(attrs | {"distance": distance_kind(tree)})


def overlap_findings(dataset: xr.Dataset, *, level: float = 0.95) -> list[Finding]:
    """Judge a Dataset of `overlap_distribution`: broader than chance, and unlike between sets.

    The second needs at least three sets, and is left out with one.
    """
    broad = _broad(dataset, level)
    return [broad, _unlike(dataset)] if dataset.sizes["set"] > 1 else [broad]


def _broad(dataset: xr.Dataset, level: float) -> Finding:
    """Judge the width, averaged over sets; surrogate k of all sets makes one of the average."""
    width = _mean_width(dataset, level)
    null = judged(dataset, "width_null").mean("set").transpose("null", "surrogate")
    verdict = judge(width.value, null.values, alternative="greater")
    answers: dict[Verdict, str] = {
        "supported": "P(q) is broader than chance",
        "not supported": "P(q) is not broader than chance",
        "undecided": "Whether P(q) is broader than chance is undecided",
    }
    means = {str(one["null"].item()): float(one.mean()) for one in null}
    nearest = max(means, key=means.__getitem__)
    told = " and ".join(f"{mean:.3g} ({name})" for name, mean in means.items())
    return Finding(
        protocol="hierarchy",
        question=f"Is P(q) broader than chance{BY[distance_kind(dataset)]}?",
        statement=f"{answers[verdict]}: its width is {width.value:.3g}, that of surrogates {told}. "
        f"{CAVEAT}.",
        **width._asdict(),
        null=nearest,
        null_value=means[nearest],
        p=max(p_value(width.value, one, "greater") for one in null.values),
        rule=(
            "Width: the standard deviation of q over pairs, averaged over sets. Supported only if "
            f"it is above every null (one-sided p < {LEVEL}) and at least 1/{RATIO} times the mean "
            "of each; not supported if, against some null, neither holds; undecided otherwise, and "
            f"with fewer than {LEAST_SURROGATES} surrogates.{which_null(dataset)}"
        ),
        verdict=verdict,
    )


def _mean_width(dataset: xr.Dataset, level: float) -> Interval:
    width, error = dataset["width"].values, dataset["width_error"].values
    sets = len(width)
    freedom = int(dataset["replicas"].sum()) - sets
    reach = scipy.stats.t.ppf((1 + level) / 2, freedom) * np.sqrt(np.square(error).sum()) / sets
    value = float(width.mean())
    return Interval(value, value - float(reach), value + float(reach), level)


def _unlike(dataset: xr.Dataset) -> Finding:
    """Compare the spread between sets of mean and width with what their own replicas explain."""
    sets = dataset.sizes["set"]
    freedom = int(dataset["replicas"].sum()) - sets
    ratios = [
        float(dataset[name].var(ddof=1) / np.square(dataset[f"{name}_error"]).mean())
        for name in ("mean", "width")
    ]
    p = [float(scipy.stats.f.sf(ratio, sets - 1, freedom)) for ratio in ratios]
    both = min(1.0, 2 * min(p))
    value = ratios[int(np.argmin(p))]
    verdict: Verdict = "supported" if both < LEVEL else "not supported"
    if sets < LEAST_SETS:
        verdict = "undecided"
    answers: dict[Verdict, str] = {
        "supported": "P(q) differs between independent sets",
        "not supported": "P(q) does not differ between independent sets beyond chance",
        "undecided": "Whether P(q) differs between independent sets is undecided",
    }
    return Finding(
        protocol="hierarchy",
        question=f"Does P(q) differ from set to set{BY[distance_kind(dataset)]}?",
        statement=(
            f"{answers[verdict]}: between {sets} sets its mean varies {ratios[0]:.3g} times and "
            f"its width {ratios[1]:.3g} times as much (variance) as the replicas of each explain. "
            "Where sets share their data, a P(q) that differs says nothing on self-averaging."
        ),
        value=value,
        null="sets that differ by their few replicas alone",
        null_value=1.0,
        p=both,
        rule=(
            "Variance between sets of the mean and of the width of P(q), over the mean squared "
            f"jackknife error of a set. Supported if the smaller p (F, doubled) is below {LEVEL}; "
            f"undecided with fewer than {LEAST_SETS} sets."
        ),
        verdict=verdict,
    )


def _edges(data: np.ndarray, null: np.ndarray, bins: int) -> np.ndarray:
    low, high = (float(pick([pick(data), pick(null)])) for pick in (np.min, np.max))
    room = max(high - low, 1e-12 * max(1.0, abs(high))) * 0.01
    return np.linspace(low - room, high + room, bins + 1)


def _density(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    counts, _ = np.histogram(values, edges)
    return counts / values.size / np.diff(edges)
