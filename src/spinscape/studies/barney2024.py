"""`reproduce barney2024`: the claims of arXiv 2408.06421, each tested against its null.

The protocols of `spins` on the same networks, and networks at several output scales, from lazy to
rich.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import xarray as xr
from torch import nn

from spinscape.nets import losses
from spinscape.nets.training import train
from spinscape.nets.weightspace import points as points_of
from spinscape.records import labelled, provenance
from spinscape.spins import training_findings
from spinscape.spins.couplings import SpinModel
from spinscape.spins.laziness import kernel_change, weight_change
from spinscape.spins.phases import phase
from spinscape.spins.spectra import spectrum
from spinscape.statistics import Finding
from spinscape.store import Run
from spinscape.studies.spin_settings import SPIN_PRESETS, SpinSettings
from spinscape.studies.spin_study import SpinStudy

__all__ = ["SPIN_PRESETS", "Barney2024", "SpinSettings"]

KERNEL_SAMPLES = 32
LAZINESS = {
    "weight_change": "‖W − W₀‖/‖W₀‖",
    "kernel_change": "1 − cosine of tangent kernels",
    "excess": "T_c / T_null",
    "T_c": "critical temperature",
    "outliers": "eigenvalues beyond the null",
}


@dataclass
class Barney2024(SpinStudy):
    """The same, and networks from lazy to rich."""

    name: ClassVar[str] = "barney2024"

    @property
    def protocols(self) -> dict[str, Callable[[Run], list[Finding]]]:
        """Those of `spins`, and laziness."""
        return {**super().protocols, "laziness": self.laziness}

    def laziness(self, run: Run) -> list[Finding]:
        """ReLU networks whose outputs are multiplied by a factor before the loss."""
        settings = self.settings
        cells = {
            f"laziness_pieces/scale={scale:g}": partial(
                _at_scale,
                self.module("relu"),
                self.source.data,
                scale,
                settings,
                self.recipe("relu"),
            )
            for scale in settings.output_scales
        }
        self._compute(run, "rich and lazy", cells)
        sweep = run.part("laziness", _along_scales, run, list(cells))
        return training_findings.lazy_findings(sweep, seed=self.seed)


def _at_scale(
    module: nn.Module, data: Any, scale: float, settings: SpinSettings, recipe: Mapping[str, Any]
) -> xr.Dataset:
    """Train at an output scale α, the learning rate over α², and compare end with start."""
    own = {
        **recipe,
        "loss": losses.Scaled(losses.CrossEntropy(), scale),
        "learning_rate": recipe["learning_rate"] / scale**2,
        "epochs": settings.lazy_epochs,
    }
    trained = train(module, data, replicas=settings.lazy_replicas, snapshots=[0], **own)
    starts = points_of(trained["snapshot"].isel(snapshot=0))
    ends = points_of(trained)
    rows: dict[str, list[float]] = {}
    x = data.train.x[:KERNEL_SAMPLES]
    for start, end, lost in zip(starts, ends, trained["diverged"].values, strict=True):
        found = dict.fromkeys(
            ("weight_change", "kernel_change", "excess", "T_c", "outliers"), np.nan
        )
        if not lost:
            model = SpinModel.from_point(module, end)
            one = phase(model, permutations=settings.permutations, seed=recipe["seed"])
            spread = spectrum(
                model, nulls=settings.spectrum_nulls, bootstraps=0, seed=recipe["seed"]
            )
            found = {
                "weight_change": float(weight_change(start, end)),
                "kernel_change": kernel_change(module, start, end, x),
                "excess": float(one["T_c"] / one["T_null"].mean()),
                "T_c": float(one["T_c"]),
                "outliers": float(spread["outliers"]),
            }
        for name, value in found.items():
            rows.setdefault(name, []).append(value)
    variables = {
        name: labelled("replica", values, LAZINESS[name], "weights" if name == "T_c" else "1")
        for name, values in rows.items()
    }
    variables["test_error"] = labelled("replica", trained["test_error"].values, "test error")
    variables["train_loss"] = labelled("replica", trained["train_loss"].values, "training loss")
    return xr.Dataset(
        variables, {"scale": scale}, provenance("laziness", "ours", recipe["seed"], scale=scale)
    )


def _along_scales(run: Run, names: Sequence[str]) -> xr.Dataset:
    """Join the pieces of the sweep; networks that diverged at any scale are left out, visibly."""
    parts = [run.dataset(name) for name in names]
    joined = xr.concat(parts, "scale", combine_attrs="override")
    lost = joined["excess"].isnull().any("scale").values
    if lost.all():
        raise ValueError("laziness: networks of every seed diverged; narrow output_scales")
    kept = joined.isel(replica=np.flatnonzero(~lost))
    return kept.assign_attrs(diverged=int(lost.sum()))
