"""Spin models: energies by definition, symmetries of the layer graph, networks read and refused."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

import spinscape as ss
from spinscape.nets.activations import Sign
from spinscape.nets.weightspace import WeightSpace
from spinscape.spins.couplings import SpinModel
from spinscape.spins.spectra import bond_eigenvalues

WIDTHS = st.lists(st.integers(1, 9), min_size=2, max_size=5)


def in_fields(model, seed=0):
    fields = torch.from_numpy(np.random.default_rng(seed).normal(size=model.n))
    if model.matrix is None:
        return SpinModel(model.to(torch.float64).layers, fields=fields)
    return SpinModel.from_matrix(model.to(torch.float64).matrix, fields=fields)


MODELS = {
    "layered": SpinModel.layered([6, 4, 3], 1.3, 1, dtype=torch.float64),
    "layered in fields": in_fields(SpinModel.layered([5, 4, 3], 1.0, 2)),
    "SK": SpinModel.sk(9, 3, dtype=torch.float64),
    "SK in fields": in_fields(SpinModel.sk(8, 4)),
}


@pytest.mark.parametrize("name", MODELS)
def test_energies_and_fields_are_those_of_the_definition(name):
    model = MODELS[name]
    J = model.dense_bonds()
    h = torch.zeros(model.n, dtype=torch.float64) if model.fields is None else model.fields
    spins = model.configurations()
    assert spins.shape == (2**model.n, model.n)
    assert len(spins.unique(dim=0)) == len(spins)
    expected = -torch.einsum("si,ij,sj->s", spins, J, spins) / 2 - spins @ h
    torch.testing.assert_close(model.energy(spins), expected)
    torch.testing.assert_close(model.local_fields(spins), spins @ J + h)
    torch.testing.assert_close(model.energy(spins.view(2, -1, model.n)), expected.view(2, -1))
    flipped = spins.clone()
    flipped[:, 2] *= -1
    cost = 2 * spins[:, 2] * model.local_fields(spins)[:, 2]
    torch.testing.assert_close(model.energy(flipped) - expected, cost)


@pytest.mark.parametrize("name", MODELS)
def test_the_bond_matrix_is_an_operator(name):
    model = MODELS[name]
    operator = model.bond_matrix()
    J = model.dense_bonds().numpy()
    np.testing.assert_allclose(operator @ np.eye(model.n), J)
    x = np.random.default_rng(0).normal(size=model.n)
    np.testing.assert_allclose(operator @ x, J @ x)
    np.testing.assert_allclose(operator.rmatvec(x), J @ x)


@settings(deadline=None, max_examples=25)
@given(WIDTHS, st.integers(0, 99))
def test_turning_every_other_layer_over_changes_the_sign_of_the_energy(widths, seed):
    model = SpinModel.layered(widths, 1.0, seed, dtype=torch.float64)
    spins = torch.from_numpy(np.random.default_rng(seed).choice([-1.0, 1.0], (4, model.n)))
    turned = spins.clone()
    for place in model.places[::2]:
        turned[:, place] *= -1
    torch.testing.assert_close(model.energy(turned), -model.energy(spins))
    torch.testing.assert_close(model.energy(-spins), model.energy(spins))


@settings(deadline=None, max_examples=25)
@given(WIDTHS, st.integers(0, 99))
def test_the_spectrum_is_symmetric_and_has_the_zero_modes_of_the_widths(widths, seed):
    model = SpinModel.layered(widths, 1.0, seed, dtype=torch.float64)
    values = np.linalg.eigvalsh(model.dense_bonds().numpy())
    np.testing.assert_allclose(values, -values[::-1], atol=1e-12)
    np.testing.assert_allclose(bond_eigenvalues(model), values, atol=1e-12)
    zero = (np.abs(values) < 1e-12).sum()
    assert zero >= abs(sum(widths[::2]) - sum(widths[1::2]))


@pytest.mark.parametrize(
    ("widths", "modes"), [((784, 100, 10), 694), ((784, 256, 128, 10), 646), ((5, 5), 0)]
)
def test_zero_modes_of_networks(widths, modes):
    found = ss.spins.spectrum(SpinModel.layered(widths, 1 / 3, 0), nulls=2, bootstraps=0)
    assert int(found.zero_modes) == int(found.zero_modes_enforced) == modes


def test_random_couplings_have_the_variances_that_they_say():
    model = SpinModel.layered([300, 200, 100], [0.5, 2.0], 0, dtype=torch.float64)
    for layer, C in zip(model.layers, (0.5, 2.0), strict=True):
        error = (2 / layer.numel()) ** 0.5
        assert float(layer.var()) * len(layer) / C == pytest.approx(1, abs=4 * error)
    pairs = SpinModel.sk(300, 0, 1.5).matrix[np.triu_indices(300, 1)].double()
    assert float(pairs.mean()) * 300 == pytest.approx(1.5, abs=4 / (len(pairs) / 300) ** 0.5)
    assert float(pairs.var()) * 300 == pytest.approx(1, abs=4 * (2 / len(pairs)) ** 0.5)


def test_spikes_share_their_directions_between_layers():
    first, second = SpinModel.layered(
        [8, 7, 6], 0.0, 3, spike=[2.0, 0.5], dtype=torch.float64
    ).layers
    for layer, strength in ((first, 2.0), (second, 0.5)):
        values = torch.linalg.svdvals(layer)
        assert float(values[0]) == pytest.approx(strength)
        assert float(values[1]) < 1e-12
    right = torch.linalg.svd(first).Vh[0]
    left = torch.linalg.svd(second).U[:, 0]
    assert abs(float(right @ left)) == pytest.approx(1)
    noise = SpinModel.layered([8, 7, 6], 1.0, 3, dtype=torch.float64).layers
    both = SpinModel.layered([8, 7, 6], 1.0, 3, spike=[2.0, 0.5], dtype=torch.float64).layers
    torch.testing.assert_close(both[0] - noise[0], first)


def test_precision_and_place_are_those_that_are_asked_for():
    for make in (
        lambda d: SpinModel.sk(20, 1, dtype=d),
        lambda d: SpinModel.layered([4, 3], dtype=d),
    ):
        low, high = make(torch.float32), make(torch.float64)
        torch.testing.assert_close(low.couplings[0], high.couplings[0].float())
        assert low.to(torch.float64).dtype == torch.float64
    assert SpinModel.bipartite(6, 4, seed=1).widths == (6, 4)
    assert repr(SpinModel.sk(5)) == "SpinModel(dense, widths=5)"


# Networks


def chain():
    return nn.Sequential(
        nn.Flatten(), nn.Linear(8, 5), nn.ReLU(), nn.Dropout(0.5), nn.Linear(5, 4), Sign(),
        nn.Identity(), nn.Linear(4, 3, bias=False),
    )  # fmt: skip


def test_a_module_a_point_and_checkpoints_give_the_same_model(tmp_path):
    module = chain()
    weights = [module[1].weight, module[4].weight, module[7].weight]
    space = WeightSpace(module)
    save_file(module.state_dict(), tmp_path / "a.safetensors")
    torch.save({"epoch": 3, "state_dict": module.state_dict()}, tmp_path / "a.pt")
    for model in (
        SpinModel.from_module(module),
        SpinModel.from_point(module, space.point(module)),
        SpinModel.from_checkpoint(tmp_path / "a.safetensors"),
        SpinModel.from_checkpoint(tmp_path / "a.pt"),
        SpinModel.from_checkpoint(tmp_path / "a.safetensors", module),
    ):
        assert model.widths == (8, 5, 4, 3)
        assert model.fields is None
        for layer, weight in zip(model.layers, weights, strict=True):
            assert torch.equal(layer, weight.T)


def test_biases_are_fields_if_asked_for():
    module = chain()
    model = SpinModel.from_module(module, biases=True)
    expected = torch.cat([torch.zeros(8), module[1].bias, module[4].bias, torch.zeros(3)])
    assert torch.equal(model.fields, expected)
    point = WeightSpace(module).point(module)
    assert torch.equal(SpinModel.from_point(module, point, biases=True).fields, expected)


def test_layers_of_a_checkpoint_are_taken_in_the_order_of_their_numbers(tmp_path):
    module = ss.models.mlp(4, [3] * 11, 2)
    save_file(module.state_dict(), tmp_path / "deep.safetensors")
    assert SpinModel.from_checkpoint(tmp_path / "deep.safetensors").widths == (4, *[3] * 11, 2)


def test_the_model_is_a_copy():
    module = chain()
    model = SpinModel.from_module(module)
    before = model.layers[0].clone()
    with torch.no_grad():
        module[1].weight.zero_()
    assert torch.equal(model.layers[0], before)


@pytest.mark.parametrize(
    ("layer", "word"),
    [
        (nn.Conv2d(1, 2, 3), "convolution"),
        (nn.BatchNorm1d(5), "normalisation"),
        (nn.LayerNorm(5), "normalisation"),
        (nn.MultiheadAttention(4, 2), "attention"),
        (nn.TransformerEncoderLayer(4, 2), "attention|normalisation"),
        (nn.Embedding(3, 4), "Embedding"),
    ],
)
def test_other_layers_are_refused_by_name(layer, word, tmp_path):
    module = nn.Sequential(nn.Linear(5, 5), layer)
    with pytest.raises(TypeError, match=word) as told:
        SpinModel.from_module(module)
    assert "\n" not in str(told.value)
    if not isinstance(layer, nn.Embedding | nn.TransformerEncoderLayer):
        save_file(module.state_dict(), tmp_path / "other.safetensors")
        with pytest.raises(ValueError, match=word):
            SpinModel.from_checkpoint(tmp_path / "other.safetensors")


def infinite():
    weight = torch.ones(3, 4)
    weight[1, 2] = float("nan")
    return weight


class Pickled:
    pass


def files(folder):
    save_file({}, folder / "empty.safetensors")
    save_file({"bias": torch.ones(3)}, folder / "biases.safetensors")
    save_file(
        {"0.weight": torch.ones(3, 4), "2.weight": torch.ones(2, 5)}, folder / "misfit.safetensors"
    )
    save_file({"0.weight": infinite()}, folder / "nan.safetensors")
    save_file({"0.weight": torch.ones(3, 4, dtype=torch.int64)}, folder / "whole.safetensors")
    (folder / "broken.safetensors").write_bytes(b"no weights")
    torch.save(Pickled(), folder / "pickled.pt")


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("empty.safetensors", "no tensors"),
        ("biases.safetensors", "no weight matrix"),
        ("misfit.safetensors", "takes 5 inputs"),
        ("nan.safetensors", "not finite"),
        ("whole.safetensors", "int64"),
        ("broken.safetensors", "cannot be read"),
        ("pickled.pt", "never run"),
        ("none.safetensors", "no such file"),
    ],
)
def test_checkpoints_that_do_not_fit_are_refused_in_one_line(file, told, tmp_path):
    files(tmp_path)
    with pytest.raises(ValueError, match=told) as error:
        SpinModel.from_checkpoint(tmp_path / file)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("call", "kind", "told"),
    [
        (lambda: SpinModel([]), ValueError, "at least one"),
        (lambda: SpinModel(torch.ones(3, 3)), ValueError, "from_matrix"),
        (lambda: SpinModel([torch.ones(3, 4), torch.ones(5, 2)]), ValueError, r"layers\[1\]"),
        (lambda: SpinModel([torch.ones(3)]), ValueError, "matrix"),
        (lambda: SpinModel([torch.ones(3, 4).long()]), TypeError, "floating"),
        (lambda: SpinModel([infinite()]), ValueError, "1 of 12 couplings"),
        (lambda: SpinModel([torch.ones(2, 2), torch.ones(2, 2).double()]), ValueError, "float64"),
        (lambda: SpinModel([torch.ones(2, 2)], fields=torch.ones(3)), ValueError, "fields"),
        (lambda: SpinModel([torch.ones(2, 2)], fields=infinite()[1]), ValueError, "fields"),
        (lambda: SpinModel.from_matrix(torch.ones(3, 4)), ValueError, "N × N"),
        (lambda: SpinModel.from_matrix(torch.ones(3, 3)), ValueError, "itself"),
        (lambda: SpinModel.from_matrix(torch.triu(torch.ones(3, 3), 1)), ValueError, "symmetric"),
        (lambda: SpinModel.layered([5]), ValueError, "two layers"),
        (lambda: SpinModel.layered([5, 0]), ValueError, "widths"),
        (lambda: SpinModel.layered([5, True]), ValueError, "widths"),
        (lambda: SpinModel.layered([5, 4], [1.0, 2.0]), ValueError, "C="),
        (lambda: SpinModel.sk(0), ValueError, "widths"),
        (lambda: SpinModel.from_module(3), TypeError, "nn.Module"),
        (lambda: SpinModel.from_module(nn.ReLU()), TypeError, "no linear layer"),
        (lambda: SpinModel.sk(21).configurations(), ValueError, "20 or fewer"),
        (lambda: SpinModel.sk(5).energy(torch.ones(3, 4)), ValueError, "5 spins"),
        (lambda: SpinModel.sk(5).energy([1.0] * 5), TypeError, "tensor"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(call, kind, told):
    with pytest.raises(kind, match=told) as error:
        call()
    assert "\n" not in str(error.value)
