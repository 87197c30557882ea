"""Data by name: what comes out, how it is split, and what is refused with which remedy."""

import gzip
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spinscape.nets.cutting import stratified_order
from spinscape.nets.datasets import Data, Split, check, load, teacher_student

MNIST = Path(__file__).parent / "data" / "mnist10k.npz"


def blobs(n=60, classes=3, seed=0):
    random = np.random.default_rng(seed)
    y = np.arange(n) % classes
    return random.normal(size=(n, 4)) + y[:, None], y


def rows(split):
    return {tuple(row) for row in split.x.flatten(1).tolist()}


def test_digits():
    data = load("digits", seed=0)
    assert [len(part.y) for part in data.splits.values()] == [1168, 270, 359]
    assert data.inputs == (64,)
    assert data.classes == 10
    x, y = data.train
    assert x.dtype == torch.float32
    assert y.dtype == torch.int64
    assert (x.min(), x.max()) == (0, 1)


def test_images_stay_images_on_request():
    assert load("digits", flatten=False).inputs == (1, 8, 8)


def test_mnist_is_scaled_and_whole():
    data = load(MNIST, dtype=torch.float64)
    assert data.name == "mnist10k"
    assert sum(len(part.y) for part in data.splits.values()) == 10_000
    assert data.inputs == (784,)
    with np.load(MNIST) as file:
        total = file["x"].sum(dtype=np.int64) / 255
    assert sum(float(part.x.sum()) for part in data.splits.values()) == pytest.approx(total)


def test_the_split_is_a_partition_that_depends_on_the_seed_alone():
    x, y = blobs()
    numpy_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    data, again, other = (load((x, y), seed=seed, dtype=torch.float64) for seed in (1, 1, 2))
    parts = [rows(part) for part in data.splits.values()]
    assert set.union(*parts) == {tuple(row) for row in x.tolist()}
    assert sum(map(len, parts)) == 60
    label = {tuple(row): int(k) for row, k in zip(x.tolist(), y, strict=True)}
    for part in data.splits.values():
        assert [label[tuple(row)] for row in part.x.tolist()] == part.y.tolist()
    assert data.fingerprint == again.fingerprint != other.fingerprint
    np.testing.assert_array_equal(numpy_state, np.random.get_state()[1])  # noqa: NPY002
    assert torch.equal(torch_state, torch.get_rng_state())


def test_the_users_arrays_are_neither_changed_nor_shared():
    x, y = torch.rand(60, 2), torch.arange(60) % 2
    kept = x.clone()
    load((x, y)).train.x.zero_()
    assert torch.equal(x, kept)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(2, 60), min_size=2, max_size=8),
    seed=st.integers(0, 1000),
    begin=st.floats(0, 1),
    share=st.floats(0, 1),
)
def test_slices_of_a_stratified_order_hold_every_class_in_proportion(sizes, seed, begin, share):
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    order = stratified_order(labels, np.random.default_rng(seed))
    assert sorted(order) == list(range(len(labels)))
    place = int(begin * (1 - share) * len(order))
    chosen = order[place : place + int(share * len(order))]
    expected = len(chosen) * np.array(sizes) / len(labels)
    found = np.bincount(labels[chosen], minlength=len(sizes))
    # Each end of the slice falls within one member of its place in every class (see the docstring),
    # and that of all classes together within one a class, shared out in proportion.
    slack = 2 + 2 * len(sizes) * np.array(sizes) / len(labels)
    assert (np.abs(found - expected) <= slack).all()


def test_who_is_held_out_is_uniform():
    labels = torch.arange(40) % 4
    firsts = [stratified_order(labels, np.random.default_rng(seed))[:10] for seed in range(2000)]
    counts = np.bincount(np.concatenate(firsts), minlength=40)
    error = np.sqrt(2000 * 0.25 * 0.75)
    assert np.abs(counts - 500).max() < 4.5 * error  # false alarms: 40 * 7e-6


def test_limit_takes_a_stratified_subset():
    data = load(MNIST, limit=1000)
    assert [len(part.y) for part in data.splits.values()] == [650, 150, 200]
    assert data.train.y.bincount(minlength=10).min() > 50


def idx_folder(folder, train=120, test=40):
    for part, n in (("train", train), ("t10k", test)):
        y = (np.arange(n) % 4).astype(np.uint8)
        x = np.random.default_rng(n).integers(0, 256, (n, 3, 3), dtype=np.uint8)
        for kind, array in (("images-idx3", x), ("labels-idx1", y)):
            header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
            path = folder / f"{part}-{kind}-ubyte.gz"
            path.write_bytes(gzip.compress(header + array.tobytes()))
    return folder


def test_idx_folder_keeps_its_test_set(tmp_path):
    data = load(idx_folder(tmp_path), validation=0.25)
    assert [len(part.y) for part in data.splits.values()] == [90, 30, 40]
    own = np.random.default_rng(40).integers(0, 256, (40, 9), dtype=np.uint8).astype(np.float32)
    assert rows(data.test) == {tuple(row) for row in (torch.from_numpy(own) / 255).tolist()}
    small = load(tmp_path, validation=0.25, limit=80)
    assert [len(part.y) for part in small.splits.values()] == [45, 15, 20]


USER_FILE = """
from dataclasses import dataclass
import numpy as np
from spinscape.nets.datasets import Data, Split, load

def make(n=40, seed=0):
    random = np.random.default_rng(seed)
    return random.normal(size=(n, 3)), np.arange(n) % 2

def pair(seed): return make(seed=seed)
def two(): return make(40), make(20)
def three(): return make(40), Split(*make(10)), make(20)
def mapping(): return {"train": make(40), "test": make(20)}
def whole(): return load(make(40))
def needs(n): return make(n)
def broken(): return {}["nothing"]
def text(): return "digits"
number = 3
"""


@pytest.fixture
def user_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "their_data.py").write_text(USER_FILE)
    return tmp_path / "their_data.py"


@pytest.mark.parametrize(
    ("function", "sizes"),
    [
        ("make", [26, 6, 8]),
        ("pair", [26, 6, 8]),
        ("two", [34, 6, 20]),
        ("three", [40, 10, 20]),
        ("mapping", [34, 6, 20]),
        ("whole", [26, 6, 8]),
    ],
)
def test_a_users_function(user_file, function, sizes):
    data = load(f"{user_file}:{function}")
    assert [len(part.y) for part in data.splits.values()] == sizes
    assert data.fingerprint == load("their_data.py:" + function).fingerprint


def test_a_users_function_gets_the_seed(user_file):
    at_zero, at_one = (load("their_data.py:pair", seed=seed) for seed in (0, 1))
    assert rows(at_zero.train).isdisjoint(rows(at_one.train))


def test_a_module_of_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "module_found_here.py").write_text(USER_FILE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["/nowhere"])
    assert load("module_found_here:make").name == "module_found_here:make"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("their_data.py:nothing", "has no function 'nothing'"),
        ("their_data.py:number", "has no function 'number'"),
        ("their_data.py:needs", "missing a required argument: 'n'; give its parameters defaults"),
        ("their_data.py:broken", "calling it raised KeyError: 'nothing'"),
        ("their_data.py:text", "cannot use this str; needs"),
        ("their_data.py", "cannot read this kind of file; data is 'digits'"),
        ("absent.py:make", "FileNotFoundError"),
        ("no_such_module:make", "No module named 'no_such_module'"),
        ("absent.npz", "no such file or folder; data is 'digits', an .npz file"),
        ("Digits", "no such file or folder"),
        ("", "no such file or folder"),
    ],
)
def test_any_other_source_is_refused_by_name(user_file, source, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        load(source)
    assert str(caught.value).startswith((source, repr(source)))
    assert "\n" not in str(caught.value)


def with_label(value):
    x, y = blobs()
    y = y.astype(np.result_type(y, type(value)))
    y[7] = value
    return x, y


def with_input(value):
    x, y = blobs()
    x[7, 2] = value
    return x, y


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (with_input(np.nan), r"not finite in torch.float32 \(1 of 240\), .* index \(7, 2\)"),
        (with_input(1e300), "not finite in torch.float32"),
        (
            with_label(-1),
            r"labels out of range \(1 of 60\), the first -1 at index 7; .*numpy\.unique",
        ),
        (with_label(9), r"4 different labels from 0 to 9, needs 0 \.\. 3: remap"),
        (with_label(0.5), "labels must be whole numbers, found 0.5 at index 7"),
        (with_label(np.nan), "found nan at index 7"),
        (with_label(3), "class 3 has one sample only"),
        ((blobs()[0], np.zeros(60, int)), "all labels are 0; there is nothing to tell apart"),
        ((blobs()[0], blobs(59)[1]), r"x has shape \(60, 4\) and y \(59,\)"),
        ((blobs()[0], np.eye(3)[blobs()[1]]), r"y\.argmax\(1\)"),
        ((blobs()[0], blobs()[1][:, None]), r"y\.reshape\(-1\)"),
        ((blobs()[0][:, 0], blobs()[1]), r"x has shape \(60,\), needs \[N, features\]"),
        ((np.zeros((0, 3)), np.zeros(0, int)), "nothing empty"),
        ((blobs()[0].astype(str), blobs()[1]), "x holds <U.*, needs real numbers"),
        ((blobs()[0] + 1j, blobs()[1]), "complex128"),
        (([[1], [2, 3]], [0, 1]), "x is not an array of numbers"),
    ],
)
def test_unsound_arrays_are_refused(arrays, message):
    with pytest.raises(ValueError, match=message) as caught:
        load(arrays)
    assert "\n" not in str(caught.value)


def test_whole_numbers_as_floats_and_nested_lists_are_labels():
    x, y = blobs()
    assert load((x.tolist(), y.astype(float).tolist())).fingerprint == load((x, y)).fingerprint


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validation": 0}, "fractions above 0"),
        ({"test": 0.9}, "leave something to train on"),
        ({"limit": 0}, "limit must be at least 1"),
        ({"limit": 3}, "of 1 samples to train on none is of class"),
        ({"dtype": torch.float16}, "dtype must be torch.float32 or torch.float64"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        load(blobs(), **settings)


def test_check_takes_a_part_that_lacks_classes():
    x = torch.zeros(3, 2)
    check(x, torch.tensor([4, 4, 4]), classes=5)
    with pytest.raises(ValueError, match=r"mine: labels out of range \(3 of 3\), .* in 0 \.\. 3"):
        check(x, torch.tensor([4, 4, 4]), "mine", classes=4)
    with pytest.raises(ValueError, match=r"y is torch.float32, needs whole numbers: y.long\(\)"):
        check(x, torch.zeros(3))


def test_data_made_by_hand_is_checked():
    good, other = Split(torch.zeros(2, 3), torch.tensor([0, 1])), torch.zeros(2, 4)
    Data(good, good, good, "mine", 2)
    with pytest.raises(ValueError, match=r"shape \(3,\) in train and \(4,\) in test"):
        Data(good, good, Split(other, good.y), "mine", 2)
    with pytest.raises(ValueError, match="mine, train: labels out of range"):
        Data(good, good, good, "mine", 1)


def test_teacher_noise_is_the_floor_of_the_error():
    clean, noisy = (teacher_student(10, 3, 4, 20_000, noise=noise, seed=5) for noise in (0.0, 0.4))
    at = {
        tuple(row): int(label)
        for part in clean.splits.values()
        for row, label in zip(part.x.tolist(), part.y, strict=True)
    }
    wrong = [
        at[tuple(row)] != int(label)
        for part in noisy.splits.values()
        for row, label in zip(part.x.tolist(), part.y, strict=True)
    ]
    expected = 0.4 * (1 - 1 / 4)
    assert np.mean(wrong) == pytest.approx(expected, abs=4 * np.sqrt(expected * 0.7 / 20_000))


def test_teacher_has_no_rare_class_and_is_a_named_source():
    data = load("spinscape.nets.datasets:teacher_student", seed=3)
    assert data.name == "teacher 20-4-2"
    assert data.train.y.bincount(minlength=2).min() > 0.3 * len(data.train.y)
    assert data.fingerprint != load("spinscape.nets.datasets:teacher_student", seed=4).fingerprint
    with pytest.raises(ValueError, match="two classes or more"):
        teacher_student(classes=1)
