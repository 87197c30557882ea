"""Feed-forward chains: the layers of a network in the order in which they are applied.

Nested Sequentials say their order themselves. Any other module is traced (`torch.fx`), a copy of
it and in both modes, and taken for a chain only if every step has the step before it for its one
input, and the layers that were found give the outputs of the module on a small trial.
"""

import copy
import operator
import pickle
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from spinscape.nets.activations import Sign

__all__ = ["ELEMENTWISE", "PASSIVE", "NotAChain", "chain_of", "places_of", "read_chain"]

Named = tuple[str, nn.Module]

PASSIVE = (nn.Identity, nn.Dropout)
ELEMENTWISE = (
    *PASSIVE,
    *(nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.ELU, nn.SELU, nn.CELU),
    *(nn.Softplus, nn.Softsign, nn.Mish, nn.ReLU6, nn.Hardtanh, nn.LogSigmoid, nn.Hardswish),
    Sign,
)
LAYERS = (nn.Linear, nn.Flatten, *ELEMENTWISE)

_CALLS: dict[Callable[..., Any] | str, type[nn.Module]] = {
    **dict.fromkeys((functional.relu, torch.relu, torch.relu_, "relu", "relu_"), nn.ReLU),
    **dict.fromkeys((torch.tanh, torch.tanh_, "tanh", "tanh_"), nn.Tanh),
    **dict.fromkeys((torch.sigmoid, torch.sigmoid_, "sigmoid", "sigmoid_"), nn.Sigmoid),
    functional.gelu: nn.GELU,
    functional.leaky_relu: nn.LeakyReLU,
    functional.silu: nn.SiLU,
    functional.elu: nn.ELU,
    functional.selu: nn.SELU,
    functional.celu: nn.CELU,
    functional.softplus: nn.Softplus,
    functional.softsign: nn.Softsign,
    functional.mish: nn.Mish,
    functional.relu6: nn.ReLU6,
    functional.hardtanh: nn.Hardtanh,
    functional.logsigmoid: nn.LogSigmoid,
    functional.hardswish: nn.Hardswish,
}
"""Functions and methods, whose arguments after the first are those of the module."""


class NotAChain(TypeError):
    """A module is something else than a chain; the message names the layer that spoils it."""


def chain_of(module: nn.Module) -> list[Named] | None:
    """Return the layers of a chain with their names, or None if the module is something else.

    Recognised are Linear, Flatten, Identity, Dropout and elementwise activations, in nested
    Sequentials or in any module whose forward applies them one after another, as modules or as
    functions (those come back as the module that does the same). Tied weights, hooks, pruned or
    parametrised weights, buffers, and parameters that no layer applies make it something else.
    """
    try:
        return read_chain(module)
    except NotAChain:
        return None


def read_chain(module: nn.Module) -> list[Named]:
    """Return the layers of a chain, as `chain_of`.

    Raises
    ------
    NotAChain
        If the module is something else.
    """
    _refuse_altered(module)
    layers = _layers(module, "")
    _refuse_misfits(layers)
    _refuse_strays(module, layers)
    return layers


def places_of(module: nn.Module) -> tuple[dict[int, slice], int]:
    """Map the identity of every parameter to its place in a point; and the length of a point."""
    places: dict[int, slice] = {}
    start = 0
    for parameter in module.parameters():
        places[id(parameter)] = slice(start, start + parameter.numel())
        start += parameter.numel()
    return places, start


def _layers(module: nn.Module, name: str) -> list[Named]:
    if type(module) is nn.Sequential:
        children = [(_join(name, key), child) for key, child in module._modules.items()]
        return [
            leaf for key, child in children if child is not None for leaf in _layers(child, key)
        ]
    if type(module) in LAYERS:
        return [(name, module)]
    if type(module).__module__.startswith("torch.nn."):
        raise NotAChain(_told(name, type(module)))
    return _traced(module, name)


def _refuse_altered(module: nn.Module) -> None:
    """Refuse a module of which a layer does not do, or not only, what its type says."""
    for name, part in module.named_modules():
        layer = f"layer {name or 'module'!r}"
        bare = (key for key in ("weight", "bias") if isinstance(vars(part).get(key), Tensor))
        if parametrize.is_parametrized(part) or any(bare):
            raise NotAChain(f"{layer} is pruned or parametrised (make its weights permanent)")
        hooks = (part._forward_hooks, part._forward_pre_hooks)
        if any(hooks) or part._backward_hooks or part._backward_pre_hooks:
            raise NotAChain(f"{layer} has hooks")
        if "forward" in vars(part):
            raise NotAChain(f"{layer} has a forward that was put in place of its own")


def _refuse_misfits(layers: list[Named]) -> None:
    linear = [(name, layer) for name, layer in layers if isinstance(layer, nn.Linear)]
    for (name, first), (follower, second) in pairwise(linear):
        if second.in_features != first.out_features:
            raise NotAChain(
                f"layer {follower!r} takes {second.in_features} inputs, but layer {name!r} has "
                f"{first.out_features} units"
            )


def _refuse_strays(module: nn.Module, layers: list[Named]) -> None:
    """Refuse parameters that are not those of one layer each, and buffers, of which it has none."""
    seen: set[int] = set()
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if id(parameter) in seen:
            raise NotAChain(f"layer {name!r} shares its weights with another")
        seen.add(id(parameter))
    applied: set[int] = set()
    for name, layer in layers:
        if isinstance(layer, nn.Linear):
            if id(layer.weight) in applied:
                raise NotAChain(f"layer {name!r} is applied twice")
            applied |= {id(parameter) for parameter in layer.parameters()}
    for name, parameter in module.named_parameters():
        if id(parameter) not in applied:
            raise NotAChain(f"parameter {name!r} is of no layer that is applied")
    for name, _ in module.named_buffers():
        raise NotAChain(f"buffer {name!r} is of no layer that is known")


def _traced(module: nn.Module, name: str) -> list[Named]:
    """Return the layers that a module of any other type applies."""
    told = _told(name, type(module))
    try:
        with _unobserved():
            before = _random_states()
            twin = copy.deepcopy(module)
            originals = dict(zip(map(id, twin.modules()), module.modules(), strict=True))
            taught, found = (_Walk(twin.train(mode), name).layers for mode in (True, False))
            if [(key, repr(layer)) for key, layer in taught] != [(k, repr(v)) for k, v in found]:
                raise NotAChain(f"{told} whose forward differs between training and evaluation")
            _refuse_misfits(found)
            agrees = _agrees(twin, found)
            if before != _random_states():
                raise NotAChain(f"{told} whose forward draws random numbers")
    except NotAChain:
        raise
    except Exception as error:  # a forward is anyone's code, and so is what it raises
        reason = (str(error).splitlines() or [""])[0]
        raise NotAChain(
            f"{told} whose forward cannot be followed ({type(error).__name__}: {reason})"
        ) from error
    if not agrees:
        raise NotAChain(f"{told} whose forward does something else than its layers do")
    return [(key, originals.get(id(layer), layer)) for key, layer in found]


class _Walk:
    """The layers along a traced module of some name."""

    def __init__(self, module: nn.Module, name: str) -> None:
        self.module, self.name = module, name
        self.tracer = fx.Tracer()
        self.layers: list[Named] = []
        self.steps: list[fx.Node] = []
        for node in self.tracer.trace(module).nodes:
            self._take(node)

    def _take(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            if self.steps:
                raise NotAChain(f"{self._owner(node)} whose forward takes more than one input")
            self.steps.append(node)
        elif not _is_shape(node):
            before = self.steps[-1]
            if node.op == "get_attr":
                raise NotAChain(f"{self._owner(node)} whose forward uses {node.target!r} itself")
            rows = self._rows(node)
            inputs = [value for value in node.all_input_nodes if value is not rows]
            if inputs != [before] or node.args[:1] != (before,):
                if node.op == "call_module":
                    told = f"layer {_join(self.name, str(node.target))!r} is applied to"
                else:
                    verb = "returns" if node.op == "output" else f"calls {_called(node)!r} on"
                    told = f"{self._owner(node)} whose forward {verb}"
                raise NotAChain(f"{told} something else than what the step before it gives")
            if node.op != "output":
                self.layers.append(self._layer(node))
                self.steps.append(node)

    def _layer(self, node: fx.Node) -> Named:
        if node.op == "call_module":
            key = _join(self.name, str(node.target))
            layer = self.module.get_submodule(str(node.target))
            if type(layer) not in LAYERS:
                raise NotAChain(_told(key, type(layer)))
            if len(node.args) == 1 and not node.kwargs:
                return key, layer
        elif _flattens(node) or self._rows(node) is not None or _is_sized(node):
            return _join(self.name, node.name), nn.Flatten()
        elif node.target in _CALLS and len(_nodes(node)) == 1:
            return _join(self.name, node.name), _CALLS[node.target](*node.args[1:], **node.kwargs)
        raise NotAChain(f"{self._owner(node)} whose forward calls {_called(node)!r}")

    def _rows(self, node: fx.Node) -> fx.Node | None:
        """Return the number of samples if the node reshapes to as many rows."""
        sizes = _sizes(node)
        if sizes is None or not isinstance(sizes[0], fx.Node):
            return None
        rows, of = sizes[0], sizes[0]
        axis = of.args[1] if len(of.args) == 2 else of.kwargs.get("dim")
        while _is_shape(of):
            of = of.all_input_nodes[0]
        return rows if axis == 0 and of in self.steps and isinstance(sizes[1], int) else None

    def _owner(self, node: fx.Node) -> str:
        path, kind = self.tracer.node_name_to_scope.get(node.name, ("", None))
        return _told(_join(self.name, path), kind if path and kind else type(self.module))


def _is_shape(node: fx.Node) -> bool:
    """Whether a node is the shape of a step, or an entry of it."""
    if node.op == "call_method":
        return node.target == "size"
    if node.op != "call_function":
        return False
    if node.target is getattr:
        return node.args[1] == "shape"
    inner = node.args[0] if node.target is operator.getitem else None
    return isinstance(inner, fx.Node) and _is_shape(inner)


def _flattens(node: fx.Node) -> bool:
    """Whether a node flattens all axes but the first."""
    if node.target not in ("flatten", torch.flatten):
        return False
    given = dict(zip(("start_dim", "end_dim"), node.args[1:], strict=False)) | node.kwargs
    return {"start_dim": 0, "end_dim": -1} | given == {"start_dim": 1, "end_dim": -1}


def _sizes(node: fx.Node) -> tuple[Any, Any] | None:
    """Return the two sizes to which a node reshapes, if it does."""
    if node.target not in ("view", "reshape", torch.reshape) or node.kwargs:
        return None
    sizes = node.args[1:]
    if len(sizes) == 1 and isinstance(sizes[0], tuple | list):
        sizes = tuple(sizes[0])
    return (sizes[0], sizes[1]) if len(sizes) == 2 else None


def _is_sized(node: fx.Node) -> bool:
    """Whether a node reshapes to rows of so many inputs; the trial tells whether they fit."""
    sizes = _sizes(node)
    return sizes is not None and sizes[0] == -1 and isinstance(sizes[1], int)


def _nodes(node: fx.Node) -> list[fx.Node]:
    """List all uses of other nodes, the same one as often as it is used."""
    found: list[fx.Node] = []
    fx.node.map_arg((node.args, node.kwargs), found.append)
    return found


def _agrees(twin: nn.Module, layers: list[Named]) -> bool:
    """Whether its layers give a module's outputs and gradients on two samples, in evaluation."""
    linear = [layer for _, layer in layers if isinstance(layer, nn.Linear)]
    like, size = (linear[0].weight, linear[0].in_features) if linear else (torch.zeros(()), 3)
    x = torch.linspace(-1, 1, 2 * size, device=like.device).view(2, size).to(like.dtype)
    with torch.enable_grad():
        expected = twin.eval().requires_grad_()(x.clone())
        found = x.clone()
        for _, layer in layers:
            found = layer(found)
    if not isinstance(expected, Tensor) or expected.shape != found.shape:
        return False
    pairs = [(found, expected)]
    if linear:
        if not expected.requires_grad:
            return False
        weights = [layer.weight for layer in linear]
        slopes = (
            torch.autograd.grad(outputs.sum(), weights, materialize_grads=True)
            for outputs in (found, expected)
        )
        pairs += zip(*slopes, strict=True)
    return all(torch.allclose(a, b, rtol=1e-4, atol=1e-6, equal_nan=True) for a, b in pairs)


@contextmanager
def _unobserved() -> Iterator[None]:
    """Put the global random states back as they were, and keep warnings to ourselves."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    numpy, python = np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=list(devices)), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        np.random.set_state(numpy)  # noqa: NPY002
        random.setstate(python)


def _random_states() -> bytes:
    states = torch.get_rng_state().tolist(), np.random.get_state(), random.getstate()  # noqa: NPY002
    return pickle.dumps(states)


def _called(node: fx.Node) -> str:
    return str(getattr(node.target, "__name__", node.target))


def _told(name: str, kind: type) -> str:
    return f"layer {name or 'module'!r} is a {kind.__name__}"


def _join(name: str, key: str) -> str:
    return f"{name}.{key}".strip(".")
