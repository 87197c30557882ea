"""Replicas trained side by side, alone, in chunks, and one after another by plain PyTorch."""

import random

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import oracles
from spinscape.nets.datasets import Data, Split
from spinscape.nets.initialisation import initial_points
from spinscape.nets.models import cnn, mlp
from spinscape.nets.orders import Order, replica_seeds
from spinscape.nets.training import train

KINDS = [(o, b) for o in ("sgd", "adam") for b in ("own", "shared")]


def toy(samples=70, shape=(6,), dtype=torch.float64):
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(3 * samples, *shape, generator=generator, dtype=dtype)
    y = x.flatten(1)[:, :3].argmax(1)
    splits = [Split(x[k::3], y[k::3]) for k in range(3)]
    return Data(*splits, name="toy", classes=3)


def net():
    return mlp(6, [5], 3, activation="tanh").double()


def equal(found, expected):
    assert set(found.variables) == set(expected.variables)
    xr.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("optimizer", "batches"), KINDS)
def test_a_replica_does_not_know_its_companions(optimizer, batches):
    settings = {"optimizer": optimizer, "batches": batches, "batch_size": 16, "epochs": 3}
    settings |= {"snapshots": 4, "keep_state": True, "weight_decay": 0.01, "schedule": "cosine"}
    together = train(net(), toy(), replicas=5, seed=1, **settings)
    alone = train(net(), toy(), replicas=[3], seed=1, **settings)
    some = train(net(), toy(), replicas=[4, 3, 0], seed=1, **settings)
    equal(alone, together.sel(replica=[3]))
    equal(some, together.sel(replica=[4, 3, 0]))
    equal(train(net(), toy(), replicas=5, seed=1, memory=1, **settings), together)
    assert len(np.unique(together.seed)) == 5


@pytest.mark.parametrize("stop", [{"stop_at": [0.6, 0.3, 0.45]}, {"patience": 2}])
def test_chunks_change_nothing_when_replicas_stop_early(stop):
    settings = {"replicas": 3, "seed": 2, "epochs": 40, "batch_size": 8, "keep_state": True}
    settings |= {"momentum": [0.9, 0.0, 0.5], "evaluate_every": 3, "snapshots": [0, 5, 200], **stop}
    whole = train(net(), toy(), **settings)
    assert len(np.unique(whole.epochs_run)) == 3
    cut = train(net(), toy(), memory=1, **settings)
    equal(cut, whole)
    assert cut.attrs == whole.attrs
    for k in range(3):
        ran = np.searchsorted(whole.epoch, whole.epochs_run[k])
        curve = whole.curve_train_loss.values[k]
        assert (curve[ran:] == curve[ran]).all()
        assert curve[-1] == pytest.approx(float(whole.train_loss[k]), rel=1e-12)


def test_chunks_change_nothing_with_subsets_of_unequal_lengths():
    indices = [torch.arange(40), torch.arange(20, 28), torch.arange(5, 60)]
    settings = {"replicas": 3, "seed": 2, "epochs": 3, "batch_size": 8, "indices": indices}
    whole = train(net(), toy(), **settings)
    equal(train(net(), toy(), memory=1, **settings), whole)
    assert whole.curve_train_loss.sizes["epoch"] == 3


def test_subsets_of_others_change_nothing():
    indices = [torch.arange(40), torch.arange(20, 29), torch.arange(5, 60)]
    settings = {"seed": 2, "epochs": 3, "batch_size": 8}
    together = train(net(), toy(), replicas=3, indices=indices, **settings)
    alone = train(net(), toy(), replicas=[1], indices=indices[1:2], **settings)
    equal(alone, together.sel(replica=[1]))
    with pytest.raises(ValueError, match=r"^indices\[1\]: 9 samples are fewer than batch_size=10"):
        train(net(), toy(), replicas=3, indices=indices, **settings | {"batch_size": 10})


def test_what_train_cannot_do_is_refused_by_name():
    frozen = net()
    frozen[0].weight.requires_grad_(False)
    with pytest.raises(ValueError, match=r"^module: '0.weight' has requires_grad=False"):
        train(frozen, toy())
    with pytest.raises(TypeError, match=r"^lr: no such setting of train"):
        train(net(), toy(), lr=0.1)
    with pytest.raises(TypeError, match=r"^data: got Split, expected the three splits"):
        train(net(), toy().train)
    with pytest.raises(ValueError, match=r"^momentum=1.5: expected numbers below 1"):
        train(net(), toy(), momentum=1.5)


def test_a_diverging_companion_is_marked_and_disturbs_nobody():
    rates = [0.05, 1e300, 0.1]
    module = mlp(6, [5], 3).double()
    settings = {"seed": 3, "epochs": 4, "batch_size": 16}
    result = train(module, toy(), replicas=3, learning_rate=rates, **settings)
    assert result.diverged.values.tolist() == [False, True, False]
    assert result.epochs_run.values.tolist() == [4, 1, 4]
    assert result.train_error.isnull().values.tolist() == [False, True, False]
    healthy = train(module, toy(), replicas=[0, 2], learning_rate=rates[::2], **settings)
    equal(healthy, result.sel(replica=[0, 2]))


@pytest.mark.parametrize(("optimizer", "batches"), KINDS)
def test_a_continued_training_is_one_that_never_stopped(optimizer, batches):
    settings = {"replicas": [1, 4], "seed": 2, "batch_size": 16, "weight_decay": 0.01}
    settings |= {"optimizer": optimizer, "batches": batches, "keep_state": True}
    whole = train(net(), toy(), epochs=6, **settings)
    part = train(net(), toy(), epochs=2, **settings)
    for _ in range(2):
        part = train(net(), toy(), epochs=2, start=part, memory=1, **settings)
    assert whole.attrs["step"] == part.attrs["step"]
    np.testing.assert_array_equal(part.epoch, whole.epoch[4:])
    equal(
        part.drop_dims("epoch").drop_vars("epochs_run"),
        whole.drop_dims("epoch").drop_vars("epochs_run"),
    )


def test_a_training_that_stopped_early_goes_on_where_it_stopped():
    settings = {"seed": 2, "batch_size": 16, "optimizer": "adam", "keep_state": True}
    early = train(net(), toy(), epochs=200, stop_at=0.5, learning_rate=0.02, **settings)
    ran = int(early.epochs_run[0])
    assert 1 < ran < 100
    late = train(net(), toy(), epochs=2, start=early, learning_rate=0.02, **settings)
    whole = train(net(), toy(), epochs=ran + 2, learning_rate=0.02, **settings)
    np.testing.assert_allclose(late.point, whole.point, rtol=1e-9, atol=1e-12)


def plain_loop(module, point, data, steps, seed, optimizer, scheduler=None, extra=None):
    """One model, trained by PyTorch on the mini-batches of its replica."""
    model = oracles.loaded(module, point).train()
    optimizer = optimizer(model.parameters())
    scheduler = scheduler and torch.optim.lr_scheduler.LambdaLR(optimizer, scheduler)
    order = Order([seed], [torch.arange(len(data.train.x))], 16)
    for _ in range(steps):
        batch = order.next()[0]
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(data.train.x[batch]), data.train.y[batch])
        if extra is not None:
            loss = loss + extra(torch.cat([p.flatten() for p in model.parameters()]))
        loss.backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
    return oracles.point_of(model)


SCHEDULES = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1 - done,
    "cosine": lambda done: (1 + np.cos(np.pi * done)) / 2,
}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_schedules_and_settings_of_each_replica_are_those_of_torch(optimizer, schedule):
    data, module, seeds = toy(), net(), replica_seeds(6, range(2))
    rates, momenta, decays = [0.1, 0.03], [0.0, 0.8], [0.02, 0.0]
    settings = {"learning_rate": rates, "momentum": momenta, "weight_decay": decays}
    settings |= {"optimizer": optimizer, "schedule": schedule, "batch_size": 16}
    found = train(module, data, replicas=2, seed=6, epochs=2, **settings)
    for k, (lr, momentum, decay) in enumerate(zip(rates, momenta, decays, strict=True)):

        def make(parameters, lr=lr, momentum=momentum, decay=decay):
            if optimizer == "sgd":
                return torch.optim.SGD(parameters, lr, momentum, weight_decay=decay)
            return torch.optim.Adam(parameters, lr, (momentum, 0.999), weight_decay=decay)

        def scheduled(step):
            return SCHEDULES[schedule](step / 10)

        start = initial_points(module, seeds)[k]
        expected = plain_loop(module, start, data, 10, seeds[k], make, scheduled)
        np.testing.assert_allclose(found.point[k], expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("gradients", [True, False])
def test_a_penalty_pulls_by_its_gradient(gradients):
    data, module, seeds = toy(), net(), replica_seeds(7, range(2))

    def penalty(points):
        return 0.01 * points.abs().sum(-1) + points[..., 0] ** 4

    with torch.set_grad_enabled(gradients):
        found = train(module, data, replicas=2, seed=7, epochs=2, batch_size=16, penalty=penalty)
    for k, start in enumerate(initial_points(module, seeds)):
        expected = plain_loop(
            module, start, data, 10, seeds[k], lambda p: torch.optim.SGD(p, 0.1, 0.9), extra=penalty
        )
        np.testing.assert_allclose(found.point[k], expected, rtol=1e-9, atol=1e-11)


def test_one_step_is_the_formula():
    data, module = toy(), net()
    start = torch.randn(2, 53, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    models = oracles.models_at(module, start)
    gradient = oracles.gradients_at(models, *data.train)
    settings = {"replicas": 2, "epochs": 1, "batch_size": 70, "learning_rate": 0.3, "start": start}
    sgd = train(module, data, weight_decay=0.1, **settings).point
    np.testing.assert_allclose(sgd, start - 0.3 * (gradient + 0.1 * start), rtol=1e-10)
    adam = train(module, data, optimizer="adam", **settings).point
    np.testing.assert_allclose(adam, start - 0.3 * gradient / (gradient.abs() + 1e-8), rtol=1e-9)
    common = train(module, data, **{**settings, "start": start[0]}).point
    np.testing.assert_allclose(common[0], common[1], rtol=1e-12)


def test_snapshots_lie_on_a_logarithmic_scale():
    found = train(net(), toy(), epochs=40, batch_size=16, snapshots=9)
    steps = found.snapshot_step.values + 1
    assert (steps[0], steps[-1]) == (1, 201)
    assert len(steps) == 9
    assert (np.abs(np.diff(np.log(steps)) - np.log(201) / 8) < 1 / steps[:-1]).all()  # rounding
    chosen = train(net(), toy(), epochs=2, batch_size=16, snapshots=[7, 3])
    assert chosen.snapshot_step.values.tolist() == [3, 7]
    part = train(net(), toy(), epochs=1, batch_size=16, snapshots=[3]).snapshot
    np.testing.assert_allclose(chosen.snapshot[0], part[0], rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_convolutions_with_batch_norm_follow_a_plain_loop(dtype):
    data, module = toy(48, (1, 6, 6), dtype), cnn(1, 3, width=2).double()
    settings = {"replicas": 2, "seed": 9, "epochs": 2, "batch_size": 16, "learning_rate": 0.05}
    found = train(module, data, **settings)
    equal(train(module, data, memory=1, **settings), found)
    seeds = replica_seeds(9, range(2))
    exact = Data(*(Split(x.double(), y) for x, y in data.splits.values()), "toy", 3)
    for k, start in enumerate(initial_points(module, seeds)):
        expected = plain_loop(
            module, start, exact, 6, seeds[k], lambda p: torch.optim.SGD(p, 0.05, 0.9)
        )
        np.testing.assert_allclose(found.point[k], expected, rtol=1e-8, atol=1e-10)
        models = oracles.models_at(module, expected[None], exact.train.x)
        known = float(oracles.losses_at(models, *exact.test))
        assert float(found.test_loss[k]) == pytest.approx(known, rel=1e-6)


def test_dropout_is_drawn_by_each_replica_for_itself():
    module = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 3)).double()
    settings = {"seed": 4, "epochs": 2, "batch_size": 16}
    torch.manual_seed(1)
    together = train(module, toy(), replicas=3, **settings)
    torch.manual_seed(2)
    equal(train(module, toy(), replicas=[2], **settings), together.sel(replica=[2]))
    plain = train(nn.Sequential(module[0], module[2]), toy(), replicas=3, **settings)
    assert not np.allclose(plain.point, together.point, rtol=1e-3)


def test_parameters_without_axes_are_trained():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))

        def forward(self, x):
            return self.scale * x[:, :3]

    found = train(Scaled(), toy(), replicas=2, epochs=3, start=torch.ones(1).double())
    assert found.point.shape == (2, 1)
    assert (found.point > 1).all()


def test_other_random_states_stay_as_they_were(monkeypatch):
    def refuse(*_):
        raise AssertionError("accelerators were reseeded")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", refuse)
    before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    train(net(), toy(), replicas=2, epochs=1)
    assert before == (random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002
