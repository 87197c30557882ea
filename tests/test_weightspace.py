"""Modules to points and back, and what checkpoints can get wrong."""

import pickle

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.torch import save_file
from torch import nn

import oracles
from spinscape.nets.models import cnn, mlp
from spinscape.nets.weightspace import WeightSpace, points


class Tied(nn.Module):
    """An auto-encoder whose decoder is the encoder's transpose, and a shared bias."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, x):
        return self.scale * self.second(self.first(x))


MODULES = {
    "mlp": lambda: mlp((2, 3), [5, 4], 3),
    "no bias": lambda: mlp(3, [4], 2, bias=False),
    "double": lambda: mlp(3, [4], 2).double(),
    "cnn": lambda: cnn(1, 3, width=2),
    "tied": Tied,
    "attention": lambda: nn.MultiheadAttention(4, 2),
    "single": lambda: nn.Linear(1, 1, bias=False),
}


@pytest.mark.parametrize("name", MODULES)
def test_a_point_is_the_parameters_in_their_order(name):
    module = MODULES[name]()
    space = WeightSpace(module)
    point = space.point(module)
    assert torch.equal(point, oracles.point_of(module))
    assert space.n == len(point) == sum(p.numel() for p in module.parameters())
    assert space.names == tuple(dict(module.named_parameters()))
    assert point.dtype == space.dtype
    assert not point.requires_grad


@pytest.mark.parametrize("name", MODULES)
def test_round_trips(name):
    module = MODULES[name]()
    space = WeightSpace(module)
    point = torch.randn(space.n, dtype=space.dtype, generator=torch.Generator().manual_seed(0))
    buffers = {key: value.clone() for key, value in module.named_buffers()}
    space.load(module, point)
    assert torch.equal(space.point(module), point)
    assert torch.equal(space.flatten(space.unflatten(point)), point)
    assert torch.equal(space.read(space.state_dict(point)), point)
    assert all(torch.equal(value, buffers[key]) for key, value in module.named_buffers())


def test_a_point_is_a_copy_and_loading_copies():
    module = mlp(3, [], 2)
    space = WeightSpace(module)
    point = space.point(module)
    point += 1
    assert not torch.equal(space.point(module), point)
    weight = module[0].weight
    space.load(module, point)
    assert module[0].weight is weight
    assert weight.requires_grad
    point.zero_()
    assert space.point(module).abs().min() > 0


@pytest.mark.parametrize("batch", [(), (3,), (2, 3), (2, 1, 3)])
def test_unflatten_gives_views_for_any_leading_axes(batch):
    module = cnn(1, 3, width=2)
    space = WeightSpace(module)
    contiguous = torch.randn(*batch, space.n)
    strided = torch.randn(space.n + 1, *batch).movedim(0, -1)[..., 1:]
    for batched in (contiguous, strided):
        views = space.unflatten(batched)
        for name, parameter in module.named_parameters():
            assert views[name].shape == (*batch, *parameter.shape)
            assert views[name].untyped_storage().data_ptr() == batched.untyped_storage().data_ptr()
        assert torch.equal(space.flatten(views), batched)
        next(iter(views.values())).zero_()
        assert not batched[..., space.slices[space.names[0]]].any()


def test_tied_weights_are_in_a_point_once():
    module = Tied()
    space = WeightSpace(module)
    assert space.n == 16 + 4 + 4 + 1
    assert "second.weight" not in space.names
    state = module.state_dict()
    assert torch.equal(space.read(state), space.point(module))
    renamed = {key: value for key, value in state.items() if key != "first.weight"}
    assert torch.equal(space.read(renamed), space.point(module))
    space.load(module, torch.arange(25.0))
    assert torch.equal(module.second.weight, module.first.weight)
    state = {key: value.clone() for key, value in state.items()}
    state["second.weight"] += 1
    with pytest.raises(ValueError, match=r"'second.weight' .* 'first.weight'"):
        space.read(state)


def test_groups_and_filters_are_index_sets():
    module = cnn(1, 3, width=2)
    space = WeightSpace(module)
    marked = torch.arange(float(space.n))
    groups = space.groups
    views = space.unflatten(marked)
    for name, value in views.items():
        assert torch.equal(marked[groups[name]], value.flatten())
    last = [name for name, _ in module.named_children()][-1]
    assert set(groups) == {*space.names, *(name.split(".")[0] for name in space.names)}
    expected = torch.cat([views[f"{last}.weight"].flatten(), views[f"{last}.bias"]])
    assert torch.equal(marked[groups[last]], expected)
    matrices = [value for value in views.values() if value.ndim > 1]
    rows = [row.flatten() for matrix in matrices for row in matrix]
    assert len(space.filters) == len(rows) == 2 + 4 + 3
    for found, row in zip(space.filters, rows, strict=True):
        assert torch.equal(marked[found], row)


@pytest.mark.parametrize("kind", ["pt", "safetensors", "state dict", "old pt"])
def test_checkpoints_are_read(kind, tmp_path):
    module = cnn(1, 3, width=2)
    space = WeightSpace(module)
    path = tmp_path / f"weights.{kind}"
    if kind == "state dict":
        path = module.state_dict()
    elif kind == "safetensors":
        save_file(module.state_dict(), path)
    else:
        new = kind == "pt"
        torch.save(module.state_dict(), path, _use_new_zipfile_serialization=new)
    assert torch.equal(space.read(path), space.point(module))
    if kind != "state dict":
        assert torch.equal(space.read(str(path)), space.point(module))


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {"model": {f"net.{name}": value for name, value in state.items()}},
        lambda state: {
            **{f"net.{name}": value for name, value in state.items()},
            "loss.weight": torch.ones(2),
        },
        lambda state: {
            "state_dict": state,
            "optimizer": {"0": torch.ones(3)},
            "lr": torch.ones(()),
        },
    ],
)
def test_weights_are_found_in_what_trainers_wrap_them_in(wrapped, tmp_path):
    module = mlp(3, [4], 2)
    torch.save(wrapped(module.state_dict()), tmp_path / "net.pt")
    space = WeightSpace(module)
    assert torch.equal(space.read(tmp_path / "net.pt"), space.point(module))


@pytest.mark.parametrize("kind", ["pt", "safetensors", "state dict"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_deeper_network_is_not_taken_for_this_one(prefix, kind, tmp_path):
    state = {f"{prefix}{k}": v for k, v in mlp(3, [4, 2], 2).state_dict().items()}
    path = tmp_path / f"weights.{kind}"
    if kind == "state dict":
        path = state
    else:
        (save_file if kind == "safetensors" else torch.save)(state, path)
    space = WeightSpace(mlp(3, [4], 2))
    with pytest.raises(ValueError, match=r"tensor '4.\w+' of shape \(2,.*\) is neither"):
        space.read(path)


def test_layer_ten_is_not_layer_nought_under_a_prefix():
    state = mlp(3, [3] * 6, 3).state_dict()  # 0, 2, …, 12
    with pytest.raises(ValueError, match=r"tensor '4.weight'"):
        WeightSpace(mlp(3, [3], 3)).read(state)
    with pytest.raises(ValueError, match=r"'0.weight' .* is missing"):
        WeightSpace(mlp(3, [3], 3)).read({k: v for k, v in state.items() if k.startswith("1")})


def test_buffers_in_a_checkpoint_are_passed_over():
    module = cnn(1, 3, width=2)
    space = WeightSpace(module)
    state = module.state_dict()
    assert any("num_batches_tracked" in name for name in state)
    for wrapped in (state, {"net": state}, {f"module.{k}": v for k, v in state.items()}):
        assert torch.equal(space.read(wrapped), space.point(module))


def test_two_networks_in_one_checkpoint_are_not_guessed_between():
    module = mlp(3, [4], 2)
    pair = {"student": module.state_dict(), "teacher": mlp(3, [4], 2, seed=1).state_dict()}
    with pytest.raises(ValueError, match="is missing"):
        WeightSpace(module).read(pair)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_precisions_are_cast(dtype):
    module = mlp(3, [4], 2)
    state = {name: value.to(dtype) for name, value in module.state_dict().items()}
    found = WeightSpace(module).read(state)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, oracles.point_of(module.to(dtype)).float(), rtol=0, atol=0)


WRONG = {
    "missing": (lambda s: s.pop("2.bias"), r"parameter '2.bias' of shape \(2,\) is missing"),
    "shape": (
        lambda s: s.update({"0.weight": torch.zeros(3, 4)}),
        r"parameter '0.weight' has shape \(3, 4\), expected \(4, 3\)",
    ),
    "dtype": (
        lambda s: s.update({"2.weight": torch.zeros(2, 4, dtype=torch.int64)}),
        r"'2.weight' is torch.int64, expected floats",
    ),
}


@pytest.mark.parametrize("kind", ["pt", "safetensors", "state dict"])
@pytest.mark.parametrize("wrong", WRONG)
def test_the_wrong_tensor_is_named(wrong, kind, tmp_path):
    state = dict(mlp(3, [4], 2).state_dict())
    change, message = WRONG[wrong]
    change(state)
    path = tmp_path / f"weights.{kind}"
    if kind == "state dict":
        path = state
    else:
        (save_file if kind == "safetensors" else torch.save)(state, path)
    with pytest.raises(ValueError, match=message) as refused:
        WeightSpace(mlp(3, [4], 2)).read(path)
    assert ("the state dict" if kind == "state dict" else path.name) in str(refused.value)


def test_what_is_no_tensor_is_named():
    state = {**mlp(3, [4], 2).state_dict(), "0.bias": [0.0] * 4}
    with pytest.raises(ValueError, match=r"'0\.bias' is list, expected a tensor"):
        WeightSpace(mlp(3, [4], 2)).read(state)


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_unreadable_files_are_refused(suffix, tmp_path):
    space, path = WeightSpace(mlp(3, [4], 2)), tmp_path / f"weights.{suffix}"
    with pytest.raises(ValueError, match=f"weights.{suffix}: no such file"):
        space.read(path)
    (save_file if suffix == "safetensors" else torch.save)(mlp(3, [4], 2).state_dict(), path)
    whole = path.read_bytes()
    for damaged in (b"", b"nonsense", whole[: len(whole) // 2], b"\xff" * 8 + whole[8:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="cannot be read as weights") as refused:
            space.read(path)
        assert "\n" not in str(refused.value)


def test_a_file_of_something_else_is_refused(tmp_path):
    torch.save(torch.zeros(26), tmp_path / "tensor.pt")
    with pytest.raises(ValueError, match="holds Tensor, not a state dict"):
        WeightSpace(mlp(3, [4], 2)).read(tmp_path / "tensor.pt")


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize("saved_by", ["torch", "pickle"])
def test_code_in_a_checkpoint_is_not_run(saved_by, tmp_path):
    state = {**mlp(3, [4], 2).state_dict(), "trap": Trap(tmp_path / "sprung")}
    path = tmp_path / "weights.pt"
    if saved_by == "torch":
        torch.save(state, path)
    else:
        path.write_bytes(pickle.dumps(state, protocol=2))
    with pytest.raises(ValueError, match=r"weights.pt: cannot be read as weights"):
        WeightSpace(mlp(3, [4], 2)).read(path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: {"epoch": 3, "model": m}])
def test_a_pickled_module_is_refused_in_one_line(wrap, new, tmp_path):
    path = tmp_path / "net.pt"
    torch.save(wrap(mlp(3, [4], 2)), path, _use_new_zipfile_serialization=new)
    with pytest.raises(ValueError, match="holds a pickled module or") as refused:
        WeightSpace(mlp(3, [4], 2)).read(path)
    told = str(refused.value)
    assert "torch.nn.modules.container.Sequential, which is never run" in told
    assert "save model.state_dict() instead" in told
    assert told.isprintable()


def test_points_come_from_tensors_and_labelled_arrays():
    values = np.arange(12.0).reshape(2, 2, 3)
    array = xr.DataArray(values, dims=("replica", "n", "step"))
    expected = torch.from_numpy(values).movedim(1, -1)
    assert torch.equal(points(array), expected)
    assert torch.equal(points(array.to_dataset(name="point")), expected)
    assert torch.equal(points(array, dtype=torch.float32), expected.float())
    tensor = torch.zeros(2, 3)
    assert points(tensor) is tensor
    points(array).zero_()
    assert array.values.any()
    assert points(array.astype("float32")).dtype == torch.float32


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (xr.DataArray(np.zeros(3), dims="m"), ValueError, "expected a dimension 'n', got .'m'"),
        (xr.Dataset({"loss": 0.0}), ValueError, r"without 'point' \(it has \['loss'\]\)"),
        (np.zeros(3), TypeError, "data: expected Tensor, DataArray or Dataset, got ndarray"),
    ],
)
def test_points_refuses_the_rest(data, error, message):
    with pytest.raises(error, match=message):
        points(data)


def mixed():
    return nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (nn.ReLU, "'ReLU' has no parameters"),
        (lambda: nn.LazyLinear(3), "parameter 'weight' is lazy"),
        (
            lambda: nn.Linear(2, 2).bfloat16(),
            r"'Linear': parameters are torch.bfloat16, .* convert it with module.float\(\)",
        ),
        (mixed, "must share one floating dtype, got .*float32.*float64"),
    ],
)
def test_modules_without_a_weight_space_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        WeightSpace(build())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda s: s.unflatten(torch.zeros(2, 25)), ValueError, r"length 26 .*shape \(2, 25\)"),
        (lambda s: s.unflatten(torch.tensor(0.0)), ValueError, "expected points of length 26"),
        (lambda s: s.unflatten(torch.zeros(26).long()), TypeError, "got torch.int64"),
        (lambda s: s.unflatten(np.zeros(26)), TypeError, "got ndarray"),
        (lambda s: s.load(mlp(3, [4], 2), torch.zeros(2, 26)), ValueError, "expected 1 axes"),
        (lambda s: s.load(mlp(4, [4], 2), torch.zeros(26)), ValueError, "'0.weight' has shape"),
        (lambda s: s.point(mlp(3, [4, 2], 2)), ValueError, "'4.weight' is not part of"),
        (lambda s: s.load(mlp(3, [4, 2], 2), torch.zeros(26)), ValueError, "'4.weight' is not"),
        (lambda s: s.point(mlp(3, [], 2)), ValueError, "'0.weight' has shape|is missing"),
        (lambda s: s.flatten({"0.weight": torch.zeros(4, 3)}), ValueError, "'0.bias' .* missing"),
        (
            lambda s: s.flatten({**s.unflatten(torch.zeros(26)), "0.weight": torch.zeros(3, 4)}),
            ValueError,
            "'0.weight' has shape",
        ),
    ],
)
def test_misfits_are_refused_by_name(call, error, message):
    with pytest.raises(error, match=message):
        call(WeightSpace(mlp(3, [4], 2)))
