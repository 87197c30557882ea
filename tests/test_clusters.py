"""The same cells on a real dask and a real ray cluster of two worker processes each."""

import os
import subprocess
import sys
import time
from functools import partial

import pytest
import torch

import spinscape as ss
from spinscape import clusters, parallel
from spinscape.clusters import Workers
from tiny_study import TINY


def draw(seed: int) -> tuple[torch.Tensor, int]:
    generator = torch.Generator().manual_seed(seed)
    time.sleep(0.05)
    return torch.randn(300, generator=generator, dtype=torch.float64).cumsum(0), os.getpid()


def fail(number: int) -> int:
    if number == 2:
        raise ValueError("width=0: expected 1 or more")
    return number


@pytest.fixture(scope="module")
def dask_address():
    distributed = pytest.importorskip("distributed")
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    )
    with cluster:
        yield cluster.scheduler_address


@pytest.fixture(scope="module")
def ray_address():
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    memory = 200 * 2**20
    node = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": memory}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    yield cluster.address
    cluster.shutdown()


@pytest.fixture(params=["dask", "ray"])
def workers(request):
    return Workers(None, request.param, request.getfixturevalue(f"{request.param}_address"))


def test_a_cluster_gives_the_same_numbers_on_two_processes(workers):
    cells = [partial(draw, seed) for seed in range(8)]
    here = [numbers for numbers, _ in parallel.map(cells, 1)]
    seen = []
    there = list(parallel.map(cells, workers, progress=lambda done, all: seen.append((done, all))))
    assert all(torch.equal(one, other) for one, (other, _) in zip(here, there, strict=True))
    processes = {process for _, process in there}
    assert len(processes) == 2
    assert os.getpid() not in processes
    assert seen == [(k, 8) for k in range(1, 9)]


def test_what_a_cell_raises_on_a_cluster_names_the_cell(workers):
    with pytest.raises(ValueError, match="width=0") as raised:
        list(parallel.map([partial(fail, number) for number in range(4)], workers))
    assert "in cell 2 of 4" in "".join(raised.value.__notes__)


def test_a_study_on_a_cluster_gives_the_same_numbers(workers, tmp_path):
    here = ss.explore("digits", seed=3, out=tmp_path / "here", **TINY)
    there = ss.explore(
        "digits",
        seed=3,
        out=tmp_path / "there",
        workers=None,
        backend=workers.backend,
        address=workers.address,
        **TINY,
    )
    assert [f.to_dict() for f in here.findings] == [f.to_dict() for f in there.findings]
    for name in here.part_names():
        one, other = here.dataset(name), there.dataset(name)
        assert one.drop_attrs().identical(other.drop_attrs()), name


@pytest.mark.parametrize("backend", ["dask", "ray"])
def test_an_address_where_no_cluster_answers_is_one_clear_error(backend, monkeypatch):
    monkeypatch.setattr(clusters, "CONNECT_SECONDS", 1)
    address = {"dask": "tcp://127.0.0.1:9", "ray": "127.0.0.1:9"}[backend]
    with pytest.raises(RuntimeError, match=f"no {backend} cluster answers") as raised:
        list(parallel.map([partial(draw, 0)], Workers(None, backend, address)))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"backend": "slurm"}, "backend='slurm': expected one of loky, dask, ray"),
        ({"address": "tcp://here:1"}, "of which cluster"),
        ({"count": None, "backend": "dask"}, "needs address="),
        ({"count": 2, "backend": "ray", "address": "auto"}, "leave workers out"),
        ({"count": 0}, "workers must be at least 1"),
    ],
)
def test_workers_that_cannot_be_are_refused(given, told):
    with pytest.raises(ValueError, match=told):
        Workers(**given)


@pytest.mark.parametrize(("backend", "library"), [("dask", "distributed"), ("ray", "ray")])
def test_a_missing_extra_is_named(backend, library, monkeypatch):
    real = clusters.import_module

    def without(name: str):
        if name == library:
            raise ImportError(name)
        return real(name)

    monkeypatch.setattr(clusters, "import_module", without)
    with pytest.raises(ImportError, match=rf"pip install 'spinscape\[{backend}\]'"):
        Workers(None, backend, "anywhere")


def test_clusters_are_imported_only_when_asked_for():
    code = "import sys, spinscape; print({'distributed', 'ray'} & set(sys.modules))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "set()"
