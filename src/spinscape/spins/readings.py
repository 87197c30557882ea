"""What is read off a sample of spins: energies, overlaps, their distribution, and an exact test."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float

from spinscape.records import labelled
from spinscape.spins.ensembles import per_layer

__all__ = ["gaussian_identity", "observables"]

BLOCKS = 8
BINS = 41


def observables(samples: xr.Dataset) -> xr.Dataset:
    """Means of a sample with standard errors, temperature by temperature.

    Errors are those of the jackknife over pairs (or replicas), each cut into eight blocks of time;
    they are too small where blocks are shorter than the relaxation, which `equilibrated` tells.

    Parameters
    ----------
    samples : Dataset
        Of `sample`, with overlaps.

    Returns
    -------
    Dataset
        ``energy_per_spin``, ``heat_capacity`` per spin β²(⟨E²⟩ − ⟨E⟩²)/N, ``q_squared``,
        ``q_absolute``, ``binder`` ½(3 − ⟨q⁴⟩/⟨q²⟩²), ``susceptibility`` N⟨q²⟩ (all of
        ``[temperature]``); ``descriptor`` Q(T) = ⟨|q|⟩ less its finite-size floor √(2/πN)
        (arXiv 2508.07397; the floor is ours), and ``layer_descriptor [temperature, layer]``; each
        with ``…_error``. ``distribution [temperature, q]``, P(q).

    Raises
    ------
    ValueError
        If the sample holds no overlaps (it takes two replicas).
    """
    if "overlap" not in samples:
        raise ValueError("samples: no overlaps; sample with replicas=2 or more")
    sizes = samples["width"].values
    n = int(sizes.sum())
    beta = 1 / samples["temperature"].values
    q = _units(samples["overlap"].values)
    energy = _units(samples["energy"].values)
    layers = _units(np.moveaxis(samples["layer_overlap"].values, 2, 0))
    floor = np.sqrt(2 / (np.pi * n))
    named: dict[str, tuple[tuple[np.ndarray, np.ndarray], str, str]] = {
        "energy_per_spin": (_jackknifed(_mean, energy / n), "energy per spin", "weights"),
        "heat_capacity": (
            _jackknifed(lambda e: beta**2 * _mean((e - _mean(e)[:, None, None]) ** 2) / n, energy),
            "heat capacity per spin",
            "1",
        ),
        "q_squared": (_jackknifed(lambda x: _mean(x**2), q), "⟨q²⟩", "1"),
        "q_absolute": (_jackknifed(lambda x: _mean(np.abs(x)), q), "⟨|q|⟩", "1"),
        "binder": (_jackknifed(_binder, q), "Binder ratio", "1"),
        "susceptibility": (_jackknifed(lambda x: n * _mean(x**2), q), "N⟨q²⟩", "1"),
        "descriptor": (
            _jackknifed(lambda x: _mean(np.abs(x)) - floor, q),
            "Q(T) less its floor",
            "1",
        ),
    }
    result = xr.Dataset(coords={"temperature": samples["temperature"], "width": samples["width"]})
    for name, ((value, error), told, units) in named.items():
        result[name] = labelled("temperature", value, told, units)
        result[f"{name}_error"] = labelled("temperature", error, f"standard error of {told}", units)
    of_layers = [
        _jackknifed(lambda x, own=own: _mean(np.abs(x)) - np.sqrt(2 / (np.pi * own)), layer)  # type: ignore[misc]
        for layer, own in zip(layers, sizes, strict=True)
    ]
    dims = ("temperature", "layer")
    told = "Q(T) of a layer less its floor"
    result["layer_descriptor"] = labelled(dims, np.stack([v for v, _ in of_layers], 1), told)
    result["layer_descriptor_error"] = labelled(
        dims, np.stack([e for _, e in of_layers], 1), f"standard error of {told}"
    )
    edges = np.linspace(-1 - 1 / BINS, 1 + 1 / BINS, BINS + 1)
    counts = [np.histogram(row, edges, density=True)[0] for row in q.reshape(len(q), -1)]
    result = result.assign_coords(q=("q", (edges[1:] + edges[:-1]) / 2))
    result["distribution"] = labelled(("temperature", "q"), np.stack(counts), "P(q)")
    told_of = {k: v for k, v in samples.attrs.items() if k in ("equilibrated", "seed", "versions")}
    return result.assign_attrs(
        protocol="observables", source="standard; Q(T): arXiv 2508.07397", arguments="{}", **told_of
    )


def gaussian_identity(
    samples: Sequence[xr.Dataset],
    widths: Sequence[int] | None = None,
    C: float | Sequence[float] = 1.0,
) -> xr.Dataset:
    """Exact test of equilibrium for Gaussian couplings: energies against overlaps.

    Integrated by parts, [⟨E⟩] = −β Σ_k σ_k² N_{k−1} N_k (1 − [⟨q_{k−1} q_k⟩]), at any size and
    temperature, and for Sherrington and Kirkpatrick's model −(βN/2)(1 − [⟨q²⟩]). The brackets [ ]
    are the mean over the couplings: one model alone need not agree.

    Parameters
    ----------
    samples : sequence of Dataset
        Of `sample`, one for each of two or more models of the ensemble, at the same temperatures.
    widths : sequence of int, optional
        Of the layered ensemble; None is Sherrington and Kirkpatrick's.
    C : float or one per layer of couplings
        As in `critical_temperature`.

    Returns
    -------
    Dataset
        ``energy``, ``from_overlaps``, ``difference`` and ``difference_error [temperature]``,
        per spin, the error that of the mean over models.

    Raises
    ------
    ValueError
        If there are fewer than two samples.
    """
    if len(samples) < 2:
        raise ValueError(f"samples: {len(samples)} models, expected two or more of one ensemble")
    beta = 1 / samples[0]["temperature"].values
    energies, expected = [], []
    for each in samples:
        sizes = each["width"].values
        n = sizes.sum()
        energies.append(each["energy"].mean(("replica", "measurement")).values / n)
        if widths is None:
            q2 = (each["overlap"] ** 2).mean(("pair", "measurement")).values
            expected.append(-beta * per_layer("C", C, 1)[0] / 2 * (1 - q2))
            continue
        q = each["layer_overlap"]
        total = np.zeros(len(beta))
        for k, variance in enumerate(per_layer("C", C, len(widths) - 1)):
            both = (q.isel(layer=k) * q.isel(layer=k + 1)).mean(("pair", "measurement")).values
            total += variance * sizes[k + 1] * (1 - both)  # σ² N_{k−1} N_k, σ² = C/N_{k−1}
        expected.append(-beta * total / n)
    measured, foreseen = np.stack(energies), np.stack(expected)
    gap = measured - foreseen
    result = xr.Dataset(coords={"temperature": samples[0]["temperature"]})
    for name, values, told in (
        ("energy", measured.mean(0), "energy per spin"),
        ("from_overlaps", foreseen.mean(0), "energy per spin from overlaps"),
        ("difference", gap.mean(0), "their difference"),
        ("difference_error", gap.std(0, ddof=1) / np.sqrt(len(gap)), "standard error"),
    ):
        result[name] = labelled("temperature", values, told, "weights")
    return result.assign_attrs(protocol="gaussian_identity", source="Gaussian integration by parts")


def _units(
    values: Float[np.ndarray, "*first chain measurement"],
) -> Float[np.ndarray, "*first unit time"]:
    """Chains cut into blocks of time, one unit each."""
    blocks = min(BLOCKS, values.shape[-1])
    length = values.shape[-1] // blocks
    cut = values[..., -blocks * length :].reshape(*values.shape[:-1], blocks, length)
    return cut.reshape(*values.shape[:-2], -1, length)


def _mean(values: Float[np.ndarray, "temperature unit time"]) -> Float[np.ndarray, "temperature"]:
    return values.mean((1, 2))


def _binder(q: Float[np.ndarray, "temperature unit time"]) -> Float[np.ndarray, "temperature"]:
    return (3 - _mean(q**4) / _mean(q**2) ** 2) / 2


def _jackknifed(
    statistic: Callable[[np.ndarray], np.ndarray],
    values: Float[np.ndarray, "temperature unit time"],
) -> tuple[Float[np.ndarray, "temperature"], Float[np.ndarray, "temperature"]]:
    """A statistic and its standard error, one unit left out after another."""
    units = values.shape[1]
    left = np.stack([statistic(np.delete(values, unit, axis=1)) for unit in range(units)])
    spread = (left - left.mean(0)) ** 2
    return statistic(values), np.sqrt((units - 1) / units * spread.sum(0))
