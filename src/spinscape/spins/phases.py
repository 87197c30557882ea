"""Phases of a spin model: its critical temperature, and whether glass or order sets in there."""

from __future__ import annotations

import numpy as np
import xarray as xr

from spinscape.records import labelled, provenance
from spinscape.spins.arguments import check_model, check_whole
from spinscape.spins.couplings import SpinModel
from spinscape.spins.stability import Paramagnet, Touch, stability_scan

__all__ = ["phase"]

SOURCE = "arXiv 2408.06421; stability of m = 0 in the TAP free energy (Plefka 1982)"
RULE = (
    "order if the smallest eigenvalue of A(β) = 1 − βJ + β² diag(Σ J²) crosses zero at a T_c above "
    "those of all permuted nulls, and falls below theirs by more than 3 of their standard "
    "deviations, taken to be at least 1.1 N^(-2/3), the spread of glasses of N spins; order also "
    "if it and all nulls fall below -1.1 N^(-2/3): then the mean couplings order, which permuting "
    "leaves; glass otherwise"
)


def phase(model: SpinModel, *, permutations: int = 4, seed: int = 0) -> xr.Dataset:
    """Critical temperature of a spin model, and what sets in below it: "glass" or "order".

    As β grows, the smallest eigenvalue of the TAP Hessian at m = 0 first touches zero (a glass) or
    crosses it (an order). A root gives T_c of an order; without one T_c = 1/β at the smallest
    value. Small glasses cross by accident, which gives a T_c 5 to 20 % too high, so that order is
    said only where the model exceeds its nulls, the same entries at random places within each
    layer, or where they are ordered too, by the mean of their couplings. It costs a few hundred
    products with J, two operations a weight each.

    Parameters
    ----------
    model : SpinModel
        Fields are left out.
    permutations : int
        Nulls; at least 2 for the spread that the rule asks for. With fewer, the rule is weaker,
        and `rule` says so.
    seed : int
        Of the permutations and of the vectors that Lanczos starts with.

    Returns
    -------
    Dataset
        ``T_c``; ``kind``, "glass" or "order"; ``T_argmin``, continuous from one to the other;
        ``T_variance``, √ρ(S) of the layers' mean squares, and ``T_sites``, the same spin by spin;
        ``T_naive``, λ_max(J), which naive mean field would give; ``lowest``, the smallest
        eigenvalue; ``stability [scan]`` along ``beta [scan]``; ``mode [spin]``, the direction in
        which m = 0 goes; ``T_null`` and ``lowest_null [permutation]``.

    Raises
    ------
    TypeError, ValueError
        If `model` is none, its couplings are all zero, or `permutations` is negative.

    Examples
    --------
    >>> found = phase(SpinModel.layered([60, 50, 40], C=1.0, seed=0), seed=0)
    >>> str(found.kind.values)
    'glass'
    """
    check_model(model)
    check_whole(0, permutations=permutations)
    paramagnet = Paramagnet(model, seed)
    found = stability_scan(paramagnet)
    nulls = [_of_null(model, seed, k) for k in range(permutations)]
    heats = np.array([1 / null.beta for null in nulls])
    depths = np.array([null.lowest for null in nulls])
    kind, rule = _judged(found, heats, depths)
    weights = "weights"
    return xr.Dataset(
        {
            "T_c": labelled((), 1 / found.beta, "critical temperature T_c", weights),
            "kind": labelled((), np.array(kind), "phase below T_c"),
            "T_argmin": labelled((), 1 / found.beta_min, "T of least stability", weights),
            "T_variance": labelled((), layer_onset(model), "√ρ(S) of the layers", weights),
            "T_sites": labelled((), paramagnet.onset(), "√ρ(J∘J)", weights),
            "T_naive": labelled((), paramagnet.largest_coupling(), "λ_max(J)", weights),
            "lowest": labelled((), found.lowest, "smallest λ_min(A(β))"),
            "stability": labelled("scan", found.values, "λ_min(A(β))"),
            "mode": labelled("spin", found.mode, "softest direction at T_c"),
            "T_null": labelled("permutation", heats, "T_c of permuted weights", weights),
            "lowest_null": labelled("permutation", depths, "smallest λ_min of permuted weights"),
        },
        {
            "beta": ("scan", found.scanned, {"long_name": "β = 1/T", "units": "1/weights"}),
            "layer": ("spin", np.repeat(np.arange(len(model.widths)), model.widths)),
        },
        provenance("phase", SOURCE, seed, permutations=permutations, widths=list(model.widths))
        | {"rule": rule},
    )


def layer_onset(model: SpinModel) -> float:
    """√ρ(S) from the mean squares of the layers: b_k = ‖W_k‖² / √(N_{k−1} N_k).

    Of a dense model, the root mean square coupling times √N.
    """
    if model.matrix is not None:
        return float(model.matrix.double().norm() / model.n**0.5)
    b = np.array([float(w.double().square().sum()) / np.sqrt(w.numel()) for w in model.layers])
    matrix = np.diag(b, 1) + np.diag(b, -1)
    return float(np.sqrt(np.linalg.eigvalsh(matrix)[-1]))


def _of_null(model: SpinModel, seed: int, number: int) -> Touch:
    own = int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
    return stability_scan(Paramagnet(model.permuted(own), seed))


def _judged(found: Touch, heats: np.ndarray, depths: np.ndarray) -> tuple[str, str]:
    """Class, and the rule by which it was given."""
    if not len(heats):
        return (
            "order" if found.crosses else "glass",
            "order if the smallest eigenvalue crosses zero; no nulls, so a small glass that "
            "crosses by accident passes for order",
        )
    beyond = found.crosses and 1 / found.beta > heats.max()
    if len(heats) < 2:
        return (
            "order" if beyond else "glass",
            "order if the smallest eigenvalue crosses zero at a T_c above that of the one null",
        )
    scale = 1.1 * len(found.mode) ** (-2 / 3)
    deep = found.lowest < depths.mean() - 3 * max(float(depths.std(ddof=1)), scale)
    means = max(found.lowest, depths.max()) < -scale
    return ("order" if (beyond and deep) or means else "glass"), RULE
