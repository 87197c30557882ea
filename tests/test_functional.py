"""How alike networks compute: agreement and CKA by definition, and families among functions."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import oracles
from spinscape import parallel
from spinscape.glass.trees import functional, mixing
from spinscape.glass.trees.clustering import hierarchy, hierarchy_findings
from spinscape.glass.trees.functional import FUNCTIONAL, functional_distances
from spinscape.glass.trees.mixing import FunctionStar, draw_overlaps
from spinscape.glass.trees.ultrametricity import hed_young_domany_k
from spinscape.landscape.energy import Landscape
from spinscape.statistics import p_value

FALSE_ALARM = 4.0  # standard errors
SHALLOW = nn.Sequential(nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 4)).double()
DEEP = nn.Sequential(
    *(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
).double()


class Bent(nn.Module):
    """A network whose symmetry is not known."""

    def __init__(self):
        super().__init__()
        self.layer, self.last = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.last(x + torch.relu(self.layer(x)))


def noise(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def landscape_of(module, samples=50, inputs=6):
    return Landscape(module, noise(samples, inputs, seed=1), torch.zeros(samples, dtype=torch.long))


def points_for(module, count=5):
    return noise(count, sum(p.numel() for p in module.parameters()), seed=2)


def cka_by_definition(a, b):
    """tr(KHLH) / √(tr(KHKH) tr(LHLH)), with the centring matrix H written out."""
    kernels = [f.numpy() @ f.numpy().T for f in (a, b)]
    centring = np.eye(len(a)) - 1 / len(a)

    def hsic(k, l):
        return np.trace(k @ centring @ l @ centring)

    k, l = kernels
    return hsic(k, l) / np.sqrt(hsic(k, k) * hsic(l, l))


@pytest.mark.parametrize("module", [SHALLOW, DEEP], ids=["shallow", "deep"])
@pytest.mark.parametrize("kind", FUNCTIONAL)
def test_overlaps_are_those_of_their_definition(module, kind, monkeypatch):
    landscape, points = landscape_of(module), points_for(module)
    balanced = [oracles.balanced(module, point) for point in points]
    models = oracles.models_at(module, torch.stack(balanced))
    outputs = oracles.outputs_at(models, landscape.x)
    hidden = oracles.outputs_at([model[:-1] for model in models], landscape.x)
    if kind == "agreement":
        found = outputs.argmax(2)
        expected = [[float((a == b).double().mean()) for b in found] for a in found]
    else:
        features = hidden if kind == "cka" else outputs
        expected = [[cka_by_definition(a, b) for b in features] for a in features]
    dataset = functional_distances(landscape, points, kind=kind)
    np.testing.assert_allclose(dataset.overlap, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(dataset.distance, 1 - np.array(expected), rtol=0, atol=1e-12)
    assert (np.diag(dataset.distance) == 0).all()
    assert dataset.distance.attrs["long_name"] == FUNCTIONAL[kind]
    monkeypatch.setattr(functional, "PIECE_ELEMENTS", 64)
    np.testing.assert_allclose(functional_distances(landscape, points, kind=kind).overlap, expected)


@pytest.mark.parametrize("kind", FUNCTIONAL)
def test_copies_compute_the_same_and_single_precision_is_enough(kind):
    landscape, net = landscape_of(SHALLOW), points_for(SHALLOW)[0]
    copies = torch.stack([oracles.hidden_copy(SHALLOW, net, seed=k)[0] for k in range(4)])
    found = functional_distances(landscape, copies, kind=kind).distance
    np.testing.assert_allclose(found, 0, atol=1e-12)
    points = points_for(SHALLOW)
    exact = functional_distances(landscape, points, kind=kind).distance
    single = functional_distances(landscape, points.float(), kind=kind).distance
    np.testing.assert_allclose(single, exact, atol=1e-5)


def test_linear_maps_have_the_cka_of_their_gram_matrices():
    """On whitened samples ⟨K, L⟩ is that of WᵀW and VᵀV; rotated and scaled maps are alike."""
    x = noise(40, 6, seed=3)
    x = torch.linalg.qr(x - x.mean(0)).Q
    module = nn.Linear(6, 3, bias=False).double()
    first = torch.eye(6, dtype=torch.float64)[:3]
    maps = [first, first.flip(0) * 5, torch.eye(6).double()[3:], torch.eye(6).double()[1:4]]
    landscape = Landscape(module, x, torch.zeros(40, dtype=torch.long))
    points = torch.stack([one.flatten() for one in maps])
    found = functional_distances(landscape, points, kind="cka_outputs").overlap.values
    np.testing.assert_allclose(found[0], [1, 1, 0, 2 / 3], atol=1e-12)


def test_a_network_of_unknown_symmetry_is_compared_by_what_it_computes():
    module = Bent().double()
    found = hierarchy(
        module, points_for(module, 6), distance="agreement", landscape=landscape_of(module),
        surrogates=3, seed=0,
    )  # fmt: skip
    assert found.null.values.tolist() == ["star", "function star"]
    assert found.judged.values.tolist() == [False, True]
    with pytest.raises(ValueError, match=r"^kind='cka': hidden units are known .* 'Bent' is not"):
        functional_distances(landscape_of(module), points_for(module), kind="cka")


def low_rank(count, samples, classes, rank, seed):
    generator = torch.Generator().manual_seed(seed)
    draw = partial(torch.randn, generator=generator, dtype=torch.float64)
    beyond = draw(count, rank) @ draw(rank, samples * classes)
    return draw(1, samples, classes) + beyond.view(count, samples, classes)


def test_a_surrogate_keeps_the_mean_and_how_far_each_is_from_it():
    outputs = low_rank(8, 30, 4, rank=5, seed=4)
    null = FunctionStar("function star", (3,), outputs, None)
    rotation = mixing._mixing(8, np.random.default_rng(0))
    np.testing.assert_allclose(rotation @ np.ones(8), 0, atol=1e-12)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(8) - 1 / 8, atol=1e-12)
    beyond = (outputs - outputs.mean(0)).flatten(1).numpy()
    drawn = rotation @ beyond
    drawn *= np.linalg.norm(beyond, axis=1, keepdims=True) / np.linalg.norm(drawn, axis=1)[:, None]
    expected = outputs.mean(0).flatten().numpy() + drawn
    found = mixing._mixed_vectors(outputs, rotation)
    np.testing.assert_allclose(found.flatten(1), expected, rtol=1e-10)
    norms = np.linalg.norm(expected, axis=1)
    products = mixing._mixed_products((outputs.flatten(1) @ outputs.flatten(1).T).numpy(), rotation)
    np.testing.assert_allclose(products, expected @ expected.T / norms / norms[:, None], rtol=1e-9)
    again = [draw_overlaps(null, k, seed=0) for k in (2, 2, 3)]
    assert (again[0] == again[1]).all()
    assert (again[0] != again[2]).any()


@pytest.mark.parametrize("kind", ["agreement", "products"])
def test_functions_without_families_are_like_their_function_star(kind):
    """Gaussian functions of three effective dimensions, in which K is small whatever they do.

    The norms given back make p a little too small; it is the factor .7 that keeps the rate.
    """
    repeats, surrogates, ratios, supported = 60, 39, [], 0
    for seed in range(repeats):
        outputs = low_rank(12, 40, 3, rank=3, seed=100 + seed)
        if kind == "agreement":
            null = FunctionStar("function star", (3,), outputs - outputs.mean(2, True), None)
            predicted = outputs.argmax(2).numpy()
            overlap = (predicted[:, None] == predicted).mean(2)
        else:
            vectors = torch.nn.functional.normalize(outputs.flatten(1), dim=1).numpy()
            overlap = vectors @ vectors.T
            null = FunctionStar("function star", (3,), None, overlap)
        drawn = [hed_young_domany_k(1 - draw_overlaps(null, k, seed=0)) for k in range(surrogates)]
        K = hed_young_domany_k(1 - overlap)
        ratios.append(K / np.mean(drawn))
        supported += p_value(K, drawn) <= 1 / 40 and ratios[-1] <= 0.7
    assert 0.93 < np.mean(ratios) < 1.03
    assert supported <= 0.01 * repeats + FALSE_ALARM * np.sqrt(0.01 * 0.99 * repeats)


LINEAR = nn.Linear(12, 5).double()


def in_functions(points, kind, module=LINEAR, surrogates=100):
    landscape = landscape_of(module, samples=100, inputs=12)
    dataset = hierarchy(
        None, points, distance=kind, landscape=landscape, surrogates=surrogates, seed=5
    )
    return dataset, hierarchy_findings(dataset)


@pytest.mark.parametrize("kind", ["agreement", "cka_outputs"])
def test_families_of_functions_are_told_from_a_common_function_with_noise(kind):
    tree = noise(1, 65, seed=6) + oracles.planted_tree((3, 3, 3), (0.8, 0.3, 0.06), 65, seed=0)
    dataset, findings = in_functions(tree, kind)
    assert [finding.verdict for finding in findings] == ["supported", "supported"]
    assert dataset.cluster_size.values.tolist() == [9, 9, 9]
    one_level = noise(1, 65, seed=6) + oracles.planted_tree((3, 8), (0.8, 0.1), 65, seed=1)
    _, findings = in_functions(one_level, kind)
    assert [finding.verdict for finding in findings] == ["supported", "not supported"]
    star = noise(1, 65, seed=7) + 0.3 * noise(24, 65, seed=8)
    dataset, findings = in_functions(star, kind)
    assert [finding.verdict for finding in findings] == ["not supported"] * 2
    assert "what they predict" in findings[0].question or "their outputs" in findings[0].question
    assert "function star" in findings[0].rule
    assert findings[0].null == "function star"


def test_random_networks_form_families_by_the_class_that_each_favours():
    """Why surrogate weights are no null for functions: K is small without any tree of weights."""
    module = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 5)).double()
    points = noise(24, sum(p.numel() for p in module.parameters()), seed=9)
    landscape = landscape_of(module, samples=200, inputs=12)
    settings = {"landscape": Landscape(module, landscape.x.abs(), landscape.y), "surrogates": 20}
    found = hierarchy(module, points, distance="agreement", seed=0, **settings)
    assert found.K_null.mean("surrogate").sel(null="norm-matched") < 0.75 * 0.7329
    assert found.judged.values.tolist() == [False, False, True]


def test_workers_change_no_number():
    module, points = SHALLOW, points_for(SHALLOW, 6)
    settings = {"distance": "agreement", "landscape": landscape_of(SHALLOW), "seed": 1}
    here = hierarchy(module, points, surrogates=7, **settings)
    there = hierarchy(
        module, points, surrogates=7, map=partial(parallel.map, workers=2), **settings
    )
    for name in ("K_null", "overlap_quantiles_null"):
        np.testing.assert_allclose(there[name], here[name], rtol=1e-12)


REFUSED = {
    "kind": ({"kind": "cca"}, r"^kind='cca': expected one of agreement, cka"),
    "shape": ({"points": noise(81)}, r"^points: expected \[replica, n\], got shape \(81,\)"),
    "finite": (
        {"points": points_for(SHALLOW).index_fill(0, torch.tensor([1]), torch.inf)},
        r"^points: outputs of networks \[1\] are not finite",
    ),
    "still": ({"points": torch.zeros(4, 81), "kind": "cka"}, r"^points: .* network 0 .* \(4 such"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_compared_is_refused_by_name(case):
    changed, message = REFUSED[case]
    settings = {"points": points_for(SHALLOW), "kind": "agreement"} | changed
    with pytest.raises(ValueError, match=message):
        functional_distances(landscape_of(SHALLOW), settings["points"], kind=settings["kind"])


def test_hierarchies_of_functions_refuse_what_they_lack():
    points = points_for(SHALLOW)
    with pytest.raises(ValueError, match=r"^distance='cosine': expected one of orbit, weights"):
        hierarchy(SHALLOW, points, distance="cosine", seed=0)
    with pytest.raises(ValueError, match=r"^landscape: distance='cka' compares functions"):
        hierarchy(SHALLOW, points, distance="cka", seed=0)
    single = Landscape(nn.Linear(6, 1).double(), noise(9, 6), noise(9, 1), "mse")
    with pytest.raises(ValueError, match=r"^kind='agreement': needs two outputs or more, got 1"):
        functional_distances(single, noise(4, 7))
    twice = torch.cat([points, oracles.hidden_copy(SHALLOW, points[2], seed=0)[0][None]])
    with pytest.raises(ValueError, match=r"^points: replicas 2 and 5 are the same network"):
        hierarchy(SHALLOW, twice, distance="cka", landscape=landscape_of(SHALLOW), seed=0)
