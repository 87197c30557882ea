"""Solutions of the TAP equations: accepted by three tests, counted up to the global flip."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int
from torch import Tensor

from spinscape.records import labelled, provenance
from spinscape.spins.arguments import check_model, check_whole
from spinscape.spins.couplings import SpinModel
from spinscape.spins.tap_equations import TapEquations
from spinscape.spins.tap_solvers import SOLVERS

__all__ = ["tap"]

SOURCE = "arXiv 2408.06421; Thouless, Anderson and Palmer 1977; Plefka 1982"
RESIDUAL = 1e-8
NOTHING = 1e-6
"""Σ m²/N below which a solution is the paramagnet m = 0."""

OUTCOMES = ("accepted", "paramagnet", "not converged", "not a minimum", "Plefka violated")


def tap(
    model: SpinModel,
    T: float,
    starts: int = 60,
    seed: int = 0,
    *,
    solvers: Sequence[str] = ("damped", "amp", "minimise"),
    same: float = 0.99,
    iterations: int = 1500,
) -> xr.Dataset:
    """Solve the TAP equations from many random starts, and count the solutions.

    A solution is accepted if its residual max|m − tanh(…)| is below 1e−8, the Hessian of F is
    positive definite there, and Plefka's 1 − β²ρ(J²(1−m²)(1−m²)) ≥ 0. All else is counted as a
    failure, by its reason. In a glass below T_c the iterations return m = 0 or never settle: an
    absence of solutions is then one of the solver (the *solver trap*).

    Parameters
    ----------
    model : SpinModel
    T : float
        Temperature, in units of the couplings.
    starts : int
        Random magnetisations, uniform in (−1, 1), from which every solver begins.
    seed : int
        Of the starts.
    solvers : sequence of {"damped", "amp", "minimise"}
        Damped iteration, lagged-index (AMP) iteration, descent in the free energy.
    same : float
        Two solutions are one if the cosine of the angle between them, up to sign, is above this.
    iterations : int
        After which a solver gives up.

    Returns
    -------
    Dataset
        ``m [solution, spin]``, ``free_energy``, ``q`` (Σm²/N), ``curvature`` (smallest eigenvalue
        of the scaled Hessian), ``plefka`` and ``hits [solution, solver]`` of the accepted
        solutions other than m = 0, one of each ± pair, lowest F first; ``overlap [solution,
        other]``, cosines; ``ends_overlap [end, other_end]`` of all ends that were accepted, signs
        kept; ``outcome [solver, start]``; ``count [solver, outcome]``;
        ``free_energy_of_m0``, ``m0_accepted``.

    Raises
    ------
    TypeError, ValueError
        If `model` is none, T ≤ 0, a solver is not known, or a number is out of its range.

    Examples
    --------
    >>> found = tap(SpinModel.layered([30, 30], seed=0, spike=3.0), T=1.5, starts=8, seed=0)
    >>> found.sizes["solution"]
    1
    """
    _check_arguments(model, T, starts, iterations, solvers, same)
    host = model.to(torch.float64)
    drawn = np.random.default_rng(seed).uniform(-1, 1, (starts, model.n))
    begun = torch.from_numpy(drawn).to(model.device)
    there = TapEquations(host, float(T))
    m = torch.cat([SOLVERS[name](there, begun, iterations).cpu() for name in solvers])
    equations = TapEquations(host.to(device="cpu"), float(T))
    converged = equations.residual(m) < RESIDUAL
    nothing = m.square().mean(1) < NOTHING
    firsts, members = _distinct(equations, m, converged & ~nothing, same, model.fields is None)
    curvature = np.array([equations.least_curvature(x) for x in m[firsts]])
    plefka = np.array([equations.plefka(x) for x in m[firsts]])
    outcomes = _outcomes(converged, nothing, members, curvature, plefka).reshape(len(solvers), -1)
    good = np.flatnonzero((curvature > 0) & (plefka >= 0))
    hits = (members.reshape(1, len(solvers), -1) == good[:, None, None]).sum(-1)
    kept, accepted = m[firsts[good]], m[torch.from_numpy(outcomes.reshape(-1) == OUTCOMES[0])]
    zero = torch.zeros(model.n, dtype=torch.float64)
    counts = [[(row == name).sum() for name in OUTCOMES] for row in outcomes]
    variables: dict[str, tuple[Any, ...]] = {
        "m": (("solution", "spin"), kept, "magnetisation"),
        "free_energy": ("solution", equations.free_energy(kept), "TAP free energy", "weights"),
        "q": ("solution", kept.square().mean(1), "Σm²/N"),
        "curvature": ("solution", curvature[good], "least curvature, scaled"),
        "plefka": ("solution", plefka[good], "Plefka's 1 − β²ρ"),
        "hits": (("solution", "solver"), hits, "starts that came there"),
        "overlap": (("solution", "other"), _cosines(kept), "cosine of solutions"),
        "ends_overlap": (("end", "other_end"), _cosines(accepted), "cosine of ends"),
        "outcome": (("solver", "start"), outcomes, "what became of a start"),
        "count": (("solver", "outcome_kind"), np.array(counts), "starts by outcome"),
        "free_energy_of_m0": (
            (),
            float(equations.free_energy(zero)),
            "free energy of m = 0",
            "weights",
        ),
        "m0_accepted": ((), _passes(equations, zero), "whether m = 0 passes the three tests"),
    }
    return xr.Dataset(
        {name: labelled(*described) for name, described in variables.items()},
        {
            "solver": list(solvers),
            "outcome_kind": list(OUTCOMES),
            "layer": ("spin", np.repeat(np.arange(len(model.widths)), model.widths)),
        },
        provenance(
            "tap",
            SOURCE,
            seed,
            T=float(T),
            starts=starts,
            same=same,
            iterations=iterations,
            widths=list(model.widths),
        )
        | {"residual": RESIDUAL},
    )


def _passes(equations: TapEquations, m: Float[Tensor, "N"]) -> bool:
    """Whether a magnetisation passes the three tests."""
    settled = float(equations.residual(m)) < RESIDUAL
    return settled and equations.least_curvature(m) > 0 and equations.plefka(m) >= 0


def _distinct(
    equations: TapEquations,
    m: Float[Tensor, "end N"],
    wanted: Bool[Tensor, "end"],
    same: float,
    flips: bool,
) -> tuple[Int[Tensor, "solution"], Int[np.ndarray, "end"]]:
    """One end of each solution, lowest F first, and the solution of every end (−1: none)."""
    members = np.full(len(m), -1)
    found = torch.nonzero(wanted).flatten()
    order = found[torch.argsort(equations.free_energy(m[found]), stable=True)]
    cosine = _cosines(m[order])
    alike = (cosine.abs() if flips else cosine) > same
    firsts: list[int] = []
    left = torch.ones(len(order), dtype=torch.bool)
    for k in range(len(order)):
        if left[k]:
            group = alike[k] & left
            members[order[group].numpy()] = len(firsts)
            firsts.append(int(order[k]))
            left &= ~group
    return torch.tensor(firsts, dtype=torch.long), members


def _cosines(m: Float[Tensor, "end N"]) -> Float[Tensor, "end end"]:
    unit = m / m.norm(dim=1, keepdim=True)
    return unit @ unit.mT


def _outcomes(
    converged: Bool[Tensor, "end"],
    nothing: Bool[Tensor, "end"],
    members: Int[np.ndarray, "end"],
    curvature: Float[np.ndarray, "solution"],
    plefka: Float[np.ndarray, "solution"],
) -> np.ndarray:
    """Say of each end what it is, by the tests of its solution."""
    told = np.full(len(members), OUTCOMES[2], dtype=f"<U{max(map(len, OUTCOMES))}")
    told[(converged & nothing).numpy()] = OUTCOMES[1]
    for end in np.flatnonzero(members >= 0):
        k = members[end]
        if not curvature[k] > 0:
            told[end] = OUTCOMES[3]
        else:
            told[end] = OUTCOMES[0] if plefka[k] >= 0 else OUTCOMES[4]
    return told


def _check_arguments(
    model: SpinModel,
    T: float,
    starts: int,
    iterations: int,
    solvers: Sequence[str],
    same: float,
) -> None:
    check_model(model)
    if not (isinstance(T, Real) and np.isfinite(float(T)) and T > 0):
        raise ValueError(f"T={T!r}: expected one positive temperature")
    check_whole(starts=starts, iterations=iterations)
    unknown = [name for name in solvers if name not in SOLVERS]
    if unknown or not solvers or isinstance(solvers, str):
        raise ValueError(f"solvers={solvers!r}: expected some of {', '.join(SOLVERS)}")
    if not 0 < same < 1:
        raise ValueError(f"same={same!r}: expected a cosine between 0 and 1")
