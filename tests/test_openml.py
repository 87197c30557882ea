"""Tables of OpenML: real replies of it, which scikit-learn ships for its own tests."""

import io
from urllib.error import HTTPError, URLError

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.datasets.tests import test_openml as replies

from spinscape.nets import datasets, openml


@pytest.fixture
def iris(monkeypatch, tmp_path):
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path))
    replies._monkey_patch_webbased_functions(monkeypatch, 61, gzip_response=True)


def test_iris_by_number_is_the_iris_that_everybody_knows(iris):
    known = load_iris()
    x, y = openml.fetch("61")
    np.testing.assert_array_equal(y, known.target)
    spread = (known.data - known.data.mean(0)) / known.data.std(0)
    # OpenML's copy is Fisher's own; scikit-learn's differs from it in rows 34 and 37.
    same = np.delete(np.arange(150), [34, 37])
    np.testing.assert_allclose(x[same], spread[same], atol=0.05)
    np.testing.assert_allclose(x.std(0), 1)


def test_iris_by_name_becomes_data(iris):
    data = datasets.load("openml:iris:1", seed=0)
    assert (data.name, data.classes, data.inputs) == ("openml:iris:1", 3, (4,))
    assert sum(len(part.x) for part in data.splits.values()) == 150


def test_whole_numbers_up_to_255_are_images(monkeypatch):
    table = type("Table", (), {"data": np.array([[0.0, 255], [3, 4]]), "target": ["b", "a"]})
    monkeypatch.setattr(openml, "fetch_openml", lambda **_: table)
    x, y = openml.fetch("mnist_784")
    assert x.dtype == np.uint8
    assert y.tolist() == [1, 0]


@pytest.mark.parametrize("address", ["", "61:2", "iris:new"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(ValueError, match="expected openml:NAME"):
        openml.fetch(address)


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (URLError("no route to host"), OSError, "cannot be reached"),
        (HTTPError("url", 412, "Precondition Failed", None, io.BytesIO()), ValueError, "no such"),
        (ValueError("No active dataset nope\nfound."), ValueError, "No active dataset nope found"),
    ],
)
def test_failures_are_one_clear_line(monkeypatch, error, kind, told):
    def fail(**_):
        raise error

    monkeypatch.setattr(openml, "fetch_openml", fail)
    with pytest.raises(kind, match=told) as raised:
        datasets.load("openml:nope", seed=0)
    assert "openml:nope" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("data", "target", "told"),
    [
        ([[1.0, np.nan], [1, 2]], ["a", "b"], "1 rows have gaps"),
        ([["red", "blue"]], ["a"], "no numbers"),
        ([[1.0, 2]], np.array([0.5]), "no class"),
        ([[1.0, 2]], None, "no class"),
    ],
)
def test_tables_that_cannot_be_used_say_why(monkeypatch, data, target, told):
    table = type("Table", (), {"data": data, "target": target})
    monkeypatch.setattr(openml, "fetch_openml", lambda **_: table)
    with pytest.raises(ValueError, match=told):
        openml.fetch("odd")
