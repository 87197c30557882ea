"""Run all benchmarks and print one table (or JSON)."""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.harness import Case, peak_megabytes, run

TOPICS = ("training", "landscape", "curvature", "align", "units", "spins", "comparing")


def measure(topics: tuple[str, ...], threads: int) -> Iterator[Case]:
    """Yield the rows of the topics, one after another, and say which is done."""
    for topic in topics:
        memory: dict[str, float] = {}
        for number, duel in enumerate(import_module(f"benchmarks.{topic}").duels()):
            case = run(duel)
            if duel.name not in memory:
                memory[duel.name] = peak_megabytes(
                    f"import torch; torch.set_num_threads({threads})\n"
                    f"from benchmarks.{topic} import duels\nduels()[{number}].ours()()"
                )
            print(f"{case.name} | {case.peer_name}: done", file=sys.stderr)
            yield replace(case, memory=memory[duel.name])


def show(cases: list[Case], caption: str) -> None:
    """Print the table."""
    table = Table(title="spinscape against its peers, two in turn on this machine", caption=caption)
    for heading in ("case", "ours, ms", "peer", "peer, ms", "ratio", "wanted", "peak, MB", "note"):
        table.add_column(heading, overflow="fold")
    for case in cases:
        table.add_row(
            case.name,
            f"{case.ours * 1e3:.4g} (+{case.ours_spread:.0%})",
            case.peer_name,
            "–" if case.peer is None else f"{case.peer * 1e3:.4g} (+{case.peer_spread:.0%})",
            "–" if case.ratio is None else f"{case.ratio:.2f}×",
            "–" if case.wanted is None else f"≥ {case.wanted:g}×",
            "–" if case.memory is None else f"{case.memory:.0f}",
            case.note,
        )
    Console(width=170).print(table)


def main() -> None:
    """Read the arguments, run, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("topics", nargs="*", help=f"of {', '.join(TOPICS)}; all by default")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    unknown = set(arguments.topics) - set(TOPICS)
    if unknown:
        parser.error(f"unknown topics {sorted(unknown)}; there are {', '.join(TOPICS)}")
    torch.set_num_threads(arguments.threads)
    before = os.getloadavg()[0]
    cases = list(measure(tuple(arguments.topics) or TOPICS, arguments.threads))
    load = (before, os.getloadavg()[0])
    if arguments.json:
        rows = [case.to_dict() for case in cases]
        print(json.dumps({"threads": arguments.threads, "load": load, "cases": rows}))
    else:
        caption = (
            "Times: the best of several, and by how much the median exceeds it. Peak: resident "
            "memory of a process that does our work alone, PyTorch included. "
            f"{arguments.threads} threads, load {load[0]:.1f} before and {load[1]:.1f} after."
        )
        show(cases, caption)


if __name__ == "__main__":
    main()
