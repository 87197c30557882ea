"""Three ways to solve the TAP equations, from many starts as one batch.

"damped": m ← (1−d) m + d tanh(cavity(m)). "amp": the Onsager term takes the m of the step before
(Bolthausen 2014), without which the plain iteration need not converge where the solution exists.
"minimise": limited-memory BFGS on F as a function of atanh m (Nocedal 1980), whose walls at
|m| = 1 lie at infinity. Each stops where its residual is below the tolerance, or gives up.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from spinscape.spins.tap_equations import TapEquations

__all__ = ["SOLVERS", "TOLERANCE"]

TOLERANCE = 1e-9
CHECKED = 20
NEAR = TOLERANCE
DAMPING = 0.3
MEMORY = 12
FARTHEST = 30.0
"""Largest |atanh m|: m is 1 there to machine precision."""

Starts = Float[Tensor, "start N"]


def damped(equations: TapEquations, m: Starts, iterations: int) -> Starts:
    """Plain iteration with damping."""

    def moved(active: Starts) -> Starts:
        return torch.lerp(active, torch.tanh(equations.cavity(active)), DAMPING)

    return _iterated(equations, m, moved, iterations)


def amp(equations: TapEquations, m: Starts, iterations: int) -> Starts:
    """Iteration whose reaction term lags one step behind.

    In a layered model, whose even layers see only odd ones, the two colours take turns: what a
    spin was when its neighbours last moved is then what it still is.
    """
    model = equations.model
    if model.matrix is None:
        layer = torch.repeat_interleave(torch.arange(len(model.widths)), torch.tensor(model.widths))
        even = (layer % 2 == 0).to(m.device)

        def in_turns(active: Starts) -> Starts:
            active = torch.where(even, torch.tanh(equations.cavity(active)), active)
            return torch.where(even, active, torch.tanh(equations.cavity(active)))

        return _iterated(equations, m, in_turns, iterations)
    before = torch.zeros_like(m)
    for step in range(iterations):
        before, m = m, torch.tanh(equations.cavity(m, before))
        if step % CHECKED == 0 and bool((equations.residual(m) < TOLERANCE).all()):
            break
    return m


def minimise(equations: TapEquations, m: Starts, iterations: int) -> Starts:
    """Descend in F from every start, each with a step length of its own; damped steps at the end.

    Near a minimum F is flat to its last digit long before its slope is, but the damped iteration
    contracts.
    """
    lowest = _descended(equations, torch.atanh(m.clamp(-0.999, 0.999)), iterations // 2)
    return damped(equations, torch.tanh(lowest), iterations)


def _iterated(
    equations: TapEquations, m: Starts, moved: Callable[[Starts], Starts], iterations: int
) -> Starts:
    """Apply a map to all starts; those that have settled are left alone."""
    result = m.clone()
    rows = torch.nonzero(equations.residual(m) >= TOLERANCE).flatten()
    active = m[rows]
    for step in range(iterations if len(rows) else 0):
        active = moved(active)
        if step % CHECKED == CHECKED - 1 or step == iterations - 1:
            result[rows] = active
            open_ = equations.residual(active) >= TOLERANCE
            rows, active = rows[open_], active[open_]
            if not len(rows):
                break
    return result


def _descended(
    equations: TapEquations, x: Float[Tensor, "start N"], descents: int
) -> Float[Tensor, "start N"]:
    """Limited-memory BFGS until the residual is small, or F falls no more."""
    result = x.clone()
    rows = torch.arange(len(x), device=x.device)
    value, slope = _valued(equations, x)
    steps: list[Tensor] = []
    changes: list[Tensor] = []
    for _ in range(descents):
        direction = _direction(slope, steps, changes)
        downhill = (direction * slope).sum(-1)
        lost = downhill >= 0
        direction = torch.where(lost[:, None], -slope, direction)
        downhill = torch.where(lost, -slope.square().sum(-1), downhill)
        moved, new_value, new_slope, made = _searched(
            equations, x, value, direction, downhill, first=not steps
        )
        steps.append(moved - x)
        changes.append(new_slope - slope)
        del steps[:-MEMORY], changes[:-MEMORY]
        x, value, slope = moved, new_value, new_slope
        result[rows] = x
        going = made & (equations.residual(torch.tanh(x)) >= NEAR)
        if not bool(going.all()):
            rows, x, value, slope = rows[going], x[going], value[going], slope[going]
            steps = [step[going] for step in steps]
            changes = [change[going] for change in changes]
            if not len(rows):
                break
    return result


def _valued(
    equations: TapEquations, x: Float[Tensor, "start N"]
) -> tuple[Float[Tensor, "start"], Float[Tensor, "start N"]]:
    """F and ∂F/∂x = T (1 − m²)(x − cavity)."""
    m = torch.tanh(x)
    slope = equations.temperature * (1 - m.square()) * (x - equations.cavity(m))
    return equations.free_energy(m), slope


def _direction(
    slope: Float[Tensor, "start N"], steps: list[Tensor], changes: list[Tensor]
) -> Float[Tensor, "start N"]:
    """Two-loop recursion; a pair without positive curvature is skipped, start by start."""
    direction = -slope
    kept = []
    for step, change in zip(reversed(steps), reversed(changes), strict=True):
        curvature = (step * change).sum(-1, keepdim=True)
        ok = curvature > 1e-14 * change.square().sum(-1, keepdim=True)
        rho = torch.where(ok, 1 / curvature, 0.0)
        alpha = rho * (step * direction).sum(-1, keepdim=True)
        direction = direction - alpha * change
        kept.append((step, change, rho, alpha))
    if steps:
        size = changes[-1].square().sum(-1, keepdim=True)
        scale = (steps[-1] * changes[-1]).sum(-1, keepdim=True) / size
        direction = direction * torch.where((scale > 0) & scale.isfinite(), scale, 1.0)
    for step, change, rho, alpha in reversed(kept):
        direction = direction + step * (alpha - rho * (change * direction).sum(-1, keepdim=True))
    return direction


def _searched(
    equations: TapEquations,
    x: Float[Tensor, "start N"],
    value: Float[Tensor, "start"],
    direction: Float[Tensor, "start N"],
    downhill: Float[Tensor, "start"],
    *,
    first: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Halve the steps until F falls enough (Armijo); what never does stays where it is."""
    longest = direction.abs().amax(-1).clamp(min=1e-300)
    length = (1.0 / longest).clamp(max=1.0) if first else (4.0 / longest).clamp(max=1.0)
    made = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    result, new_value, new_slope = x, value, _valued(equations, x)[1]
    slack = 1e-13 * value.abs().clamp(min=1e-300)  # F is not known better than that
    for _ in range(30):
        tried = (x + length[:, None] * direction).clamp(-FARTHEST, FARTHEST)
        found, slope = _valued(equations, tried)
        better = ~made & (found <= value + 1e-4 * length * downhill + slack)
        result = torch.where(better[:, None], tried, result)
        new_value = torch.where(better, found, new_value)
        new_slope = torch.where(better[:, None], slope, new_slope)
        made |= better
        if bool(made.all()):
            break
        length = torch.where(made, length, length / 2)
    return result, new_value, new_slope, made


SOLVERS: dict[str, Callable[[TapEquations, Starts, int], Starts]] = {
    "damped": damped,
    "amp": amp,
    "minimise": minimise,
}
