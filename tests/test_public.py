"""The names that users are promised, what they give, and how every module presents itself."""

import importlib
import importlib.metadata
import inspect
import json
import pkgutil
import re
import subprocess
import sys
import tomllib
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy

import spinscape as ss

MODULES = [
    module.name
    for module in pkgutil.walk_packages(ss.__path__, "spinscape.")
    if not module.name.endswith("__main__")
]


@pytest.fixture(scope="module")
def data():
    return ss.datasets.load("digits", seed=0)


@pytest.fixture(scope="module")
def module():
    return ss.models.mlp(64, [16], 10)


@pytest.fixture(scope="module")
def solutions(module, data):
    return ss.train(
        module,
        data,
        replicas=4,
        epochs=2,
        batch_size=32,
        optimizer="sgd",
        learning_rate=0.1,
        momentum=0.9,
        seed=3,
    )


@pytest.fixture(scope="module")
def landscape(module, data):
    return ss.Landscape(module, data.train.x[:200], data.train.y[:200])


def outputs(point: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """A 64-16-10 ReLU network, written out."""
    w1, b1, w2, b2 = point.split([64 * 16, 16, 16 * 10, 10])
    hidden = torch.relu(x @ w1.view(16, 64).T + b1)
    return hidden @ w2.view(10, 16).T + b2


# Names and what they give


def test_data_have_three_parts_of_two_tensors(data):
    for part in (data.train, data.validation, data.test):
        x, y = part
        assert x.shape == (len(y), 64)
        assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
    assert sum(len(part.y) for part in (data.train, data.validation, data.test)) == 1797


def test_a_module_is_a_point(module):
    space = ss.WeightSpace(module)
    point = space.point(module)
    assert point.shape == (space.n,) == (64 * 16 + 16 + 16 * 10 + 10,)
    x = torch.rand(5, 64)
    torch.testing.assert_close(outputs(point, x), module(x))


def test_training_gives_points(solutions, data):
    assert solutions["point"].dims == ("replica", "n")
    points = ss.points(solutions)
    assert torch.equal(points, torch.from_numpy(solutions["point"].values))
    for split in ("train", "validation", "test"):
        x, y = getattr(data, split)
        found = [float(cross_entropy(outputs(point, x), y)) for point in points]
        np.testing.assert_allclose(solutions[f"{split}_loss"], found, rtol=1e-4)


def test_a_population_is_made_of_points_or_of_checkpoints(module, solutions, data, tmp_path):
    space, paths = ss.WeightSpace(module), []
    copied = ss.models.mlp(64, [16], 10)
    for index, point in enumerate(ss.points(solutions)):
        space.load(copied, point)
        paths.append(tmp_path / f"{index}.safetensors")
        save_file(copied.state_dict(), paths[-1])
    for given in (ss.points(solutions), paths):
        found = ss.population(module, given, data)
        for name in ("point", "train_loss", "test_error", "diverged"):
            np.testing.assert_allclose(found[name], solutions[name], rtol=1e-6)


def test_a_landscape_gives_losses_lines_and_planes(landscape, solutions, data):
    origin, d1, d2 = ss.points(solutions)[:3]
    x, y = data.train.x[:200], data.train.y[:200]

    def loss(point: torch.Tensor) -> float:
        return float(cross_entropy(outputs(point, x), y))

    np.testing.assert_allclose(
        landscape.loss(torch.stack([origin, d1])), [loss(origin), loss(d1)], rtol=1e-5
    )
    lam = torch.tensor([-0.5, 0.0, 1.5])
    line = landscape.line(origin, d1, lam)
    assert line["loss"].dims == line["error"].dims == ("lam",)
    np.testing.assert_allclose(line["loss"], [loss(origin + t * d1) for t in lam], rtol=1e-4)
    a, b = torch.tensor([0.0, 0.3]), torch.tensor([-0.2, 0.0, 0.4])
    plane = landscape.plane(origin, d1, d2, a, b)
    assert plane["loss"].dims == plane["error"].dims == ("a", "b")
    found = [[loss(origin + s * d1 + t * d2) for t in b] for s in a]
    np.testing.assert_allclose(plane["loss"], found, rtol=1e-4)
    wrong = (outputs(origin, x).argmax(1) != y).float().mean()
    assert float(plane["error"].sel(a=0, b=0)) == pytest.approx(float(wrong))


@pytest.mark.parametrize(("rule", "temperature"), [("free", None), ("thermal", 0.1)])
def test_a_walk_takes_any_energy(rule, temperature):
    walk = ss.glass.walk(
        lambda points: points.square().sum(-1) / 2,
        torch.zeros(3, 5),
        rule=rule,
        move=ss.glass.Gaussian(0.1),
        steps=40,
        temperature=temperature,
        seed=2,
    )
    assert dict(walk["energy"].sizes) == {"walker": 3, "step": 41}
    np.testing.assert_allclose(walk["energy"], walk["displacement"] ** 2 / 2, rtol=1e-4, atol=1e-7)
    assert (float(walk["acceptance"].mean()) == 1) == (rule == "free")


def test_alignment_keeps_what_networks_compute(module, solutions, data):
    a, b = ss.points(solutions)[:2]
    aligned = ss.glass.align(module, a, b)
    x = data.test.x
    torch.testing.assert_close(
        outputs(ss.points(aligned.point), x), outputs(b, x), rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(
        outputs(ss.points(aligned.reference), x), outputs(a, x), rtol=1e-4, atol=1e-4
    )
    assert sorted(aligned["permutation"].values) == list(range(16))
    between = np.linalg.norm(aligned["reference"].values - aligned["point"].values)
    assert float(aligned["distance"]) == pytest.approx(between, rel=1e-5)


@pytest.mark.parametrize("definition", ["line", "mean"])
def test_a_barrier_is_the_rise_above_what_its_definition_says(landscape, solutions, definition):
    a, b = ss.points(solutions)[:2]
    found = ss.glass.barrier(landscape, a, b, definition=definition)
    lam = torch.tensor(found["lam"].values.tolist())
    loss = landscape.loss(torch.lerp(a, b, lam[:, None])).numpy()
    first, last = loss[0], loss[-1]
    below = first + lam.numpy() * (last - first) if definition == "line" else (first + last) / 2
    assert float(found["barrier"]) == pytest.approx(float((loss - below).max()), rel=1e-3, abs=1e-5)


def test_a_hierarchy_of_networks_or_of_plain_points(module, solutions):
    plain = np.random.default_rng(0).normal(size=(6, 30))
    distances = np.linalg.norm(plain[:, None] - plain[None], axis=-1)
    found = ss.glass.hierarchy(None, torch.from_numpy(plain), surrogates=3, seed=0)
    np.testing.assert_allclose(found["distance"], distances, rtol=1e-6, atol=1e-9)
    networks = ss.glass.hierarchy(module, ss.points(solutions), surrogates=3, seed=0)
    assert networks["K_null"].dims == ("null", "surrogate")
    assert networks["K_null"].shape == (2, 3)


def test_ruggedness_of_points(landscape, solutions):
    found = ss.glass.ruggedness(landscape, ss.points(solutions), seed=0, directions=2)
    assert found["roughness"].dims == ("replica",)
    assert found.sizes["replica"] == 4
    middle = found["slice_loss"].sel(lam=0, method="nearest").mean("direction")
    np.testing.assert_allclose(middle, landscape.loss(ss.points(solutions)), rtol=1e-3)


def test_what_protocols_give_says_how_to_make_it_again(module, landscape, solutions):
    points = ss.points(solutions)
    for found in (
        ss.glass.walk(landscape, points, move=ss.glass.Gaussian(0.1), steps=2, seed=5),
        ss.glass.align(module, *points[:2], seed=5),
        ss.glass.hierarchy(module, points, surrogates=1, seed=5),
        ss.glass.ruggedness(landscape, points, directions=2, seed=5),
    ):
        assert isinstance(found, xr.Dataset)
        assert found.attrs["seed"] == 5
        assert {"torch", "numpy"} <= set(json.loads(found.attrs["versions"]))
        assert isinstance(json.loads(found.attrs["arguments"]), dict)
        assert found.attrs["source"]
        for name, variable in found.data_vars.items():
            assert {"units", "long_name"} <= set(variable.attrs), name


# How modules present themselves


def ranked(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions, as ruff sorts them."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


def defined(name: str) -> list[str]:
    module = importlib.import_module(name)
    return [
        key
        for key, value in vars(module).items()
        if not key.startswith("_")
        and (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__ == name
    ]


@pytest.mark.parametrize("name", ["spinscape", *MODULES])
def test_a_module_says_what_is_public(name):
    module = importlib.import_module(name)
    assert module.__doc__
    public = getattr(module, "__all__", None)
    if public is None:
        assert defined(name) == []
        return
    assert public == sorted(set(public), key=ranked)
    assert [key for key in public if not hasattr(module, key)] == []


@pytest.mark.parametrize("name", ["spinscape", *MODULES])
def test_what_is_public_is_documented(name):
    module = importlib.import_module(name)
    for key in getattr(module, "__all__", ()):
        value = getattr(module, key)
        if inspect.isfunction(value):
            assert value.__doc__, key
            assert value.__module__.rpartition(".")[2] != key, "a module hides behind its function"
        elif inspect.isclass(value):
            assert value.__doc__, key
            for method, body in vars(value).items():
                if inspect.isfunction(body) and not method.startswith("_"):
                    assert inspect.getdoc(getattr(value, method)), f"{key}.{method}"


@pytest.mark.parametrize("name", MODULES)
def test_no_name_hides_a_module(name):
    room, _, last = name.rpartition(".")
    module = importlib.import_module(name)
    assert getattr(importlib.import_module(room), last) is module


def test_the_types_and_the_version_are_there():
    assert files("spinscape").joinpath("py.typed").is_file()
    assert re.fullmatch(r"\d+\.\d+\.\d+\w*", ss.__version__)
    assert ss.__version__ == importlib.metadata.version("spinscape")


IMPORT = """
import json, random, socket, sys

def refuse(*_arguments, **_options):
    raise OSError("the network was reached for")

for name in ("connect", "connect_ex", "sendto"):
    setattr(socket.socket, name, refuse)
socket.getaddrinfo = socket.create_connection = refuse

import numpy, sklearn.datasets, torch  # scikit-learn draws from random when it is imported

def state():
    return [str(random.getstate()), str(numpy.random.get_state()), torch.get_rng_state().tolist()]

before = state()
import spinscape as ss
ss.models.mlp(*ss.datasets.load("digits", seed=0).inputs, [16], 10)
print(json.dumps([before == state(), [name for name in sys.modules if "." not in name]]))
"""


def test_importing_takes_neither_extras_nor_network_nor_randomness():
    script = [sys.executable, "-c", IMPORT]
    told = subprocess.run(script, capture_output=True, text=True, check=True)
    assert told.stderr == ""
    untouched, imported = json.loads(told.stdout)
    assert untouched
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    extras = {
        re.split(r"[^\w.-]", requirement)[0].lower()
        for group in project["optional-dependencies"].values()
        for requirement in group
    } - {"spinscape"}
    assert {"pytest", "hypothesis", "rebasin"} <= extras
    for package, distributions in importlib.metadata.packages_distributions().items():
        if extras & {distribution.lower() for distribution in distributions}:
            assert package not in imported
