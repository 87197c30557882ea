"""What paths other than the straight one say: how much of its barrier is left on them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from spinscape.statistics import Finding, Interval, bootstrap, pair_bootstrap

__all__ = ["bent_findings", "permutation_point_findings"]

MOST_LEFT = 0.5
RULE = (
    f"Much lower: supported if the interval of the ratio of mean barriers lies below {MOST_LEFT} "
    "and, where samples were held out, that of their ratio below 1; not supported if the first "
    f"lies above {MOST_LEFT} or the second above 1; else undecided. A ratio just below 1 says "
    "nothing: the lowest path met is kept, and the search starts from the straight line"
)
COMMON: dict[str, Any] = {
    "protocol": "permutation",
    "null": "the straight line: ratio 1",
    "null_value": 1.0,
    "rule": RULE,
}
UNDEFINED: dict[str, Any] = {
    "statement": "The ratio is undefined: too few paths, no barrier, or losses that are not finite",
    "value": None,
    "verdict": "undecided",
}
NAMES = {
    "own copy": "a solution and its own copy, all hidden units renumbered",
    "independent": "two independent solutions",
    "aligned": "two independent solutions whose hidden units are matched",
}

Ratio = Callable[[np.ndarray, np.ndarray], Interval]


def bent_findings(bent: xr.Dataset, *, level: float = 0.95, seed: int = 0) -> list[Finding]:
    """Judge, for each kind of path, how much of the straight barrier is left on the bent one."""
    return [_bent(bent, str(kind), level, seed) for kind in bent["kind"].values]


def permutation_point_findings(
    paths: xr.Dataset, *, level: float = 0.95, seed: int = 0
) -> list[Finding]:
    """Judge how much of the straight barrier is left on the way through a permutation point."""

    def ratio(above: np.ndarray, below: np.ndarray) -> Interval:
        def of_sums(a: np.ndarray, b: np.ndarray) -> float:
            return float(a.sum() / b.sum())

        return bootstrap((above, below), of_sums, paired=True, level=level, seed=seed)

    common = {**COMMON, "question": "Does the path through a permutation point beat the line?"}
    height = _by_solution(paths, "barrier")
    found = _defined(ratio, height["lowered"], height["straight"])
    if found is None:
        return [Finding(**common, **UNDEFINED)]
    held = _by_solution(paths, "held_barrier") if "held_barrier" in paths else None
    unseen_pair = None if held is None else (held["lowered"], held["straight"])
    verdict = _verdict(found, ratio, unseen_pair)
    answers = {
        "supported": "The path through a permutation point runs much lower than the straight line",
        "not supported": "The path through a permutation point is no much lower one",
        "undecided": "Whether the path through a permutation point is much lower is undecided",
        "fitted": "A path through a permutation point is lower, on its own samples alone",
    }
    unseen = f"; on samples held out {_listed(held)}" if held else ""
    statement = (
        f"{answers[_answer(found, verdict)]}: between {paths.sizes['replica']} solutions and their "
        f"copies with two hidden units exchanged ({paths.sizes['swap']} each) {found.value:.3g} of "
        f"the straight barrier is left; mean barriers in nats: {_listed(height)}{unseen}"
    )
    return [Finding(**common, **found._asdict(), statement=statement, verdict=verdict)]


def _bent(bent: xr.Dataset, kind: str, level: float, seed: int) -> Finding:
    """Mean barrier of bent paths of one kind in units of that of the straight ones."""
    pairs = bent["pair"].transpose("path", "end").values

    def ratio(above: np.ndarray, below: np.ndarray) -> Interval:
        def of_rows(rows: np.ndarray) -> float:
            drawn = rows.astype(int)
            return float(above[drawn].sum() / below[drawn].sum())

        return pair_bootstrap(np.arange(len(pairs)), pairs, of_rows, level=level, seed=seed)

    question = f"Is there a lower path than the straight one between {NAMES[kind]}?"
    common = {**COMMON, "question": question}
    height, straight = _heights(bent, kind, "")
    found = _defined(ratio, height, straight)
    if found is None:
        return Finding(**common, **UNDEFINED)
    held = _heights(bent, kind, "held_") if "held_barrier" in bent else None
    verdict = _verdict(found, ratio, held)
    answers = {
        "supported": "There is a much lower path",
        "not supported": "Bending finds no much lower path",
        "undecided": "Whether there is a much lower path is undecided",
        "fitted": "There is a lower path, on its own samples alone,",
    }
    unseen = ""
    if held:
        unseen = f", on samples held out from {held[1].mean():.3g} to {held[0].mean():.3g}"
    stretch = float((bent["length"] / bent["distance"]).sel(kind=kind).median())
    statement = (
        f"{answers[_answer(found, verdict)]} between {NAMES[kind]}: on {len(height)} paths the "
        f"barrier goes from {straight.mean():.3g} to {height.mean():.3g} nats on average{unseen}; "
        f"{found.value:.3g} of it is left on paths {stretch:.3g} times as long"
    )
    return Finding(**common, **found._asdict(), statement=statement, verdict=verdict)


def _verdict(found: Interval, ratio: Ratio, held: tuple[np.ndarray, np.ndarray] | None) -> str:
    """What the rule says."""
    unseen = None if held is None else _defined(ratio, *held)
    if found.low > MOST_LEFT or (unseen is not None and unseen.low > 1):
        return "not supported"
    confirmed = held is None or (unseen is not None and unseen.high < 1)
    return "supported" if found.high < MOST_LEFT and confirmed else "undecided"


def _answer(found: Interval, verdict: str) -> str:
    """Which words answer: a low path that samples held out deny has words of its own."""
    return "fitted" if verdict == "not supported" and found.low <= MOST_LEFT else verdict


def _defined(ratio: Ratio, above: np.ndarray, below: np.ndarray) -> Interval | None:
    """Return the ratio where there are enough finite barriers, and any at all."""
    if len(below) < 2 or not np.isfinite([above, below]).all() or (below <= 0).all():
        return None
    return ratio(above, below)


def _heights(bent: xr.Dataset, kind: str, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Barriers of bent and of straight paths."""
    names = f"{where}barrier", f"{where}straight_barrier"
    height, straight = (bent[name].sel(kind=kind).values.astype(float) for name in names)
    return height, straight


def _by_solution(paths: xr.Dataset, name: str) -> dict[str, np.ndarray]:
    """Mean barrier of every solution, a route each."""
    mean = paths[name].mean("swap")
    return {str(route): mean.sel(route=route).values.astype(float) for route in mean.route.values}


def _listed(heights: dict[str, np.ndarray]) -> str:
    return ", ".join(f"{route} {values.mean():.3g}" for route, values in heights.items())
