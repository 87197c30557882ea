"""Runs resume, parts are computed once, and what was stored is what is read."""

import tomllib
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from small_runs import CONFIG, contents, finding, made, refuse
from spinscape.store import Run, RunError

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture
def run(tmp_path):
    with Run.open(tmp_path / "run", CONFIG, study="test") as opened:
        yield opened


# What is stored is what is read


def test_a_part_is_computed_once_and_read_ever_after(run):
    first = run.part("walk/free", made, 1)
    xr.testing.assert_identical(first, made(1))
    assert {name: v.dtype for name, v in first.variables.items()} == {
        name: v.dtype for name, v in made(1).variables.items()
    }
    assert list(first.data_vars) == list(made(1).data_vars)
    xr.testing.assert_identical(run.part("walk/free", refuse), first)
    assert run.part_names() == ["walk/free"]
    assert "walk/free" in run
    assert "walk" not in run


def test_the_whole_hierarchy_opens_as_a_tree(run):
    for seed, name in enumerate(["population", "walk/free", "walk/thermal", "a/b/width=8,lr=.1"]):
        run.part(name, made, seed)
    with xr.open_datatree(run.path / "data.zarr", engine="zarr", consolidated=False) as tree:
        assert set(tree.groups) == {
            *("/", "/population", "/walk", "/walk/free", "/walk/thermal"),
            *("/a", "/a/b", "/a/b/width=8,lr=.1"),
        }
        assert all(node.is_leaf or not node.variables for node in tree.subtree)
        np.testing.assert_array_equal(tree["walk/thermal"]["point"], made(2)["point"])
        assert tree["walk/free"]["rule"].values.tolist() == ["own copy", "unabhängig"]


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)
DTYPES = st.one_of(
    hnp.floating_dtypes(endianness="<", sizes=(32, 64)),
    hnp.integer_dtypes(endianness="<"),
    hnp.unsigned_integer_dtypes(endianness="<"),
    hnp.boolean_dtypes(),
    hnp.complex_number_dtypes(endianness="<", sizes=(64, 128)),
    st.just(np.dtype("datetime64[ns]")),
    st.just(np.dtype("<U5")),
)
ATTRIBUTES = st.dictionaries(
    st.text("abcdefgh", min_size=1, max_size=4),
    st.one_of(TEXT, st.integers(-(2**53), 2**53), st.booleans(), st.floats(allow_nan=False)),
    max_size=3,
)


def elements(dtype: np.dtype) -> st.SearchStrategy | None:
    if dtype.kind == "U":
        return TEXT
    if dtype.kind == "M":
        return st.integers(0, 2**60).map(lambda ns: np.datetime64(ns, "ns"))
    return None


@st.composite
def datasets(draw) -> xr.Dataset:
    sizes = {"replica": draw(st.integers(0, 3)), "lam": draw(st.integers(1, 3))}

    def variable(dimensions: tuple[str, ...]) -> tuple:
        dtype = draw(DTYPES)
        shape = tuple(sizes[dimension] for dimension in dimensions)
        return (
            dimensions,
            draw(hnp.arrays(dtype, shape, elements=elements(dtype))),
            draw(ATTRIBUTES),
        )

    dimensions = st.sampled_from([(), ("replica",), ("lam",), ("replica", "lam")])
    names = draw(st.lists(st.sampled_from(["loss", "c", "λ", "point 1"]), unique=True))
    coordinates = {"label": variable(draw(dimensions))}
    if draw(st.booleans()):
        coordinates["lam"] = ("lam", np.linspace(0, 1, sizes["lam"]), draw(ATTRIBUTES))
    if draw(st.booleans()):
        labels = np.array([f"é{k}" for k in range(sizes["replica"])], dtype="<U2")
        coordinates["replica"] = ("replica", labels)
    return xr.Dataset(
        {name: variable(draw(dimensions)) for name in names}, coordinates, draw(ATTRIBUTES)
    )


@given(dataset=datasets())
@settings(max_examples=60, deadline=None)
def test_every_dataset_comes_back_as_it_was(dataset, tmp_path_factory):
    with Run.open(tmp_path_factory.mktemp("run"), {}, study="round trip") as run:
        back = run.part("part", lambda: dataset)
    xr.testing.assert_identical(back, dataset)
    assert list(back.data_vars) == list(dataset.data_vars)
    for name, variable in dataset.variables.items():
        assert back[name].dtype.kind == variable.dtype.kind
        assert variable.dtype.kind == "U" or back[name].dtype == variable.dtype


def test_a_dataset_opened_from_elsewhere_is_stored_without_its_encoding(run, tmp_path):
    numbers = made(1).drop_vars(["rule", "kind"])
    chunked = {"K": {"dtype": "float32"}, "point": {"chunks": (8, 7)}}
    numbers.to_zarr(tmp_path / "other.zarr", encoding=chunked, consolidated=False)
    lazy = xr.open_zarr(tmp_path / "other.zarr", chunks=None, consolidated=False)
    xr.testing.assert_equal(run.part("copied", lambda: lazy), numbers)
    assert len(list((run.path / "data.zarr" / "copied" / "point" / "c").rglob("*"))) < 5


@pytest.mark.parametrize(
    ("dataset", "error", "message"),
    [
        (xr.Dataset({"a/b": 1.0}), ValueError, "'a/b' cannot be stored"),
        (xr.Dataset({"zarr.json": 1.0}), ValueError, "'zarr.json' cannot be stored"),
        (xr.Dataset({"x": ("n", np.array([{}, 1], object))}), TypeError, "'x' of dtype object"),
        (xr.Dataset({"x": ("n", np.array([b"a"]))}), TypeError, "'x' of dtype |S1"),
        ({"x": 1.0}, TypeError, "part 'p' must be a Dataset, got a dict"),
    ],
)
def test_what_cannot_be_stored_is_refused_and_leaves_no_trace(run, dataset, error, message):
    before = contents(run.path)
    with pytest.raises(error, match=message.replace("|", r"\|")):
        run.part("p", lambda: dataset)
    assert contents(run.path) == before


# Names of parts


@pytest.mark.parametrize(
    "name", ["", "/a", "a/", "a//b", "..", "a/../b", ".hidden", "a b", "a.json", "zarr.json", "ä"]
)
def test_names_that_cannot_be_folders_are_refused(run, name):
    with pytest.raises(ValueError, match="cannot name a part"):
        run.part(name, made, 1)


def test_a_part_within_a_part_is_refused(run):
    run.part("walk/free", made, 1)
    for name in ("walk", "walk/free/long"):
        with pytest.raises(ValueError, match="only leaves hold data"):
            run.part(name, made, 1)
    with pytest.raises(ValueError, match="only leaves hold data"):
        run.parts({"new": partial(made, 1), "new/inner": partial(made, 2)})


def test_an_unknown_part_is_named_with_those_there_are(run):
    run.part("population", made, 1)
    with pytest.raises(ValueError, match=r"no part 'walk'; it has \['population'\]"):
        run.dataset("walk")


# Many parts


def test_parts_compute_only_what_is_missing_and_count_it_all(run):
    run.part("cell/1", made, 1)
    seen = []
    cells = {f"cell/{seed}": partial(made, seed) for seed in (3, 2)}
    parts = run.parts({**cells, "cell/1": refuse}, progress=lambda *counts: seen.append(counts))
    assert list(parts) == ["cell/3", "cell/2", "cell/1"]
    assert seen == [(1, 3), (2, 3), (3, 3)]
    xr.testing.assert_identical(parts["cell/2"], made(2))


def test_two_workers_store_the_same_bytes_as_one(tmp_path):
    cells = {f"cell/{seed}": partial(made, seed) for seed in range(4)}
    for workers in (1, 2):
        with Run.open(tmp_path / str(workers), CONFIG, study="test") as run:
            run.parts(cells, workers=workers)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


def test_what_was_finished_before_a_failure_is_kept(run):
    def fail() -> xr.Dataset:
        raise OSError("the data are gone")

    with pytest.raises(OSError, match="the data are gone") as failure:
        run.parts({"first": partial(made, 1), "second": fail, "third": partial(made, 3)})
    assert "while computing part 'second'" in failure.value.__notes__
    assert run.part_names() == ["first"]


# Resuming


def test_the_same_configuration_resumes(tmp_path):
    config = CONFIG | {"size": np.int64(3), "where": Path("a/b"), "shape": (1, 2), "gap": np.nan}
    with Run.open(tmp_path / "run", config, study="test") as run:
        run.part("walk", made, 1)
        run.add_findings("walk", [finding("walk")])
    with Run.open(str(tmp_path / "run"), config, study="test") as again:
        xr.testing.assert_identical(again.part("walk", refuse), made(1))
        assert again.findings == [finding("walk")]
        assert again.config["shape"] == [1, 2]


def test_the_configuration_is_plain_toml(run):
    header = tomllib.loads((run.path / "run.toml").read_text())
    assert header["study"] == "test"
    assert header["config"] == CONFIG == run.config
    assert header["version"] == run.version


@pytest.mark.parametrize(
    ("config", "study", "message"),
    [
        ({"width": 32, "data": CONFIG["data"], "rates": [0.1, 0.01]}, "test", "16 there, 32 here"),
        (CONFIG | {"data": {"name": "mnist"}}, "test", "data.limit is 100 there, not set here"),
        (CONFIG | {"data": {"name": "mnist"}}, "test", "data.name is 'digits' there, 'mnist' here"),
        (CONFIG | {"seed": 3}, "test", "seed is not set there, 3 here"),
        (CONFIG | {"rates": [0.1]}, "test", r"rates is \[0.1, 0.01\] there, \[0.1\] here"),
        (CONFIG, "survey", "study is 'test' there, 'survey' here"),
    ],
)
def test_another_configuration_is_refused_and_each_difference_named(run, config, study, message):
    run.close()
    before = contents(run.path)
    with pytest.raises(RunError, match=message):
        Run.open(run.path, config, study=study)
    assert contents(run.path) == before


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ({"data": {"limit": None}}, ValueError, r"config\.data\.limit is None.*leave the key out"),
        ({"data": [1, {2}]}, TypeError, r"config\.data\[1\] is a set"),
        ({"data": {1: 2}}, TypeError, r"config\.data has the key 1"),
    ],
)
def test_what_toml_cannot_hold_is_refused_before_anything_is_made(tmp_path, config, error, message):
    with pytest.raises(error, match=message):
        Run.open(tmp_path / "run", config, study="test")
    assert not (tmp_path / "run").exists()


TOML = st.recursive(
    st.one_of(
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(),
        TEXT,
        st.dates(date(1900, 1, 1)),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(config=st.dictionaries(TEXT, TOML, max_size=4))
@settings(max_examples=60, deadline=None)
def test_every_configuration_resumes_itself(config, tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    for _ in range(2):
        Run.open(path, config, study="test").close()


# Findings


def test_findings_of_a_protocol_are_replaced_and_others_kept(run):
    run.add_findings("walk", [finding("walk"), finding("walk", 0.7)])
    run.add_findings("hierarchy", [finding("hierarchy")])
    run.add_findings("walk", [finding("walk", 0.9)])
    assert run.findings == [finding("walk", 0.9), finding("hierarchy")]
    assert Run.load(run.path).findings == run.findings


def test_a_finding_of_another_protocol_is_refused(run):
    with pytest.raises(ValueError, match="'walk' was added to 'hierarchy'"):
        run.add_findings("hierarchy", [finding("walk")])


def test_damaged_findings_are_told(run):
    run.add_findings("walk", [finding("walk")])
    path = run.path / "findings.json"
    path.write_text(path.read_text()[:-20])
    with pytest.raises(RunError, match=r"findings\.json cannot be read"):
        _ = run.findings


def test_another_version_does_not_go_on(run):
    run.close()
    path = run.path / "run.toml"
    path.write_text(path.read_text().replace(f'version = "{run.version}"', 'version = "0.0.7"'))
    with pytest.raises(RunError, match=r"spinscape is '0\.0\.7' there"):
        Run.open(run.path, run.config, study=run.study)
