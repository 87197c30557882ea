"""The command line: reads arguments and calls one study."""

import json
import sys
import tomllib
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import joblib
import typer
from rich.console import Console
from rich.table import Table

__all__ = ["app", "main"]

# Typer brings its own copy of click or uses the one installed, by its version; both have this.
USAGE_ERRORS: tuple[type[Exception], ...] = tuple(
    kind
    for kind in typer.BadParameter.__mro__
    if kind.__name__ == "ClickException" and issubclass(kind, Exception)
)

# Errors whose message speaks for itself.
TOLD = (ValueError, TypeError, OSError, MemoryError, ImportError, RuntimeError)
INTERRUPTED = 130
MOST_WORKERS = 4  # unless more are asked for: each is a process with a PyTorch of its own
FILE_KINDS = {
    "data": (str, "a word"),
    "model": (str, "a word"),
    "checkpoints": (str | list, "a pattern, or a list of files"),
    "checkpoint": (str | list, "a file, a pattern, or a list of files"),
    "out": (str, "a path"),
    "workers": (int, "a whole number"),
    "backend": (str, "a word"),
    "address": (str, "a word"),
}

app = typer.Typer(
    name="spinscape",
    help="Loss landscapes of neural networks through the lens of spin-glass physics.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _root(
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show where an error came from.")
    ] = False,
) -> None:
    """Loss landscapes of neural networks through the lens of spin-glass physics."""


Data = Annotated[
    str | None,
    typer.Option(
        help="'digits' (the default), a path (.npz with x and y, or a folder of IDX or CIFAR-10 "
        "files), openml:NAME, or module:function."
    ),
]
Preset = Annotated[str | None, typer.Option(help="quick (the default), standard or paper.")]
Width = Annotated[int | None, typer.Option(help="Hidden units.")]
Replicas = Annotated[int | None, typer.Option(help="Independently trained copies.")]
Seed = Annotated[int | None, typer.Option(help="Fixes every random number; 0.")]
NumberOfWorkers = Annotated[
    int | None,
    typer.Option(
        "--workers", help="Processes; one a core by default, at most 4. Never changes a number."
    ),
]
Backend = Annotated[
    str | None, typer.Option(help="loky (processes here, the default), or a dask or ray cluster.")
]
Address = Annotated[
    str | None, typer.Option(help="Of the cluster: tcp://HOST:8786 (dask), HOST:6379 (ray).")
]
Out = Annotated[Path | None, typer.Option(help="Directory of the run; resumes.")]
Config = Annotated[
    Path | None,
    typer.Option(help="TOML file with any of these and any other setting of the preset."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Findings as JSON on stdout.")]


@app.command()
def explore(
    data: Data = None,
    preset: Preset = None,
    width: Width = None,
    replicas: Replicas = None,
    seed: Seed = None,
    workers: NumberOfWorkers = None,
    backend: Backend = None,
    address: Address = None,
    out: Out = None,
    config: Config = None,
    model: Annotated[
        str | None, typer.Option(help="module:function that returns your own nn.Module.")
    ] = None,
    checkpoints: Annotated[
        str | None,
        typer.Option(help="Pattern of your own checkpoints, 'DIR/*.safetensors'; needs --model."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would run, how long, how large.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train copies of a network and read its landscape as a glass (arXiv 2407.20724).

    The command line goes before the TOML file, and that before the preset.
    """
    from spinscape.studies.exploration import explore as run_study
    from spinscape.studies.plans import plan

    options = _options(
        config,
        data=data,
        preset=preset,
        width=width,
        replicas=replicas,
        seed=seed,
        workers=workers,
        backend=backend,
        address=address,
        out=out,
        model=model,
        checkpoints=checkpoints,
    )
    if dry_run:
        options.pop("out", None)
        _show_plan(plan(**options), as_json)
        return
    with _Progress(quiet=as_json) as progress:
        run = run_study(**options, progress=progress)
    _show_findings(run, as_json)


@app.command()
def spins(
    data: Data = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            help="Trained weights to read instead (a file, or a pattern such as "
            "'runs/*.safetensors'): linear layers in their order, or those of --model."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="module:function that returns the network of --checkpoint."),
    ] = None,
    preset: Preset = None,
    width: Width = None,
    replicas: Replicas = None,
    seed: Seed = None,
    workers: NumberOfWorkers = None,
    backend: Backend = None,
    address: Address = None,
    out: Out = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Follow networks from spin glass to hidden order as they train (arXiv 2408.06421).

    With --checkpoint nothing is trained: the phases of the networks that you bring are read. The
    command line goes before the TOML file, and that before the preset.
    """
    from spinscape.studies.spin_runs import follow

    options = _options(
        config,
        data=data,
        checkpoint=checkpoint,
        model=model,
        preset=preset,
        width=width,
        replicas=replicas,
        seed=seed,
        workers=workers,
        backend=backend,
        address=address,
        out=out,
    )
    with _Progress(quiet=as_json) as progress:
        run = follow(**options, progress=progress)
    _show_findings(run, as_json)


@app.command()
def mine(
    data: Data = None,
    model: Annotated[
        str | None, typer.Option(help="module:function that returns your own nn.Module.")
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            help="Trained weights of --model (a file, or a pattern); the first is mined around. "
            "Without, --model is trained."
        ),
    ] = None,
    preset: Preset = None,
    width: Width = None,
    seed: Seed = None,
    workers: NumberOfWorkers = None,
    backend: Backend = None,
    address: Address = None,
    out: Out = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Search curves and surfaces around a network: w-basins, vvv-basins, saddles, wine bottles.

    The command line goes before the TOML file, and that before the preset.
    """
    from spinscape.studies.mining_study import prospect_around

    options = _options(
        config,
        data=data,
        model=model,
        checkpoint=checkpoint,
        preset=preset,
        width=width,
        seed=seed,
        workers=workers,
        backend=backend,
        address=address,
        out=out,
    )
    with _Progress(quiet=as_json) as progress:
        run = prospect_around(**options, progress=progress)
    _show_findings(run, as_json)


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="Checkpoint: .safetensors, its index or folder, .pt.")],
    b: Annotated[Path, typer.Argument(help="Another one.")],
    base: Annotated[
        Path | None,
        typer.Option(help="What both were fine-tuned from: compares the task vectors as well."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="NetCDF file for all numbers, tensor by tensor.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare two checkpoints from their files alone: overlap, norms, signs, differences.

    Nothing is unpickled, and however large they are, less than 1 GiB of memory is taken.
    """
    from spinscape.merging.comparing import compare as compared

    with _Progress(quiet=as_json) as progress:
        found = compared(
            a, b, base=base, progress=lambda done, all_: progress("reading", done, all_)
        )
    if out is not None:
        found.to_netcdf(out, engine="scipy")
    _show_comparison(found, as_json)


@app.command()
def reproduce(
    paper: Annotated[
        str,
        typer.Argument(
            help="liao2024 (arXiv 2407.20724), barney2024 (2408.06421), li2024-mining (2405.12493) "
            "or li2024-asymmetry (2405.12489)."
        ),
    ],
    data: Data = None,
    preset: Preset = None,
    width: Width = None,
    replicas: Replicas = None,
    seed: Seed = None,
    workers: NumberOfWorkers = None,
    backend: Backend = None,
    address: Address = None,
    out: Out = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Test each claim of a paper's abstract against its null.

    The command line goes before the TOML file, and that before the preset.
    """
    from spinscape.studies.papers import reproduce as run_study

    options = _options(
        config,
        data=data,
        preset=preset,
        width=width,
        replicas=replicas,
        seed=seed,
        workers=workers,
        backend=backend,
        address=address,
        out=out,
    )
    with _Progress(quiet=as_json) as progress:
        run = run_study(paper, **options, progress=progress)
    _show_findings(run, as_json)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="Directory of a run.")],
    as_json: AsJson = False,
) -> None:
    """Draw the page of a finished run again."""
    from spinscape.report.page import write
    from spinscape.store import Run
    from spinscape.store.durable import writing

    loaded = Run.load(run)
    with writing(loaded.path / "page.html"):
        write(loaded)
    _show_findings(loaded, as_json)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; errors are one line on stderr and exit status 2."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    show = "--traceback" in words
    words = [word for word in words if word != "--traceback"] or ["--help"]
    try:
        status = app(args=words, standalone_mode=False) or 0
        if status == INTERRUPTED:  # what Typer makes of Ctrl-C
            raise KeyboardInterrupt
        sys.exit(status)
    except (typer.Abort, KeyboardInterrupt):
        _fail("interrupted; the same command goes on where it stopped", INTERRUPTED)
    except USAGE_ERRORS as error:
        _fail(getattr(error, "format_message", error.__str__)())
    except Exception as error:
        if show:
            traceback.print_exception(error)
        _fail(str(error) if isinstance(error, TOLD) and str(error) else _unforeseen(error))


def _fail(message: str, status: int = 2) -> None:
    print("spinscape: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(status)


def _unforeseen(error: Exception) -> str:
    told = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return f"{told}; --traceback shows where it came from"


def _options(config: Path | None, **given: Any) -> dict[str, Any]:
    """Options of the command line, before those of the file; workers where neither says."""
    options = _settings_file(config) | {k: v for k, v in given.items() if v is not None}
    # A cluster has its own workers.
    here = options.get("backend", "loky") == "loky"
    options.setdefault("workers", min(MOST_WORKERS, joblib.cpu_count()) if here else None)
    return options


def _settings_file(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as reason:
        raise ValueError(f"config {path}: cannot be read ({reason.strerror})") from reason
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as reason:
        raise ValueError(f"config {path}: not TOML ({reason})") from reason
    for name, (kind, expected) in FILE_KINDS.items():
        if name in found and not isinstance(found[name], kind):
            raise ValueError(f"config {path}: {name}={found[name]!r}: expected {expected}")
    if "progress" in found:
        raise ValueError(f"config {path}: progress: no such setting")
    return found


class _Progress:
    """Bars with the time left on a terminal, silence elsewhere."""

    def __init__(self, quiet: bool) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        console = Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description:<24}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=quiet or not console.is_terminal,
        )
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> "_Progress":
        self._bars.__enter__()
        return self

    def __exit__(self, *reason: Any) -> None:
        self._bars.__exit__(*reason)

    def __call__(self, name: str, done: int, total: int) -> None:
        """Show that `done` of `total` pieces of a part are there."""
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=total)
        self._bars.update(self._tasks[name], completed=done, total=total)


def _show_plan(plan: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(plan))
        return
    table = Table(title="Planned, not run")
    for heading in ("part", "work", "seconds, about", "memory, MB"):
        table.add_column(heading, justify="left" if heading in ("part", "work") else "right")
    for row in plan["parts"]:
        table.add_row(row["part"], row["work"], f"{row['seconds']:.1f}", f"{row['megabytes']:.0f}")
    table.add_row("all", "", f"{plan['seconds']:.0f}", f"{plan['megabytes']:.0f}")
    console = Console()
    console.print(table)
    _show_left_out(console, plan["left_out"])


def _show_left_out(console: Console, reasons: Mapping[str, str]) -> None:
    for name, reason in reasons.items():
        console.print(f"left out: {name} ({reason})", markup=False, soft_wrap=True)


def _show_findings(run: Any, as_json: bool) -> None:
    page = run.path / "page.html"
    if as_json:
        findings = [finding.to_dict() for finding in run.findings]
        told: dict[str, Any] = {"run": str(run.path), "page": str(page), "findings": findings}
        told |= {"left_out": dict(run.config.get("left_out", {}))}
        print(json.dumps(told | _claims(run)))
        return
    table = Table(title="Findings")
    for heading in ("protocol", "statement", "value [95 %]", "null", "verdict"):
        table.add_column(heading, overflow="fold")
    for finding in run.findings:
        table.add_row(
            finding.protocol,
            finding.statement,
            _interval(finding),
            _number(finding.null_value),
            finding.verdict,
        )
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    for claim in _claims(run).get("claims", []):
        console.print(f"claim {claim['verdict']}: {claim['claim']}", markup=False, soft_wrap=True)
    _show_left_out(console, run.config.get("left_out", {}))
    console.print(f"page: {page}", markup=False, soft_wrap=True)


def _show_comparison(found: Any, as_json: bool) -> None:
    if as_json:
        names = [name for name in found.variables if found[name].dtype.kind in "biufU"]
        print(json.dumps({name: _told(found[name].values.tolist()) for name in names}))
        return
    console = Console(width=None if sys.stdout.isatty() else 120)
    for prefix, title in (("", "Parameters"), ("task_", "Task vectors (less the base)")):
        if f"{prefix}whole_overlap" not in found:
            continue
        table = Table(title=title)
        columns = ("", "overlap", "norm ratio B/A", "SSR", "by chance", "largest difference")
        for heading in columns:
            table.add_column(heading, overflow="fold")
        rows: list[tuple[str, str, dict[str, int]]] = [("all", "whole", {})]
        rows += [
            (f"{found['grouping'].values[k]} {name}", "group", {"group": k})
            for k, name in enumerate(found["group"].values)
        ]
        for name, level, place in rows:
            measures = ("overlap", "norm_ratio", "ssr", "ssr_low", "ssr_high", "ssr_chance")
            overlap, ratio, *ssr, chance = (
                float(found[f"{prefix}{level}_{each}"].isel(place)) for each in measures
            )
            largest = float(found[f"{prefix}{level}_largest"].isel(place))
            within = "{:.4f} [{:.4f}, {:.4f}]".format(*ssr)
            table.add_row(
                name, f"{overlap:.4f}", f"{ratio:.4f}", within, f"{chance:.4f}", f"{largest:.3g}"
            )
        console.print(table)
    status = found["status"].values
    for name, told in zip(found["tensor"].values, status, strict=True):
        if told != "compared":
            console.print(f"{told}: {name}", markup=False, soft_wrap=True)
    console.print(
        f"{(status == 'compared').sum()} of {len(status)} tensors compared; SSR: share of equal "
        "signs (0 counts as −), with a binomial interval; by chance: were the signs independent"
    )


def _told(values: Any) -> Any:
    """Lists as JSON takes them: numbers that are none become null."""
    if isinstance(values, list):
        return [_told(value) for value in values]
    return None if isinstance(values, float) and values != values else values


def _claims(run: Any) -> dict[str, Any]:
    """Verdicts on the claims of the paper that a run reproduces; nothing if there is none."""
    from spinscape.report.claims import claims_of

    found = list(run.findings)
    rows = [
        {
            "claim": claim.text,
            "verdict": claim.verdict(found),
            "deciding": list(claim.deciding),
            "known of the paper": claim.known,
            "ours": claim.ours,
        }
        for claim in claims_of(run.study)
    ]
    return {"claims": rows} if rows else {}


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _interval(finding: Any) -> str:
    if finding.low is None or finding.high is None:
        return _number(finding.value)
    return f"{_number(finding.value)} [{_number(finding.low)}, {_number(finding.high)}]"
