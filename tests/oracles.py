"""Known answers, computed without the code that they judge."""

import copy
from itertools import combinations, pairwise, permutations

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, hessian
from torch.nn.functional import cross_entropy, mse_loss, one_hot

# Networks of any kind, one model at a time


def loaded(module, point):
    """A copy of the module with the weights of a point, in evaluation mode."""
    model = copy.deepcopy(module).to(point.dtype).eval()
    rest = point.detach().clone()
    for _, parameter in model.named_parameters():
        size = parameter.numel()
        parameter.data = rest[:size].reshape(parameter.shape)
        rest = rest[size:]
    assert len(rest) == 0
    return model


def flat(tensors):
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def point_of(module):
    return flat(parameter.detach() for _, parameter in module.named_parameters())


def mean_loss(outputs, y, loss="cross_entropy"):
    if callable(loss):
        return loss(outputs, y)
    if loss == "cross_entropy":
        return cross_entropy(outputs, y)
    targets = y if y.is_floating_point() else one_hot(y, outputs.shape[-1])
    return mse_loss(outputs, targets.to(outputs.dtype))


def update_statistics(model, x, batch):
    """Cumulative running statistics of batch norm on consecutive batches."""
    layers = [part for part in model.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None
        layer.train()
    with torch.no_grad():
        for k in range(0, len(x), batch):
            model(x[k : k + batch])
    return model.eval()


def models_at(module, points, statistics=None, batch=256):
    """One model a point ``[P, n]``; statistics re-estimated on the given inputs."""
    models = [loaded(module, point) for point in points]
    if statistics is not None:
        models = [update_statistics(model, statistics, batch) for model in models]
    return models


def outputs_at(models, x):
    with torch.no_grad():
        return torch.stack([model(x) for model in models])


def losses_at(models, x, y, loss="cross_entropy"):
    with torch.no_grad():
        return torch.stack([mean_loss(model(x), y, loss) for model in models])


def errors_at(models, x, y):
    outputs = outputs_at(models, x)
    return (outputs.argmax(-1) != y).to(outputs.dtype).flatten(1).mean(1)


def gradients_at(models, x, y, loss="cross_entropy"):
    found = []
    for model in models:
        value = mean_loss(model(x), y, loss)
        found.append(flat(torch.autograd.grad(value, list(model.parameters()))))
    return torch.stack(found)


def products_at(models, vectors, x, y, loss="cross_entropy"):
    """Hessian of each model's loss times its vector."""
    found = []
    for model, vector in zip(models, vectors, strict=True):
        parameters = list(model.parameters())
        value = mean_loss(model(x), y, loss)
        slope = flat(torch.autograd.grad(value, parameters, create_graph=True)) @ vector
        parts = torch.autograd.grad(slope, parameters, materialize_grads=True)
        found.append(flat(parts))
    return torch.stack(found)


# Networks of linear layers, taken apart one layer at a time


def taken_apart(module, point):
    """Weights and biases of each linear layer, as copies."""
    parts, start = [], 0
    for layer in (part for part in module if isinstance(part, nn.Linear)):
        places = layer.weight.numel(), layer.bias.numel()
        weight, bias = point[start : start + sum(places)].clone().split(places)
        parts.append([weight.view_as(layer.weight), bias])
        start += sum(places)
    return parts


def put_together(parts):
    return torch.cat([values.flatten() for part in parts for values in part])


def run_point(module, point, x):
    """Outputs of the module with a point's weights."""
    shapes = {name: parameter.shape for name, parameter in module.named_parameters()}
    values = point.split([shape.numel() for shape in shapes.values()])
    named = {k: v.view(s) for (k, s), v in zip(shapes.items(), values, strict=True)}
    return functional_call(module, named, (x,))


def dense_hessian(module, x, y, point):
    """Hessian of the mean cross-entropy at a point, as one matrix."""
    return hessian(lambda w: nn.functional.cross_entropy(run_point(module, w, x), y))(point)


def permuted(module, point, orders):
    """A point whose hidden unit k of each layer is what was unit ``orders[layer][k]``."""
    parts = taken_apart(module, point)
    for (first, second), order in zip(pairwise(parts), orders, strict=True):
        first[0], first[1] = first[0][order], first[1][order]
        second[0] = second[0][:, order]
    return put_together(parts)


def unit_norms(module, point):
    """Norms of what leads into and out of each unit, a pair of vectors a hidden layer."""
    return [
        (torch.cat([first[0], first[1][:, None]], 1).norm(dim=1), second[0].norm(dim=0))
        for first, second in pairwise(taken_apart(module, point))
    ]


def balanced(module, point):
    """The rescaled copy of smallest norm: all units in turn until nothing moves."""
    parts = taken_apart(module, point)
    for _ in range(2000 if len(parts) > 2 else 1):
        for (first, second), (incoming, outgoing) in zip(
            pairwise(parts), unit_norms(module, put_together(parts)), strict=True
        ):
            factor = (outgoing / incoming).sqrt()
            first[0], first[1] = first[0] * factor[:, None], first[1] * factor
            second[0] = second[0] / factor
    return put_together(parts)


def hidden_copy(module, point, *, seed, permute=True, scales=None):
    """A network of the same function: units permuted and rescaled by e^normal or by `scales`."""
    generator = torch.Generator().manual_seed(seed)
    parts, orders = taken_apart(module, point), []
    for first, second in pairwise(parts):
        width = len(first[1])
        factor = torch.randn(width, generator=generator, dtype=point.dtype).exp()
        if scales is not None:
            chosen = torch.randint(len(scales), (width,), generator=generator)
            factor = torch.tensor(scales, dtype=point.dtype)[chosen]
        first[0], first[1] = first[0] * factor[:, None], first[1] * factor
        second[0] = second[0] / factor
        order = torch.randperm(width, generator=generator)
        orders.append(order if permute else torch.arange(width))
    return permuted(module, put_together(parts), orders), orders


def nearest_by_enumeration(module, a, b, *, rescaled):
    """Least distance of a to all permutations of b's hidden units, in one hidden layer."""
    if rescaled:
        a, b = balanced(module, a), balanced(module, b)
    width = len(taken_apart(module, a)[0][1])
    orders = permutations(range(width))
    return min(float((a - permuted(module, b, [list(order)])).norm()) for order in orders)


def best_assignment(scores):
    """Largest sum of one number a row and a column."""
    width = len(scores)
    orders = permutations(range(width))
    return max(sum(float(scores[k, o]) for k, o in enumerate(order)) for order in orders)


# Trees


def triangle_k(distance):
    """K of Hed, Young and Domany, triangle by triangle."""
    sides = [distance[i, j] for i, j in combinations(range(len(distance)), 2)]
    gaps = []
    for i, j, k in combinations(range(len(distance)), 3):
        _, median, largest = sorted((distance[i, j], distance[i, k], distance[j, k]))
        gaps.append(largest - median)
    return np.mean(gaps) / np.std(sides)


def subdominant(distance):
    """The largest ultrametric below a distance: the least highest step of all paths."""
    lowest = np.array(distance)
    for k in range(len(lowest)):
        lowest = np.minimum(lowest, np.maximum(lowest[:, [k]], lowest[[k]]))
    return lowest


def planted_tree(shape, scales, size, *, seed):
    """Leaves of a tree whose nodes each add Gaussian noise of their level's scale."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.zeros(1, size, dtype=torch.float64)
    for branches, scale in zip(shape, scales, strict=True):
        drawn = torch.randn(len(points), branches, size, generator=generator, dtype=points.dtype)
        points = (points[:, None] + scale * drawn).flatten(0, 1)
    return points


# Walks


class Bowl:
    """Energy ½ Σ h w², with its Hessian."""

    def __init__(self, curvatures):
        self.curvatures = torch.as_tensor(curvatures, dtype=torch.float64)

    def energy(self, points):
        return (self.curvatures * points.square()).sum(-1) / 2

    def hvp(self, points, vectors):
        return self.curvatures * vectors


# Straight paths


def relu_population_loss(points, teacher):
    """½E(Σ relu(w·x) − Σ relu(t·x))² over standard normal x, of incoming weights ``[..., k·d]``."""
    units = points.unflatten(-1, (-1, teacher.shape[-1]))
    teacher = teacher.expand(*units.shape[:-2], *teacher.shape)
    rows = torch.cat([units, -teacher], dim=-2)  # a unit less: the sign is of what leads out of it
    signs = torch.ones(rows.shape[-2], dtype=rows.dtype)
    signs[units.shape[-2] :] = -1
    rows = rows * signs[:, None]
    norms = rows.norm(dim=-1)
    products = norms[..., :, None] * norms[..., None, :]
    cosine = (rows @ rows.mT / products.clamp(min=1e-300)).clamp(-1, 1)
    angle = cosine.acos()
    kernel = products * (angle.sin() + (torch.pi - angle) * cosine) / (2 * torch.pi)
    return (signs[:, None] * kernel * signs).sum((-1, -2)) / 2


class Seen:
    """A landscape that keeps the ends of every line it is asked for."""

    def __init__(self, landscape):
        self.landscape, self.module, self.ends = landscape, landscape.module, []

    def lines(self, origins, directions, lam):
        self.ends.append((origins.clone(), origins + directions))
        return self.landscape.lines(origins, directions, lam)
