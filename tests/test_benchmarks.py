"""The benchmarks' harness, and every row at a size that takes no time; nothing here is timed."""

import json

import pytest
from benchmarks import __main__ as command
from benchmarks import align, comparing, curvature, harness, landscape, spins, training, units

SMALL = {
    "training": lambda: training.duels(((5, 3, 2, 1.0, 1.0),)),
    "landscape": lambda: [
        *landscape.energies(3, (5, 4, 3), 20),
        landscape.plane(3, (5, 4, 3), 20, steps=2),
        landscape.fine_line(401, (5, 4, 3), 20),
    ],
    "curvature": lambda: [
        curvature.many_points(2, (6, 5, 3)),
        curvature.one_network("curvlinops", "cnn", 20),
        curvature.one_network("pyhessian", "cnn", 20),
    ],
    "align": lambda: [align.all_pairs(3, (6, 5, 3))],
    "comparing": lambda: [
        *comparing.reading(0.0005, "F32", 2**10),
        *comparing.reading(0.0005, "BF16", 2**10),
    ],
    "units": lambda: [units.against_whole(3, 4, None, 6, 20), units.flat(3, (2, 4), 6, 20)],
    "spins": lambda: [
        spins.against_pytorch((40, 30, 20), 64, None, sweeps=20),
        spins.against_product((6, 5), 4, None, sweeps=3, square=8),
        spins.rounded(16, 64, None, sweeps=20),
        spins.against_annealer("dwave.samplers", 64, sweeps=60),
        spins.against_annealer("openjij", 64, sweeps=60),
        spins.against_tempering(33, 4, 200),
    ],
}


def duel(**changes):
    both = {"ours": lambda: lambda: None, "peer": lambda: lambda: None, "agree": lambda: None}
    return harness.Duel(**{"name": "toy", "peer_name": "other", **both, **changes})


def test_a_case_holds_the_best_times_and_their_ratio():
    calls = []
    case = harness.compare(
        "toy",
        lambda: calls.append("ours"),
        lambda: calls.append("peer"),
        "other",
        repeats=3,
        peer_scale=1e6,
        wanted=2.0,
        note="a note",
    )
    assert calls == ["ours", "peer"] * 4  # in turn, after a warm-up
    assert case.peer > case.ours > 0
    assert case.ratio == case.peer / case.ours
    assert min(case.ours_spread, case.peer_spread) >= 0
    assert json.loads(json.dumps(case.to_dict())) == case.to_dict()


def test_a_scale_multiplies_the_time(monkeypatch):
    monkeypatch.setattr(harness, "_seconds", lambda work: work())
    times = iter([9.0, 3.0, 2.0, 4.0])
    case = harness.compare("toy", times.__next__, None, "other", repeats=3, ours_scale=0.5)
    assert (case.ours, case.ours_spread) == (1.0, 0.5)
    assert case.peer is case.ratio is None


def test_a_missing_peer_is_named_and_our_time_is_taken():
    case = harness.run(duel(package="no_such_package", peer=pytest.fail, agree=pytest.fail))
    assert case.peer is None
    assert "no_such_package" in case.note


def test_a_peer_that_breaks_on_import_is_missing(monkeypatch, tmp_path, capsys):
    (tmp_path / "broken_peer.py").write_text("raise RuntimeError('no kernel')")
    monkeypatch.syspath_prepend(tmp_path)
    assert harness.missing("broken_peer")
    assert "no kernel" in capsys.readouterr().err


def test_numbers_that_differ_stop_a_duel():
    def differ():
        raise AssertionError("3 is not 4")

    with pytest.raises(AssertionError, match="3 is not 4"):
        harness.run(duel(agree=differ))


def test_memory_is_that_of_a_process_of_its_own():
    small = harness.peak_megabytes("import benchmarks")
    large = harness.peak_megabytes("import benchmarks; b'x' * 100_000_000")
    assert 90 < large - small < 110


def test_the_command_prints_json(monkeypatch, capsys):
    monkeypatch.setattr(training, "duels", lambda: [duel(), duel(peer_name="third")])
    monkeypatch.setattr(command, "peak_megabytes", lambda code: 12.5)
    monkeypatch.setattr("sys.argv", ["benchmarks", "training", "--json"])
    command.main()
    rows = json.loads(capsys.readouterr().out)["cases"]
    assert [row["peer_name"] for row in rows] == ["other", "third"]
    assert all(row["memory"] == 12.5 for row in rows)


@pytest.mark.parametrize("topic", command.TOPICS)
def test_ours_and_the_peers_agree_and_run(topic):
    for row in SMALL[topic]():
        row.ours()()
        if row.package is not None:
            pytest.importorskip(row.package)
        row.agree()
        row.peer()()
