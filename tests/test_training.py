"""Training of a batch of replicas against plain PyTorch, one model at a time."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import oracles
from spinscape.nets.datasets import Data, Split
from spinscape.nets.initialisation import initial_points
from spinscape.nets.orders import Order, replica_seeds
from spinscape.nets.populations import population
from spinscape.nets.training import train
from spinscape.nets.weightspace import WeightSpace


def toy_data(samples=70, inputs=6, classes=3, dtype=torch.float64):
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(3 * samples, inputs, generator=generator, dtype=dtype)
    y = (x[:, :classes] + 0.3 * x[:, classes : 2 * classes]).argmax(1)
    splits = [Split(x[k::3], y[k::3]) for k in range(3)]
    return Data(*splits, name="toy", classes=classes, description="linear teacher")


def net(inputs=6, hidden=5, classes=3):
    return nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, classes)).double()


def plain_training(module, data, point, batches, make_optimizer):
    """An ordinary PyTorch loop over one model."""
    model = oracles.loaded(module, point)
    optimizer = make_optimizer(model.parameters())
    for batch in batches:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(data.train.x[batch]), data.train.y[batch]).backward()
        optimizer.step()
    return oracles.point_of(model)


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "adam": lambda p: torch.optim.Adam(p, lr=0.1, betas=(0.9, 0.999), weight_decay=0.01),
}


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("batches", ["own", "shared"])
def test_replicas_follow_a_plain_loop(optimizer, batches):
    data, module = toy_data(), net()
    result = train(
        module,
        data,
        replicas=3,
        seed=7,
        epochs=2,
        batch_size=16,
        optimizer=optimizer,
        learning_rate=0.1,
        weight_decay=0.01,
        batches=batches,
    )
    seeds = replica_seeds(7, range(3))
    starts = initial_points(module, seeds)
    samples = torch.arange(len(data.train.x))
    for k in range(3):
        order = Order([7] if batches == "shared" else [seeds[k]], [samples], 16)
        drawn = [order.next()[0] for _ in range(2 * order.steps_per_epoch)]
        expected = plain_training(module, data, starts[k], drawn, OPTIMIZERS[optimizer])
        torch.testing.assert_close(
            torch.from_numpy(result.point.values[k]), expected, rtol=1e-9, atol=1e-11
        )


def test_every_sample_is_seen_equally_often_and_no_batch_is_short():
    order = Order([1, 2], [torch.arange(10), torch.arange(5, 12)], 3)
    drawn = torch.stack([order.next() for _ in range(70)])
    assert drawn.shape == (70, 2, 3)
    assert torch.bincount(drawn[:, 0].flatten()).tolist() == [21] * 10
    assert torch.bincount(drawn[:, 1].flatten())[5:].tolist() == [30] * 7


def test_an_order_can_be_entered_anywhere():
    whole = Order([3, 4], [torch.arange(10)] * 2, 4)
    drawn = [whole.next() for _ in range(25)]
    for position in (1, 5, 10, 17):
        late = Order([3, 4], [torch.arange(10)] * 2, 4, position)
        assert torch.equal(late.next(), drawn[position])
        assert torch.equal(late.next(), drawn[position + 1])


def test_a_replica_does_not_know_its_companions():
    data, module = toy_data(), net()
    together = train(module, data, replicas=5, seed=1, epochs=3, batch_size=16)
    alone = train(module, data, replicas=[3], seed=1, epochs=3, batch_size=16)
    chunked = train(module, data, replicas=5, seed=1, epochs=3, batch_size=16, memory=1)
    np.testing.assert_allclose(together.point[3], alone.point[0], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(together.point, chunked.point, rtol=1e-9, atol=1e-12)
    assert together.seed[3] == alone.seed[0]
    assert alone.replica.values.tolist() == [3]


def test_training_goes_on_from_its_state_as_if_never_stopped():
    data, module = toy_data(), net()
    settings = {"replicas": 2, "seed": 2, "batch_size": 16, "optimizer": "adam"}
    whole = train(module, data, epochs=5, **settings)
    half = train(module, data, epochs=2, keep_state=True, **settings)
    rest = train(module, data, epochs=3, start=half, **settings)
    np.testing.assert_allclose(whole.point, rest.point, rtol=1e-9, atol=1e-12)


def test_subsets_of_unequal_lengths_are_respected():
    data, module = toy_data(), net()
    indices = [torch.arange(10), torch.arange(20, 55)]
    result = train(module, data, replicas=2, seed=3, epochs=2, batch_size=8, indices=indices)
    start = initial_points(module, replica_seeds(3, range(2)))
    order = Order(replica_seeds(3, [1]), [indices[1]], 8, sizes=[len(data.train.x)])
    batches = [order.next()[0] for _ in range(2 * order.steps_per_epoch)]
    expected = plain_training(
        module, data, start[1], batches, lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)
    )
    np.testing.assert_allclose(result.point[1], expected, rtol=1e-9, atol=1e-11)


def test_a_quadratic_penalty_is_weight_decay():
    data, module = toy_data(), net()
    settings = {"replicas": 2, "seed": 4, "epochs": 3, "batch_size": 16}
    decayed = train(module, data, weight_decay=0.02, **settings)
    penalised = train(module, data, penalty=lambda p: 0.01 * p.square().sum(-1), **settings)
    np.testing.assert_allclose(decayed.point, penalised.point, rtol=1e-9, atol=1e-12)


def test_settings_may_differ_between_replicas():
    data, module = toy_data(), net()
    both = train(module, data, replicas=2, epochs=2, learning_rate=[0.05, 0.2], batch_size=16)
    slow = train(module, data, replicas=1, epochs=2, learning_rate=0.05, batch_size=16)
    fast = train(module, data, replicas=[1], epochs=2, learning_rate=0.2, batch_size=16)
    np.testing.assert_allclose(both.point[0], slow.point[0], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(both.point[1], fast.point[0], rtol=1e-9, atol=1e-12)


def test_replicas_stop_at_their_training_loss_and_stay_there():
    data, module = toy_data(), net()
    result = train(
        module, data, replicas=4, epochs=300, batch_size=16, stop_at=[0.2, 0.2, 0.1, 1e-9]
    )
    targets = np.array([0.2, 0.2, 0.1])
    assert (result.train_loss.values[:3] <= targets).all()
    assert (result.epochs_run.values[:3] < 300).all()
    assert result.epochs_run.values[3] == 300
    stopped = train(module, data, replicas=1, epochs=int(result.epochs_run[0]), batch_size=16)
    np.testing.assert_allclose(result.point[0], stopped.point[0], rtol=1e-8, atol=1e-10)


def test_patience_stops_a_replica_that_no_longer_improves():
    data, module = toy_data(), net()
    result = train(module, data, replicas=2, epochs=400, batch_size=8, patience=3)
    curves = result.curve_validation_loss.values
    for k in range(2):
        evaluations = round(float(result.epochs_run[k]))
        assert evaluations < 400
        assert curves[k, : evaluations - 3].min() <= curves[k, evaluations - 3 : evaluations].min()


def test_a_diverged_replica_is_marked_and_kept():
    data = toy_data()
    result = train(
        nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).double(),
        data,
        replicas=2,
        epochs=30,
        batch_size=16,
        learning_rate=[0.05, 1e300],
    )
    assert result.diverged.values.tolist() == [False, True]
    assert result.sizes["replica"] == 2
    assert np.isfinite(result.point[0]).all()
    assert not np.isfinite(result.train_loss[1])


def test_snapshots_are_log_spaced_and_end_at_the_end():
    data, module = toy_data(), net()
    result = train(module, data, replicas=2, epochs=4, batch_size=16, snapshots=6)
    steps = result.snapshot_step.values
    assert steps[0] == 0
    assert steps[-1] == 4 * 5
    assert (np.diff(steps) > 0).all()
    np.testing.assert_array_equal(result.snapshot[-1], result.point)
    starts = initial_points(module, replica_seeds(0, range(2)))
    np.testing.assert_array_equal(result.snapshot[0], starts)


def test_module_and_random_state_are_untouched():
    data, module = toy_data(), net()
    before = copy.deepcopy(module.state_dict())
    torch.manual_seed(123)
    expected = torch.rand(3)
    torch.manual_seed(123)
    train(module, data, replicas=2, epochs=1)
    assert torch.equal(torch.rand(3), expected)
    assert module.training
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])


def test_convolutions_with_batch_norm_train_too():
    data = toy_data(samples=40, inputs=16, dtype=torch.float32)
    splits = [
        Split(split.x.view(-1, 1, 4, 4), split.y)
        for split in (data.train, data.validation, data.test)
    ]
    images = Data(*splits, name="toy", classes=3, description="")
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 3),
    )
    before = copy.deepcopy(module.state_dict())
    result = train(module, images, replicas=3, epochs=20, batch_size=16, learning_rate=0.05)
    assert (result.train_error < 0.1).all()
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])


def test_digits_are_learnt():
    from spinscape.nets import datasets, models

    data = datasets.load("digits", seed=0)
    result = train(models.mlp(64, [32], 10), data, replicas=16, seed=0, epochs=60)
    assert float(result.test_error.median()) <= 0.05


def test_a_population_of_given_checkpoints_equals_the_trained_one(tmp_path):
    from safetensors.torch import save_file

    data, module = toy_data(), net()
    trained = train(module, data, replicas=2, epochs=2)
    space = WeightSpace(module)
    for k in range(2):
        state = space.state_dict(torch.from_numpy(trained.point.values[k]))
        save_file(state, tmp_path / f"{k}.safetensors")
        torch.save(state, tmp_path / f"{k}.pt")
    for suffix in ("safetensors", "pt"):
        read = population(module, sorted(tmp_path.glob(f"*.{suffix}")), data)
        np.testing.assert_array_equal(read.point, trained.point)
        np.testing.assert_allclose(read.test_loss, trained.test_loss, rtol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": 0}, "epochs=0"),
        ({"optimizer": "lbfgs"}, "optimizer='lbfgs': expected one of 'sgd', 'adam'"),
        ({"learning_rate": -1.0}, "learning_rate=-1.0"),
        ({"learning_rate": [0.1]}, "learning_rate: 1 values"),
        ({"momentum": [0.1, 0.2, 0.3], "memory": 1}, "momentum: 3 values, expected one for each"),
        ({"stop_at": [0.1]}, "stop_at: 1 values"),
        ({"patience": 0}, "patience=0"),
        ({"evaluate_every": -1}, "evaluate_every=-1"),
        (
            {"indices": [[0, 1], [2, 3]], "batches": "shared", "batch_size": 2},
            "indices.1.: .*batches='shared'",
        ),
        ({"start": torch.zeros(3, 53, dtype=torch.float64)}, "start: 3 points for 2 replicas"),
        ({"replicas": 0}, "replicas=0"),
        ({"indices": [[0]]}, "indices: 1 sets"),
        ({"indices": [[0], [999]], "batch_size": 1}, "indices.1."),
        ({"start": torch.zeros(3, dtype=torch.float64)}, "expected points of length"),
        ({"batches": "mine"}, "batches='mine'"),
        ({"penalty": lambda p: p.sum()}, "penalty: returned shape"),
        ({"snapshots": [10**6]}, "snapshots="),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, message):
    settings = {"replicas": 2, "epochs": 1, **arguments}
    with pytest.raises(ValueError, match=message):
        train(net(), toy_data(), **settings)


def test_a_module_that_cannot_initialise_itself_is_refused_or_helped():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(6, dtype=torch.float64))

        def forward(self, x):
            return x * self.scale

    module = nn.Sequential(Scale(), nn.Linear(6, 3).double())
    with pytest.raises(TypeError, match=r"pass start= .* or init="):
        train(module, toy_data(), replicas=2, epochs=1)

    def init(copied, generator):
        for parameter in copied.parameters():
            nn.init.normal_(parameter, generator=generator)

    result = train(module, toy_data(), replicas=2, epochs=1, init=init)
    assert not np.allclose(result.point[0], result.point[1])
