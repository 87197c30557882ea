"""Pictures of spins: TAP solutions, spectra of the bond matrix, overlaps of replicas."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from xarray import Dataset

from spinscape.report.figures.phases import NETS
from spinscape.report.figures.traces import (
    BLUE,
    GREY,
    PALETTE,
    VERMILION,
    axis,
    line,
    log_axis,
    points,
)
from spinscape.report.panels import Drawing, Panel, Parts, Trace
from spinscape.report.wording import number, percent

__all__ = ["draw_overlaps", "draw_spectra", "draw_taps"]

_KINDS = {**NETS, "given": "given"}
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")


def draw_taps(parts: Parts) -> list[Drawing]:
    """Overlap matrices of all accepted ends, and what became of the starts."""
    drawings = []
    for net, words in _KINDS.items():
        if f"tap/{net}" not in parts:
            continue
        data = parts[f"tap/{net}"]
        one = data.isel(replica=0)
        panels = tuple(_matrix(one, h, net, words) for h in range(one.sizes["heat"]))
        drawings.append(Drawing(f"tap-{net}", panels, _TAPS, *_outcomes(data)))
    return drawings


_TAPS = (
    "Each row and column of a matrix is one start that came to an accepted solution of the TAP "
    "equations of one trained network, whichever solver took it there; colours are cosines. One ± "
    "pair of solutions shows as two blocks of 1 with −1 between them. The table counts what became "
    "of all starts: in a glass the solvers do not converge, or return m = 0, which says nothing of "
    "how many solutions there are."
)


def _matrix(one: Dataset, h: int, net: str, words: str) -> Panel:
    matrix = one["ends_overlap"].isel(heat=h).values
    there = np.isfinite(np.diagonal(matrix))
    square = matrix[np.ix_(there, there)]
    order = np.argsort(-square[0]) if len(square) else np.arange(0)
    heat = float(one["heat"].values[h])
    pairs = int(one["solutions"].isel(step=-1, heat=h))
    noun = "pair" if pairs == 1 else "pairs"
    return Panel(
        f"tap-{net}-{h}",
        f"Overlaps of solutions at {heat:g} T_c, a {words} network after training",
        f"{len(square)} starts came to accepted solutions, {pairs} different ± {noun}.",
        (_heat_map(square[np.ix_(order, order)]),),
        {
            "xaxis": axis("start", showticklabels=False, ticks=""),
            "yaxis": axis(
                "start",
                showticklabels=False,
                ticks="",
                scaleanchor="x",
                constrain="domain",
                autorange="reversed",
            ),
        },
        height=340,
    )


def _heat_map(square: NDArray[np.float64]) -> Trace:
    return {
        "type": "heatmap",
        "z": square,
        "zmin": -1,
        "zmax": 1,
        "colorscale": "Cividis",
        "colorbar": {"thickness": 10, "nticks": 5, "outlinewidth": 0},
        "hovertemplate": "cosine %{z:.3g}<extra></extra>",
        "showlegend": False,
    }


def _outcomes(data: Dataset) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    kinds = [str(kind) for kind in data["outcome_kind"].values]
    columns = ("Step", "T / T_c", "± pairs, mean", "q of the lowest", *kinds)
    rows = []
    for s, step in enumerate(data["step"].values):
        for h, heat in enumerate(data["heat"].values):
            at = data.isel(step=s, heat=h)
            counts = at["count"].sum(("replica", "solver")).values
            rows.append(
                (
                    str(int(step)),
                    f"{heat:g}",
                    number(float(at["solutions"].mean())),
                    number(float(at["q"].mean())),
                    *(percent(float(count / counts.sum())) for count in counts),
                )
            )
    return columns, tuple(rows)


def draw_spectra(parts: Parts) -> list[Drawing]:
    """Densities of eigenvalues before and after training, each on its null."""
    drawings = []
    for net, words in _KINDS.items():
        if f"spectra/{net}" not in parts:
            continue
        data = parts[f"spectra/{net}"]
        places = sorted({0, data.sizes["step"] - 1})
        panels = tuple(_density(data, place, net, words) for place in places)
        drawings.append(Drawing(f"spectra-{net}", panels, _SPECTRA, *_tails(data)))
    return drawings


_SPECTRA = (
    "Density of eigenvalues of the bond matrix of one network, on the mean density of the same "
    "weights at random places; eigenvalues come in ± pairs, and the peak at 0 are zero modes that "
    "unequal layers enforce. Diamonds mark the largest eigenvalues. In the table, an outlier lies "
    "beyond the largest eigenvalue of the nulls by more than four of their standard deviations; p "
    "below 0.1 rules out a power law for the tail, and a negative ratio favours a log-normal."
)


def _density(data: Dataset, place: int, net: str, words: str) -> Panel:
    one = data.isel(replica=0, step=place)
    step = int(data["step"].values[place])
    x = one["lam"].values
    ours, null = one["density"].values, one["density_null"].values
    positive = np.concatenate([ours[ours > 0], null[null > 0]])
    floor = float(positive.min()) / 2
    top = one["largest"].values
    when = "" if net == "given" else f", step {step}"
    return Panel(
        f"spectra-{net}-{place}",
        f"Spectrum of a {words} network{when}",
        f"{int(one['outliers'])} eigenvalues beyond the null; the largest is {number(top[0])}, "
        f"that of the nulls at most {number(float(one['edge_null'].max()))}.",
        (
            line(x, np.where(null > 0, null, np.nan), "permuted weights", GREY, width=4),
            line(x, np.where(ours > 0, ours, np.nan), "the network", BLUE),
            points(
                top, np.full(len(top), floor), "largest eigenvalues", VERMILION, symbol="diamond"
            ),
        ),
        {
            "xaxis": axis("eigenvalue, in units of the weights"),
            "yaxis": log_axis("density", np.append(positive, floor)),
        },
    )


def _tails(data: Dataset) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    columns = (
        "Step",
        "Outliers",
        "Zero modes (enforced)",
        "Tail exponent",
        "p",
        "Ratio to log-normal",
    )
    rows = []
    for s, step in enumerate(data["step"].values):
        at = data.isel(step=s)
        tail = at["tail"].mean("replica")
        rows.append(
            (
                str(int(step)),
                number(float(at["outliers"].mean())),
                f"{float(at['zero_modes'].mean()):.0f} "
                f"({float(at['zero_modes_enforced'].mean()):.0f})",
                number(float(tail.sel(tail_number="alpha"))),
                number(float(tail.sel(tail_number="p"))),
                number(float(tail.sel(tail_number="against_lognormal"))),
            )
        )
    return columns, tuple(rows)


def draw_overlaps(parts: Parts) -> list[Drawing]:
    """Q(T) of networks and of permuted weights, and P(q) at several temperatures."""
    drawings = []
    for net, words in _KINDS.items():
        if f"overlaps/{net}" not in parts:
            continue
        data = parts[f"overlaps/{net}"]
        panels = (_descriptor(data, net, words), _distribution(data, net, words))
        drawings.append(Drawing(f"overlaps-{net}", panels, _caption(data), *_means(data)))
    return drawings


def _caption(data: Dataset) -> str:
    share = float(data["equilibrated"].mean())
    words = (
        "Q(T) is the mean |overlap| of two replicas of the spins, less what chance gives in so "
        "many spins; T is in units of each network's own T_c. P(q) is that of networks after "
        "training, summed over them. "
    )
    if share < 1:
        heats = data["heat"].values
        bad = ~data["equilibrated"].all([d for d in data["equilibrated"].dims if d != "heat"])
        told = ", ".join(f"{heat:g}" for heat in heats[bad.values])
        words += (
            f"{percent(1 - share)} of the samples did NOT pass the tests of equilibrium (at T / "
            f"T_c = {told} at least one of them); their numbers are not those of equilibrium."
        )
    else:
        words += "All samples passed the tests of equilibrium."
    return words


def _descriptor(data: Dataset, net: str, words: str) -> Panel:
    heats = data["heat"].values
    traces = []
    told = []
    steps = data["step"].values
    for s in sorted({0, len(steps) - 1}):
        for w, weights in enumerate(data["weights"].values):
            values = data["descriptor"].isel(step=s).sel(weights=weights)
            mean = values.mean("replica").values
            when = "" if net == "given" else f", step {int(steps[s])}"
            name = f"{weights}{when}"
            colour = (GREY, BLUE)[s > 0] if w else ("#56B4E9", VERMILION)[s > 0]
            traces.append(line(heats, mean, name, colour, dash="dash" if w else "solid"))
            told.append(f"{name}: {number(mean[0])} at {heats[0]:g}")
    top = max(float(np.nanmax(trace["y"])) for trace in traces)
    traces.append(line([1, 1], [0, top], "T_c", GREY, dash="dot", width=1.5, legend=False))
    return Panel(
        f"overlaps-{net}-descriptor",
        f"Q(T) of {words} networks",
        f"Mean |overlap| less its floor: {'; '.join(told)}.",
        tuple(traces),
        {"xaxis": axis("T / T_c"), "yaxis": axis("Q(T) less its floor", rangemode="tozero")},
    )


def _distribution(data: Dataset, net: str, words: str) -> Panel:
    end = data["distribution"].isel(step=-1).sel(weights="as trained").mean("replica")
    heats = data["heat"].values
    some = np.unique(np.linspace(0, len(heats) - 1, 4).round().astype(int))
    settled = data["equilibrated"].isel(step=-1).sel(weights="as trained").all("replica").values
    traces = [
        line(
            data["q"].values,
            end.isel(heat=int(h)).values,
            f"{heats[h]:g} T_c" + ("" if settled[h] else ", NOT equilibrated"),
            PALETTE[k % len(PALETTE)],
            dash=_DASHES[k % len(_DASHES)],
        )
        for k, h in enumerate(some)
    ]
    return Panel(
        f"overlaps-{net}-distribution",
        f"P(q) of {words} networks after training",
        f"Distribution of the overlap at {', '.join(f'{heats[h]:g}' for h in some)} times T_c.",
        tuple(traces),
        {"xaxis": axis("overlap q", range=[-1, 1]), "yaxis": axis("P(q)", rangemode="tozero")},
    )


def _means(data: Dataset) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    columns = ("T / T_c", "Weights", "⟨|q|⟩", "⟨q²⟩", "Binder ratio", "E / N", "Equilibrated")
    end = data.isel(step=-1)
    rows = []
    for heat in end["heat"].values:
        for weights in end["weights"].values:
            at = end.sel(heat=heat, weights=weights)
            rows.append(
                (
                    f"{heat:g}",
                    str(weights),
                    *(
                        number(float(at[name].mean()))
                        for name in ("q_absolute", "q_squared", "binder", "energy_per_spin")
                    ),
                    percent(float(at["equilibrated"].mean())),
                )
            )
    return columns, tuple(rows)
