"""`reproduce`: every claim is tested, by parts that are the same however they were computed."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import xarray as xr

import spinscape as ss
from spinscape import report
from spinscape.cli import main
from spinscape.report.claims import claims_of
from spinscape.store import Run, runs
from spinscape.studies import liao2024
from tiny_study import FEW, TINY

PARTS = {
    "walk/threshold",
    "walk/langevin",
    "walk/units",
    "walk/free_untrained",
    "walk/free_halfway",
    "walk/quenches",
    "permutation_copies",
    "permutation_widths",
    "permutation_pairs",
    "permutation_pairs_aligned",
    "permutation_repair",
    "permutation_bezier",
    "permutation_points",
    "hierarchy_overlaps",
    "hierarchy_sets",
    "hierarchy_agreement",
    "hierarchy_cka",
    "hierarchy_untrained",
    "clones",
    "clones_family",
    "ruggedness_flattened",
}
SHARED = ["population", "walk/free", "walk/thermal", "permutation", "hierarchy"]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("reproduced") / "run"


@pytest.fixture(scope="module")
def run(path):
    return ss.reproduce("liao2024", seed=0, out=path, **FEW)


def test_a_run_holds_what_every_protocol_found(run):
    assert set(run.part_names()) >= PARTS | set(SHARED) | {"ruggedness"}
    assert run.study == "liao2024"
    for name in sorted(PARTS):
        part = run.dataset(name)
        assert part.attrs["source"], name
        assert "seed" in part.attrs, name
    assert (run.path / "page.html").stat().st_size > 0


def test_every_finding_that_a_claim_names_was_made(run):
    asked = {finding.question for finding in run.findings}
    for claim in claims_of("liao2024"):
        assert claim.deciding, claim.key
        assert not set(claim.deciding) - asked
        assert not set(claim.beside) - asked
        assert claim.verdict(list(run.findings)) in ("supported", "not supported", "undecided")


@pytest.mark.parametrize("name", sorted(PARTS | set(SHARED) | {"ruggedness"}))
def test_every_part_can_be_drawn_alone(run, name):
    figures = report.draw(run.dataset(name))
    assert figures
    for key, figure in figures.items():
        assert len(figure.data) > 0, key


def test_explore_computes_the_same(run, tmp_path):
    given = {name: value for name, value in TINY.items()}
    other = ss.explore("digits", seed=0, out=tmp_path / "run", **given)
    for name in SHARED:
        xr.testing.assert_identical(run.dataset(name), other.dataset(name))


def test_it_goes_on_and_repeats_nothing(run, path, monkeypatch):
    def never(*_):
        raise AssertionError("computed again")

    monkeypatch.setattr(runs, "_computed", never)
    again = ss.reproduce("liao2024", seed=0, out=path, **FEW)
    assert [finding.to_dict() for finding in again.findings] == [
        finding.to_dict() for finding in run.findings
    ]


def test_two_workers_give_the_same_numbers(run, tmp_path):
    other = ss.reproduce("liao2024", seed=0, out=tmp_path / "run", workers=2, **FEW)
    for name in sorted(PARTS):
        one, two = run.dataset(name), other.dataset(name)
        for variable in one.variables:
            a, b = one[variable].values, two[variable].values
            if np.issubdtype(a.dtype, np.floating):
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6, err_msg=f"{name} {variable}")


def test_sets_share_no_replica_with_the_population_nor_with_each_other(run):
    sets = run.dataset("hierarchy_sets")
    population = run.dataset("population")
    assert sets.sizes["set"] == FEW["sets"]
    means = [*sets["mean_distance"].values, float(run.dataset("hierarchy")["mean_distance"])]
    assert len(set(np.round(means, 6))) == len(means)
    assert population.sizes["replica"] == FEW["replicas"]


def test_a_network_that_died_is_kept_from_the_comparison_of_kernels():
    data = ss.datasets.load("digits", seed=0)
    module = ss.models.mlp(64, [4], 10)
    landscape = ss.Landscape(module, *data.test)
    points = ss.points(ss.train(module, data, replicas=3, epochs=1, seed=0))
    dead = points[1].clone()
    dead[: 64 * 4] = 0.0  # hidden weights
    dead[64 * 4 : 64 * 4 + 4] = -1.0  # hidden biases: no unit is ever on
    kept = liao2024._responsive(landscape, torch.stack([points[0], dead, points[2]]))
    assert torch.equal(kept, points[[0, 2]])


def test_papers_that_are_not_known_are_refused(tmp_path, capsys):
    with pytest.raises(ValueError, match=r"paper='liao'.*expected one of liao2024"):
        ss.reproduce("liao", out=tmp_path / "run")
    with pytest.raises(SystemExit) as stopped:
        main(["reproduce", "barney"])
    assert stopped.value.code == 2
    assert "paper='barney'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("set_replicas", 3, "expected 4 or more"),
        ("clone_children", 1, "expected 2 or more"),
        ("path_widths", [], "at least one value"),
        ("nonsense", 1, "no such setting"),
    ],
)
def test_settings_out_of_range_are_refused(name, value, told, tmp_path):
    with pytest.raises(ValueError, match=f"{name}.*{told}"):
        ss.reproduce("liao2024", out=tmp_path / "run", **{name: value})


def test_the_command_tells_claims_and_goes_on_from_a_file(run, path, tmp_path, capsys):
    settings = tmp_path / "few.toml"
    lines = [f"{name} = {json.dumps(value)}" for name, value in FEW.items()]
    settings.write_text("\n".join(lines))
    command = ["reproduce", "liao2024", "--config", str(settings), "--out", str(path)]
    with pytest.raises(SystemExit) as ended:
        main([*command, "--workers", "1", "--json"])
    assert ended.value.code == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["claim"] for row in told["claims"]] == [c.text for c in claims_of("liao2024")]
    assert len(told["findings"]) == len(list(run.findings))
    with pytest.raises(SystemExit):
        main(["report", str(path)])
    shown = capsys.readouterr().out
    assert shown.count("claim ") >= len(told["claims"])


def test_presets_fit_the_study():
    for preset, settings in liao2024.LIAO_PRESETS.items():
        assert settings.sets >= 3, preset
        assert settings.surrogates >= 100, preset
        assert settings.clone_ancestors >= 2, preset
        assert len(settings.path_widths) >= 2, preset


def test_a_run_of_a_paper_is_not_one_of_explore(run, path):
    with pytest.raises(Exception, match="liao2024"):
        ss.explore("digits", out=path, **TINY)
    assert Run.load(path).study == "liao2024"
