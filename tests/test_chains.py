"""Networks that are chains of layers are read as such, however they are written; others not."""

import copy
import random
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

import oracles
from spinscape.landscape.energy import Landscape
from spinscape.nets.chains import NotAChain, chain_of, read_chain
from spinscape.nets.dense import stack_of
from spinscape.nets.engine import engine_of, training_engine
from spinscape.nets.losses import loss_of
from spinscape.nets.symmetry import of


class Net(nn.Module):
    """The commonest network; `flat` and `act` vary how it is written."""

    def __init__(self, flat=lambda x: x.flatten(1), act=F.relu, second=5):
        super().__init__()
        self.fc1 = nn.Linear(6, 5)
        self.fc2 = nn.Linear(second, 3)
        self.flat, self.act = flat, act

    def forward(self, x):
        return self.fc2(self.act(self.fc1(self.flat(x))))


class Swapped(nn.Module):
    """Declares its layers in another order than it applies them in."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(4, 3)
        self.hidden = nn.Linear(5, 4)
        self.first = nn.Linear(6, 5)

    def forward(self, x):
        return self.out(torch.tanh(self.hidden(F.relu(self.first(x)))))


class Block(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=False)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.act(self.linear(x))


class Blocks(nn.Module):
    """Modules in modules, one activation used twice, dropout as a module."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(nn.Flatten(), Block(6, 5), nn.Identity())
        self.middle, self.drop, self.act = nn.Linear(5, 4), nn.Dropout(0.5), nn.LeakyReLU()
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        for part in self.blocks:
            x = part(x)
        x = self.drop(self.act(self.middle(x)))
        return self.head(x)


class Listed(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(6, 5), nn.Linear(5, 4), nn.Linear(4, 3)])
        self.act = nn.ReLU()

    def forward(self, x):
        x = x.view(x.shape[0], -1)
        for layer in self.layers[:-1]:
            x = self.act(layer(x))
        return self.layers[-1](x)


class Last(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x):
        return self.linear(x)


class Childish(nn.Sequential):
    """A Sequential by another name."""


WRITTEN = {
    "flatten": lambda: Net(),
    "torch.flatten": lambda: Net(lambda x: torch.flatten(x, 1)),
    "start_dim": lambda: Net(lambda x: torch.flatten(x, start_dim=1, end_dim=-1)),
    "view size": lambda: Net(lambda x: x.view(x.size(0), -1)),
    "view shape": lambda: Net(lambda x: x.view(x.shape[0], -1)),
    "view inputs": lambda: Net(lambda x: x.view(-1, 6)),
    "view rows and inputs": lambda: Net(lambda x: x.view(x.size()[0], 6)),
    "reshape": lambda: Net(lambda x: x.reshape(x.size(dim=0), -1)),
    "torch.reshape": lambda: Net(lambda x: torch.reshape(x, (x.shape[0], -1))),
    "no flatten": lambda: Net(lambda x: x),
    "torch.relu": lambda: Net(act=torch.relu),
    "relu_": lambda: Net(act=lambda x: x.relu_()),
    "in place": lambda: Net(act=lambda x: F.relu(x, inplace=True)),
    "torch.tanh": lambda: Net(act=torch.tanh),
    "F.tanh": lambda: Net(act=F.tanh),
    "torch.sigmoid": lambda: Net(act=torch.sigmoid),
    "F.sigmoid": lambda: Net(act=F.sigmoid),
    "F.gelu": lambda: Net(act=F.gelu),
    "F.leaky_relu": lambda: Net(act=F.leaky_relu),
    "linear": lambda: Net(act=lambda x: x),
    "blocks": Blocks,
    "listed": Listed,
    "subclass": lambda: Childish(nn.Flatten(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)),
    "nested": lambda: nn.Sequential(nn.Flatten(), Block(6, 6), nn.Sequential(Block(6, 4)), Last()),
}
SYMMETRIC = {
    **WRITTEN,
    "flattened again": lambda: nn.Sequential(nn.Flatten(), Block(6, 6), Net()),
    "swapped": Swapped,
    "F.silu": lambda: Net(act=F.silu),
    "slope": lambda: Net(act=lambda x: F.leaky_relu(x, 0.3)),
    "hardtanh": lambda: Net(act=lambda x: F.hardtanh(x, -0.5, 0.5)),
    "gelu tanh": lambda: Net(act=lambda x: F.gelu(x, approximate="tanh")),
}


def task(module, flat=True, count=4):
    generator = torch.Generator().manual_seed(1)
    point = oracles.point_of(module.double())
    noise = torch.randn(count, len(point), generator=generator, dtype=torch.float64)
    x = torch.randn(17, 6, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 3, (17,), generator=generator)
    return point + 0.3 * noise, x if flat else x.view(17, 2, 3), y


def written_as_sequential(module):
    return nn.Sequential(*(layer for _, layer in chain_of(module)))


@pytest.mark.parametrize("name", WRITTEN)
def test_the_dense_engine_gives_what_the_module_gives(name):
    module = WRITTEN[name]()
    shaped = name not in ("no flatten",)
    points, x, y = task(module, flat=not shaped)
    landscape = Landscape(module, x, y, engine="dense")
    models = oracles.models_at(module, points)
    close = {"rtol": 1e-11, "atol": 1e-12}
    outputs = oracles.outputs_at(models, x)
    torch.testing.assert_close(landscape.outputs(points), outputs, **close)
    losses = oracles.losses_at(models, x, y)
    torch.testing.assert_close(landscape.loss(points), losses, **close)
    gradients = oracles.gradients_at(models, x, y)
    torch.testing.assert_close(landscape.gradient(points), gradients, **close)
    found = landscape.lines(points[:1], points[1:2], [0.0, 0.5, 1.0])[0]
    middle = oracles.models_at(module, points[:1] + points[1:2] / 2)
    torch.testing.assert_close(found[:, 1], oracles.losses_at(middle, x, y), **close)
    if not any(isinstance(part, nn.Dropout) for part in module.modules()):
        trained = training_engine(module)
        assert trained.name == "dense"
        value, gradient = trained.loss_and_gradient(
            points, x, y, loss_of("cross_entropy"), own=False
        )
        torch.testing.assert_close(value, losses, **close)
        torch.testing.assert_close(gradient, gradients, **close)


@pytest.mark.parametrize("name", SYMMETRIC)
def test_the_symmetry_leaves_the_outputs_alone(name):
    module = SYMMETRIC[name]()
    points, x, _ = task(module)
    symmetry = of(module)
    assert symmetry.n == points.shape[-1]
    assert symmetry.widths
    if module.__class__ is not Swapped:
        plain = of(written_as_sequential(module))
        for found, expected in zip(symmetry.layers, plain.layers, strict=True):
            kept = {**vars(found), "name": ""}
            assert kept == {**vars(expected), "name": ""}
    expected = oracles.outputs_at(oracles.models_at(module, points), x)
    orders = symmetry.random_permutation(torch.Generator().manual_seed(2))
    permuted, balanced = symmetry.permute(points, orders), symmetry.balance(points)
    assert not torch.equal(permuted, points)
    assert torch.equal(balanced, points) != any(layer.rescalable for layer in symmetry.layers)
    for moved in (permuted, balanced):
        found = oracles.outputs_at(oracles.models_at(module, moved), x)
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


def test_layers_are_named_and_are_the_modules_own():
    module = Blocks()
    found = dict(chain_of(module))
    assert [name for name, layer in found.items() if isinstance(layer, nn.Linear)] == [
        *("blocks.1.linear", "middle", "head"),
    ]
    assert found["middle"] is module.middle
    assert [layer.name for layer in of(nn.Sequential(module, nn.Linear(3, 2))).layers] == [
        *("0.blocks.1.linear", "0.middle", "0.head"),
    ]


def test_layers_declared_in_another_order_have_their_own_places():
    module = Swapped()
    assert chain_of(module) is not None
    assert stack_of(module) is None
    assert engine_of(module).name != "dense"
    symmetry = of(module)
    assert [layer.name for layer in symmetry.layers] == ["first", "hidden"]
    assert symmetry.outside.tolist() == [12, 13, 14]
    assert [layer.rescalable for layer in symmetry.layers] == [True, False]


class Residual(Net):
    def forward(self, x):
        h = self.fc1(x)
        return self.fc2(h + F.relu(h))


class Skip(Net):
    def forward(self, x):
        self.fc1(x)
        return self.fc1(x) + x


class Bypassed(Net):
    """Ignores what its activation gives."""

    def forward(self, x):
        h = self.fc1(x)
        F.relu(h)
        return self.fc2(h)


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 6)

    def forward(self, x):
        return self.fc(F.relu(self.fc(x)))


class Tied(Net):
    def __init__(self):
        super().__init__(second=6)
        self.fc1, self.fc2 = nn.Linear(6, 6), nn.Linear(6, 6)
        self.fc2.weight = self.fc1.weight


class Extra(Net):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))


class Scaled(Extra):
    def forward(self, x):
        return self.scale * super().forward(x)


class Buffered(Net):
    """Counts its passes, and is another function after the third."""

    def __init__(self):
        super().__init__()
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x):
        self.passes += 1
        return super().forward(x if self.passes < 3 else x + 1)


class Dropping(Net):
    def forward(self, x):
        return self.fc2(F.dropout(self.fc1(x), training=self.training))


class Branching(Net):
    def forward(self, x):
        return super().forward(x if x.sum() > 0 else -x)


class Moody(Net):
    def forward(self, x):
        return super().forward(F.relu(x) if self.training else x)


class Gambling(Net):
    def forward(self, x):
        return super().forward(F.relu(x) if random.random() < 2 else x)


class Sly(Net):
    """Does to tensors what a trace does not see."""

    def forward(self, x):
        return super().forward(x + 1 if isinstance(x, torch.Tensor) else x)


class Pair(Net):
    def forward(self, x):
        return self.fc1(x), self.fc2(self.fc1(x))


class Frozen(Net):
    """Gives no gradient to its first layer."""

    def forward(self, x):
        with torch.no_grad():
            h = F.relu(self.fc1(x))
        return self.fc2(h)


class Both(Net):
    def forward(self, x):
        h = self.fc1(x)
        return h, self.fc2(h)


class Twofold(Net):
    def forward(self, x, mask=None):
        return super().forward(x)


class Own(nn.Linear):
    pass


def with_part(part, name="fc1"):
    module = Net()
    setattr(module, name, part)
    return module


def hooked(kind):
    module = Net()
    getattr(module.fc2, f"register_{kind}")(lambda *_: None)
    return module


def replaced():
    module = Net()
    module.fc1.forward = lambda x: torch.zeros(len(x), 5)
    return module


def pruned(module, name, bias=False):
    prune.l1_unstructured(module.get_submodule(name), "bias" if bias else "weight", 2)
    return module


def normed(module, name, old=False):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        norm = nn.utils.weight_norm if old else parametrizations.weight_norm
        norm(module.get_submodule(name))
    return module


def plain():
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


REFUSED = {
    "residual": (Residual, "'module' is a Residual whose forward calls 'add' on something else"),
    "skip": (Skip, "layer 'fc1' is applied to something else than"),
    "bypassed": (Bypassed, "layer 'fc2' is applied to something else than"),
    "inside": (lambda: nn.Sequential(nn.Linear(6, 6), Residual()), "'1' is a Residual"),
    "deep inside": (
        lambda: nn.Sequential(with_part(Skip(), "act")),
        "layer '0.act.fc1' is applied to something else",
    ),
    "shared": (Shared, "layer 'fc' is applied twice"),
    "tied": (Tied, "layer 'fc2.weight' shares its weights with another"),
    "hook": (lambda: hooked("forward_hook"), "layer 'fc2' has hooks"),
    "pre-hook": (lambda: hooked("forward_pre_hook"), "layer 'fc2' has hooks"),
    "backward hook": (lambda: hooked("full_backward_hook"), "layer 'fc2' has hooks"),
    "replaced": (replaced, "layer 'fc1' has a forward that was put in place of its own"),
    "extra": (Extra, "parameter 'scale' is of no layer"),
    "unused": (lambda: with_part(nn.Linear(2, 2), "fc3"), "parameter 'fc3.weight' is of no layer"),
    "scaled": (Scaled, "'module' is a Scaled whose forward uses 'scale' itself"),
    "buffer": (Buffered, "'module' is a Buffered"),
    "F.dropout": (Dropping, "'module' is a Dropping whose forward calls 'dropout'"),
    "control flow": (Branching, "'module' is a Branching whose forward cannot be followed"),
    "mode": (Moody, "'module' is a Moody whose forward differs between training and evaluation"),
    "random": (Gambling, "'module' is a Gambling whose forward draws random numbers"),
    "sly": (Sly, "'module' is a Sly whose forward does something else than its"),
    "frozen": (Frozen, "'module' is a Frozen whose forward does something else than its layers"),
    "pair": (Pair, "layer 'fc1' is applied to something else"),
    "both": (Both, "'module' is a Both whose forward returns something else than"),
    "two inputs": (Twofold, "'module' is a Twofold whose forward takes more than one input"),
    "own linear": (lambda: with_part(Own(6, 5)), "'fc1' is a Own whose forward uses"),
    "batch norm": (lambda: with_part(nn.BatchNorm1d(5), "act"), "'act' is a BatchNorm1d"),
    "softmax": (lambda: Net(act=lambda x: F.softmax(x, 1)), "'module' is a Net .*'softmax'"),
    "flatten all": (lambda: Net(torch.flatten), "'module' is a Net whose forward calls 'flatten'"),
    "fixed batch": (lambda: Net(lambda x: x.view(2, -1)), "'module' is a Net .* calls 'view'"),
    "misfit view": (lambda: Net(lambda x: x.view(-1, 3)), "'module' is a Net"),
    "misfit": (lambda: Net(second=4), "layer 'fc2' takes 4 inputs, but layer 'fc1' has 5 units"),
    "pruned": (lambda: pruned(Net(), "fc1"), "layer 'fc1' is pruned or parametrised"),
    "pruned 0": (lambda: pruned(plain(), "0"), "layer '0' is pruned or parametrised"),
    "pruned bias": (lambda: pruned(plain(), "2", True), "layer '2' is pruned or parametrised"),
    "normed": (lambda: normed(Net(), "fc2"), "layer 'fc2' is pruned or parametrised"),
    "normed 0": (lambda: normed(plain(), "0"), "layer '0' is pruned or parametrised"),
    "old norm": (lambda: normed(plain(), "0", True), "layer '0' is pruned or parametrised"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_the_rest_is_refused_by_layer(name):
    build, message = REFUSED[name]
    module = build()
    assert chain_of(module) is None
    assert stack_of(module) is None
    with pytest.raises(NotAChain, match=message):
        read_chain(module)
    with pytest.raises(TypeError, match=message) as refused:
        of(module)
    told = str(refused.value)
    assert "\n" not in told
    assert told.endswith(
        "its symmetry is not known here; write it as a chain of Linear layers and activations, or "
        "pass symmetry="
    )


def test_hooks_and_buffers_spoil_a_sequential_too():
    module = plain()
    module.register_forward_hook(lambda *_: None)
    with pytest.raises(TypeError, match="layer 'module' has hooks"):
        of(module)
    module = plain()
    module.register_buffer("mask", torch.ones(3))
    with pytest.raises(TypeError, match="buffer 'mask' is of no layer"):
        of(module)


class Careless(Net):
    """Its forward draws, seeds, counts and warns."""

    def __init__(self):
        super().__init__()
        self.calls = 0
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        self.passes += 1
        self.fc1.weight.data.add_(1)
        torch.manual_seed(5)
        torch.rand(3)
        np.random.seed(3)  # noqa: NPY002
        random.seed(3)
        warnings.warn("look at me", UserWarning, stacklevel=1)
        return super().forward(x)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("build", [Net, Blocks, Swapped, Careless, Branching])
def test_the_module_and_the_random_state_stay_as_they_were(build, training):
    module = build().train(training)
    kept = copy.deepcopy(module.state_dict())
    attributes = {name: dict(vars(part)) for name, part in module.named_modules()}
    identities = [id(p) for p in module.parameters()]

    def states():
        numpy = np.random.get_state()[1].tolist()  # noqa: NPY002
        return torch.get_rng_state().tolist(), numpy, random.getstate()

    before = states()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chain_of(module)
    assert states() == before
    assert {name: dict(vars(part)) for name, part in module.named_modules()} == attributes
    assert [id(p) for p in module.parameters()] == identities
    assert all(p.requires_grad and p.grad is None for p in module.parameters())
    assert all(part.training == training for part in module.modules())
    assert all(torch.equal(value, kept[name]) for name, value in module.state_dict().items())
