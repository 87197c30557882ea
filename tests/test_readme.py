"""What README and CONTRIBUTING show works: snippets, commands, targets, files, names.

Every preset is replaced by tiny settings, so that a snippet takes seconds: the words are tested
here, not the numbers.
"""

import doctest
import importlib
import os
import pkgutil
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import spinscape as ss
from spinscape.studies import barney2024, liao2024, presets, valley_settings
from tiny_study import (
    ASYMMETRY,
    DATA,
    FEW,
    MINING,
    NETS,
    SPINS,
    TINY,
    archive,
    checkpoints,
    spoken,
    written,
)

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = {name: (ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md")}

DIGITS = """
import numpy as np

def load():
    with np.load("mnist.npz") as stored:
        return stored["x"], stored["y"]
"""


@pytest.fixture(autouse=True)
def _tiny(tmp_path, monkeypatch):
    """Run in an empty folder with tiny presets; that data reach the disk is tested elsewhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda _: None)
    tiny = presets.settings_of("quick", presets.PRESETS, **TINY)
    for preset in presets.PRESETS:
        monkeypatch.setitem(presets.PRESETS, preset, tiny)
    few = presets.settings_of("quick", liao2024.LIAO_PRESETS, **FEW)
    for preset in liao2024.LIAO_PRESETS:
        monkeypatch.setitem(liao2024.LIAO_PRESETS, preset, few)
    small = presets.settings_of("quick", barney2024.SPIN_PRESETS, **SPINS)
    for preset in barney2024.SPIN_PRESETS:
        monkeypatch.setitem(barney2024.SPIN_PRESETS, preset, small)
    for known, values in (
        (valley_settings.MINING_PRESETS, MINING),
        (valley_settings.ASYMMETRY_PRESETS, ASYMMETRY),
    ):
        settings = presets.settings_of("quick", known, **values)
        for preset in known:
            monkeypatch.setitem(known, preset, settings)


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    lines = "".join(blocks(README, "sh")).splitlines()
    return [line for line in lines if line.startswith(".venv/bin/spinscape")]


def modules() -> list[str]:
    found = pkgutil.walk_packages(ss.__path__, "spinscape.")
    names = ["spinscape", *(module.name for module in found if module.name != "spinscape.__main__")]
    return [
        name for name in names if ">>> " in Path(importlib.import_module(name).__file__).read_text()
    ]


def test_python_snippets_run_in_their_order(tmp_path, capsys):
    snippets = blocks(README, "python")
    assert len(snippets) >= 3
    namespace: dict[str, object] = {}
    for snippet in snippets:
        exec(compile(snippet, "README.md", "exec"), namespace)
    told = capsys.readouterr().out
    assert f"{tmp_path}/runs/" in told
    assert re.search(r"barrier \d+\.\d\d nats, after alignment \d+\.\d\d", told)
    assert {"walk", "permutation", "hierarchy"} <= set(namespace["tree"].children)


@pytest.mark.parametrize("page", sorted(path.name for path in (ROOT / "docs").glob("*.md")))
def test_snippets_of_the_docs_run(page, capsys):
    snippets = blocks((ROOT / "docs" / page).read_text(), "python")
    assert snippets
    for snippet in snippets:
        exec(compile(snippet, page, "exec"), {})
    assert capsys.readouterr().out


def test_there_are_commands():
    assert len(commands()) >= 6


@pytest.mark.parametrize("line", commands())
def test_a_command_line_runs_as_it_is_shown(line, tmp_path, capsys):
    """In a folder that holds what the words in it stand for."""
    generator = np.random.default_rng(0)
    digits = {"x": generator.random((200, 64)), "y": np.arange(200) % 10}
    archive(tmp_path, "mnist.npz", **digits)
    folder = tmp_path / "FASHION_MNIST_DIR"
    folder.mkdir()
    images, labels = generator.integers(0, 256, (200, 4, 4)).astype("u1"), np.arange(200) % 3
    for stem in ("train", "t10k"):
        header = bytes([0, 0, 8, 3, 0, 0, 0, 200, 0, 0, 0, 4, 0, 0, 0, 4])
        (folder / f"{stem}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        header = bytes([0, 0, 8, 1, 0, 0, 0, 200])
        (folder / f"{stem}-labels-idx1-ubyte").write_bytes(header + labels.astype("u1").tobytes())
    written(tmp_path, "my_data.py", DIGITS if "--checkpoints" in line else DATA)
    if "--checkpoint" in line:
        written(tmp_path, "my_net.py", NETS)
        (tmp_path / "runs").mkdir()
        checkpoints(tmp_path / "runs", 4)
    if " compare " in line:
        for name in ("a", "b", "start"):
            weights = generator.standard_normal((3, 2)).astype("f4")
            save_file({"weight": torch.as_tensor(weights)}, tmp_path / f"{name}.safetensors")
    if " report " in line:
        ss.explore("digits", out="runs/RUN")
        Path("runs/RUN/page.html").unlink()
    words = shlex.split(line, comments=True)
    told = spoken(capsys, *words[1:])
    assert told.status == 0, told.err
    if "--dry-run" in words:
        assert not Path("runs").exists()
    elif " compare " in line:
        assert "1 of 1 tensors compared" in told.out
    else:
        (page,) = Path("runs").rglob("page.html")
        assert f"page: {page.absolute()}" in told.out


@pytest.mark.parametrize("page", PAGES)
def test_options_that_are_named_exist(page, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    known = spoken(capsys, "explore", "--help").out + "--traceback "
    inline = " ".join(re.findall(r"`([^`\n]+)`", PAGES[page]))
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", inline))
    assert {option for option in named if f"{option} " not in known} == set()
    assert page != "README.md" or {"--workers", "--config", "--json"} <= named


@pytest.mark.parametrize("page", PAGES)
def test_targets_that_are_named_are_in_the_makefile(page):
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):.*##", makefile, re.MULTILINE))
    code = "\n".join([*blocks(PAGES[page], "sh"), *re.findall(r"`([^`\n]+)`", PAGES[page])])
    named = set(re.findall(r"^make ([a-z-]+)", code, re.MULTILINE))
    assert {"test", "bench", "soak", "release-check"} <= named
    assert named <= targets


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_exist(page):
    text = PAGES[page]
    places = {place for place in re.findall(r"\]\(([^)#:]+)\)", text)}
    places |= set(re.findall(r"\b(?:tests|src|docs)/[\w./-]+\.(?:py|md)\b", text))
    places |= set(re.findall(r"`([A-Za-z_]+\.(?:txt|md|toml))`", text)) - {"file.toml"}
    assert places
    assert {place for place in places if not (ROOT / place).exists()} == set()


def test_names_of_the_library_that_are_shown_exist():
    names = set(re.findall(r"\bss\.([A-Za-z_][\w.]*)", README))
    assert {"glass.walk", "glass.hierarchy", "glass.barrier", "explore"} <= names
    for name in names:
        found = ss
        for part in name.rstrip(".").split("."):
            found = getattr(found, part)


def test_modules_with_examples_are_found():
    assert {"spinscape", "spinscape.nets.datasets"} <= set(modules())


@pytest.mark.parametrize("name", modules())
def test_examples_in_docstrings_run(name):
    results = doctest.testmod(importlib.import_module(name))
    assert results.attempted > 0
    assert results.failed == 0
