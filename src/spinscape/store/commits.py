"""How a part enters a run: written beside, brought to disk, moved in by two renames.

The first rename moves the data into the Zarr hierarchy, the second its manifest among the
others; from then on the part counts. A kill leaves either a stage that is swept, or one
whose data have moved, which is finished from its manifest.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from uuid import uuid4

import xarray as xr

from spinscape.store.durable import replaced, synced, writing
from spinscape.store.manifest import sealed, storable

__all__ = ["PARTIAL", "committed", "data_of", "manifest_of", "recovered"]

PARTIAL = ".partial"


def data_of(run: Path, name: str) -> Path:
    """Where a part's data lie."""
    return run / "data.zarr" / name


def manifest_of(run: Path, name: str) -> Path:
    """Where a part's manifest lies; the part is finished once it is there."""
    return run / "manifests" / f"{name}.json"


def committed(run: Path, name: str, dataset: xr.Dataset) -> None:
    """Store a Dataset as part `name`, whole or not at all; RunError if it cannot be written."""
    stored = storable(dataset)
    with writing(data_of(run, name)):
        stage = run / PARTIAL / uuid4().hex
        stage.mkdir(parents=True)
        try:
            manifest = sealed(stored, stage / "data.zarr", name)
            replaced(stage / "manifest.json", json.dumps(manifest), run / PARTIAL)
            synced(stage)
        except BaseException:
            shutil.rmtree(stage, ignore_errors=True)
            raise
        _move_data(run, name, stage)
        _move_manifest(run, name, stage)


def recovered(run: Path) -> None:
    """Finish the commit that a kill cut short between its two renames; sweep the others."""
    for stage in (run / PARTIAL).iterdir():
        if stage.is_file():
            stage.unlink()
            continue
        manifest = stage / "manifest.json"
        name = json.loads(manifest.read_text())["part"] if manifest.exists() else None
        if name is not None and not (stage / "data.zarr" / name).exists():
            _move_manifest(run, name, stage)
        shutil.rmtree(stage, ignore_errors=True)


def _move_data(run: Path, name: str, stage: Path) -> None:
    # Data without a manifest: somebody deleted that to have the part computed anew.
    shutil.rmtree(data_of(run, name), ignore_errors=True)
    highest_missing = Path("data.zarr")
    for segment in Path(name).parts:
        if not (run / highest_missing).exists():
            break
        highest_missing /= segment
    os.rename(stage / highest_missing, run / highest_missing)
    synced((run / highest_missing).parent, deep=False)


def _move_manifest(run: Path, name: str, stage: Path) -> None:
    target = manifest_of(run, name)
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(stage / "manifest.json", target)
    synced(target.parent, deep=False)
    shutil.rmtree(stage, ignore_errors=True)
