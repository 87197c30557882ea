"""Asymmetric valleys: curves of a trained network under noise with and without its signs.

arXiv 2405.12489, sections 3 and 4: θ + λ s (ε/‖ε‖) ‖θ‖ for λ in [−1, 1]; the statistic is the mean
loss or error on either side. The index (E⁻ − E⁺)/(E⁻ + E⁺) is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.integrate import trapezoid
from scipy.stats import spearmanr
from torch import Tensor

from spinscape.landscape.energy import Landscape
from spinscape.nets.weightspace import points as points_of
from spinscape.records import labelled, provenance
from spinscape.statistics import bootstrap
from spinscape.valleys.directions import (
    NOISES,
    SPECIAL,
    aligned_noise,
    gaussian,
    members,
    noise,
    restricted,
    scaled,
    sign_consistent,
    sign_ratio,
    special,
)

__all__ = ["CONTROLS", "asymmetry", "lopsidedness"]

SOURCE = "arXiv 2405.12489, sections 3 and 4"
CONTROLS = ("ordinary", "consistent", "aligned", "point")
"""Gaussian noise; with the signs of θ; of the same overlap with θ but signs of chance; θ itself."""

LAM = np.linspace(-1, 1, 41)


def asymmetry(
    landscape: Landscape,
    point: Float[Tensor, "n"],
    *,
    noises: Sequence[str] = tuple(NOISES),
    specials: Sequence[str] = SPECIAL[1:],
    ratios: Sequence[float] = tuple(np.round(np.linspace(0, 1, 11), 1)),
    seeds: int | Sequence[int] = 10,
    s: float = 1.0,
    lam: ArrayLike | None = None,
    scaling: str = "norm",
    group: str = "all",
    initial: Float[Tensor, "n"] | None = None,
    seed: int = 0,
) -> xr.Dataset:
    """Measure how lopsided a trained network's valley is, and whether signs make it so.

    Parameters
    ----------
    landscape : Landscape
    point : [n]
        The trained network θ.
    noises : sequence of str
        Of `directions.NOISES`; each as drawn, and with the signs of θ.
    specials : sequence of str
        Of `directions.SPECIAL`; "initial" needs `initial`.
    ratios : sequence of float
        Shares of entries of Gaussian noise that are given the signs of θ.
    seeds : int or sequence of int
        Of the noise.
    s : float
        Length of the noise in lengths of θ; the paper has 0.2, 1 and 2.
    lam : [k], optional
        Positions, symmetric around 0; 41 from −1 to 1 if not given.
    scaling : str
        As in `directions.scaled`.
    group : str
        Parameters that are moved (`directions.members`).
    initial : [n], optional
        θ₀, for the special direction "initial".
    seed : int
        Of the bootstrap.

    Returns
    -------
    Dataset
        For each of "loss" and "error" (dimension ``metric``; "loss" alone without labels):
        ``curve [noise, signs, seed, metric, lam]``, and its ``plus``, ``minus`` and ``index``;
        ``ratio_index [ratio, seed, metric]``; ``special_curve`` and ``special_index``;
        ``control_curve`` and ``control_index [control, seed, metric]``, controls as in
        `CONTROLS`. ``ratio_correlation [metric]``: Spearman's rank correlation of ratio and index
        with its bootstrap interval over seeds (``_low``, ``_high``).

    Raises
    ------
    ValueError
        If a setting is out of range, or `lam` is not symmetric around 0.
    """
    point = points_of(point).detach()
    landscape.space.check(point, "point", ndim=1)
    numbers = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    if len(numbers) < 2:
        raise ValueError(f"seeds={seeds!r}: expected at least 2, or there is no interval")
    at = LAM if lam is None else np.asarray(lam, dtype=float)
    if at.ndim != 1 or len(at) < 3 or not np.allclose(at, -at[::-1]) or not (np.diff(at) > 0).all():
        raise ValueError("lam: expected increasing positions, symmetric around 0")
    mask = members(landscape.module, group).to(point.device)

    def ready(directions: Tensor) -> Tensor:
        moved = directions if group == "all" else restricted(directions, mask)
        target = point if group == "all" else point * mask.to(point)
        return scaled(moved, target, landscape.space, scaling, s)

    scan = _Scan(landscape, point, at)
    plain = {kind: noise(point, kind, numbers) for kind in noises}
    own = [scan(ready(drawn)) for drawn in plain.values()]
    given = [scan(ready(sign_consistent(drawn, point))) for drawn in plain.values()]
    base = gaussian(point, numbers)
    swept = [scan(ready(sign_ratio(base, point, ratio, numbers))) for ratio in ratios]
    own_ways = [special(point, kind, landscape.space, initial) for kind in specials]
    apart = scan(ready(torch.stack(own_ways or [point])))[: len(own_ways)]
    controls = [scan(ready(rows)) for rows in _controls(base, point)]
    metrics = ["loss", "error"][: own[0].shape[1]]
    curve = np.stack([np.stack(own), np.stack(given)], 1)
    dims = ("noise", "signs", "seed", "metric", "lam")
    plus, minus, index = lopsidedness(at, curve)
    ratio_index = lopsidedness(at, np.stack(swept))[2]
    found = xr.Dataset(
        {
            "curve": labelled(dims, curve, "loss or error"),
            "plus": labelled(dims[:-1], plus, "E⁺: mean over λ in [0, 1]"),
            "minus": labelled(dims[:-1], minus, "E⁻: mean over λ in [−1, 0]"),
            "index": labelled(dims[:-1], index, "(E⁻ − E⁺)/(E⁻ + E⁺)"),
            "ratio_index": labelled(("ratio", "seed", "metric"), ratio_index, "index"),
            "special_curve": labelled(("special", "metric", "lam"), apart, "loss or error"),
            "special_index": labelled(("special", "metric"), lopsidedness(at, apart)[2], "index"),
            "control_curve": labelled(
                ("control", "seed", "metric", "lam"), np.stack(controls), "loss or error"
            ),
            "control_index": labelled(
                ("control", "seed", "metric"), lopsidedness(at, np.stack(controls))[2], "index"
            ),
        },
        {
            "noise": list(plain),
            "signs": ["own", "given"],
            "seed": numbers,
            "metric": metrics,
            "lam": ("lam", at, {"long_name": "λ", "units": "direction lengths"}),
            "ratio": list(ratios),
            "special": list(specials),
            "control": list(CONTROLS),
        },
    )
    found = found.assign(_correlations(np.asarray(ratios), ratio_index, seed))
    arguments: dict[str, Any] = {"s": s, "scaling": scaling, "group": group, "seeds": numbers}
    arguments |= {"loss": landscape.criterion.name, "samples": len(landscape.x)}
    return found.assign_attrs(provenance("asymmetry", SOURCE, seed, **arguments))


def lopsidedness(
    lam: np.ndarray, curve: Float[np.ndarray, "*batch lam"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return E⁺, E⁻ and the index (E⁻ − E⁺)/(E⁻ + E⁺): above 0 where the plus side is flatter.

    Means are by the trapezoid rule. A curve that is not finite somewhere on a side has no mean
    there, and no index; one that is zero on both sides has the index 0.
    """
    lam, curve = np.asarray(lam), np.asarray(curve, dtype=float)
    sides = []
    for side in (lam >= 0, lam <= 0):
        x = lam[side]
        with np.errstate(invalid="ignore"):
            mean = trapezoid(curve[..., side], x, axis=-1) / (x[-1] - x[0])
        sides.append(np.where(np.isfinite(mean), mean, np.nan))
    plus, minus = sides
    total = plus + minus
    index = np.divide(minus - plus, total, out=np.zeros_like(total), where=total != 0)
    return plus, minus, index


class _Scan:
    """Curves of loss and error along directions from one point."""

    def __init__(self, landscape: Landscape, point: Tensor, lam: np.ndarray) -> None:
        self.landscape, self.point = landscape, point
        self.lam = torch.as_tensor(lam)

    def __call__(self, directions: Float[Tensor, "L n"]) -> Float[np.ndarray, "L metric lam"]:
        origins = self.point.expand(len(directions), -1)
        found = self.landscape.lines(origins, directions, self.lam)
        kept = [values.double().cpu().numpy() for values in found]
        if np.isnan(kept[1]).all():
            kept = kept[:1]
        return np.stack(kept, 1)


def _controls(base: Float[Tensor, "seed n"], point: Tensor) -> list[Float[Tensor, "seed n"]]:
    """Directions of `CONTROLS`, one a seed of the noise."""
    consistent = sign_consistent(base, point)
    cosine = torch.nn.functional.cosine_similarity(consistent, point[None], dim=1)
    aligned = torch.stack(
        [aligned_noise(row, point, float(c)) for row, c in zip(base, cosine, strict=True)]
    )
    return [base, consistent, aligned, point.expand(len(base), -1)]


def _correlations(
    ratios: np.ndarray, index: Float[np.ndarray, "ratio seed metric"], seed: int
) -> dict[str, tuple]:
    """Rank correlation of ratio and index, over seeds, for each metric."""
    rows = []
    for k in range(index.shape[2]):
        of_seed = index[:, :, k].T  # [seed, ratio]

        def correlation(chosen: np.ndarray, of_seed: np.ndarray = of_seed) -> float:
            drawn = of_seed[chosen.astype(int)]
            return float(spearmanr(np.tile(ratios, len(drawn)), drawn.ravel()).statistic)

        lost = not np.isfinite(of_seed).all() or len(ratios) < 3
        if lost or (np.ptp(of_seed, axis=1) == 0).any():  # no order among equal numbers
            rows.append((np.nan, np.nan, np.nan))
            continue
        found = bootstrap(np.arange(len(of_seed)), correlation, seed=seed, resamples=999)
        rows.append((found.value, found.low, found.high))
    names = ("ratio_correlation", "ratio_correlation_low", "ratio_correlation_high")
    return {
        name: labelled("metric", [row[i] for row in rows], "rank correlation of ratio and index")
        for i, name in enumerate(names)
    }
