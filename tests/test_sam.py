"""Sharpness-aware steps and averages of points: against plain loops, and against exact laws."""

import numpy as np
import pytest
import torch
from torch import nn

import oracles
from spinscape.nets.datasets import Data, Split
from spinscape.nets.initialisation import initial_points
from spinscape.nets.orders import Order, replica_seeds
from spinscape.nets.recipes import Recipe, averaged_steps
from spinscape.nets.training import train

FALSE_ALARM = 4.0  # standard errors: once in 16 000 comparisons, were the seeds not fixed


def toy_data(samples=70, inputs=6, classes=3):
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(3 * samples, inputs, generator=generator, dtype=torch.float64)
    y = (x[:, :classes] + 0.3 * x[:, classes : 2 * classes]).argmax(1)
    splits = [Split(x[k::3], y[k::3]) for k in range(3)]
    return Data(*splits, name="toy", classes=classes, description="linear teacher")


def net(inputs=6, hidden=5, classes=3):
    return nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, classes)).double()


class Coordinate(nn.Module):
    """A network whose output is its one weight, less the input."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, x):
        return self.weight - x


def on_a_line(inputs):
    """Numbers to take from the weight; the labels do not matter."""
    x = torch.as_tensor(inputs, dtype=torch.float64)[:, None]
    split = Split(x, torch.zeros(len(x), dtype=torch.long))
    return Data(split, split, split, name="line", classes=1, description="")


def descent_on(function, starts, **settings):
    """Ends of a training whose loss is a function of the one weight."""
    result = train(
        Coordinate(),
        on_a_line([0.0, 0.0]),
        replicas=len(starts),
        start=torch.as_tensor(starts, dtype=torch.float64)[:, None],
        loss=lambda outputs, y: function(outputs).mean(),
        momentum=0.0,
        **settings,
    )
    return result.point.values[:, 0]


# Sharpness-aware steps


def sam_by_hand(module, data, point, batches, *, rho, adaptive, lr, momentum, decay):
    """One model, tensor by tensor, as the paper's algorithm 1 has it."""
    model = oracles.loaded(module, point)
    weights = list(model.parameters())
    velocity = [torch.zeros_like(weight) for weight in weights]

    def gradients(batch):
        x, y = data.train.x[batch], data.train.y[batch]
        return torch.autograd.grad(nn.functional.cross_entropy(model(x), y), weights)

    for batch in batches:
        first = gradients(batch)
        scales = [w.detach().abs() + 0.01 if adaptive else torch.ones_like(w) for w in weights]
        norm = sum((s * g).square().sum() for s, g in zip(scales, first, strict=True)).sqrt()
        kept = [weight.detach().clone() for weight in weights]
        with torch.no_grad():
            for weight, g, s in zip(weights, first, scales, strict=True):
                weight += rho * s**2 * g / norm
        second = gradients(batch)
        with torch.no_grad():
            for k, weight in enumerate(weights):
                weight.copy_(kept[k])
                velocity[k] = momentum * velocity[k] + second[k] + decay * weight
                weight -= lr * velocity[k]
    return oracles.point_of(model)


@pytest.mark.parametrize("batches", ["own", "shared"])
@pytest.mark.parametrize("optimizer", ["sam", "asam"])
def test_replicas_follow_a_plain_loop(optimizer, batches):
    data, module, rho = toy_data(), net(), [0.02, 0.1, 0.5]
    result = train(
        module,
        data,
        replicas=3,
        seed=7,
        epochs=3,
        batch_size=16,
        optimizer=optimizer,
        weight_decay=0.01,
        rho=rho,
        batches=batches,
    )
    seeds = replica_seeds(7, range(3))
    starts = initial_points(module, seeds)
    samples = torch.arange(len(data.train.x))
    for k in range(3):
        order = Order([7] if batches == "shared" else [seeds[k]], [samples], 16)
        expected = sam_by_hand(
            module,
            data,
            starts[k],
            [order.next()[0] for _ in range(3 * order.steps_per_epoch)],
            rho=rho[k],
            adaptive=optimizer == "asam",
            lr=0.1,
            momentum=0.9,
            decay=0.01,
        )
        np.testing.assert_allclose(result.point.values[k], expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("optimizer", ["sam", "asam"])
def test_no_ascent_is_plain_descent(optimizer):
    data, module = toy_data(), net()
    settings = {"replicas": 2, "epochs": 3, "batch_size": 16, "weight_decay": 0.01}
    plain = train(module, data, **settings)
    sam = train(module, data, optimizer=optimizer, rho=0.0, **settings)
    np.testing.assert_array_equal(sam.point, plain.point)


def test_each_replica_climbs_by_its_own_gradient_and_stops_by_itself():
    data, module = toy_data(), net()
    settings = {"epochs": 30, "batch_size": 16, "optimizer": "sam"}
    rho, stop_at = [0.01, 0.3, 0.05, 0.1], [0.2, 0.9, 1e-9, 0.3]
    together = train(module, data, replicas=4, rho=rho, stop_at=stop_at, **settings)
    assert len(set(together.epochs_run.values)) > 2
    for k in range(4):
        alone = train(module, data, replicas=[k], rho=rho[k], stop_at=stop_at[k], **settings)
        assert alone.epochs_run[0] == together.epochs_run[k]
        np.testing.assert_allclose(together.point[k], alone.point[0], rtol=1e-8, atol=1e-10)
    chunked = train(module, data, replicas=4, rho=rho, stop_at=stop_at, memory=1, **settings)
    np.testing.assert_allclose(together.point, chunked.point, rtol=1e-8, atol=1e-10)


def test_a_penalty_is_climbed_and_weight_decay_is_not():
    data, module = toy_data(), net()
    flat = {"loss": lambda outputs, y: 0 * outputs.sum(), "batch_size": 70, "momentum": 0.0}
    settings = {"replicas": 1, "epochs": 1, "optimizer": "sam", "rho": 0.5, **flat}
    start = initial_points(module, replica_seeds(0, [0]))[0].numpy()
    decayed = train(module, data, weight_decay=0.2, **settings)
    np.testing.assert_allclose(decayed.point[0], start * (1 - 0.1 * 0.2), rtol=1e-12)
    penalised = train(module, data, penalty=lambda p: 0.1 * p.square().sum(-1), **settings)
    top = start * (1 + 0.5 / np.linalg.norm(start))
    np.testing.assert_allclose(penalised.point[0], start - 0.1 * 0.2 * top, rtol=1e-12)


def test_training_goes_on_from_its_state_as_if_never_stopped():
    data, module = toy_data(), net()
    settings = {"replicas": 2, "seed": 2, "batch_size": 16, "optimizer": "sam"}
    whole = train(module, data, epochs=5, **settings)
    half = train(module, data, epochs=2, keep_state=True, **settings)
    rest = train(module, data, epochs=3, start=half, **settings)
    np.testing.assert_allclose(whole.point, rest.point, rtol=1e-9, atol=1e-12)


def test_a_step_in_a_bowl_is_that_of_the_formula():
    k, rho, rate, starts = 3.0, 0.2, 0.1, [-2.0, -0.1, 0.0, 0.5]
    found = descent_on(
        lambda w: k * w.square() / 2,
        starts,
        epochs=1,
        optimizer="sam",
        rho=rho,
        learning_rate=rate,
    )
    w = np.array(starts)
    np.testing.assert_allclose(found, w - rate * k * (w + rho * np.sign(w)), rtol=1e-12)


def test_sam_ends_on_a_cycle_of_known_size_about_the_bottom_of_a_bowl():
    k, rho, rate = 3.0, 0.2, 0.1
    settings = {"optimizer": "sam", "rho": rho, "learning_rate": rate}
    ends = descent_on(lambda w: k * w.square() / 2, [-2.0, 0.5], epochs=150, **settings)
    cycle = rate * k * rho / (2 - rate * k)  # w − ηk(w + ρ) = −w
    np.testing.assert_allclose(np.abs(ends), cycle, rtol=1e-9)


def test_sam_leaves_a_sharp_minimum_for_a_flat_one():
    """Its cycle, ηkρ/(2 − ηk), is wider than the sharp well, where plain descent comes to rest."""

    def two_wells(w):
        """Curvature 100 at −1 and 4 at 1; the sharp well ends 1/3 right of its bottom."""
        return torch.minimum(50 * (w + 1) ** 2, 2 * (w - 1) ** 2)

    starts = np.linspace(-1.4, 1.5, 31)  # none at a bottom, where there is no gradient
    settings = {"epochs": 200, "learning_rate": 0.018, "evaluate_every": 200}
    plain = descent_on(two_wells, starts, **settings)
    np.testing.assert_allclose(plain, np.where(starts < -2 / 3, -1, 1), atol=1e-3)
    sam = descent_on(two_wells, starts, optimizer="sam", rho=0.05, **settings)
    np.testing.assert_allclose(sam, 1, atol=0.072 * 0.05 / (2 - 0.072) + 1e-3)


def test_modules_with_batch_norm_take_the_second_gradient_in_training_mode():
    data, module = toy_data(), nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    module = module.double()
    found = train(module, data, epochs=1, steps=1, batch_size=70, optimizer="sam", rho=0.3)
    model = oracles.loaded(module, initial_points(module, replica_seeds(0, [0]))[0]).train()
    weights = list(model.parameters())

    def gradients():
        loss = nn.functional.cross_entropy(model(data.train.x), data.train.y)
        return torch.autograd.grad(loss, weights)

    before, first = oracles.point_of(model), gradients()
    norm = oracles.flat(first).norm()
    with torch.no_grad():
        for weight, g in zip(weights, first, strict=True):
            weight += 0.3 * g / norm
    expected = before - 0.1 * oracles.flat(gradients())
    np.testing.assert_allclose(found.point[0], expected, rtol=1e-9, atol=1e-12)


# Averages of points


@pytest.mark.parametrize(("share", "every"), [(0.5, None), (0.0, 1), (0.7, 3)])
def test_the_average_is_the_mean_of_the_points_after_those_steps(share, every):
    data, module = toy_data(), net()
    steps = 4 * 5
    wanted = [s for s in range(1, steps + 1) if s > share * steps and s % (every or 5) == 0]
    result = train(
        module,
        data,
        replicas=3,
        epochs=4,
        batch_size=16,
        average_from=share,
        average_every=every,
        snapshots=wanted,
    )
    assert result.averaged.values.tolist() == [len(wanted)] * 3
    np.testing.assert_allclose(result.average, result.snapshot.values.mean(0), rtol=1e-12)
    plain = train(module, data, replicas=3, epochs=4, batch_size=16)
    np.testing.assert_array_equal(result.point, plain.point)
    assert "average" not in plain


def test_a_replica_is_averaged_until_it_stops():
    data, module = toy_data(), net()
    settings = {"replicas": 3, "epochs": 12, "batch_size": 16, "stop_at": [1e9, 0.35, 1e-9]}
    result = train(
        module, data, average_from=0.2, snapshots=[5 * e for e in range(1, 13)], **settings
    )
    stopped = result.epochs_run.values.astype(int)
    assert stopped[0] == 1
    assert 4 < stopped[1] < 12
    assert result.averaged.values.tolist() == [0, stopped[1] - 2, 10]
    assert np.isnan(result.average[0]).all()
    along = result.snapshot.values
    np.testing.assert_allclose(result.average[1], along[2 : stopped[1], 1].mean(0), rtol=1e-12)
    np.testing.assert_allclose(result.average[2], along[2:, 2].mean(0), rtol=1e-12)
    chunked = train(module, data, average_from=0.2, memory=1, **settings)
    np.testing.assert_allclose(chunked.average, result.average, rtol=1e-8, atol=1e-10)


def test_averaging_takes_the_noise_of_the_batches_away_as_the_law_says():
    """In a bowl w' = (1−ηk) w + ηk b is linear in the batch means b, whose covariance is known."""
    k, rate, size, epochs, replicas = 2.0, 0.2, 4, 12, 800
    inputs = np.random.default_rng(3).standard_normal(40)
    per_epoch, steps = 10, 120
    result = train(
        Coordinate(),
        on_a_line(inputs),
        replicas=replicas,
        seed=4,
        start=torch.tensor([inputs.mean()]),
        loss=lambda outputs, y: k * outputs.square().mean() / 2,
        epochs=epochs,
        batch_size=size,
        learning_rate=rate,
        momentum=0.0,
        evaluate_every=steps,
        average_from=0.5,
        average_every=1,
    )
    # Batches without replacement: variance S²(1/B − 1/N), covariance −S²/N within an epoch.
    spread = inputs.var(ddof=1)
    block = spread * (np.eye(per_epoch) / size - 1 / len(inputs))
    covariance = np.kron(np.eye(epochs), block)
    lag = np.subtract.outer(np.arange(steps), np.arange(steps))
    response = np.where(lag >= 0, rate * k * (1 - rate * k) ** np.maximum(lag, 0), 0.0)
    last, mean = response[-1], response[steps // 2 :].mean(0)
    for name, row in (("point", last), ("average", mean)):
        expected = row @ covariance @ row
        found = ((result[name].values[:, 0] - inputs.mean()) ** 2).mean()
        assert abs(found / expected - 1) < FALSE_ALARM * np.sqrt(2 / replicas), name
    assert mean @ covariance @ mean < 0.01 * (last @ covariance @ last)


# Settings


def test_the_usual_rho_is_recorded_and_another_optimiser_has_none():
    assert Recipe(epochs=1, optimizer="sam").rho == 0.05
    assert Recipe(epochs=1, optimizer="asam").rho == 0.5
    assert Recipe(epochs=1).rho is None
    assert '"rho": 0.05' in Recipe(epochs=1, optimizer="sam").describe()


def test_averaged_steps_are_multiples_after_the_share():
    def steps(share, every=None):
        recipe = Recipe(epochs=4, average_from=share, average_every=every)
        return list(averaged_steps(recipe, 100, 120, 5))

    assert steps(0.5) == [115, 120]
    assert steps(0.0, 6) == [106, 112, 118]
    assert list(averaged_steps(Recipe(epochs=4), 100, 120, 5)) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rho": 0.1}, "rho=0.1: 'sgd' has no such setting; use optimizer='sam'"),
        ({"optimizer": "sam", "rho": -0.1}, "rho=-0.1: expected numbers ≥ 0"),
        ({"optimizer": "sam", "rho": [0.1]}, "rho: 1 values, expected one for each of 2"),
        ({"average_from": 1.0}, "average_from=1.0: expected the share"),
        ({"average_from": 0.5, "average_every": 0}, "average_every=0"),
        ({"average_every": 3}, "average_every=3: nothing is averaged without average_from="),
        ({"average_from": 0.9, "average_every": 9}, "no step of 10 lies on a multiple of"),
    ],
)
def test_bad_settings_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        train(net(), toy_data(), replicas=2, epochs=2, batch_size=16, **arguments)
