"""What pairs of networks of one start say of arXiv 2405.12489, and how signs go with the gap.

The independent unit is a seed: a start with its two networks. Checkpoints of one seed are not
independent, so intervals draw whole seeds again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from spinscape.merging.fusion import STARTS
from spinscape.records import labelled, provenance
from spinscape.statistics import (
    Finding,
    Interval,
    above,
    bootstrap,
    numbers_of,
    pair_bootstrap,
    share,
)
from spinscape.valleys.asymmetry_findings import LEARNED, withheld

__all__ = [
    "NEAR",
    "gap_findings",
    "rank_correlation",
    "relation_findings",
    "relations",
    "soup_findings",
    "unrelated_findings",
]

NEAR = 0.05
"""How far from ½ a share of equal signs may be and count as chance."""

GIVEN = ("nothing", "distance", "relative distance", "epoch")
"""What a correlation is given: ‖A − B‖, the same in lengths of A and B, or the epoch, within which
ranks are then taken."""

RESAMPLES = 1999
NAN = Interval(np.nan, np.nan, np.nan, 0.95)
ABOVE = "supported if the interval lies above 0, not supported if below, else undecided"
BELOW = "supported if the interval lies below 0, not supported if above, else undecided"
SEEDS = "the interval is over seeds"
WHERE = {"random": "random starts", "pre-trained": "pre-trained starts", "both": "both together"}


def rank_correlation(
    x: ArrayLike, y: ArrayLike, given: ArrayLike | None = None
) -> Float[np.ndarray, "*batch"]:
    """Spearman's rank correlation along the last axis, or the partial one given a third number.

    The partial correlation of ranks is (r_xy − r_xz r_yz) / √((1 − r_xz²)(1 − r_yz²)): what of the
    ranks of x and y goes together after each was fitted by those of z. NaN where it is undefined.

    Parameters
    ----------
    x, y, given : array [..., sample]

    Examples
    --------
    >>> float(rank_correlation([1, 2, 3, 4], [1, 4, 9, 16]))
    1.0
    """
    ranks = [_centred(rankdata(np.asarray(each), axis=-1)) for each in (x, y)]
    plain = _cosine(*ranks)
    if given is None:
        return plain
    third = _centred(rankdata(np.asarray(given), axis=-1))
    first, second = (_cosine(each, third) for each in ranks)
    rest = (1 - first**2) * (1 - second**2)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(rest > 1e-12, (plain - first * second) / np.sqrt(rest), np.nan)


def relations(fused: xr.Dataset, seed: int) -> xr.Dataset:
    """Correlate SSR with the accuracy gap over epochs and seeds.

    Parameters
    ----------
    fused : Dataset
        Of `fuse_by_epoch`.
    seed : int
        Of the bootstrap.

    Returns
    -------
    Dataset
        ``correlation [scope, pair, given]`` with ``low`` and ``high``, for random starts,
        pre-trained ones and both together (which mixes what differs between them into it), given
        as in `GIVEN`; ``seeds [scope]``, how many have finite numbers. The intervals draw seeds
        again, each with all its epochs. NaN where all numbers are alike.
    """
    scopes = {"random": ["random"], "pre-trained": ["pre-trained"]}
    scopes["both"] = [*scopes["random"], *scopes["pre-trained"]]
    pairs = list(fused["pair"].values)
    found = np.full((3, len(scopes), len(pairs), len(GIVEN)), np.nan)
    counts = []
    for i, starts in enumerate(scopes.values()):
        chosen = fused.sel(start=starts)
        kept = np.isfinite(_rows(chosen["gap"])).all((1, 2))
        counts.append(int(kept.sum()))
        gap = _rows(chosen["gap"])[kept]
        for j, pair in enumerate(pairs):
            ssr = _rows(chosen["ssr"].sel(pair=pair))[kept]
            for k, given in enumerate(GIVEN):
                third = None
                if "distance" in given:
                    apart = chosen[given.replace(" ", "_")].sel(pair="AB")
                    third = _rows(apart)[kept]
                found[:, i, j, k] = _clustered(ssr, gap, third, given == "epoch", seed)
    dims = ("scope", "pair", "given")
    names = ("correlation", "low", "high")
    words = "rank correlation of equal signs and accuracy gap"
    result = xr.Dataset(
        {name: labelled(dims, rows, words) for name, rows in zip(names, found, strict=True)},
        {"scope": list(scopes), "pair": pairs, "given": list(GIVEN)},
    )
    result["seeds"] = labelled("scope", counts, "seeds with finite numbers")
    return result.assign_attrs(provenance("fusion relations", "ours", seed, resamples=RESAMPLES))


def gap_findings(fused: xr.Dataset, seed: int) -> list[Finding]:
    """Whether the midpoint is worse than its ends from a random start, and not from another."""
    last = fused.isel(epoch=-1)
    random, trained = (_rows(fused["gap"].sel(start=[name]))[:, 0] for name in STARTS)
    better = last["best_gap"].sel(start="pre-trained").values
    at = fused["epoch"].values
    ranks = rank_correlation(np.broadcast_to(at, random.shape), random)
    ranks = np.where(np.isfinite(random).all(1) & (np.ptp(random, axis=1) == 0), 0.0, ranks)
    first, end = _mean(random[:, 0]), _mean(random[:, -1])
    lost, falls, beats, apart = (
        _over_seeds(values, seed)
        for values in (random[:, -1], ranks, better, trained[:, -1] - random[:, -1])
    )
    loss = last["loss_gap"].mean("seed")
    learned = _learned(fused, seed)
    found = [
        _finding(
            question="From a random start, is the average of two networks worse than they are?",
            statement=(
                f"after {at[-1]} epochs its accuracy is {_points(lost.value)} from their mean; its "
                f"loss {float(loss.sel(start='random')):+.3g}"
            ),
            **_numbers(lost),
            null="the mean of both networks",
            null_value=0.0,
            rule=f"{BELOW}; {SEEDS}",
            verdict=_below(lost),
        ),
        _finding(
            question="Does the gap from a random start fall with the epochs?",
            statement=(
                f"rank correlation of epoch and gap {falls.value:+.2f}; the gap is "
                f"{_points(first)} after epoch {at[0]}, {_points(end)} after epoch {at[-1]}"
            ),
            **_numbers(falls),
            null="a gap that does not change (a seed where it never does counts as 0)",
            null_value=0.0,
            rule=f"the mean of the seeds' correlations: {BELOW}; {SEEDS}",
            verdict=_below(falls),
        ),
        _finding(
            question="From a pre-trained start, does the average beat both networks?",
            statement=(
                f"after {at[-1]} epochs its accuracy is {_points(beats.value)} from the better "
                f"one's, {_points(_mean(trained[:, -1]))} from their mean; its loss "
                f"{float(loss.sel(start='pre-trained')):+.3g} from their mean"
            ),
            **_numbers(beats),
            null="the better of both networks",
            null_value=0.0,
            rule=f"{ABOVE}; {SEEDS}",
            verdict=_above(beats),
        ),
        _finding(
            question="With network and data the same, does a pre-trained start average better?",
            statement=(
                f"after {at[-1]} epochs its gap is {_points(_mean(trained[:, -1]))}, against "
                f"{_points(end)} from the random start: {_points(apart.value)} of difference"
            ),
            **_numbers(apart),
            null="the gap from the random start of the same seed",
            null_value=0.0,
            rule=f"the paired difference of the gaps: {ABOVE}; {SEEDS}",
            verdict=_above(apart),
        ),
    ]
    return [learned, *withheld(found, learned)]


def relation_findings(related: xr.Dataset) -> list[Finding]:
    """Whether more equal signs go with a better midpoint, and whether beyond the distance."""
    found = []
    for scope, where in WHERE.items():
        rows = related.sel(scope=scope)
        plain, far, relative, within = (_of(rows, "AB", given) for given in GIVEN)
        others = ", ".join(
            f"I–{pair[1]} {_told(_of(rows, pair, 'nothing'))}" for pair in ("IA", "IB")
        )
        mixed = "; it mixes what differs between the starts" if scope == "both" else ""
        found.append(
            _finding(
                question=f"Do equal signs of A and B go with a better midpoint? ({where})",
                statement=(
                    f"rank correlation of SSR and gap over epochs and seeds {_told(plain)}; "
                    f"{others}; within an epoch {_told(within)}{mixed}"
                ),
                **_numbers(plain),
                null="no relation",
                null_value=0.0,
                rule=f"the correlation for A–B: {ABOVE}; {SEEDS}, each with all its epochs",
                verdict=_above(plain),
            )
        )
        found.append(
            _finding(
                question=f"Do equal signs say more than the distance of A and B does? ({where})",
                statement=(
                    f"partial rank correlation of SSR and gap given ‖A − B‖ {_told(far)}, given "
                    f"‖A − B‖ in lengths of A and B {_told(relative)}; {_told(plain)} "
                    f"without{mixed}"
                ),
                **_numbers(far),
                null="no relation beyond the distance",
                null_value=0.0,
                rule=f"the correlation given ‖A − B‖: {ABOVE}; {SEEDS}, each with all its epochs",
                verdict=_above(far),
            )
        )
    return found


def unrelated_findings(unrelated: xr.Dataset, seed: int) -> list[Finding]:
    """Whether networks of different seeds agree in half of their signs, and alignment adds to it.

    Parameters
    ----------
    unrelated : Dataset
        Of `independent_signs`.
    seed : int
        Of the bootstrap.
    """
    pairs = np.stack([unrelated["first"].values, unrelated["second"].values], 1)
    plain = unrelated["ssr"].sel(start="random").transpose("net", "couple").values
    apart = (pairs[:, 0] % 2 == 0) & (pairs[:, 1] == pairs[:, 0] + 1)
    chosen = plain[1, apart & np.isfinite(plain[1])]
    weights = int(unrelated["weights"])
    count = len(chosen) * weights
    equal = round(float(chosen.sum()) * weights)
    found = share(np.arange(count) < equal) if count else NAN
    over = _over_couples(plain[1], pairs, seed)
    within, outside = _near(found)
    trained = _mean(unrelated["ssr"].sel(start="pre-trained", net="A").values)
    told = [
        _finding(
            question="Do independently trained networks agree in half of their signs?",
            statement=(
                f"{found.value:.4f} of {count:,} signs in {len(chosen)} couples of different "
                f"networks; mean of all {len(pairs)} couples {_told(over, 3)} over networks, "
                f"{_mean(plain[0]):.3f} at their starts, {trained:.3f} from pre-trained ones; "
                "outside normalisation layers, before alignment"
            ),
            **_numbers(found),
            null="signs by chance",
            null_value=0.5,
            rule=(
                f"supported if Wilson's binomial interval lies within ½ ± {NEAR}, not supported if "
                "outside of it, else undecided; it takes signs to be independent"
            ),
            verdict="supported" if within else "not supported" if outside else "undecided",
        )
    ]
    if "aligned_ssr" in unrelated:
        aligned = unrelated["aligned_ssr"].sel(start="random").transpose("net", "couple").values
        gain = _over_couples((aligned - plain)[1] - (aligned - plain)[0], pairs, seed)
        told.append(
            _finding(
                question="Does alignment bring out equal signs that training put there?",
                statement=(
                    f"from {_mean(plain[1]):.3f} to {_mean(aligned[1]):.3f} for trained "
                    f"networks and from {_mean(plain[0]):.3f} to {_mean(aligned[0]):.3f} "
                    f"for their starts, which have learned nothing: {gain.value:+.3f} more"
                ),
                **_numbers(gain),
                null="the same alignment of the random starts",
                null_value=0.0,
                rule=f"the difference of both gains: {ABOVE}; the interval is over networks",
                verdict=_above(gain),
            )
        )
    return told


def soup_findings(fused: xr.Dataset, seed: int) -> list[Finding]:
    """Whether averages of many are better than the best one, and than training on all the data."""
    found = []
    for start in STARTS:
        rows = fused["merged_error"].sel(start=start)
        error = {str(name): rows.sel(merged=name).values for name in rows["merged"].values}
        mean = {name: _mean(values) for name, values in error.items()}
        soup = _over_seeds(error["best single"] - error["greedy soup"], seed)
        rival = _over_seeds(error["whole"] - error["midpoint"], seed)
        size, most = float(fused["soup_size"].sel(start=start).mean()), 2 * fused.sizes["epoch"]
        found += [
            _finding(
                question=f"Does a greedy soup of checkpoints beat the best one? ({WHERE[start]})",
                statement=(
                    f"{_points(soup.value)} of accuracy: test errors {mean['greedy soup']:.1%} "
                    f"({size:.1f} of {most} networks), best single {mean['best single']:.1%}, all "
                    f"averaged {mean['uniform soup']:.1%}, midpoint {mean['midpoint']:.1%}"
                ),
                **_numbers(soup),
                null="the single checkpoint that is best on validation data",
                null_value=0.0,
                rule=f"the paired difference of accuracies: {ABOVE}; {SEEDS}",
                verdict=_above(soup),
            ),
            _finding(
                question=f"Is the midpoint as good as training on all the data? ({WHERE[start]})",
                statement=(
                    f"{_points(rival.value)} of accuracy from one network that saw both halves in "
                    f"as many steps as A and B: test errors {mean['midpoint']:.1%} and "
                    f"{mean['whole']:.1%} (A {mean['a']:.1%}, B {mean['b']:.1%})"
                ),
                **_numbers(rival),
                null="one network of the same start, trained on both halves",
                null_value=0.0,
                rule=f"the paired difference of accuracies: {ABOVE}; {SEEDS}",
                verdict=_above(rival),
            ),
        ]
    learned = _learned(fused, seed)
    return withheld(found, learned)


def _learned(fused: xr.Dataset, seed: int) -> Finding:
    """Whether both networks of a seed solve their task; if not, nothing else is judged."""
    ends = fused["merged_error"].sel(merged=["a", "b"])
    middle = float(ends.median())
    value = _over_seeds(1 - ends.mean(("start", "merged"), skipna=False).values, seed)
    lost = int(fused["diverged"].any("start").sum())
    return _finding(
        question="Do the networks solve the task?",
        statement=(
            f"the median test error of A and B is {middle:.1%}; {lost} of "
            f"{fused.sizes['seed']} seeds have a network that diverged, and are left out"
        ),
        **_numbers(value),
        rule=(
            f"supported if the median test error is at most {LEARNED:.0%}, else not supported, and "
            "other findings on these networks are undecided; the value is the mean accuracy"
        ),
        verdict="supported" if middle <= LEARNED else "not supported",
    )


def _rows(values: xr.DataArray) -> Float[np.ndarray, "seed start epoch"]:
    return values.transpose("seed", "start", "epoch").values


def _clustered(
    x: Float[np.ndarray, "seed start epoch"],
    y: Float[np.ndarray, "seed start epoch"],
    given: Float[np.ndarray, "seed start epoch"] | None,
    by_epoch: bool,
    seed: int,
) -> tuple[float, float, float]:
    """Rank correlation with its bootstrap interval over seeds; NaN where there is none."""

    def correlation(drawn: np.ndarray, axis: int = -1) -> Float[np.ndarray, "*batch"]:
        rows = drawn.astype(int)
        some = [each[rows] for each in (x, y)]
        flat = (*rows.shape[:-1], -1)
        if by_epoch:
            return _cosine(*(_centred(rankdata(each, axis=-3), -3).reshape(flat) for each in some))
        third = None if given is None else given[rows].reshape(flat)
        return rank_correlation(some[0].reshape(flat), some[1].reshape(flat), third)

    if len(x) < 2 or not np.isfinite(x).all():
        return (np.nan,) * 3
    try:
        found = bootstrap(np.arange(len(x)), correlation, seed=seed, resamples=RESAMPLES)
    except ValueError:  # undefined on the numbers, or on most resamples
        return (np.nan,) * 3
    return found.value, found.low, found.high


def _centred(values: np.ndarray, axis: int = -1) -> np.ndarray:
    return values - values.mean(axis, keepdims=True)


def _cosine(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return (x * y).sum(-1) / np.sqrt((x**2).sum(-1) * (y**2).sum(-1))


def _of(rows: xr.Dataset, pair: str, given: str) -> Interval:
    one = rows.sel(pair=pair, given=given)
    value, low, high = (float(one[name]) for name in ("correlation", "low", "high"))
    return Interval(value, low, high, 0.95)


def _mean(values: np.ndarray) -> float:
    """Mean of the finite numbers, NaN if there is none."""
    kept = values[np.isfinite(values)]
    return float(kept.mean()) if len(kept) else np.nan


def _over_seeds(values: Float[np.ndarray, "seed"], seed: int) -> Interval:
    """Bootstrap over seeds with finite numbers; not a number with fewer than two of them."""
    kept = np.asarray(values, dtype=float)
    kept = kept[np.isfinite(kept)]
    return bootstrap(kept, "mean", seed=seed) if len(kept) > 1 else NAN


def _over_couples(values: np.ndarray, pairs: np.ndarray, seed: int) -> Interval:
    kept = np.isfinite(values)
    if kept.sum() < 2:
        return NAN
    return pair_bootstrap(values[kept], pairs[kept], "mean", seed=seed)


def _near(found: Interval) -> tuple[bool, bool]:
    """Whether an interval lies within ½ ± `NEAR`, and whether outside of it."""
    within = max(abs(found.low - 0.5), abs(found.high - 0.5)) <= NEAR
    return within, found.low > 0.5 + NEAR or found.high < 0.5 - NEAR


def _points(share: float) -> str:
    """Accuracy differences in words: points are percentage points."""
    return f"{100 * share:+.2f} points"


def _told(found: Interval, digits: int = 2) -> str:
    if not np.isfinite(found.value):
        return "undefined"
    sign = "+" if digits == 2 else ""
    low, high = (f"{end:{sign}.{digits}f}" for end in (found.low, found.high))
    return f"{found.value:{sign}.{digits}f} [{low}, {high}]"


def _numbers(found: Interval) -> dict[str, Any]:
    return numbers_of(found if np.isfinite(found.value) else None)


def _above(found: Interval) -> str:
    return above(found) if np.isfinite(found.value) else "undecided"


def _below(found: Interval) -> str:
    turned = Interval(-found.value, -found.high, -found.low, found.level)
    return _above(turned)


def _finding(**record: Any) -> Finding:
    """Make a finding; without a number it is undecided, and says why."""
    if record["value"] is None:
        record["verdict"] = "undecided"
        record["statement"] = f"fewer than two seeds have a number: {record['statement']}"
    return Finding(protocol="fusion", **record)
