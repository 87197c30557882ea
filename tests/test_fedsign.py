"""FedSign: signs, the penalty, and federated learning of clients as one batch."""

import copy

import pytest
import torch
from torch import nn

from spinscape import Landscape, WeightSpace, datasets, models
from spinscape.merging.methods import FEDAVG, Method
from spinscape.merging.partitions import client_batches, dirichlet_clients, sampled_clients
from spinscape.merging.rounds import LocalTraining, federate
from spinscape.merging.signs import REDUCTIONS, fedsign_penalty, sign_consistency


@pytest.fixture(scope="module")
def data():
    return datasets.load("digits", seed=0, limit=600, dtype=torch.float64)


@pytest.fixture(scope="module")
def module():
    return models.mlp(64, [16], 10).double()


# Signs and penalty


def test_sign_consistency_counts_zeros_as_negative():
    a = torch.tensor([1.0, 0.0, -1.0, 2.0])
    b = torch.tensor([3.0, -1.0, 0.0, -2.0])
    assert float(sign_consistency(a, b)) == 0.75
    assert float(sign_consistency({"w": a}, {"w": b})) == 0.75
    assert float(sign_consistency(a, -a)) == 0.25


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ({"w": torch.ones(2)}, {"v": torch.ones(2)}, "lacks"),
        ({"w": torch.ones(2)}, {"w": torch.ones(3)}, "shape"),
        (torch.ones(2), torch.ones(3), "one length"),
        ({"w": torch.ones(2)}, torch.ones(2), "one form"),
        ({"w": torch.ones(2, dtype=torch.long)}, {"w": torch.ones(2)}, "no floating"),
    ],
)
def test_sign_consistency_refuses(a, b, message):
    with pytest.raises(ValueError, match=message):
        sign_consistency(a, b)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("disagreeing", [False, True])
def test_penalty_passes_gradcheck(reduction, disagreeing):
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, 2), (4,)]
    received = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    received[0][0, 0] = 0
    local = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]

    def penalty(*values):
        pairs = [dict(zip("ab", x, strict=True)) for x in (values, received)]
        return fedsign_penalty(*pairs, reduction, disagreeing=disagreeing)

    assert torch.autograd.gradcheck(penalty, [v.requires_grad_() for v in local])


def test_penalty_by_hand():
    received = {"w": torch.tensor([2.0, -1.0, 0.0]), "b": torch.tensor([1.0])}
    local = {"w": torch.tensor([0.5, 0.5, 9.0]), "b": torch.tensor([-1.0])}
    plus, minus, bias = torch.sigmoid(torch.tensor([0.5, -0.5, -1.0])).tolist()
    found = {r: float(fedsign_penalty(local, received, r)) for r in REDUCTIONS}
    assert found["sum"] == pytest.approx(-(plus + minus + bias))
    assert found["mean"] == pytest.approx(-(plus + minus + bias) / 4)
    assert found["tensor_mean"] == pytest.approx(-(plus + minus) / 3 - bias)
    only = float(fedsign_penalty(local, received, disagreeing=True))
    assert only == pytest.approx(-(minus + bias))


def test_penalty_refuses_unknown_and_missing():
    one = {"w": torch.ones(2)}
    with pytest.raises(ValueError, match="reduction='max'"):
        fedsign_penalty(one, one, "max")
    with pytest.raises(ValueError, match="lacks 'w'"):
        fedsign_penalty(one, {})


def test_sum_drifts_small_weights_as_predicted():
    """γ = .1, lr .03, momentum .9: .0099, .091, .233 after 5, 20, 40 steps on small weights."""
    weight = nn.Parameter(torch.full((1,), 1e-6, dtype=torch.float64))
    received = {"w": weight.detach().clone()}
    optimizer = torch.optim.SGD([weight], lr=0.03, momentum=0.9)
    moved = []
    for _ in range(40):
        optimizer.zero_grad()
        (0.1 * fedsign_penalty({"w": weight}, received)).backward()
        optimizer.step()
        moved.append(float(weight.detach()))
    assert moved[4] == pytest.approx(0.0099, abs=5e-5)
    assert moved[19] == pytest.approx(0.091, abs=5e-4)
    assert moved[39] == pytest.approx(0.233, abs=1e-3)


# Clients


@pytest.mark.parametrize("alpha", [0.1, 1.0, 100.0])
def test_every_sample_has_one_client(alpha):
    y = torch.arange(600) % 10
    parts = dirichlet_clients(y, 30, alpha, seed=3, least=4)
    assert sorted(torch.cat(parts).tolist()) == list(range(600))
    assert min(map(len, parts)) >= 4
    again = dirichlet_clients(y, 30, alpha, seed=3, least=4)
    assert all(torch.equal(a, b) for a, b in zip(parts, again, strict=True))


def test_concentration_has_the_variance_of_a_dirichlet():
    """The share of a class that a client holds has variance (K−1)/(K²(Kα+1))."""
    clients, alpha = 5, 0.7
    y = torch.zeros(20_000, dtype=torch.long)
    shares = torch.tensor(
        [
            [len(p) / len(y) for p in dirichlet_clients(y, clients, alpha, seed=s, least=1)]
            for s in range(400)
        ]
    )
    variance = (clients - 1) / (clients**2 * (clients * alpha + 1))
    squares = (shares - 1 / clients).square().mean(1)
    error = squares.std() / len(squares) ** 0.5
    assert abs(float(squares.mean()) - variance) < 4 * float(error)


def test_sampling_and_batches_depend_on_seed_and_round_alone():
    state = torch.get_rng_state()
    assert sampled_clients(100, 10, seed=1, round=2) == sampled_clients(100, 10, seed=1, round=2)
    assert sampled_clients(100, 10, seed=1, round=2) != sampled_clients(100, 10, seed=1, round=3)
    batches = client_batches(10, epochs=2, batch_size=4, seed=0, client=3, round=1)
    assert [len(b) for b in batches] == [4, 4, 2, 4, 4, 2]
    assert sorted(torch.cat(batches[:3]).tolist()) == list(range(10))
    assert torch.equal(state, torch.get_rng_state())


# Rounds


METHODS = (FEDAVG, Method(mu=0.1), Method(gamma=0.01), Method(gamma=0.1, reduction="tensor_mean"))


def by_hand(module, data, clients, method, local, start, rounds, seed):
    """Clients one after another, by autograd and torch.optim."""
    space = WeightSpace(module)
    server = start.clone()
    for number in range(1, rounds + 1):
        sent = []
        for k, mine in enumerate(clients):
            net = copy.deepcopy(module)
            space.load(net, server)
            received = {name: p.detach().clone() for name, p in net.named_parameters()}
            optimizer = torch.optim.SGD(net.parameters(), local.learning_rate, local.momentum)
            for batch in client_batches(
                len(mine), epochs=local.epochs, batch_size=local.batch_size, seed=seed, client=k,
                round=number,
            ):  # fmt: skip
                x, y = data.train.x[mine[batch]], data.train.y[mine[batch]]
                now = dict(net.named_parameters())
                loss = nn.functional.cross_entropy(net(x), y)
                loss = loss + method.gamma * fedsign_penalty(now, received, method.reduction)
                near = sum((now[name] - received[name]).square().sum() for name in now)
                optimizer.zero_grad()
                (loss + method.mu / 2 * near).backward()
                optimizer.step()
            sent.append(space.point(net))
        server = torch.stack(sent).mean(0)
    return server


@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_rounds_equal_clients_one_by_one(data, module, method, momentum):
    clients = dirichlet_clients(data.train.y, 4, 0.5, seed=1)
    local = LocalTraining(epochs=2, batch_size=32, momentum=momentum)
    start = WeightSpace(module).point(module)
    found = federate(
        module, data, clients, rounds=2, methods=[method], local=local, start=start, seed=5
    )
    wanted = by_hand(module, data, clients, method, local, start, 2, 5)
    torch.testing.assert_close(torch.as_tensor(found["point"].values[0]), wanted)


def test_other_modules_take_the_same_way(data):
    """A module that is no stack of layers, under vmap."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 10)).double()
    clients = dirichlet_clients(data.train.y, 3, 1.0, seed=1)
    local = LocalTraining(epochs=1, batch_size=32)
    start = WeightSpace(net).point(net)
    found = federate(net, data, clients, rounds=1, local=local, start=start)
    wanted = by_hand(net, data, clients, FEDAVG, local, start, 1, 0)
    torch.testing.assert_close(torch.as_tensor(found["point"].values[0]), wanted)


def test_no_strength_is_fedavg_bit_for_bit_in_any_company(data, module):
    clients = dirichlet_clients(data.train.y, 6, 1.0)
    options = {"rounds": 2, "sampled": 3, "local": LocalTraining(epochs=1)}
    alone = federate(module, data, clients, methods=[Method(gamma=0.0)], **options)
    plain = federate(module, data, clients, methods=[FEDAVG], **options)
    assert alone["point"].equals(plain["point"])
    company = federate(module, data, clients, methods=METHODS, **options)
    torch.testing.assert_close(
        torch.as_tensor(company["point"].values[0]), torch.as_tensor(plain["point"].values[0])
    )


def test_one_client_and_one_round_is_plain_training(data, module):
    everything = [torch.arange(len(data.train.x))]
    local = LocalTraining(epochs=1, batch_size=len(data.train.x), momentum=0.0)
    start = WeightSpace(module).point(module)
    found = federate(module, data, everything, rounds=1, local=local, start=start)
    gradient = Landscape(module, *data.train).gradient(start)
    torch.testing.assert_close(
        torch.as_tensor(found["point"].values[0]), start - local.learning_rate * gradient
    )


def test_sign_consistency_rises_with_strength(data, module):
    clients = dirichlet_clients(data.train.y, 8, 0.5)
    methods = [Method(gamma=gamma) for gamma in (0, 0.001, 0.01, 0.1)]
    found = federate(module, data, clients, rounds=4, methods=methods, seed=2)
    ssr = found["ssr"].isel(round=slice(1, None)).mean("round").values
    assert (ssr[1:] > ssr[:-1]).all()
    assert ((ssr > 0.5) & (ssr <= 1)).all()


def test_rounds_leave_random_state_and_module_alone(data, module):
    state, before = torch.get_rng_state(), copy.deepcopy(module.state_dict())
    federate(module, data, dirichlet_clients(data.train.y, 3, 1.0), rounds=1)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounds": 0}, "rounds=0"),
        ({"methods": []}, "methods"),
        ({"methods": [FEDAVG, Method()]}, "twice"),
        ({"sampled": 9}, "sampled=9"),
        ({"clients": []}, "clients"),
        ({"clients": [torch.tensor([10_000])]}, r"clients\[0\]"),
    ],
)
def test_rounds_refuse(data, module, options, message):
    options = {"clients": dirichlet_clients(data.train.y, 3, 1.0), "rounds": 1, **options}
    with pytest.raises(ValueError, match=message):
        federate(module, data, options.pop("clients"), **options)


def test_batch_normalisation_is_sent_to_the_flower_app(data):
    net = nn.Sequential(nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 10)).double()
    with pytest.raises(ValueError, match="Flower app"):
        federate(net, data, dirichlet_clients(data.train.y, 3, 1.0), rounds=1)


def test_bad_settings():
    for make, message in [
        (lambda: Method(gamma=-1), "gamma=-1"),
        (lambda: Method(reduction="max"), "reduction"),
        (lambda: LocalTraining(epochs=0), "epochs=0"),
        (lambda: LocalTraining(momentum=1.0), "momentum"),
        (lambda: dirichlet_clients(torch.zeros(5), 3, 0.0), "alpha=0.0"),
        (lambda: dirichlet_clients(torch.zeros(5), 6, 1.0), "clients=6"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()
