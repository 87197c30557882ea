"""Barriers of all pairs: those of each pair alone, whatever the block."""

from itertools import combinations

import numpy as np
import pytest
import torch
import xarray as xr

import oracles
from spinscape.glass.matching.alignment import align
from spinscape.glass.paths.all_pairs import barriers_of_all_pairs
from spinscape.glass.paths.barriers import barrier
from spinscape.landscape.energy import Landscape
from spinscape.nets.models import cnn, mlp


def normal(*shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def task(*sizes, replicas=5):
    module = mlp(sizes[0], list(sizes[1:-1]), sizes[-1]).double()
    n = sum(parameter.numel() for parameter in module.parameters())
    y = torch.randint(sizes[-1], (40,), generator=torch.Generator().manual_seed(0))
    return Landscape(module, normal(40, sizes[0], seed=0), y), normal(replicas, n, seed=1)


@pytest.mark.parametrize("definition", ["line", "mean"])
@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("sizes", [(4, 6, 3), (4, 6, 5, 3)])
def test_every_entry_is_what_its_pair_gives_alone(sizes, aligned, definition):
    landscape, points = task(*sizes)
    options = {"definition": definition, "resolution": 7}
    found = barriers_of_all_pairs(landscape, points, aligned=aligned, **options)
    for i, j in combinations(range(len(points)), 2):
        ends = points[i], points[j]
        if aligned:
            pair = align(landscape.module, *ends)
            ends = [torch.from_numpy(pair[name].values) for name in ("reference", "point")]
        alone = barrier(landscape, *ends, **options)
        middle = alone.sel(lam=0.5)
        for a, b in ((i, j), (j, i)):
            assert float(found.barrier[a, b]) == pytest.approx(float(alone.barrier))
            assert float(found.distance[a, b]) == pytest.approx(float(alone.distance))
            assert float(found.midpoint[a, b]) == pytest.approx(float(middle.loss))
            assert float(found.midpoint_error[a, b]) == pytest.approx(float(middle.error))
    models = oracles.models_at(landscape.module, points)
    own = oracles.losses_at(models, landscape.x, landscape.y).numpy()
    assert found.loss.values == pytest.approx(own)
    assert np.diag(found.midpoint) == pytest.approx(own)
    errors = oracles.errors_at(models, landscape.x, landscape.y).numpy()
    assert np.diag(found.midpoint_error) == pytest.approx(errors)
    assert not np.diag(found.barrier).any()
    assert not np.diag(found.distance).any()
    assert all(var.attrs["units"] and var.attrs["long_name"] for var in found.data_vars.values())
    assert {"seed", "arguments", "versions", "source"} <= set(found.attrs)


@pytest.mark.parametrize("aligned", [False, True])
def test_barriers_do_not_depend_on_memory(aligned):
    landscape, points = task(4, 6, 5, 3)
    whole = barriers_of_all_pairs(landscape, points, aligned=aligned)
    pieces = barriers_of_all_pairs(landscape, points, aligned=aligned, memory=1)
    xr.testing.assert_allclose(pieces, whole, rtol=1e-10)


def test_hidden_copies_of_one_solution_are_walled_off_until_they_are_aligned():
    landscape, points = task(4, 6, 3)
    copies = [oracles.hidden_copy(landscape.module, points[0], seed=k)[0] for k in range(4)]
    raw, aligned = (
        barriers_of_all_pairs(landscape, torch.stack(copies), aligned=kind)
        for kind in (False, True)
    )
    assert float(raw.barrier.max()) > 0.1
    assert np.ptp(raw.midpoint.values) > 0.1
    assert aligned.barrier.values == pytest.approx(0, abs=1e-10)
    assert aligned.distance.values == pytest.approx(0, abs=1e-10)
    assert np.ptp(aligned.midpoint.values) < 1e-10


def test_what_has_no_barriers_is_refused_by_name():
    landscape, points = task(4, 6, 3)
    with pytest.raises(ValueError, match=r"^points: expected at least two solutions, got 1"):
        barriers_of_all_pairs(landscape, points[0])
    with pytest.raises(ValueError, match=r"^resolution=10: expected an odd number"):
        barriers_of_all_pairs(landscape, points, resolution=10)
    with pytest.raises(ValueError, match=r"^resolution=1"):
        barriers_of_all_pairs(landscape, points, resolution=1)
    with pytest.raises(ValueError, match=r"^definition='top'"):
        barriers_of_all_pairs(landscape, points, definition="top")
    with pytest.raises(ValueError, match=r"^memory=0"):
        barriers_of_all_pairs(landscape, points, memory=0)
    image = Landscape(cnn(1, 2, width=2), torch.zeros(4, 1, 4, 4), torch.tensor([0, 1, 0, 1]))
    solutions = normal(3, image.n, seed=2).float()
    with pytest.raises(TypeError, match=r"Conv2d.*pass symmetry="):
        barriers_of_all_pairs(image, solutions, aligned=True)
    assert barriers_of_all_pairs(image, solutions).sizes == {"replica": 3, "other": 3}
