"""FedSign in Flower: its strategy by itself, and a real simulation against our own rounds."""

import os
import subprocess
import sys

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")

import numpy as np
import pytest
import torch

import spinscape as ss

pytest.importorskip("flwr")

from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Error,
    Message,
    MetricRecord,
    RecordDict,
)

from spinscape.merging import FedSign
from spinscape.merging.flower_strategy import PARTITION

TINY = {
    "limit": 300,
    "dtype": "float64",
    "width": 8,
    "clients": 4,
    "rounds": 2,
    "epochs": 1,
    "batch_size": 32,
    "gamma": 0.02,
    "seed": 3,
}


@pytest.fixture(autouse=True)
def _some_run(monkeypatch):
    """Messages want to know the run that they belong to."""
    from flwr.supercore.task_identity import TaskIdentity

    for name in ("_run_id", "_task_id", "_node_id"):
        if hasattr(TaskIdentity, name):
            monkeypatch.setattr(TaskIdentity, name, 1)


class Clients:
    """Stands for Flower's grid: nodes answer at once, and take part as they are told."""

    def __init__(self, count, train=None, answer=True):
        self.nodes = [1000 - k for k in range(count)]
        self.train, self.answer, self.asked = train, answer, 0

    def get_node_ids(self):
        return self.nodes

    def send_and_receive(self, messages, **_):
        messages = list(messages)
        self.asked += 1
        return [self._reply(message) for message in messages]

    def _reply(self, message):
        node = message.metadata.dst_node_id
        if not self.answer:
            return reply_to(message, error=Error(1, "boom\n in client"))
        partition = MetricRecord({PARTITION: self.nodes.index(node)})
        return reply_to(message, RecordDict({"metrics": partition}))


def reply_to(message, content=None, error=None):
    # A message that was not sent has no id yet, which a reply needs.
    message.metadata.__dict__["_message_id"] = "one"
    if error is not None:
        return Message(error, reply_to=message)
    return Message(content, reply_to=message)


def sent_back(strategy, grid, contents, number=1):
    """Configure a round and let its clients send something back."""
    arrays = ArrayRecord({"w": Array(np.array([1.0, -1.0, 0.0, 2.0], np.float32))})
    messages = list(strategy.configure_train(number, arrays, ConfigRecord(), grid))
    metrics = MetricRecord({"num-examples": 1})
    return messages, [
        reply_to(message, RecordDict({"arrays": content, "metrics": MetricRecord(dict(metrics))}))
        for message, content in zip(messages, contents, strict=True)
    ]


def record(w, count=0):
    return ArrayRecord(
        {"w": Array(np.array(w, np.float32)), "count": Array(np.array(count, np.int64))}
    )


def strategy(**options):
    return FedSign(0.1, fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=2, **options)


def test_plain_mean_integers_and_signs():
    chosen = strategy(parameters=["w"])
    contents = [record([1, 1, -1, 4], 3), record([3, -1, -1, -2], 6)]
    messages, replies = sent_back(chosen, Clients(2), contents)
    assert [m.content["config"]["gamma"] for m in messages] == [0.1, 0.1]
    arrays, metrics = chosen.aggregate_train(1, replies)
    np.testing.assert_array_equal(arrays["w"].numpy(), [2, 0, -1, 1])
    assert arrays["w"].numpy().dtype == np.float32
    assert arrays["count"].numpy().dtype == np.int64
    assert arrays["count"].numpy() == 4  # 4.5, to even
    assert metrics["ssr"] == chosen.sign_consistency[1] == (3 + 3) / 8


def test_the_same_clients_as_our_rounds_and_asked_once():
    from spinscape.merging.partitions import sampled_clients

    chosen, grid = strategy(seed=5, fraction_train=0.3), Clients(10)
    for number in (1, 2):
        messages, _ = sent_back(chosen, grid, [record([0] * 4)] * 3, number)
        held = [grid.nodes.index(m.metadata.dst_node_id) for m in messages]
        assert held == sampled_clients(10, 3, seed=5, round=number)
    assert grid.asked == 1


def test_a_failed_client_fails_the_round():
    chosen = strategy()
    messages, replies = sent_back(chosen, Clients(2), [record([1] * 4), record([1] * 4)])
    failed = reply_to(messages[1], error=Error(1, "boom"))
    with pytest.raises(RuntimeError, match="round 1: 1 of 2 clients failed: boom"):
        chosen.aggregate_train(1, [replies[0], failed])
    with pytest.raises(RuntimeError, match="1 of 2 clients failed"):
        chosen.aggregate_train(1, replies[:1])
    with pytest.raises(RuntimeError, match="boom in client; the ClientApp must answer queries"):
        sent_back(strategy(), Clients(2, answer=False), [])


def test_bad_arguments():
    with pytest.raises(ValueError, match="gamma=-1"):
        FedSign(-1)
    with pytest.raises(ValueError, match="reduction='max'"):
        FedSign(0.1, reduction="max")


def test_unknown_settings_are_refused():
    from spinscape.merging.flower_app import _settings

    assert _settings({"batch-size": 8}, {})["batch_size"] == 8
    with pytest.raises(ValueError, match="gama=1: no such setting"):
        _settings({"gama": 1}, {})


def test_without_flower_it_says_what_to_install():
    code = (
        "import sys; sys.modules['flwr'] = None\n"
        "import spinscape as ss\n"
        "ss.merging.fedsign_penalty\n"
        "try: ss.merging.FedSign\n"
        "except ModuleNotFoundError as error: print(error)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'spinscape[federated]'" in told.stdout


SIMULATION = """
import json, sys
from flwr.simulation import run_simulation
from spinscape.merging.flower_app import client_of, server_of
settings = json.loads(sys.argv[1])
found = {}
def finished(result, strategy):
    found["weights"] = {k: v.numpy().ravel().tolist() for k, v in result.arrays.items()}
    found["ssr"] = list(strategy.sign_consistency.values())
run_simulation(
    server_of(settings, finished=finished), client_of(), num_supernodes=settings["clients"],
    backend_config={
        "client_resources": {"num_cpus": 1, "num_gpus": 0}, "init_args": {"num_cpus": 2}
    },
)
print("FOUND" + json.dumps(found))
"""


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """Two rounds of a real simulation, in a process of its own (it starts a ray cluster)."""
    import json

    done = subprocess.run(
        [sys.executable, "-c", SIMULATION, json.dumps(TINY)],
        capture_output=True,
        text=True,
        timeout=240,
        cwd=tmp_path_factory.mktemp("flower"),
        env={**os.environ, "FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0"},
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("FOUND")]
    assert lines, done.stderr[-3000:]
    return json.loads(lines[0][5:])


def test_a_simulation_matches_our_rounds(simulated):
    data = ss.datasets.load("digits", seed=3, limit=300, dtype=torch.float64)
    module = ss.models.mlp(64, [8], 10).double()
    clients = ss.merging.dirichlet_clients(data.train.y, 4, 1.0, seed=3)
    ours = ss.merging.federate(
        module,
        data,
        clients,
        rounds=2,
        methods=[ss.merging.Method(gamma=0.02)],
        local=ss.merging.LocalTraining(epochs=1, batch_size=32),
        seed=3,
    )
    space = ss.WeightSpace(module)
    theirs = torch.cat(
        [torch.tensor(simulated["weights"][name], dtype=torch.float64) for name in space.names]
    )
    torch.testing.assert_close(
        torch.as_tensor(ours["point"].values[0]), theirs, rtol=1e-9, atol=1e-12
    )
    np.testing.assert_allclose(simulated["ssr"], ours["ssr"].values[0, 1:])
