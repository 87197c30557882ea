"""`explore` pointed at what is the user's own: data, networks, checkpoints, and bad luck."""

import os
import struct

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.torch import load_file, save_file

import spinscape as ss
from spinscape.nets.initialisation import initial_points
from spinscape.studies import conducting, exploration
from tiny_study import DATA, GIVEN, NETS, OWN, PROTOCOLS, TINY, checkpoints, spoken, toml, written


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch):
    """That data reach the disk is tested with the store; here it only takes time."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def population_only(monkeypatch):
    monkeypatch.setattr(exploration.Study, "protocols", {})


@pytest.fixture
def nets(tmp_path):
    return str(written(tmp_path, "nets.py", NETS))


def command(capsys, *words: str) -> str:
    """What the command line says when all goes well, with its lines joined."""
    told = spoken(capsys, "explore", *words)
    assert told.status == 0, told.err
    return " ".join(told.out.split())


# Networks


def test_a_network_of_ones_own_is_explored_and_random_states_are_untouched(tmp_path, nets):
    torch.manual_seed(3)
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    run = ss.explore("digits", model=f"{nets}:build", out=tmp_path / "run", **OWN)
    assert torch.equal(torch.get_rng_state(), states[0])
    np.testing.assert_array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert run.config["left_out"] == {}
    assert {*PROTOCOLS} <= set(run.part_names())
    assert set(run.dataset("ruggedness")["width"].values) == {0}


def test_a_network_of_ones_own_reaches_workers(tmp_path, nets, population_only):
    settings = OWN | {"replicas": 40}  # two pieces
    one, two = (
        ss.explore("digits", model=f"{nets}:build", out=tmp_path / str(n), workers=n, **settings)
        for n in (1, 2)
    )
    xr.testing.assert_identical(one.dataset("population"), two.dataset("population"))
    assert one.dataset("population").sizes["replica"] == 40


def test_a_module_handed_over_is_untouched(tmp_path):
    module = torch.nn.Sequential(
        torch.nn.Linear(64, 4), torch.nn.BatchNorm1d(4), torch.nn.ReLU(), torch.nn.Linear(4, 10)
    ).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    run = ss.explore("digits", model=module, out=tmp_path / "run", **OWN)
    assert module.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert set(run.config["left_out"]) == {"permutation", "hierarchy"}


def test_another_network_of_the_same_name_is_refused(tmp_path, nets, population_only):
    ss.explore("digits", model=f"{nets}:build", out=tmp_path / "run", **OWN)
    written(tmp_path, "nets.py", NETS.replace("def build", "def old").replace("other", "build"))
    with pytest.raises(ValueError, match="model_fingerprint is"):
        ss.explore("digits", model=f"{nets}:build", out=tmp_path / "run", **OWN)


def test_a_convolution_takes_images_and_is_not_permuted(tmp_path, nets, capsys):
    config = toml(tmp_path, **OWN)
    out = str(tmp_path / "run")
    told = command(capsys, "--model", f"{nets}:convolution", "--config", config, "--out", out)
    run = ss.Run.load(out)
    assert run.dataset("population").sizes["n"] == 2 * 9 + 2 + 72 * 10 + 10
    assert {"walk/free", "walk/thermal", "ruggedness"} <= set(run.part_names())
    assert not {"permutation", "hierarchy"} & set(run.part_names())
    page = (run.path / "page.html").read_text()
    for protocol in ("permutation", "hierarchy"):
        assert f"left out: {protocol} (which hidden units may be exchanged is not known" in told
    assert told.count("Conv2d: its symmetry is not known here") == 2
    assert page.count("Conv2d: its symmetry is not known here") >= 2


@pytest.mark.parametrize(
    ("function", "told"),
    [
        ("misfit", r"model .*:misfit: cannot take samples of shape \(64,\) .*64 and 7x4"),
        ("three", r"outputs of shape \(2, 3\), expected \[2, 10\]"),
        ("word", "gives str, expected a nn.Module"),
        ("absent", "has no function 'absent'"),
    ],
)
def test_a_network_that_does_not_fit_is_refused(tmp_path, nets, function, told):
    with pytest.raises((ValueError, TypeError), match=told):
        ss.explore("digits", model=f"{nets}:{function}", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


# Checkpoints


def test_checkpoints_go_through_every_protocol_and_nothing_is_trained(
    tmp_path, nets, capsys, monkeypatch
):
    pattern = checkpoints(tmp_path, 5)
    monkeypatch.setattr(exploration, "train", None)
    monkeypatch.setattr("spinscape.studies.hyper.train", None)
    words = ["--model", f"{nets}:build", "--checkpoints", pattern]
    config, out = toml(tmp_path, **GIVEN), str(tmp_path / "run")
    told = command(capsys, *words, "--config", config, "--out", out)
    run = ss.Run.load(out)
    population = run.dataset("population")
    assert [os.path.basename(path) for path in population["checkpoint"].values] == [
        f"{index}.safetensors" for index in range(5)
    ]
    assert set(run.part_names()) == {
        "population",
        *PROTOCOLS,
        *(
            f"walk_pieces/{rule},walkers={w}"
            for rule in ("free", "thermal")
            for w in ("0-7", "8-11")
        ),
    }
    assert told.count("left out") == told.count("left out: generalisation (") == 1
    assert "only networks trained to equal loss can be compared" in run.findings[-1].statement
    assert run.findings[-1].verdict == "undecided"


@pytest.mark.parametrize(
    ("count", "left_out"),
    [
        (2, {"hierarchy": "needs 4 networks, got 2"}),
        pytest.param(
            1,
            {"permutation": "needs 2 networks, got 1", "hierarchy": "needs 4 networks, got 1"},
        ),
    ],
)
def test_few_checkpoints_leave_out_what_needs_more(tmp_path, nets, capsys, count, left_out):
    words = ["--model", f"{nets}:build", "--checkpoints", checkpoints(tmp_path, count)]
    config, out = toml(tmp_path, **GIVEN), str(tmp_path / "run")
    told = command(capsys, *words, "--config", config, "--out", out)
    run = ss.Run.load(out)
    assert run.config["left_out"].pop("generalisation")
    assert run.config["left_out"] == left_out
    assert run.dataset("ruggedness").sizes["replica"] == count
    for protocol, reason in left_out.items():
        assert f"left out: {protocol} ({reason})" in told
        assert reason in (run.path / "page.html").read_text()
        assert protocol not in run.part_names()


def test_other_contents_of_the_same_checkpoint_are_refused(tmp_path, nets, population_only):
    pattern = checkpoints(tmp_path, 2)
    options = {"model": f"{nets}:build", "checkpoints": pattern, "out": tmp_path / "run"}
    ss.explore("digits", **options, **GIVEN)
    changed = {name: 1.5 * value for name, value in load_file(tmp_path / "1.safetensors").items()}
    save_file(changed, tmp_path / "0.safetensors")
    with pytest.raises(ValueError, match=r"checkpoints\..*0\.safetensors is"):
        ss.explore("digits", **options, **GIVEN)


def test_what_would_falsify_a_run_of_given_networks_is_refused_by_name(tmp_path, nets):
    options = {"model": f"{nets}:build", "checkpoints": checkpoints(tmp_path, 2)}
    with pytest.raises(ValueError, match=r"^replicas=8: .*nothing is trained"):
        ss.explore("digits", **options, **GIVEN, replicas=8)
    first = load_file(tmp_path / "1.safetensors")
    save_file(first, tmp_path / "last.safetensors")
    with pytest.raises(ValueError, match=r"1\.safetensors and .*last\.safetensors hold the same"):
        ss.explore("digits", **options, **GIVEN)
    save_file({name: value / 0 for name, value in first.items()}, tmp_path / "last.safetensors")
    with pytest.raises(ValueError, match=r"last\.safetensors: holds weights that are not finite"):
        ss.explore("digits", **options, **GIVEN)


def test_walkers_of_few_networks_know_their_start(tmp_path, nets):
    pattern, out = checkpoints(tmp_path, 3), tmp_path / "run"
    run = ss.explore("digits", model=f"{nets}:build", checkpoints=pattern, out=out, **GIVEN)
    assert run.dataset("walk/free")["start"].values.tolist() == [0, 1, 2] * 4
    walks = [finding for finding in run.findings if finding.protocol == "walk"]
    assert all("12 walkers from 3 solutions" in finding.statement for finding in walks)


def test_replicas_begin_as_the_function_of_the_user_begins(tmp_path):
    code = (
        NETS
        + """

def quiet():
    net = build()
    nn.init.zeros_(net[0].bias)
    return net

class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        import torch
        self.linear, self.scale = nn.Linear(64, 10), nn.Parameter(torch.ones(10))

    def forward(self, x):
        return self.scale * self.linear(x)
"""
    )
    source = written(tmp_path, "more.py", code)
    study = conducting.study_of(exploration.Study, "digits", model=f"{source}:quiet", **OWN)
    begun = initial_points(study.module, [0, 1], study.source.init)
    assert begun[:, 256:260].abs().max() == 0
    assert not torch.equal(begun[0], begun[1])
    study = conducting.study_of(exploration.Study, "digits", model=f"{source}:Scaled", **OWN)
    assert initial_points(study.module, [0], study.source.init).isfinite().all()


def test_statistics_that_are_re_estimated_have_no_quadratic_law(tmp_path):
    code = (
        NETS
        + """

def normalised():
    return nn.Sequential(nn.Linear(64, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 10))
"""
    )
    source = written(tmp_path, "more.py", code)
    run = ss.explore("digits", model=f"{source}:normalised", out=tmp_path / "run", **OWN)
    assert "quadratic_law" not in run.dataset("walk/free")
    questions = [finding.question for finding in run.findings if finding.protocol == "walk"]
    assert questions
    assert not any("bowl of its curvature" in question for question in questions)


# Data


def test_a_users_function_gives_the_data(tmp_path, population_only):
    source = f"{written(tmp_path, 'mine.py', DATA)}:load"
    run = ss.explore(source, out=tmp_path / "run", **TINY)
    assert run.config["data"] == source
    assert run.dataset("population").sizes["n"] == 6 * 4 + 4 + 4 * 2 + 2


def test_a_folder_of_idx_files_gives_the_data(tmp_path, population_only):
    generator = np.random.default_rng(0)
    folder = tmp_path / "small"
    folder.mkdir()
    for stem, count in (("train", 200), ("t10k", 60)):
        images = generator.integers(0, 256, (count, 5, 4), dtype=np.uint8)
        labels = (np.arange(count) % 3).astype(np.uint8)
        header = struct.pack(">BBBBIII", 0, 0, 8, 3, count, 5, 4)
        (folder / f"{stem}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        header = struct.pack(">BBBBI", 0, 0, 8, 1, count)
        (folder / f"{stem}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())
    run = ss.explore(folder, out=tmp_path / "run", **TINY | {"sample_limit": 0})
    assert run.config["data"] == "small"
    assert run.dataset("population").sizes["n"] == 20 * 4 + 4 + 4 * 3 + 3


# Bad luck


def test_diverged_replicas_are_marked_and_shown(tmp_path, monkeypatch):
    rates = [0.1, 0.1, 1e9, 0.1, 0.1, 0.1, 0.1, 1e9]

    def uneven(*arguments, **options):
        return ss.train(*arguments, **options | {"learning_rate": rates})

    monkeypatch.setattr(exploration, "train", uneven)
    run = ss.explore("digits", out=tmp_path / "run", **TINY)
    population = run.dataset("population")
    np.testing.assert_array_equal(population["diverged"], np.array(rates) > 1)
    assert population.sizes["replica"] == 8
    assert run.dataset("hierarchy").sizes["replica"] == 6
    assert np.isfinite(run.dataset("walk/free")["energy"].values[:, 0]).all()
    page = (run.path / "page.html").read_text()
    assert "2 of 8 replicas diverged and are left out here and below" in page


def test_all_diverged_is_told_and_nothing_else_is_computed(tmp_path):
    with pytest.raises(ValueError, match=r"of 8 replicas 0 did not diverge.*lower learning_rate"):
        ss.explore("digits", out=tmp_path / "run", **TINY | {"learning_rate": 1e9})
    run = ss.Run.load(tmp_path / "run")
    assert run.part_names() == ["population", "training/replicas=0-7"]
    assert run.dataset("population")["diverged"].all()


def test_a_loss_that_nobody_reaches_is_undecided(tmp_path):
    run = ss.explore("digits", out=tmp_path / "run", **TINY | {"stop_at": 1e-6})
    assert not run.dataset("ruggedness")["reached"].any()
    found = [finding for finding in run.findings if finding.protocol == "ruggedness"]
    assert found
    assert all(finding.verdict == "undecided" for finding in found)
    assert all("too few to compare" in finding.statement for finding in found)


def test_more_replicas_than_memory_are_trained_in_chunks():
    data = ss.datasets.load("digits", seed=0, limit=300)
    module = ss.models.mlp(64, [4], 10).double()
    steps = []
    options = {
        "replicas": 7,
        "epochs": 2,
        "seed": 0,
        "learning_rate": list(np.linspace(0.05, 0.2, 7)),
    }
    whole = ss.train(module, data, **options)
    small = ss.train(module, data, **options, memory=1, progress=lambda *p: steps.append(p))
    assert steps.count(steps[-1]) == 7  # one training a replica
    xr.testing.assert_allclose(whole, small, rtol=1e-9)
