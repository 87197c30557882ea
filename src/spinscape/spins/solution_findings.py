"""What TAP solutions, samples and spectra of networks say, each against its null."""

from __future__ import annotations

import numpy as np
import xarray as xr
from jaxtyping import Float

from spinscape.statistics import Finding, above, bootstrap, numbers_of, share

__all__ = ["descriptor_finding", "sampler_finding", "spectrum_finding", "tap_findings"]


def tap_findings(taps: xr.Dataset, name: str, *, seed: int) -> list[Finding]:
    """Whether the TAP equations of trained networks have one pair of solutions.

    Parameters
    ----------
    taps : Dataset
        `tap_history` of the replicas of one kind of network, along ``replica, step, heat``.
    name, seed
        As in `order_findings`.
    """
    hot = int(np.argmax(taps["heat"].values))
    numbers = taps["solutions"].transpose("replica", "step", "heat").values
    end = numbers[:, -1, :]
    single = end[:, hot] == 1
    counts = taps["count"].isel(step=0, heat=hot).sum("replica")
    failed = counts.sel(outcome_kind="not converged")
    total = int(counts.sum())
    told = "; ".join(
        f"{np.mean(end[:, k]):.1f} at {heat:g} T_c" for k, heat in enumerate(taps["heat"].values)
    )
    value = share(single)
    return [
        Finding(
            protocol="tap",
            question=f"Do the TAP equations end with a single ± pair of solutions? ({name})",
            statement=(
                f"{int(single.sum())} of {len(single)} trained networks have exactly one pair "
                f"at {taps['heat'].values[hot]:g} T_c (pairs found in the mean: {told}); before "
                f"training {int(failed.sum())} of {total} solver runs did not converge and "
                f"{int(numbers[:, 0, hot].sum())} solutions were accepted, which is the solvers' "
                "failure in a glass and no count of its states"
            ),
            **numbers_of(value),
            rule=(
                "supported if the share of networks with exactly one accepted pair just below "
                "T_c has an interval above 0.5; not supported if below; the number before "
                "training is not judged, because no solver finds the solutions of a glass"
            ),
            verdict=above(value, 0.5),
        )
    ]


def sampler_finding(difference: Float[np.ndarray, "replica"], scale: float) -> Finding:
    """Whether sampled energies and overlaps of untrained networks fulfil the exact identity.

    Parameters
    ----------
    difference : array [replica]
        Energy less what the overlaps foretell, one number an untrained network.
    scale : float
        Mean absolute energy.
    """
    spread = difference.std(ddof=1) / np.sqrt(len(difference))
    z = float(difference.mean() / spread) if spread > 0 else 0.0
    return Finding(
        protocol="overlaps",
        question="Do sampled energies and overlaps agree, as Gaussian couplings demand?",
        statement=(
            f"energies of {len(difference)} untrained networks differ from what their overlaps "
            f"foretell by {difference.mean() / scale:+.2%}, {z:+.1f} standard errors"
        ),
        value=z,
        low=z - 1.96,
        high=z + 1.96,
        level=0.95,
        null="the identity [⟨E⟩] = −β Σ σ² N N' (1 − [⟨q q'⟩]), exact in equilibrium",
        null_value=0.0,
        rule="supported if within 2 standard errors, not supported beyond 4",
        verdict="supported" if abs(z) < 2 else "not supported" if abs(z) > 4 else "undecided",
    )


def descriptor_finding(overlaps: xr.Dataset, name: str, *, seed: int) -> Finding:
    """Whether Q(T) just below T_c tells trained weights from the same ones at random places.

    Parameters
    ----------
    overlaps : Dataset
        `overlap_history` along ``replica, step, weights, heat``.
    name, seed
        As in `order_findings`.
    """
    below = overlaps["heat"].values < 1
    at = int(np.flatnonzero(below)[np.argmax(overlaps["heat"].values[below])])
    end = overlaps["descriptor"].isel(step=-1, heat=at)
    gap = (end.sel(weights="as trained") - end.sel(weights="permuted")).values
    found = bootstrap(gap, "mean", seed=seed)
    settled = float(overlaps["equilibrated"].isel(step=-1, heat=at).mean())
    return Finding(
        protocol="overlaps",
        question=f"Do replicas of the spins agree more than permuted weights let them? ({name})",
        statement=(
            f"at {overlaps['heat'].values[at]:.2g} T_c the mean |overlap| of trained networks "
            f"exceeds that of the same weights at random places by {found.value:.3f} "
            f"({settled:.0%} of these samples are equilibrated)"
        ),
        **numbers_of(found),
        null="entries permuted within each layer, at the same temperature",
        null_value=0.0,
        rule="supported if the interval of the difference lies above 0",
        verdict="supported"
        if found.low > 0
        else "not supported"
        if found.high < 0
        else "undecided",
    )


def spectrum_finding(spectra: xr.Dataset, name: str, *, seed: int) -> Finding:
    """Whether training lets eigenvalues of the bond matrix leave the null's spectrum.

    Parameters
    ----------
    spectra : Dataset
        `spectrum_history` along ``replica, step``.
    name, seed
        As in `order_findings`.
    """
    outliers = spectra["outliers"].transpose("replica", "step").values
    gained = (outliers[:, -1] - outliers[:, 0]).astype(float)
    found = bootstrap(gained, "mean", seed=seed)
    return Finding(
        protocol="spectra",
        question=f"Does training grow outliers in the spectrum of the bond matrix? ({name})",
        statement=(
            f"{outliers[:, 0].mean():.1f} eigenvalues lie beyond the permuted null before and "
            f"{outliers[:, -1].mean():.1f} after training{_tails_told(spectra)}"
        ),
        **numbers_of(found),
        null="entries permuted within each layer",
        null_value=0.0,
        rule="supported if the interval of the number gained lies above 0",
        verdict="not supported" if found.high <= 0 else above(found),
    )


def _tails_told(spectra: xr.Dataset) -> str:
    """What a statement adds on the tails of trained networks; nothing where none was fitted."""
    tail = spectra["tail"].isel(step=-1).transpose("replica", "tail_number")
    tail = tail.isel(replica=np.flatnonzero(tail.sel(tail_number="alpha").notnull().values))
    if not tail.sizes["replica"]:
        return ""
    alpha, p = (tail.sel(tail_number=name).values for name in ("alpha", "p"))
    ratio = tail.sel(tail_number="against_lognormal").values
    return (
        f"; a power law, exponent {alpha.mean():.1f}, is not ruled out (p ≥ 0.1) as the tail of "
        f"{int((p >= 0.1).sum())} of {len(p)}, and a log-normal fits better in "
        f"{int((ratio < 0).sum())}"
    )
