"""How far training moved the weights and the tangent kernel: rich or lazy."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from spinscape.nets.weightspace import WeightSpace

__all__ = ["kernel_change", "tangent_kernel", "weight_change"]

CHUNK = 16


def weight_change(
    start: Float[Tensor, "n"], points: Float[Tensor, "*batch n"]
) -> Float[Tensor, "*batch"]:
    """‖θ − θ₀‖ / ‖θ₀‖; goes to 0 in the lazy limit (Chizat, Oyallon and Bach 2019)."""
    return (points - start).norm(dim=-1) / start.norm()


def tangent_kernel(
    module: nn.Module, point: Float[Tensor, "n"], x: Float[Tensor, "sample ..."]
) -> Float[Tensor, "sample sample"]:
    """Neural tangent kernel, summed over the outputs: Σ_c ∇f_c(x)·∇f_c(x') (Jacot et al. 2018).

    Parameters
    ----------
    module : nn.Module
        A differentiable network; samples are taken one by one.
    point : Tensor [n]
    x : Tensor [sample, ...]
    """
    space = WeightSpace(module)

    def output(parameters: dict[str, Tensor], sample: Tensor, number: Tensor) -> Tensor:
        found = functional_call(module, parameters, (sample[None],))[0]
        return (found * nn.functional.one_hot(number, found.shape[0])).sum()

    parameters = space.unflatten(point.detach())
    with torch.no_grad():
        classes = module(x[:1].to(next(module.parameters()).dtype)).shape[-1]
    slopes = vmap(grad(output), in_dims=(None, 0, None), chunk_size=CHUNK)
    kernel = torch.zeros(len(x), len(x), dtype=torch.float64)
    for number in range(classes):
        found = slopes(parameters, x, torch.tensor(number))
        rows = torch.cat([value.flatten(1) for value in found.values()], 1).double()
        kernel += rows @ rows.mT
    return kernel


def kernel_change(
    module: nn.Module,
    start: Float[Tensor, "n"],
    end: Float[Tensor, "n"],
    x: Float[Tensor, "sample ..."],
) -> float:
    """1 − the cosine between the tangent kernels at two points; 0 where training was lazy."""
    before, after = (tangent_kernel(module, point, x) for point in (start, end))
    return 1 - float((before * after).sum() / (before.norm() * after.norm()))
