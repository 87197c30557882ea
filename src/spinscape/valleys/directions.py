"""Directions in weight space: noise types, signs, scalings, and directions that mean something.

Noise types, special directions and scalings are those of arXiv 2405.12489, section 3. The sign of
zero is −1 throughout, as there. Noise is drawn on the CPU in double precision, one generator a
seed, so that a direction depends on its own seed alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from spinscape.landscape.curvature import eigenpairs
from spinscape.landscape.energy import Landscape
from spinscape.nets.orders import generator
from spinscape.nets.weightspace import WeightSpace
from spinscape.nets.weightspace import points as points_of
from spinscape.valleys.groups import members

__all__ = [
    "NOISES",
    "SCALINGS",
    "SPECIAL",
    "aligned_noise",
    "between",
    "binary",
    "gaussian",
    "gradient",
    "hessian_eigenvectors",
    "members",
    "noise",
    "ones",
    "orthogonal",
    "principal_components",
    "restricted",
    "scaled",
    "sgp",
    "sgp_centred",
    "shifted_gaussian",
    "sign",
    "sign_centred",
    "sign_consistent",
    "sign_ratio",
    "special",
    "ternary",
    "uniform",
    "unit_uniform",
]

SCALINGS = ("norm", "filter", "layer", "none")

_STREAM = 71  # first word of the seeds of noise
_MASK = 72  # of the entries that are given a sign


def gaussian(point: Float[Tensor, "n"], seeds: Sequence[int]) -> Float[Tensor, "seed n"]:
    """Draw from G(0, 1)."""
    return _drawn(point, seeds, lambda n, g: torch.randn(n, generator=g, dtype=torch.float64))


def uniform(point: Float[Tensor, "n"], seeds: Sequence[int]) -> Float[Tensor, "seed n"]:
    """Draw from U(−1, 1)."""
    return _drawn(point, seeds, lambda n, g: 2 * _unit(n, g) - 1)


def ternary(point: Float[Tensor, "n"], seeds: Sequence[int]) -> Float[Tensor, "seed n"]:
    """Draw −1, 0 or 1 with equal probability."""
    return _drawn(point, seeds, lambda n, g: (3 * _unit(n, g)).floor() - 1)


def shifted_gaussian(point: Float[Tensor, "n"], seeds: Sequence[int]) -> Float[Tensor, "seed n"]:
    """Draw from G(1, 1)."""
    return gaussian(point, seeds) + 1


def unit_uniform(point: Float[Tensor, "n"], seeds: Sequence[int]) -> Float[Tensor, "seed n"]:
    """Draw from U(0, 1)."""
    return _drawn(point, seeds, _unit)


def binary(point: Float[Tensor, "n"], seeds: Sequence[int]) -> Float[Tensor, "seed n"]:
    """Draw 0 or 1 with equal probability."""
    return _drawn(point, seeds, lambda n, g: (2 * _unit(n, g)).floor())


def ones(point: Float[Tensor, "n"], seeds: Sequence[int]) -> Float[Tensor, "seed n"]:
    """Return all ones, whatever the seed."""
    return point.new_ones(len(seeds), point.shape[-1])


NOISES: dict[str, Callable[[Tensor, Sequence[int]], Tensor]] = {
    "gaussian": gaussian,
    "uniform": uniform,
    "ternary": ternary,
    "shifted_gaussian": shifted_gaussian,
    "unit_uniform": unit_uniform,
    "binary": binary,
    "ones": ones,
}
"""The seven common types of noise."""


def noise(point: Float[Tensor, "n"], kind: str, seeds: Sequence[int]) -> Float[Tensor, "seed n"]:
    """Draw noise of a common type by its name in `NOISES`.

    Raises
    ------
    ValueError
        If the name is not known, or `point` is no single point.
    """
    if kind not in NOISES:
        raise ValueError(f"kind={kind!r}: expected one of {', '.join(NOISES)}")
    if point.ndim != 1:
        raise ValueError(f"point: expected one point [n], got shape {tuple(point.shape)}")
    return NOISES[kind](point, list(seeds))


def sign(point: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
    """Return +1 where the point is above 0, −1 elsewhere."""
    return torch.where(point > 0, 1.0, -1.0).to(point)


def sgp(point: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
    """Return 1 where the point is above 0, 0 elsewhere."""
    return (point > 0).to(point)


def sign_centred(point: Float[Tensor, "n"], space: WeightSpace) -> Float[Tensor, "n"]:
    """Return the sign of the point minus the mean of each parameter tensor."""
    return sign(point - _means(point, space))


def sgp_centred(point: Float[Tensor, "n"], space: WeightSpace) -> Float[Tensor, "n"]:
    """Return 1 where the point is above the mean of its parameter tensor, 0 elsewhere."""
    return sgp(point - _means(point, space))


SPECIAL = ("initial", "point", "sign", "sign_centred", "sgp", "sgp_centred")
"""The six special directions."""


def special(
    point: Float[Tensor, "n"],
    kind: str,
    space: WeightSpace,
    initial: Float[Tensor, "n"] | None = None,
) -> Float[Tensor, "n"]:
    """Return a special direction by its name in `SPECIAL`.

    Parameters
    ----------
    point : [n]
        The trained network θ.
    kind : str
        "initial" (θ₀), "point" (θ), or the sign or positive part of θ, of the raw values or of
        those minus the mean of each parameter tensor.
    space : WeightSpace
    initial : [n], optional
        θ₀; needed for "initial" alone.

    Raises
    ------
    ValueError
        If the name is not known, or θ₀ is needed and not given.
    """
    if kind == "initial":
        if initial is None:
            raise ValueError("kind='initial': pass initial=, the point at which training began")
        return initial.to(point)
    table = {
        "point": lambda: point.clone(),
        "sign": lambda: sign(point),
        "sign_centred": lambda: sign_centred(point, space),
        "sgp": lambda: sgp(point),
        "sgp_centred": lambda: sgp_centred(point, space),
    }
    if kind not in table:
        raise ValueError(f"kind={kind!r}: expected one of {', '.join(SPECIAL)}")
    return table[kind]()


def sign_consistent(
    noise: Float[Tensor, "*batch n"], point: Float[Tensor, "n"]
) -> Float[Tensor, "*batch n"]:
    """Give noise the signs of a point: |ε| sign(θ)."""
    return noise.abs() * sign(point)


def sign_ratio(
    noise: Float[Tensor, "seed n"],
    point: Float[Tensor, "n"],
    ratio: float,
    seeds: Sequence[int],
) -> Float[Tensor, "seed n"]:
    """Give a random fraction `ratio` of the entries the signs of a point.

    The others keep their own, so for noise that is symmetric in sign ½ + ½ `ratio` of all entries
    agree. The entries chosen at a ratio are among those chosen at any larger one.

    Raises
    ------
    ValueError
        If the ratio is not within 0 and 1, or there is not one seed a row of noise.
    """
    if not 0 <= ratio <= 1:
        raise ValueError(f"ratio={ratio!r}: expected a fraction of 0 to 1")
    if noise.ndim != 2 or len(noise) != len(seeds):
        raise ValueError(
            f"noise has shape {tuple(noise.shape)}: expected one row for each of {len(seeds)} seeds"
        )
    count = round(ratio * noise.shape[1])
    chosen = torch.zeros(noise.shape, dtype=torch.bool)
    for row, seed in zip(chosen, seeds, strict=True):
        order = torch.randperm(noise.shape[1], generator=generator(_MASK, seed))
        row[order[:count]] = True
    return torch.where(chosen.to(noise.device), sign_consistent(noise, point), noise)


def aligned_noise(
    noise: Float[Tensor, "*batch n"], point: Float[Tensor, "n"], share: float
) -> Float[Tensor, "*batch n"]:
    """Mix noise of unit norm with the unit vector along a point: the part along θ has norm `share`.

    The control of sign consistency: |ε| sign(θ) lies partly along θ itself, and moving along θ
    only changes its norm. This noise has the same part along θ, and the signs of chance otherwise.

    Raises
    ------
    ValueError
        If `share` is not within −1 and 1.
    """
    if not -1 <= share <= 1:
        raise ValueError(f"share={share!r}: expected a cosine of -1 to 1")
    along = point / torch.linalg.vector_norm(point)
    across = noise - (noise @ along)[..., None] * along
    across = across / torch.linalg.vector_norm(across, dim=-1, keepdim=True)
    return share * along + (1 - share**2) ** 0.5 * across


def between(
    a: Float[Tensor, "*batch n"], b: Float[Tensor, "*batch n"]
) -> Float[Tensor, "*batch n"]:
    """Return the direction from one point to another, of their distance.

    Raises
    ------
    ValueError
        If the points have different lengths, or are the same.
    """
    a, b = points_of(a), points_of(b)
    if a.shape[-1] != b.shape[-1]:
        raise ValueError(f"a has length {a.shape[-1]:,} and b {b.shape[-1]:,}: expected the same")
    found = b.to(a) - a
    _refuse_zero(found)
    return found


def gradient(landscape: Landscape, point: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
    """Return the gradient of the loss at a point: uphill."""
    return landscape.gradient(point)


def hessian_eigenvectors(
    landscape: Landscape, point: Float[Tensor, "n"], top: int = 1, bottom: int = 0, *, seed: int = 0
) -> Float[Tensor, "top+bottom n"]:
    """Return unit eigenvectors of the Hessian: the top ones first, then those at the bottom."""
    found = eigenpairs(landscape, point, top=top, bottom=bottom, seed=seed)
    return torch.as_tensor(found["eigenvector"].values.reshape(top + bottom, -1)).to(
        points_of(point)
    )


def principal_components(
    trajectory: Float[Tensor, "step n"], count: int = 2
) -> tuple[Float[Tensor, "component n"], Float[Tensor, "component"]]:
    """Return the leading directions of a trajectory's steps away from its end, and their shares.

    Li, Xu, Taylor, Studer and Goldstein 2018 (arXiv 1712.09913, section 7): the principal
    components of θ_t − θ_end.

    Returns
    -------
    (directions, shares)
        Unit vectors, and the part of the squared length of all differences that each explains.

    Raises
    ------
    ValueError
        If there are fewer steps than components, or nothing moves.
    """
    trajectory = points_of(trajectory)
    if trajectory.ndim != 2 or not 1 <= count < len(trajectory):
        raise ValueError(
            f"count={count!r}: expected 1 to {len(trajectory) - 1} components of a trajectory of "
            f"shape [step, n], got shape {tuple(trajectory.shape)}"
        )
    steps = trajectory[:-1] - trajectory[-1]
    _, singular, rows = torch.linalg.svd(steps, full_matrices=False)
    power = singular.square()
    if not float(power.sum()) > 0:
        raise ValueError("trajectory: all points are the same, so it has no directions")
    return rows[:count], power[:count] / power.sum()


def scaled(
    directions: Float[Tensor, "*batch n"],
    point: Float[Tensor, "n"],
    space: WeightSpace,
    scaling: str = "norm",
    s: float = 1.0,
) -> Float[Tensor, "*batch n"]:
    """Scale directions to a multiple of a point's norms.

    Parameters
    ----------
    directions : [..., n]
    point : [n]
        θ.
    space : WeightSpace
    scaling : "norm", "filter", "layer" or "none"
        Whose norm becomes `s` times that of θ: the whole vector's (its direction stays); that of
        the weights of each output unit and each parameter with one axis (filter normalisation, Li
        and others 2018); that of each parameter tensor. "none" multiplies by `s`. A part that is
        zero in the direction stays zero.
    s : float

    Raises
    ------
    ValueError
        If the scaling is not known, a direction has zero norm or a number that is not finite, or a
        wrong length.
    """
    space.check(directions, "directions")
    space.check(point, "point", ndim=1)
    _refuse_zero(directions)
    if scaling not in SCALINGS:
        raise ValueError(f"scaling={scaling!r}: expected one of {', '.join(SCALINGS)}")
    if scaling == "none":
        return s * directions
    if scaling == "norm":
        length = torch.linalg.vector_norm(directions, dim=-1, keepdim=True)
        return directions * (s * torch.linalg.vector_norm(point) / length)
    found = torch.empty_like(directions)
    for place, shape in zip(space.slices.values(), space.shapes, strict=True):
        units = shape[0] if scaling == "filter" and len(shape) > 1 else 1
        part = directions[..., place].unflatten(-1, (units, -1))
        own = torch.linalg.vector_norm(part, dim=-1, keepdim=True)
        wanted = torch.linalg.vector_norm(point[place].view(units, -1), dim=-1, keepdim=True)
        factor = torch.where(own > 0, s * wanted / own.clamp(min=torch.finfo(own.dtype).tiny), 0)
        found[..., place] = (part * factor).flatten(-2)
    return found


def restricted(
    directions: Float[Tensor, "*batch n"], group: Bool[Tensor, "n"]
) -> Float[Tensor, "*batch n"]:
    """Keep the entries of a group (`members`), and make all others zero.

    Raises
    ------
    ValueError
        If nothing is left of a direction.
    """
    if group.shape != directions.shape[-1:]:
        raise ValueError(
            f"group: expected {directions.shape[-1]:,} entries as in directions, got "
            f"{tuple(group.shape)}; did you mean members(module, name)?"
        )
    found = directions * group.to(directions)
    _refuse_zero(found)
    return found


def orthogonal(direction: Float[Tensor, "n"], others: Float[Tensor, "k n"]) -> Float[Tensor, "n"]:
    """Remove from a direction what lies along others, and give it its length back.

    Raises
    ------
    ValueError
        If it lies within their span.
    """
    basis = torch.linalg.qr(others.mT)[0]
    found = direction
    for _ in range(2):  # once leaves rounding errors along near-parallel directions
        found = found - basis @ (basis.mT @ found)
    left = torch.linalg.vector_norm(found)
    length = torch.linalg.vector_norm(direction)
    if float(left) <= 1e-5 * float(length):
        raise ValueError("direction: lies along the others, so nothing of it is orthogonal to them")
    return found * (length / left)


def _drawn(point: Tensor, seeds: Sequence[int], draw: Any) -> Tensor:
    """One draw a seed, as the point's kind of number, on its device."""
    rows = [draw(point.shape[-1], generator(_STREAM, seed)) for seed in seeds]
    return torch.stack(rows).to(point) if rows else point.new_empty(0, point.shape[-1])


def _unit(n: int, random: torch.Generator) -> Tensor:
    return torch.rand(n, generator=random, dtype=torch.float64)


def _means(point: Tensor, space: WeightSpace) -> Tensor:
    space.check(point, "point", ndim=1)
    found = torch.empty_like(point)
    for place in space.slices.values():
        found[place] = point[place].mean()
    return found


def _refuse_zero(directions: Tensor) -> None:
    lengths = torch.linalg.vector_norm(directions, dim=-1).flatten()
    for k, length in enumerate(lengths.tolist()):
        if not 0 < length < float("inf"):
            told = "zero norm" if length == 0 else f"norm {length}"
            raise ValueError(
                f"direction {k} has {told}: expected a finite vector that is not all zeros"
            )
