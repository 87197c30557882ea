"""FedSign as a strategy of Flower (flwr ≥ 1.41, the `serverapp` interface)."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np

from spinscape.merging.partitions import sampled_clients
from spinscape.merging.signs import Reduction, check_reduction

try:
    from flwr.app import (
        Array,
        ArrayRecord,
        ConfigRecord,
        Message,
        MessageType,
        MetricRecord,
        RecordDict,
    )
    from flwr.serverapp import Grid
    from flwr.serverapp.strategy import FedAvg
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "FedSign needs Flower, which is not installed: pip install 'spinscape[federated]'"
    ) from error

__all__ = ["PARTITION", "FedSign"]

PARTITION = "partition-id"
"""Under this key a client answers a query with the number of its partition."""

_EVEN = "fedsign-even"

_STATISTICS = ("running_mean", "running_var")


class FedSign(FedAvg):
    """FedAvg by plain mean, whose clients are asked to add γ times the FedSign penalty.

    As Flower's own FedProx: the server sends ``"gamma"`` (and ``"reduction"``) in the
    `ConfigRecord` of every training message, and the client adds
    ``gamma * fedsign_penalty(...)`` to its loss. Unlike Flower's FedAvg it takes the plain mean,
    gives integer buffers back in their dtype, fails where a client failed, and, with a seed, draws
    the same clients as `rounds.federate`: it asks the nodes once, by a query message, which
    partition they hold.

    Parameters
    ----------
    gamma : float
        Strength of the penalty; 0 is FedAvg.
    reduction : {"sum", "mean", "tensor_mean"}
        As in `signs.fedsign_penalty`.
    seed : int, optional
        From it and the round the clients are drawn; they must answer queries with a `MetricRecord`
        that holds `PARTITION`. None leaves sampling to Flower, which draws from a global generator.
    weighted_by_key : str, optional
        Weight clients by this metric of theirs; None is the paper's plain mean.
    parameters : collection of str, optional
        Arrays whose signs are compared; all floating ones but running statistics if not given.
    **options
        Of Flower's `FedAvg`: ``fraction_train``, ``min_available_nodes`` and so on.

    Raises
    ------
    ValueError
        If `gamma` or `reduction` does not fit.
    RuntimeError
        In a round in which a client failed or did not answer (Flower by itself only logs it).

    References
    ----------
    arXiv 2405.12489, section 5.
    """

    def __init__(
        self,
        gamma: float,
        *,
        reduction: Reduction = "sum",
        seed: int | None = 0,
        weighted_by_key: str | None = None,
        parameters: Collection[str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(weighted_by_key=weighted_by_key or _EVEN, **options)
        if not 0 <= gamma < float("inf"):
            raise ValueError(f"gamma={gamma!r}: expected a number, 0 or more")
        check_reduction(reduction)
        self.gamma, self.reduction, self.seed = float(gamma), reduction, seed
        self.parameters = parameters
        self.sign_consistency: dict[int, float] = {}
        self._nodes: dict[int, int] = {}
        self._sent: ArrayRecord | None = None
        self._asked = 0

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the weights, γ and the reduction to the clients of the round."""
        config["gamma"], config["reduction"] = self.gamma, self.reduction
        self._sent = arrays
        if self.seed is None or self.fraction_train == 0:
            messages = list(super().configure_train(server_round, arrays, config, grid))
        else:
            config["server-round"] = server_round
            content = RecordDict({self.arrayrecord_key: arrays, self.configrecord_key: config})
            chosen = self._chosen(grid, server_round)
            messages = list(self._construct_messages(content, chosen, MessageType.TRAIN))
        self._asked = len(messages)
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Take the mean of what came back, and note how many signs the clients kept."""
        replies = list(replies)
        _refuse_failures(replies, self._asked, f"round {server_round}")
        if self.weighted_by_key == _EVEN:
            for reply in replies:
                for told in reply.content.metric_records.values():
                    told[_EVEN] = 1.0
        # Always added up in one order, so that the mean does not depend on who was first.
        replies.sort(key=lambda reply: self._place(reply.metadata.src_node_id))
        arrays, metrics = super().aggregate_train(server_round, replies)
        if arrays is None or metrics is None:
            return arrays, metrics
        ssr = float(np.mean([self._ssr(reply) for reply in replies]))
        self.sign_consistency[server_round] = metrics["ssr"] = ssr
        first = next(iter(replies[0].content.array_records.values()))
        return _restored(arrays, first), metrics

    def _chosen(self, grid: Grid, number: int) -> list[int]:
        """Nodes of the round, in the order of their partitions."""
        if not self._nodes:
            self._nodes = _partitions(grid, self.min_available_nodes)
        partitions = sorted(self._nodes)
        count = max(int(len(partitions) * self.fraction_train), self.min_train_nodes)
        count = min(count, len(partitions))
        drawn = sampled_clients(len(partitions), count, seed=self.seed or 0, round=number)
        return [self._nodes[partitions[k]] for k in drawn]

    def _place(self, node: int) -> int:
        return {node: partition for partition, node in self._nodes.items()}.get(node, node)

    def _ssr(self, reply: Message) -> float:
        """Share of parameters whose sign is that of the weights sent out."""
        assert self._sent is not None
        same = total = 0
        for name, array in next(iter(reply.content.array_records.values())).items():
            value = array.numpy()
            known = self.parameters
            counts = name in known if known is not None else not name.endswith(_STATISTICS)
            if counts and np.issubdtype(value.dtype, np.floating):
                same += int(np.count_nonzero((value > 0) == (self._sent[name].numpy() > 0)))
                total += value.size
        return same / total if total else float("nan")


def _partitions(grid: Grid, least: int) -> dict[int, int]:
    """Ask every node once which partition it holds."""
    from flwr.serverapp.strategy.strategy_utils import sample_nodes

    _, nodes = sample_nodes(grid, least, min(least, 1))
    questions = [
        Message(content=RecordDict(), message_type=MessageType.QUERY, dst_node_id=node)
        for node in nodes
    ]
    replies = list(grid.send_and_receive(questions))
    remedy = f"; the ClientApp must answer queries with its {PARTITION!r}, or set seed=None"
    _refuse_failures(replies, len(questions), "query of the partitions", remedy)
    found: dict[int, int] = {}
    for reply in replies:
        for metrics in reply.content.metric_records.values():
            partition = metrics[PARTITION]
            assert isinstance(partition, int)
            found[partition] = reply.metadata.src_node_id
    if len(found) < len(questions):
        raise RuntimeError(f"query of the partitions: {len(questions)} nodes hold {len(found)}")
    return found


def _refuse_failures(replies: list[Message], asked: int, when: str, remedy: str = "") -> None:
    failed = [reply for reply in replies if reply.has_error()]
    if failed or len(replies) < asked:
        reason = f": {' '.join(str(failed[0].error.reason).split())}" if failed else ""
        missing = len(failed) + asked - len(replies)
        raise RuntimeError(f"{when}: {missing} of {asked} clients failed{reason}{remedy}")


def _restored(arrays: ArrayRecord, like: ArrayRecord) -> ArrayRecord:
    """Give averages of integers, and of floats of any size, the dtype they were sent in."""
    found = {}
    for name, array in arrays.items():
        value, dtype = array.numpy(), like[name].numpy().dtype
        if value.dtype != dtype:
            value = np.rint(value) if not np.issubdtype(dtype, np.floating) else value
            array = Array(np.asarray(value.astype(dtype)))
        found[name] = array
    return ArrayRecord(found)
