"""Asymmetric valleys: analytic indices, a demonstration with a known answer, and explanations."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import nn

from spinscape import Landscape, datasets, models, points, train
from spinscape.valleys import asymmetry, directions, mechanism
from spinscape.valleys.lopsided import lopsidedness

LAM = np.linspace(-1, 1, 41)


def test_index_of_curves_with_known_means():
    plus, minus, index = lopsidedness(LAM, np.where(LAM > 0, LAM, -3 * LAM))
    assert (plus, minus) == (pytest.approx(0.5), pytest.approx(1.5))
    assert index == pytest.approx(0.5)
    assert lopsidedness(LAM, LAM**2)[2] == pytest.approx(0)
    assert lopsidedness(LAM, np.zeros(41))[2] == 0
    mirrored = lopsidedness(LAM, np.stack([np.exp(LAM), np.exp(-LAM)]))[2]
    assert mirrored[0] == pytest.approx(-mirrored[1])


def test_a_side_that_is_not_finite_has_no_mean():
    curve = LAM**2 + 1
    curve[-1] = np.inf
    plus, minus, index = lopsidedness(LAM, curve)
    assert np.isnan(plus)
    assert np.isfinite(minus)
    assert np.isnan(index)


@pytest.fixture(scope="module")
def logistic():
    """Raw pixels 0 to 16, all 1,797 samples; known: Gaussian 8 of 20 seeds, consistent 20 of 20."""
    x, y = load_digits(return_X_y=True)
    fitted = LogisticRegression(max_iter=500, fit_intercept=False).fit(x, y)
    module = nn.Linear(64, 10, bias=False).double()
    module.weight.data = torch.as_tensor(fitted.coef_)
    return Landscape(module, torch.as_tensor(x), torch.as_tensor(y)), torch.as_tensor(
        fitted.coef_
    ).flatten()


def test_logistic_regression_is_lopsided_along_its_signs_alone(logistic):
    landscape, point = logistic
    noise = directions.gaussian(point, range(20))
    ends = torch.tensor([-1.0, 1.0])
    for drawn, low, high in (
        (noise, 3, 17),  # half of 20, within 3.1 standard errors
        (directions.sign_consistent(noise, point), 20, 20),
    ):
        loss, _ = landscape.lines(point.expand(20, -1), drawn, ends)
        flatter = int((loss[:, 1] < loss[:, 0]).sum())
        assert low <= flatter <= high


def test_asymmetry_finds_the_same(logistic):
    landscape, point = logistic
    length = float(directions.gaussian(point, [0]).norm() / point.norm())  # as unscaled noise
    found = asymmetry(
        landscape,
        point,
        noises=("gaussian", "uniform"),
        specials=("point", "sgp"),
        ratios=(0, 0.5, 1),
        seeds=6,
        s=length,
    )
    index = found["index"].sel(metric="loss")
    assert float(index.sel(signs="given").min()) > 0.5
    assert abs(float(index.sel(signs="own").mean())) < 0.2
    assert float(found["ratio_correlation_low"].sel(metric="loss")) > 0
    # At ratios 0 and 1 the sweep is the noise as drawn and the noise with all signs.
    swept = found["ratio_index"]
    both = found["index"].sel(noise="gaussian")
    for ratio, signs in ((0, "own"), (1, "given")):
        np.testing.assert_allclose(swept.sel(ratio=ratio), both.sel(signs=signs))
    control = found["control_index"]
    np.testing.assert_allclose(control.sel(control="ordinary"), both.sel(signs="own"))
    np.testing.assert_allclose(control.sel(control="consistent"), both.sel(signs="given"))


def test_noise_with_the_signs_of_theta_mirrored_has_the_index_mirrored(logistic):
    landscape, point = logistic
    kinds = {"noises": ("gaussian",), "specials": (), "ratios": (0, 0.5, 1), "seeds": 2}
    found = asymmetry(landscape, point, **kinds)
    noise = directions.scaled(directions.gaussian(point, [0, 1]), point, landscape.space)
    loss, _ = landscape.lines(point.expand(2, -1), -noise, torch.as_tensor(LAM))
    expected = found["curve"].sel(noise="gaussian", signs="own", metric="loss").values[:, ::-1]
    np.testing.assert_allclose(loss, expected)


@pytest.fixture(scope="module")
def trained():
    data = datasets.load("digits", seed=0)
    module = models.mlp(64, [32], 10).double()
    result = train(module, data, replicas=1, epochs=30, seed=0)
    x, y = data.test
    return Landscape(module, x.double(), y), points(result)[0], module


def test_a_group_alone_is_moved(trained):
    landscape, point, module = trained
    found = asymmetry(
        landscape, point, noises=("gaussian",), specials=(), ratios=(0, 1), seeds=2,
        group="classifier",
    )  # fmt: skip
    group = directions.members(module, "classifier")
    noise = directions.restricted(directions.gaussian(point, [0, 1]), group)
    scaled = directions.scaled(noise, point * group, landscape.space)
    loss, _ = landscape.lines(point.expand(2, -1), scaled, torch.as_tensor(LAM))
    measured = found["curve"].sel(noise="gaussian", signs="own", metric="loss")
    np.testing.assert_allclose(measured, loss)


def test_mechanism_against_plain_formulas(trained):
    landscape, point, _ = trained
    direction = directions.scaled(directions.gaussian(point, [3]), point, landscape.space)
    found = mechanism(landscape, point, direction, [-1.0, 0.0, 1.0], samples=50)
    x, y = landscape.x[:50], landscape.y[:50]
    hidden = {}
    for k, lam in enumerate((-1.0, 0.0, 1.0)):
        parts = landscape.space.unflatten(point + lam * direction[0])
        first, bias, second, last = parts.values()
        hidden[lam] = (x @ first.T + bias).relu()
        logits = hidden[lam] @ second.T + last
        p = logits.softmax(1)
        blocks = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
        augmented = torch.cat([hidden[lam], torch.ones(50, 1, dtype=p.dtype)], 1)
        outer = augmented[:, :, None] * augmented[:, None, :]
        trace = torch.stack(
            [torch.trace(torch.kron(a, b)) for a, b in zip(blocks, outer, strict=True)]
        )
        np.testing.assert_allclose(found["trace"].values[0, k], trace.mean(), rtol=1e-8)
        own = logits[torch.arange(50), y]
        other = logits.scatter(1, y[:, None], -torch.inf).amax(1)
        np.testing.assert_allclose(found["margin"].values[0, k], (own - other).mean(), rtol=1e-8)
        active = float((hidden[lam] > 0).double().mean())
        np.testing.assert_allclose(found["active"].values[0, k], active)
    agreement = ((hidden[1.0] > 0) == (hidden[0.0] > 0)).double().mean()
    np.testing.assert_allclose(found["agreement"].values[0, 2], agreement)
    assert found["agreement"].values[0, 1] == 1


def test_the_trace_is_that_of_the_last_layers_hessian(trained):
    landscape, point, _ = trained
    x, y = landscape.x[:20], landscape.y[:20]
    first, bias, second, last = landscape.space.unflatten(point).values()
    hidden = (x @ first.T + bias).relu()

    def loss(flat):
        weight, offset = flat[:320].view(10, 32), flat[320:]
        return nn.functional.cross_entropy(hidden @ weight.T + offset, y)

    dense = torch.func.hessian(loss)(torch.cat([second.flatten(), last]))
    direction = directions.gaussian(point, [0])
    found = mechanism(landscape, point, direction, [0.0], samples=20)
    np.testing.assert_allclose(found["trace"].values[0, 0], torch.trace(dense), rtol=1e-8)


def test_mechanism_re_estimates_statistics_and_leaves_the_module():
    module = models.cnn(1, 3).double()
    x = torch.rand(30, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    landscape = Landscape(module, x, torch.arange(30) % 3)
    point = landscape.space.point(module).detach()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    found = mechanism(landscape, point, directions.gaussian(point, [0, 1]), LAM[::10])
    assert np.isfinite(found.to_dataarray()).all()
    assert (found["agreement"].sel(lam=0) == 1).all()
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"seeds": 1}, "seeds=1"),
        ({"lam": [-1.0, 0.0, 0.5]}, "symmetric"),
        ({"noises": ("brown",)}, "kind='brown'"),
        ({"specials": ("initial",)}, "initial="),
        ({"group": "nothing"}, "group='nothing'"),
        ({"scaling": "row"}, "scaling='row'"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(logistic, changed, words):
    few = {"noises": ("gaussian",), "specials": (), "ratios": (0, 1), "seeds": 2}
    with pytest.raises(ValueError, match=words) as told:
        asymmetry(*logistic, **{**few, **changed})
    assert "\n" not in str(told.value)


def test_mechanism_needs_labels_and_a_linear_last_layer(logistic):
    x = torch.rand(8, 4)
    regression = Landscape(nn.Linear(4, 1), x, torch.rand(8, 1), loss="mse")
    with pytest.raises(ValueError, match="class label"):
        mechanism(regression, torch.zeros(5), torch.ones(1, 5), LAM)
    module = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3))
    normed = Landscape(module, x, torch.arange(8) % 3)
    point = normed.space.point(module).detach()
    with pytest.raises(ValueError, match="LayerNorm"):
        mechanism(normed, point, point[None] + 1, LAM)
