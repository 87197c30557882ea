"""Federated learning in one process: all clients of a round are one batch of points."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float
from torch import Tensor, nn

from spinscape.landscape.energy import Landscape
from spinscape.landscape.paths import path_barrier
from spinscape.merging.methods import FEDAVG, Method, Pull
from spinscape.merging.partitions import client_batches, sampled_clients
from spinscape.merging.signs import sign_consistency
from spinscape.nets.datasets import Data
from spinscape.nets.engine import training_engine
from spinscape.nets.initialisation import initial_points
from spinscape.nets.losses import Loss, LossFunction, loss_of
from spinscape.nets.optimizers import Sgd
from spinscape.nets.orders import replica_seeds
from spinscape.nets.weightspace import WeightSpace
from spinscape.nets.weightspace import points as points_of
from spinscape.records import labelled, provenance

__all__ = ["LocalTraining", "federate"]

SOURCE = "arXiv 2405.12489, section 5 (FedSign); FedAvg arXiv 1602.05629; FedProx arXiv 1812.06127"


@dataclass(frozen=True)
class LocalTraining:
    """How a client trains between two messages: SGD whose momentum starts anew every round."""

    epochs: int = 5
    batch_size: int = 64
    learning_rate: float = 0.03
    momentum: float = 0.9

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)!r}: expected 1 or more")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate={self.learning_rate!r}: expected more than 0")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum={self.momentum!r}: expected 0 or more, below 1")


def federate(
    module: nn.Module,
    data: Data,
    clients: Sequence[Tensor],
    *,
    rounds: int,
    methods: Sequence[Method] = (FEDAVG,),
    sampled: int | None = None,
    local: LocalTraining | None = None,
    loss: str | LossFunction = "cross_entropy",
    start: Tensor | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> xr.Dataset:
    """Train one global model by many clients, for several methods side by side.

    A round: the sampled clients receive the global weights, train on their own samples, and the
    server takes the plain mean of what they send. All methods see the same start, clients, rounds'
    samples and batches, so their differences are paired.

    Parameters
    ----------
    module : nn.Module
        The template, without normalisation by batches (which would see the padding of short ones;
        use the Flower app for such modules). It is left untouched.
    data : Data
        Clients share out ``data.train``; the global model is judged on validation and test data.
    clients : sequence of LongTensor
        Sample indices of each client, as of `partitions.dirichlet_clients`.
    rounds : int
    methods : sequence of Method
    sampled : int, optional
        Clients that take part in a round; all if not given.
    local : LocalTraining, optional
    loss : str or callable
        As in `train`.
    start : Tensor [n], optional
        Global weights to begin with; else the module's initialisation from the seed.
    seed : int
        Of initialisation, of the clients sampled, and of their batches.
    progress : callable, optional
        Called with rounds done and planned.

    Returns
    -------
    Dataset
        ``point [method, n]``; along ``method`` and ``round`` (0 is the start) loss and error on
        validation and test data; from round 1 on ``ssr``, the sign consistency of received and sent
        weights (mean over the clients), and ``drift``, ‖sent − received‖ over ‖received‖;
        ``client_barrier [method, pair]`` between neighbours among the last round's clients on test
        data, and ``mean_loss``, ``client_loss``: test loss of their mean, and theirs.

    Raises
    ------
    ValueError
        If an argument does not fit; the message names it and says what to do.

    References
    ----------
    arXiv 2405.12489, section 5.
    """
    local = LocalTraining() if local is None else local
    space = WeightSpace(module)
    methods = tuple(methods)
    _check(module, data, clients, rounds, methods)
    count = len(clients) if sampled is None else sampled
    if start is None:
        start = initial_points(module, replica_seeds(seed, [0]))[0]
    space.check(points_of(start), "start", ndim=1)
    judges = {
        "validation": Landscape(module, *data.validation, loss=loss),
        "test": Landscape(module, *data.test, loss=loss),
    }
    server = points_of(start).expand(len(methods), -1).clone()
    step = _Round(module, data, clients, methods, local, loss_of(loss), seed)
    curves = [_judged(judges, server)]
    ssr, drift = [], []
    sent = server[:, None]
    for number in range(1, rounds + 1):
        chosen = sampled_clients(len(clients), count, seed=seed, round=number)
        sent = step(server, chosen, number)
        ssr.append(sign_consistency(server[:, None], sent).mean(1))
        moved = torch.linalg.vector_norm(sent - server[:, None], dim=2)
        drift.append((moved / torch.linalg.vector_norm(server, dim=1)[:, None]).mean(1))
        server = sent.mean(1)
        curves.append(_judged(judges, server))
        if progress is not None:
            progress(number, rounds)
    found = _dataset(server, curves, ssr, drift, methods, judges["test"].criterion)
    found = found.assign(_between(judges["test"], sent, server))
    found.attrs.update(
        provenance("federate", SOURCE, seed, rounds=rounds, sampled=count, **asdict(local))
    )
    return found


class _Round:
    """Local training of a round's clients under all methods at once."""

    def __init__(
        self,
        module: nn.Module,
        data: Data,
        clients: Sequence[Tensor],
        methods: tuple[Method, ...],
        local: LocalTraining,
        loss: Loss,
        seed: int,
    ) -> None:
        space = WeightSpace(module)
        self.engine = training_engine(module)
        self.x, self.y = data.train
        self.clients, self.local, self.seed = clients, local, seed
        self.loss = Padded(loss)
        sizes = tuple(place.stop - place.start for place in space.slices.values())
        self.pull = Pull(methods, sizes, torch.empty(0, dtype=space.dtype, device=self.x.device))

    def __call__(
        self, server: Float[Tensor, "method n"], chosen: Sequence[int], number: int
    ) -> Float[Tensor, "method client n"]:
        """Return what the chosen clients send back, in their order."""
        batches = {
            k: client_batches(
                len(self.clients[k]),
                epochs=self.local.epochs,
                batch_size=self.local.batch_size,
                seed=self.seed,
                client=k,
                round=number,
            )
            for k in chosen
        }
        # Those with the most steps first: who is done falls off the end.
        order = sorted(chosen, key=lambda k: -len(batches[k]))
        points = server[:, None].repeat(1, len(order), 1)
        velocity = torch.zeros_like(points)
        for step in range(len(batches[order[0]])):
            active = sum(len(batches[k]) > step for k in order)
            picked = [self.clients[k][batches[k][step]] for k in order[:active]]
            self._step(points, velocity, server, picked)
        places = torch.as_tensor([order.index(k) for k in chosen], device=points.device)
        return points[:, places]

    def _step(
        self, points: Tensor, velocity: Tensor, server: Tensor, picked: Sequence[Tensor]
    ) -> None:
        """Make one step of the clients that still have batches, in place."""
        methods, active = len(points), len(picked)
        filled = nn.utils.rnn.pad_sequence(list(picked), batch_first=True, padding_value=-1)
        filled = filled.to(self.x.device)
        real = filled >= 0
        taken = filled.clamp(min=0)
        x = self.x[taken].repeat(methods, *[1] * (self.x.ndim))
        y = self.y[taken].repeat(methods, *[1] * (self.y.ndim))
        live = points[:, :active]
        self.loss.real = real.repeat(methods, 1)
        _, gradient = self.engine.loss_and_gradient(
            live.reshape(-1, live.shape[-1]), x, y, self.loss, own=True
        )
        gradient = gradient.view_as(live)
        self.pull.add_(gradient, live, server)
        momentum = torch.tensor(self.local.momentum, dtype=points.dtype)
        optimizer = Sgd(momentum, torch.zeros_like(momentum))
        if self.local.momentum:
            optimizer.memory["velocity"] = velocity[:, :active]
        optimizer.step(live, gradient, self.local.learning_rate, 1)


class Padded(Loss):
    """Another loss as a mean over the real samples of batches that were filled up."""

    real: Bool[Tensor, "P B"]

    def __init__(self, loss: Loss) -> None:
        self.loss = loss
        self.name, self.units = loss.name, loss.units

    def value(self, outputs: Tensor, y: Tensor, *, own: bool | None = None) -> Tensor:
        """Mean loss per real sample of every point (differentiable)."""
        each = self.loss.value(outputs.flatten(0, 1)[:, None], y.flatten(0, 1)[:, None], own=True)
        return (each.view(self.real.shape) * self._shares(outputs)).sum(1)

    def output_gradient(
        self, outputs: Tensor, y: Tensor, *, own: bool | None = None
    ) -> tuple[Tensor, Tensor]:
        """Value, and its derivative with respect to the outputs."""
        each, gradient = self.loss.output_gradient(
            outputs.flatten(0, 1)[:, None], y.flatten(0, 1)[:, None], own=True
        )
        shares = self._shares(outputs)
        gradient = gradient.reshape(outputs.shape)
        gradient = gradient * shares.view(*shares.shape, *[1] * (outputs.ndim - 2))
        return (each.view(self.real.shape) * shares).sum(1), gradient

    def _shares(self, outputs: Tensor) -> Tensor:
        real = self.real.to(outputs.dtype)
        return real / real.sum(1, keepdim=True)


def _check(
    module: nn.Module,
    data: Data,
    clients: Sequence[Tensor],
    rounds: int,
    methods: tuple[Method, ...],
) -> None:
    if rounds < 1:
        raise ValueError(f"rounds={rounds!r}: expected 1 or more")
    if not methods:
        raise ValueError("methods: none given; expected at least one Method, as FEDAVG")
    if len({str(method) for method in methods}) < len(methods):
        raise ValueError("methods: one is there twice; give each once")
    for name, part in module.named_modules():
        if isinstance(part, nn.modules.batchnorm._NormBase):
            raise ValueError(
                f"module: {name!r} normalises by batches, which padded ones would disturb; train "
                "it by the Flower app, or use group or layer normalisation"
            )
    samples = len(data.train.x)
    for k, mine in enumerate(clients):
        if not len(mine) or mine.min() < 0 or mine.max() >= samples:
            raise ValueError(f"clients[{k}]: expected samples among 0..{samples - 1}, at least one")
    if not clients:
        raise ValueError("clients: none given; expected sample indices of at least one")


def _judged(judges: dict[str, Landscape], server: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    return {name: (judge.loss(server), judge.error(server)) for name, judge in judges.items()}


def _between(judge: Landscape, sent: Tensor, server: Tensor) -> dict[str, tuple]:
    """Barriers between neighbours among the last clients, and what their mean is worth."""
    loss = judge.loss(sent.reshape(-1, sent.shape[-1])).view(sent.shape[:2])
    pairs = max(sent.shape[1] - 1, 0)
    barrier = np.empty((len(sent), 0))
    if pairs:
        lam = torch.linspace(0, 1, 11, dtype=sent.dtype, device=sent.device)
        starts = sent[:, :-1].reshape(-1, sent.shape[-1])
        ways = sent[:, 1:].reshape(-1, sent.shape[-1]) - starts
        curves, _ = judge.lines(starts, ways, lam)
        barrier = path_barrier(curves).view(len(sent), pairs).cpu().numpy()
    units = judge.criterion.units
    return {
        "client_barrier": labelled(
            ("method", "pair"), barrier, "barrier between clients, test data", units
        ),
        "client_loss": labelled(("method", "client"), loss, "test loss of clients", units),
        "mean_loss": labelled("method", judge.loss(server), "test loss of their mean", units),
    }


def _dataset(
    server: Tensor,
    curves: list[dict[str, tuple[Tensor, Tensor]]],
    ssr: list[Tensor],
    drift: list[Tensor],
    methods: tuple[Method, ...],
    criterion: Loss,
) -> xr.Dataset:
    dims = ("method", "round")
    found = xr.Dataset({"point": labelled(("method", "n"), server, "global weights")})
    for name in curves[0]:
        for k, (what, units) in enumerate((("loss", criterion.units), ("error", "1"))):
            values = torch.stack([curve[name][k] for curve in curves], 1)
            found[f"{name}_{what}"] = labelled(dims, values, f"{name} {what}", units)
    empty = torch.full_like(ssr[0], torch.nan)
    found["ssr"] = labelled(
        dims, torch.stack([empty, *ssr], 1), "sign consistency of received and sent weights"
    )
    empty = torch.full_like(drift[0], torch.nan)
    found["drift"] = labelled(dims, torch.stack([empty, *drift], 1), "relative move of a client")
    return found.assign_coords(
        method=[str(method) for method in methods],
        round=np.arange(len(curves)),
        gamma=("method", [method.gamma for method in methods]),
        mu=("method", [method.mu for method in methods]),
    )
