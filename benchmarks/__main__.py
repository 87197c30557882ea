"""Run all benchmarks and print one table (or JSON)."""

import argparse
import json
import resource
from collections.abc import Iterator
from importlib import import_module

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.harness import Case

TOPICS = ("training", "landscape", "align")


def run(topics: tuple[str, ...]) -> Iterator[Case]:
    """Yield the rows of the topics, one after another."""
    for topic in topics:
        yield from import_module(f"benchmarks.{topic}").cases()


def show(cases: list[Case]) -> None:
    """Print the table."""
    table = Table(title="spinscape against its peers, two in turn on this machine")
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
    cases = list(run(tuple(arguments.topics) or TOPICS))
    if arguments.json:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"peak_megabytes": peak, "cases": [case.to_dict() for case in cases]}))
    else:
        show(cases)


if __name__ == "__main__":
    main()
