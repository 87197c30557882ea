"""Checkpoints compared from files: the dense numbers, whatever the slices; damage is one line."""

import json
import math
import os
import pickle
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from spinscape.merging import checkpoints, comparing, tensor_signs
from spinscape.merging.comparing import compare
from spinscape.statistics import share

FLOATS = ("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")
FNUZ = ("float8_e4m3fnuz", "float8_e5m2fnuz")


def net(seed: int, scale: float = 1.0) -> dict[str, torch.Tensor]:
    """Tensors as of a network with a normalisation layer, random and with zeros."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "layers.0.weight": (13, 7),
        "layers.0.bias": (13,),
        "layers.1.weight": (1, 301),
        "norm.weight": (5,),
        "scale": (),
    }
    found = {k: scale * torch.randn(shape, generator=generator) for k, shape in shapes.items()}
    found["layers.0.bias"][::3] = 0
    found["norm.running_var"] = torch.rand(5, generator=generator)
    found["norm.num_batches_tracked"] = torch.tensor(seed)
    return found


def dense(a: torch.Tensor, b: torch.Tensor) -> dict[str, float]:
    """Compute the measures in double precision, from everything at once."""
    x, y = a.double().flatten().numpy(), b.double().flatten().numpy()
    norm_a, norm_b, distance = (float(np.linalg.norm(v)) for v in (x, y, x - y))
    positive = (x > 0).mean(), (y > 0).mean()
    interval = share((x > 0) == (y > 0))
    return {
        "measured": len(x),
        "overlap": float(x @ y) / (norm_a * norm_b),
        "norm_a": norm_a,
        "norm_b": norm_b,
        "norm_ratio": norm_b / norm_a,
        "distance": distance,
        "relative_distance": distance / norm_a,
        "largest": np.abs(x - y).max(),
        "ssr": interval.value,
        "ssr_low": interval.low,
        "ssr_high": interval.high,
        "ssr_chance": positive[0] * positive[1] + (1 - positive[0]) * (1 - positive[1]),
        "zeros_a": (x == 0).mean(),
        "zeros_b": (y == 0).mean(),
        "identical": (x == y).mean(),
    }


def assert_dense(found, a, b, prefix="", tolerance=1e-12):
    for name, value in dense(a, b).items():
        rtol = max(tolerance, 2e-7) if name == "largest" else tolerance  # of differences in float32
        np.testing.assert_allclose(found[prefix + name], value, rtol=rtol, err_msg=name)


def joined(tensors, names):
    return torch.cat([tensors[name].double().flatten() for name in names])


def written(path: Path, tensors) -> Path:
    """Write as the ending of the path says; a folder gets two shards and an index."""
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    elif path.suffix == ".pt":
        torch.save(tensors, path)
    else:
        path.mkdir()
        names = list(tensors)
        shards = {"one.safetensors": names[:3], "two.safetensors": names[3:]}
        for shard, own in shards.items():
            save_file({name: tensors[name] for name in own}, path / shard)
        places = {name: shard for shard, own in shards.items() for name in own}
        index = {"metadata": {}, "weight_map": places}
        (path / "model.safetensors.index.json").write_text(json.dumps(index))
    return path


TRAINED = ["layers.0.weight", "layers.0.bias", "layers.1.weight", "norm.weight", "scale"]


@pytest.mark.parametrize("slice_bytes", [1, 100, 2**26])
@pytest.mark.parametrize("block", [3, 2**17])
@pytest.mark.parametrize("kind", ["a.safetensors", "a.pt", "a"])
def test_measures_are_those_of_the_whole_tensors(tmp_path, monkeypatch, kind, block, slice_bytes):
    monkeypatch.setattr(comparing, "SLICE_BYTES", slice_bytes)
    monkeypatch.setattr(tensor_signs, "PIECE", block)
    a, b = net(1), net(2, 3.0)
    path_a, path_b = written(tmp_path / kind, a), written(tmp_path / "b.safetensors", b)
    steps = []
    found = compare(path_a, path_b, progress=lambda *step: steps.append(step))
    assert steps == [(i + 1, len(steps)) for i in range(len(steps))]
    for name in [*TRAINED, "norm.running_var"]:
        assert_dense(found.sel(tensor=name), a[name], b[name])
    assert_dense(found, joined(a, TRAINED), joined(b, TRAINED), "whole_")
    groups = {
        ("block", "layers.0"): TRAINED[:2],
        ("block", "layers.1"): TRAINED[2:3],
        ("block", "norm"): ["norm.weight"],
        ("block", "scale"): ["scale"],
        ("kind", "weights"): ["layers.0.weight", "layers.1.weight"],
        ("kind", "vectors"): ["layers.0.bias", "norm.weight", "scale"],
        ("kind", "statistics"): ["norm.running_var"],
    }
    keys = [*zip(found.grouping.values.tolist(), found.group.values.tolist(), strict=True)]
    assert set(keys) == set(groups)
    for row, key in enumerate(keys):
        own = found.isel(group=row)
        assert_dense(own, joined(a, groups[key]), joined(b, groups[key]), "group_")
    counter = found.sel(tensor="norm.num_batches_tracked")
    assert (counter.status, counter.equal, counter.measured) == ("not floating", False, 0)
    assert all({"long_name", "units"} <= set(found[name].attrs) for name in found)
    assert json.loads(found.attrs["arguments"])["path_a"] == str(path_a)


@pytest.mark.parametrize("first", [*FLOATS, *FNUZ])
@pytest.mark.parametrize("second", FLOATS)
def test_types_of_all_widths_can_be_mixed(tmp_path, first, second):
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(1000, generator=generator).to(getattr(torch, t)) for t in (first, second))
    torch.save({"w": a}, tmp_path / "a.pt")
    torch.save({"w": b}, tmp_path / "b.pt")
    found = compare(tmp_path / "a.pt", tmp_path / "b.pt").sel(tensor="w")
    assert (found.dtype_a, found.dtype_b) == (first, second)
    assert_dense(found, a, b)


@pytest.mark.parametrize("base_type", ["float32", "float64", "bfloat16"])
def test_task_vectors_are_compared_apart(tmp_path, base_type):
    base = {"w": torch.randn(40, 9).to(getattr(torch, base_type)), "lone": torch.zeros(2, 3)}
    a = {"w": base["w"].float() + 0.1 * torch.randn(40, 9), "lone": torch.randn(2, 2)}
    b = {"w": base["w"].float() + 0.1 * torch.randn(40, 9), "lone": torch.randn(2, 2)}
    a["w"][:3] = base["w"][:3].float()
    paths = [written(tmp_path / f"{i}.safetensors", t) for i, t in enumerate((a, b, base))]
    found = compare(paths[0], paths[1], base=paths[2])
    own = found.sel(tensor="w")
    x, y = (t["w"].double() - base["w"].double() for t in (a, b))
    assert_dense(own, a["w"], b["w"])
    if base_type == "bfloat16":
        x, y = (t["w"] - base["w"].float() for t in (a, b))
    assert_dense(own, x, y, "task_", 1e-6)
    assert_dense(found, x, y, "task_whole_", 1e-6)
    lone = found.sel(tensor="lone")
    assert (lone.base_status, lone.task_remark) == ("reshaped", "no base")
    assert np.isnan(lone.task_ssr)
    assert lone.ssr >= 0
    assert own.ssr > 0.9
    assert abs(own.task_ssr - 0.55) < 0.1


@pytest.mark.parametrize("first", FLOATS)
@pytest.mark.parametrize("size", [1, 7, 2047, 2049, 5001])
def test_equal_tensors_are_exactly_equal(tmp_path, first, size):
    a = {"w": torch.randn(size).to(getattr(torch, first)), "n": torch.tensor(3)}
    path = written(tmp_path / "a.safetensors", a)
    found = compare(path, written(tmp_path / "b.pt", a))
    for prefix in ("", "whole_", "group_"):
        for name in ("overlap", "norm_ratio", "ssr", "identical"):
            values = found[prefix + name].values
            assert np.all(values[np.isfinite(values)] == 1.0)
            assert np.isfinite(values).any()
        assert np.nanmax(found[prefix + "distance"]) == 0
    assert found.equal.all()


def test_a_zero_counts_as_minus(tmp_path):
    a = {"w": torch.tensor([0.0, -0.0, 0.0, 1.0, -1.0])}
    b = {"w": torch.tensor([-1.0, -2.0, 3.0, 0.0, 0.0])}
    found = compare(written(tmp_path / "a.pt", a), written(tmp_path / "b.pt", b))
    assert found.whole_ssr == 3 / 5
    assert (found.whole_zeros_a, found.whole_zeros_b) == (3 / 5, 2 / 5)


def test_signs_of_independent_weights_agree_by_half(tmp_path):
    generator = torch.Generator().manual_seed(3)
    a, b = ({"w": torch.randn(1000, 100, generator=generator)} for _ in range(2))
    found = compare(written(tmp_path / "a.pt", a), written(tmp_path / "b.pt", b))
    assert abs(found.whole_ssr - 0.5) < 4 * 0.5 / math.sqrt(1e5)
    assert abs(found.whole_overlap) < 4 / math.sqrt(1e5)
    assert found.whole_ssr_high - found.whole_ssr_low < 0.01


def test_what_cannot_be_compared_is_listed(tmp_path):
    a = {
        "w": torch.ones(2),
        "left": torch.ones(3),
        "turned": torch.ones(2, 3),
        "kept": torch.ones(1),
    }
    b = {"w": torch.ones(2), "right": torch.ones(3), "turned": torch.ones(3, 2)}
    b["kept"] = torch.ones(1, dtype=torch.int64)
    found = compare(written(tmp_path / "a.pt", a), written(tmp_path / "b.pt", b))
    assert dict(zip(found.tensor.values, found.status.values, strict=True)) == {
        "w": "compared",
        "left": "only in A",
        "turned": "reshaped",
        "kept": "not floating",
        "right": "only in B",
    }
    turned, right = found.sel(tensor="turned"), found.sel(tensor="right")
    assert (turned.shape_a, turned.shape_b) == ("2×3", "3×2")
    assert (right.shape_a, right.dtype_a, right.shape_b) == ("", "", "3")
    assert not found.equal.sel(tensor=["left", "turned", "kept", "right"]).any()
    assert found.whole_measured == 2


def test_values_that_are_not_finite_are_counted_and_left_out(tmp_path):
    a, b = net(1), net(2)
    a["layers.0.weight"][0, :2] = torch.tensor([math.nan, math.inf])
    b["layers.0.weight"][3, 3] = -math.inf
    found = compare(written(tmp_path / "a.pt", a), written(tmp_path / "b.pt", b))
    own = found.sel(tensor="layers.0.weight")
    assert (own.nonfinite_a, own.nonfinite_b, own.remark) == (2, 1, "not finite")
    assert np.isnan(own.overlap)
    assert np.isnan(own.ssr)
    assert np.isnan(own.largest)
    assert_dense(found, joined(a, TRAINED[1:]), joined(b, TRAINED[1:]), "whole_")
    assert compare(tmp_path / "a.pt", tmp_path / "a.pt").equal.all()


def test_squares_that_overflow_are_told(tmp_path):
    a = {"w": torch.tensor([1e200, 1.0], dtype=torch.float64), "v": torch.ones(2)}
    path = written(tmp_path / "a.pt", a)
    found = compare(path, path)
    assert found.remark.values.tolist() == ["squares overflow", ""]
    assert found.whole_overlap == 1


def test_a_vector_of_zeros_has_no_overlap(tmp_path):
    a = {"w": torch.ones(3), "z": torch.zeros(3), "none": torch.ones(0, 2)}
    path = written(tmp_path / "a.pt", a)
    found = compare(path, path)
    zero = found.sel(tensor="z")
    assert (zero.ssr, zero.zeros_a, zero.remark) == (1, 1, "all zero: no overlap")
    assert np.isnan(zero.overlap)
    assert np.isnan(found.overlap.sel(tensor="none"))
    assert found.whole_overlap == 1


@pytest.mark.parametrize("dtype", ["float32", "float8_e5m2"])
def test_views_that_are_not_contiguous_are_read_in_order(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr(tensor_signs, "PIECE", 5)
    whole = torch.randn(6, 7, 8).to(getattr(torch, dtype))
    views = {
        "t": whole.transpose(0, 2),
        "cut": whole[1:5:2, :, 3],
        "wide": whole[0, 0].expand(3, 8),
    }
    straight = {
        name: view.clone(memory_format=torch.contiguous_format) for name, view in views.items()
    }
    torch.save(views, tmp_path / "a.pt")
    found = compare(tmp_path / "a.pt", written(tmp_path / "b.pt", straight))
    assert found.equal.all()
    assert (found.measured > 0).all()


def test_numbers_that_lie_askew_in_the_file_are_read(tmp_path):
    header = {
        "b": {"dtype": "I8", "shape": [1], "data_offsets": [0, 1]},
        "h": {"dtype": "F16", "shape": [2], "data_offsets": [1, 5]},
        "w": {"dtype": "F32", "shape": [3], "data_offsets": [5, 17]},
    }
    data = b"\1" + np.float16([1, 2]).tobytes() + np.float32([1, 2, 3]).tobytes()
    path = tmp_path / "a.safetensors"
    path.write_bytes(framed(header, data))
    found = compare(path, written(tmp_path / "b.pt", {"w": torch.tensor([1.0, 2, 3])}))
    assert found.whole_overlap == 1
    assert found.whole_norm_a == pytest.approx(math.sqrt(14))
    assert compare(path, path).whole_norm_a == pytest.approx(math.sqrt(19))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda t: {"state_dict": t, "epoch": 3, "step": torch.tensor(4)},
        lambda t: {"model": t, "optimizer": {"state": {0: {"m": torch.ones(2)}}}},
        lambda t: {"ema": t, "epoch": 3},
        lambda t: {f"module.{name}": value for name, value in t.items()},
        lambda t: {"state_dict": {f"_orig_mod.{name}": value for name, value in t.items()}},
    ],
)
def test_wrapped_state_dicts_are_found(tmp_path, wrap):
    torch.save(wrap(net(1)), tmp_path / "a.pt")
    found = compare(tmp_path / "a.pt", written(tmp_path / "b.safetensors", net(1)))
    assert found.equal.all()
    assert (found.tensor == list(net(1))).all()


def test_the_old_format_is_read_if_small(tmp_path, monkeypatch):
    path = tmp_path / "a.pt"
    torch.save(net(1), path, _use_new_zipfile_serialization=False)
    assert compare(path, written(tmp_path / "b.pt", net(1))).equal.all()
    monkeypatch.setattr(checkpoints, "LEGACY_BYTES", 100)
    assert "old format" in refused(path)


def test_shards_without_an_index_and_an_index_by_name(tmp_path):
    folder = written(tmp_path / "a", net(1))
    index = folder / "model.safetensors.index.json"
    other = written(tmp_path / "b.pt", net(1))
    assert compare(index, other).equal.all()
    index.unlink()
    assert compare(folder, other).equal.all()
    save_file({"scale": torch.ones(())}, folder / "three.safetensors")
    assert "'scale' is in another file" in refused(folder)


def test_threads_do_not_change_a_bit(tmp_path, monkeypatch):
    monkeypatch.setattr(comparing, "SLICE_BYTES", 64)
    a, b = written(tmp_path / "a.pt", net(1)), written(tmp_path / "b.pt", net(2))
    one, many = compare(a, b, threads=1), compare(a, b, threads=4)
    assert one.identical(many)
    with pytest.raises(ValueError, match="threads=0"):
        compare(a, b, threads=0)


def test_nothing_in_common_is_an_error(tmp_path):
    a = written(tmp_path / "a.pt", {"w": torch.ones(2)})
    b = written(tmp_path / "b.pt", {"v": torch.ones(3)})
    with pytest.raises(ValueError, match=r"no floating tensor .* 'w' \(2,\) .* 'v' \(3,\)"):
        compare(a, b)


def refused(path: Path) -> str:
    """The one line by which a path is refused, which names it."""
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        compare(path, path)
    told = str(caught.value)
    assert "\n" not in told
    assert str(path.name) in told
    return told


def framed(header, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype="F32", shape=(2,), place=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(place)}


EIGHT = b"\0" * 8
DAMAGED = {
    "truncated": (framed({"w": entry()}, EIGHT[:5]), "truncated"),
    "short": (b"\1\0", "no safetensors file"),
    "empty": (b"", "is empty"),
    "no tensors": (framed({"__metadata__": {}}), "no tensors"),
    "absurd header": ((2**62).to_bytes(8, "little") + b"{}", "claims a header"),
    "header past the end": ((200).to_bytes(8, "little") + b"{}", "claims a header"),
    "no JSON": (framed(b"{'w'"), "no JSON"),
    "no text": (framed(b"\xff\xfe{}"), "no JSON"),
    "deep JSON": (framed(b"[" * 100_000), "no JSON"),
    "no object": (framed([1]), "no JSON object"),
    "named twice": (framed(b'{"w": 1, "w": 2}'), "'w' is named twice"),
    "no entry": (framed({"w": 3}), "type ''"),
    "unknown type": (framed({"w": entry("F7")}, EIGHT), "type 'F7'"),
    "type no text": (framed({"w": entry([1])}, EIGHT), r"type [1]"),
    "size mismatch": (framed({"w": entry(shape=(3,))}, EIGHT), "takes 12 bytes, and has 8"),
    "huge shape": (framed({"w": entry(shape=(2**62, 2**62))}, EIGHT), "bytes, and has 8"),
    "negative": (framed({"w": entry(place=(-8, 0))}, EIGHT), "expected sizes"),
    "backwards": (framed({"w": entry(place=(8, 0))}, EIGHT), "expected sizes"),
    "negative shape": (framed({"w": entry(shape=(-1, -2))}, EIGHT), "expected sizes"),
    "fractions": (framed({"w": entry(shape=(2.0,))}, EIGHT), "expected sizes"),
    "three offsets": (framed({"w": entry(place=(0, 4, 8))}, EIGHT), "expected sizes"),
    "overlap": (framed({"w": entry(), "v": entry(place=(4, 12))}, EIGHT * 2), "overlap"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_safetensors_file_is_one_line(tmp_path, case):
    content, told = DAMAGED[case]
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(content)
    assert told in refused(path)


INDICES = {
    "missing shard": ({"w": "gone.safetensors"}, "no such file beside it"),
    "tensor elsewhere": ({"w": "one.safetensors", "v": "one.safetensors"}, "'v' is not in it"),
    "above": ({"w": "../one.safetensors"}, "outside its folder"),
    "absolute": ({"w": "/etc/passwd"}, "outside its folder"),
    "windows": ({"w": "..\\one.safetensors"}, "outside its folder"),
    "no names": ({"w": 3}, "no 'weight_map'"),
    "a list": ([], "no 'weight_map'"),
    "nothing": ({}, "no tensors"),
    "itself": ({"w": ""}, "no such file"),
}


@pytest.mark.parametrize("case", INDICES)
def test_a_wrong_index_is_one_line(tmp_path, case):
    places, told = INDICES[case]
    folder = tmp_path / "one.safetensors"  # bears the shard's name, so that the line names either
    folder.mkdir()
    save_file({"w": torch.ones(2)}, folder / "one.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    assert told in refused(folder)


def test_folders_and_missing_files_are_one_line(tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    assert "without *.safetensors" in refused(folder)
    assert "no such file" in refused(tmp_path / "gone.pt")
    for name in ("a", "b"):
        (folder / f"{name}.safetensors.index.json").write_text("{}")
    assert "2 indices" in refused(folder)


class Harmful:
    """When unpickled, writes a file."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("new", [True, False])
def test_code_in_a_pickle_is_never_run(tmp_path, new):
    marker, path = tmp_path / "marker", tmp_path / "harmful.pt"
    tensors = {"w": torch.ones(2), "x": Harmful(marker)}
    torch.save(tensors, path, _use_new_zipfile_serialization=new)
    assert "never run" in refused(path)
    path.write_bytes(pickle.dumps(tensors["x"]))
    refused(path)
    path.with_suffix(".safetensors").write_bytes(pickle.dumps(tensors["x"]))
    refused(path.with_suffix(".safetensors"))
    assert not marker.exists()


def test_other_damage_of_saved_state_dicts_is_one_line(tmp_path):
    path = written(tmp_path / "a.pt", net(1))
    whole = path.read_bytes()
    for cut in (3, 200, len(whole) // 2, len(whole) - 10):
        path.write_bytes(whole[:cut])
        assert "cannot be read as weights" in refused(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"\0" * 10**6)
    assert "cannot be read as weights" in refused(path)
    torch.save([torch.ones(2)], path)
    assert "holds list, not a state dict" in refused(path)
    torch.save({"a": {"w": torch.ones(2)}, "b": {"w": torch.ones(2)}}, path)
    assert "state dicts under a, b" in refused(path)
    torch.save({"w": torch.ones(2, 2).to_sparse()}, path)
    assert "'w' is sparse" in refused(path)
    torch.save({"epoch": 3}, path)
    assert "no tensors" in refused(path)


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(1, 60),
    slice_bytes=st.integers(1, 300),
    block=st.integers(1, 70),
    threads=st.integers(1, 3),
    seed=st.integers(0, 99),
    dtypes=st.tuples(*[st.sampled_from(FLOATS)] * 3),
)
def test_slices_do_not_change_the_numbers(
    tmp_path_factory, size, slice_bytes, block, threads, seed, dtypes
):
    folder = tmp_path_factory.mktemp("slices")
    generator = torch.Generator().manual_seed(seed)
    values = [torch.randn(size, generator=generator).to(getattr(torch, t)) for t in dtypes]
    paths = [written(folder / f"{i}.safetensors", {"w": v}) for i, v in enumerate(values)]
    plain = compare(paths[0], paths[1], base=paths[2])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparing, "SLICE_BYTES", slice_bytes)
        patch.setattr(tensor_signs, "PIECE", block)
        cut = compare(paths[0], paths[1], base=paths[2], threads=threads)
    for name in plain:
        if plain[name].dtype.kind != "f":
            assert (plain[name] == cut[name]).all()
        else:
            tolerance = 0 if re.search("ssr|zeros|identical|largest", str(name)) else 1e-12
            np.testing.assert_allclose(plain[name], cut[name], tolerance, 1e-13, err_msg=str(name))
