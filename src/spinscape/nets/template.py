"""A private copy of any module, run at many points: all at once under vmap, or one by one."""

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from spinscape.nets.normalisation import track, untrack
from spinscape.nets.weightspace import WeightSpace

__all__ = ["Template"]


class Template:
    """A copy of a module without weights of its own: a function of points and inputs.

    The module that was given is only read, at construction.

    Parameters
    ----------
    module : nn.Module
        Any module that maps a batch of samples ``[B, ...]`` to a tensor ``[B, ...]``.
    method : "auto", "vmap" or "loop"
        How many points are run; "auto" tries vmap on two samples when first used, and loops, with
        a warning, if it fails or gives other numbers.
    training : bool
        Run in training mode, where normalisation layers use the statistics of the batch.
    """

    def __init__(self, module: nn.Module, method: str = "auto", training: bool = False) -> None:
        self.space = WeightSpace(module)
        self.module = copy.deepcopy(module).requires_grad_(False).train(training)
        if training:
            untrack(self.module)
            self.lacks_statistics = False
        else:
            self.lacks_statistics = track(self.module)
        self._kind = type(module).__name__
        self._method = method
        self._found: dict[tuple[bool, str], str] = {}
        self._footprints: dict[tuple[int, ...], float] = {}

    @property
    def method(self) -> str:
        """How points are run: "vmap", "loop", or "auto" as long as none was."""
        if self._method != "auto" or not self._found:
            return self._method
        return "loop" if "loop" in self._found.values() else "vmap"

    def outputs(
        self,
        points: Float[Tensor, "P n"],
        x: Tensor,
        *,
        own: bool = False,
        buffers: Mapping[str, Tensor] | None = None,
        seeds: Sequence[int] | None = None,
        phase: str = "evaluation",
    ) -> Float[Tensor, "P B *output"]:
        """Run every point.

        Parameters
        ----------
        points : [P, n]
        x : [B, ...], or [P, B, ...] if `own`
        buffers : mapping, optional
            Buffers ``[P, ...]`` that differ between points; in-place changes by the module stay
            visible in them. All others are the module's, and fresh in every call.
        seeds : sequence of int, optional
            One a point: the points are run one by one, each with its own random numbers.
        phase : str
            What the run is for; "auto" tries vmap once in each phase.
        """
        stacked = dict(buffers or {})
        if seeds is not None:
            return self._one_by_one(points, x, own, stacked, seeds)
        if self._choose(points, x, own, stacked, phase) == "vmap":
            return self._at_once(points, x, own, stacked)
        return self._one_by_one(points, x, own, stacked, [0] * len(points))

    def footprint(self, x: Tensor) -> float:
        """Bytes of intermediate results of one point on one sample of inputs ``x [B, ...]``."""
        key = tuple(x.shape[1:])
        if key not in self._footprints:
            point = torch.zeros(1, self.space.n, dtype=self.space.dtype, device=x.device)
            x = x[:2].to(point.dtype) if x.is_floating_point() else x[:2]
            with torch.no_grad(), _Counter() as counter:
                self._one_by_one(point, x, False, {}, [0])
            self._footprints[key] = counter.bytes / len(x)
        return self._footprints[key]

    def _choose(
        self, points: Tensor, x: Tensor, own: bool, stacked: dict[str, Tensor], phase: str
    ) -> str:
        if self._method != "auto":
            return self._method
        if (own, phase) not in self._found:
            ends = [0, len(points) - 1]
            few = x[ends, :2] if own else x[:2]
            trial = {name: value[ends] for name, value in stacked.items()}
            with torch.no_grad():
                self._found[own, phase] = self._try(points[ends], few, own, trial)
        return self._found[own, phase]

    def _try(self, points: Tensor, x: Tensor, own: bool, stacked: dict[str, Tensor]) -> str:
        again = {name: value.clone() for name, value in stacked.items()}
        expected = self._one_by_one(points, x, own, stacked, [0, 0])
        try:
            found = self._at_once(points, x, own, again)
        except Exception as error:  # vmap's refusals have no common type
            reason = (str(error).splitlines() or [type(error).__name__])[0]
        else:
            if torch.allclose(found, expected, rtol=1e-2, atol=1e-3, equal_nan=True):
                return "vmap"
            reason = "its outputs for several points at once differ from those one by one"
        warnings.warn(
            f"module {self._kind!r} cannot be run at many points at once ({reason}); its points "
            "are run one after another, which is slower (engine='loop' says so without warning)",
            UserWarning,
            stacklevel=2,
        )
        return "loop"

    def _at_once(self, points: Tensor, x: Tensor, own: bool, stacked: dict[str, Tensor]) -> Tensor:
        shared = self._shared(points, stacked)

        def call(parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
            return self._call({**parameters, **shared, **buffers}, x)

        batched = torch.vmap(call, (0, 0, 0 if own else None))
        return batched(self.space.unflatten(points), stacked, x)

    def _one_by_one(
        self,
        points: Tensor,
        x: Tensor,
        own: bool,
        stacked: dict[str, Tensor],
        seeds: Sequence[int],
    ) -> Tensor:
        outputs = []
        for k, seed in enumerate(seeds):
            buffers = {name: value[k] for name, value in stacked.items()}
            tensors = {**self.space.unflatten(points[k]), **self._shared(points, stacked)}
            with _own_randomness(seed, points.device):
                outputs.append(self._call({**tensors, **buffers}, x[k] if own else x))
        return torch.stack(outputs)

    def _call(self, tensors: dict[str, Tensor], x: Tensor) -> Tensor:
        outputs: Any = torch.func.functional_call(self.module, tensors, (x,))
        if not isinstance(outputs, Tensor) or outputs.shape[:1] != x.shape[:1]:
            shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            raise TypeError(
                f"module {self._kind!r} returned {shape} for {len(x)} samples: expected a tensor "
                "with one row a sample; wrap it in a module that returns one"
            )
        return outputs

    def _shared(self, points: Tensor, stacked: dict[str, Tensor]) -> dict[str, Tensor]:
        """Copy the module's other buffers, because a forward pass may write into them."""
        return {
            name: buffer.detach().to(
                points.device, points.dtype if buffer.is_floating_point() else None, copy=True
            )
            for name, buffer in self.module.named_buffers()
            if name not in stacked
        }


@contextmanager
def _own_randomness(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the default generators for a while, and put them back as they were."""
    # Not torch.manual_seed: it would seed the devices that are not put back.
    generators = [torch.default_generator]
    if device.type == "cuda":
        generators.append(
            torch.cuda.default_generators[torch.cuda._utils._get_device_index(device)]
        )
    states = [generator.get_state() for generator in generators]
    try:
        for generator in generators:
            generator.manual_seed(seed)
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


class _Counter(TorchDispatchMode):
    """Counts the bytes of all new tensors that operations make."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        if all(value.alias_info is None for value in func._schema.returns):
            made = (value for value in tree_leaves(results) if isinstance(value, Tensor))
            self.bytes += sum(tensor.nbytes for tensor in made)
        return results
