"""A Flower app that trains a network on digits, or on any data, by FedAvg, FedProx or FedSign.

Client and server, for ``flwr run`` and for simulations from Python; every setting stands in the
run's configuration, and a client deals the data out for itself, from the seed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import lru_cache
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from torch import Tensor, nn

from spinscape.merging.flower_strategy import PARTITION, FedSign
from spinscape.merging.methods import Method
from spinscape.merging.partitions import client_batches, dirichlet_clients
from spinscape.merging.rounds import LocalTraining
from spinscape.merging.signs import fedsign_penalty
from spinscape.nets import datasets, models
from spinscape.nets.datasets import Data
from spinscape.nets.initialisation import initial_points
from spinscape.nets.orders import replica_seeds
from spinscape.nets.weightspace import WeightSpace

__all__ = ["DEFAULTS", "client_app", "client_of", "server_app", "server_of", "train_client"]

DEFAULTS: dict[str, Any] = {
    "data": "digits",
    "limit": 0,
    "dtype": "float32",
    "width": 32,
    "clients": 10,
    "alpha": 1.0,
    "seed": 0,
    "rounds": 3,
    "fraction": 1.0,
    "gamma": 0.01,
    "mu": 0.0,
    "reduction": "sum",
    "epochs": 5,
    "batch_size": 64,
    "learning_rate": 0.03,
    "momentum": 0.9,
}


def train_client(
    module: nn.Module,
    x: Tensor,
    y: Tensor,
    method: Method,
    local: LocalTraining,
    *,
    seed: int,
    client: int,
    round: int,
) -> None:
    """Train one client's module in place, from the weights that it has received.

    Parameters
    ----------
    module : nn.Module
        Holds the received weights; is put into training mode.
    x, y : [sample, ...]
        The client's own samples.
    method : Method
    local : LocalTraining
    seed, client, round : int
        They fix the batches, as in `rounds.federate`.
    """
    module.train()
    received = {name: value.detach().clone() for name, value in module.named_parameters()}
    optimizer = torch.optim.SGD(module.parameters(), local.learning_rate, local.momentum)
    for batch in client_batches(
        len(x),
        epochs=local.epochs,
        batch_size=local.batch_size,
        seed=seed,
        client=client,
        round=round,
    ):
        loss = nn.functional.cross_entropy(module(x[batch]), y[batch])
        now = dict(module.named_parameters())
        if method.gamma:
            penalty = fedsign_penalty(
                now, received, method.reduction, disagreeing=method.disagreeing
            )
            loss = loss + method.gamma * penalty
        if method.mu:
            moved = torch.stack([(now[name] - received[name]).square().sum() for name in now])
            loss = loss + method.mu / 2 * moved.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def client_of(build: Callable[[dict[str, Any], Data], nn.Module] | None = None) -> ClientApp:
    """Return a client app; `build(settings, data)` makes the module, a dense stack by default."""
    app = ClientApp()
    make = build or _dense

    @app.query()
    def query(message: Message, context: Context) -> Message:
        """Tell which partition this node holds."""
        partition = MetricRecord({PARTITION: int(context.node_config[PARTITION])})
        return Message(content=RecordDict({"metrics": partition}), reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        """Train on this node's samples, from the weights received."""
        config: dict[str, Any] = dict(message.content.config_records["config"])
        data, clients = _dealt(*(config[name] for name in _DEALING))
        client = int(context.node_config[PARTITION])
        module = make(config, data)
        module.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
        mine = clients[client]
        train_client(
            module,
            data.train.x[mine],
            data.train.y[mine],
            Method(config["gamma"], config["mu"], config["reduction"]),
            LocalTraining(**{field.name: config[field.name] for field in fields(LocalTraining)}),
            seed=config["seed"],
            client=client,
            round=config["server-round"],
        )
        metrics = MetricRecord({"num-examples": len(mine)})
        content = RecordDict({"arrays": ArrayRecord(module.state_dict()), "metrics": metrics})
        return Message(content=content, reply_to=message)

    return app


def server_of(
    settings: dict[str, Any] | None = None,
    build: Callable[[dict[str, Any], Data], nn.Module] | None = None,
    finished: Callable[[Any, FedSign], None] | None = None,
) -> ServerApp:
    """Return a server app; `settings` override the run's configuration and `DEFAULTS`.

    ``finished(result, strategy)`` is called at the end with Flower's result.
    """
    app = ServerApp()
    make = build or _dense

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        """Train for the rounds asked for, and judge the global model after each."""
        config = _settings(dict(context.run_config), settings or {})
        data, _ = _dealt(*(config[name] for name in _DEALING))
        module = make(config, data)
        space = WeightSpace(module)
        space.load(module, initial_points(module, replica_seeds(config["seed"], [0]))[0])
        strategy = FedSign(
            config["gamma"],
            reduction=config["reduction"],
            seed=config["seed"],
            parameters=space.names,
            fraction_train=config["fraction"],
            fraction_evaluate=0.0,
            min_train_nodes=1,
            min_available_nodes=config["clients"],
        )

        def judge(number: int, arrays: ArrayRecord) -> MetricRecord:
            judged = make(config, data).eval()
            judged.load_state_dict(arrays.to_torch_state_dict())
            x, y = data.validation
            with torch.no_grad():
                outputs = judged(x)
            loss = nn.functional.cross_entropy(outputs, y)
            error = (outputs.argmax(1) != y).double().mean()
            return MetricRecord({"validation-loss": float(loss), "validation-error": float(error)})

        result = strategy.start(
            grid=grid,
            initial_arrays=ArrayRecord(module.state_dict()),
            num_rounds=config["rounds"],
            train_config=ConfigRecord(config),
            evaluate_fn=judge,
        )
        if finished is not None:
            finished(result, strategy)

    return app


_DEALING = ("data", "limit", "dtype", "clients", "alpha", "seed")


@lru_cache(maxsize=2)
def _dealt(
    source: str, limit: int, dtype: str, clients: int, alpha: float, seed: int
) -> tuple[Data, list[Tensor]]:
    """Read data and deal its training samples out; once a process."""
    data = datasets.load(source, seed=seed, limit=limit or None, dtype=getattr(torch, dtype))
    return data, dirichlet_clients(data.train.y, clients, alpha, seed=seed)


def _dense(config: dict[str, Any], data: Data) -> nn.Module:
    module = models.mlp(data.inputs[0], [config["width"]], data.classes)
    return module.to(getattr(torch, config["dtype"]))


def _settings(run: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Merge defaults, the run's configuration and what was given, and refuse what is unknown."""
    named = {name.replace("-", "_"): value for name, value in run.items()} | given
    for name, value in named.items():
        if name not in DEFAULTS:
            raise ValueError(f"{name}={value!r}: no such setting; there are {', '.join(DEFAULTS)}")
    merged = DEFAULTS | named
    return {name: type(DEFAULTS[name])(value) for name, value in merged.items()}


client_app = client_of()

server_app = server_of()
