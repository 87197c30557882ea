"""Spin updates: layered models against PyTorch and the product, dense ones against annealers.

All times are those of a million spin updates.
"""

import time

import numpy as np
import torch
from torch import Tensor

from benchmarks.harness import Duel, Work
from spinscape.spins.couplings import SpinModel
from spinscape.spins.phases import phase
from spinscape.spins.sampling import sample
from spinscape.spins.sweeps import sweeps_of

__all__ = [
    "against_annealer",
    "against_product",
    "against_pytorch",
    "against_tempering",
    "duels",
    "phases",
    "rounded",
]

MILLION = 1_000_000
MLP = (784, 100, 100, 10)
BETAS = (1.0, 5.0)  # between which dense models are annealed


def duels() -> list[Duel]:
    """List the rows."""
    return [
        against_pytorch(MLP, 256, wanted=2.0),
        against_product(MLP, 256, wanted=0.4, threads=None),
        *(
            against_product((fan_in, fan_in), 256, wanted=wanted)
            for fan_in, wanted in ((128, 0.435), (256, 0.615), (512, 0.717), (1024, 0.82))
        ),
        rounded(1024, 256, wanted=2.5),
        *(against_annealer(peer, n) for n in (256, 512, 1024) for peer in ANNEALERS),
        *(against_tempering(n) for n in (257, 513, 1025)),
        phases((784, 256, 256, 256, 10)),
    ]


def against_pytorch(
    widths: tuple[int, ...], replicas: int, wanted: float | None, sweeps: int = 400
) -> Duel:
    """A sample of a layered model, against a heat bath in PyTorch's own operations."""
    model = SpinModel.layered(widths, C=1 / 3, seed=0)
    temperature = 0.5

    def ours() -> Work:
        return lambda: sample(model, [temperature], replicas, sweeps, 0, burn_in=0, every=sweeps)

    def peer() -> Work:
        generator = torch.Generator().manual_seed(0)
        spins = [torch.ones(replicas, width) for width in widths]

        def work() -> float:
            for _ in range(sweeps):
                for colour in (0, 1):
                    for k in range(colour, len(widths), 2):
                        spins[k] = _drawn(model, spins, k, 2 / temperature, generator)
            return _energy(model, spins)

        return work

    def agree() -> None:
        found = float(ours()()["energy"].mean())
        energies = [peer()() for _ in range(3)]
        assert abs(found / np.mean(energies) - 1) < 0.05, (found, energies)

    scale = MILLION / (replicas * model.n * sweeps)
    return Duel(
        f"heat bath, {replicas} × {'-'.join(map(str, widths))}, a million updates",
        "plain PyTorch",
        ours,
        peer,
        agree,
        wanted=wanted,
        repeats=5,
        ours_scale=scale,
        peer_scale=scale,
    )


def against_product(
    widths: tuple[int, ...],
    replicas: int,
    wanted: float | None,
    threads: int | None = 1,
    sweeps: int = 400,
    square: int = 1024,
) -> Duel:
    """Sweeps of a layered model, against the products alone at the rate of a large one.

    On one core the sweep itself is timed, on all a sample.
    """
    model = SpinModel.layered(widths, C=1.0, seed=0)
    operations = 4 * sum(layer.numel() for layer in model.layers) / model.n  # an update
    large = torch.randn(square, square)

    def ours() -> Work:
        if threads is None:
            return lambda: sample(model, [1.0], replicas, sweeps, 0, burn_in=0, every=sweeps)
        system = sweeps_of(model)
        chains = system.begin(torch.ones(replicas, model.n), np.random.SeedSequence(0))
        beta = torch.ones(replicas, dtype=torch.float64)

        def work() -> None:
            for _ in range(sweeps):
                system.sweep(chains, beta)

        return _on(threads, work)

    def peer() -> Work:
        out = torch.empty_like(large)
        return _on(threads, lambda: torch.mm(large, large, out=out))

    return Duel(
        f"heat bath, {replicas} × {'-'.join(map(str, widths))}, a million updates"
        + (", one core" if threads == 1 else ""),
        f"float32 product at the rate of {square}³",
        ours,
        peer,
        lambda: None,
        wanted=wanted,
        repeats=5,
        ours_scale=MILLION / (replicas * model.n * sweeps),
        peer_scale=MILLION * operations / (2 * square**3),
        note=f"{operations:.0f} operations an update; the ratio is the share of the limit",
    )


def rounded(width: int, replicas: int, wanted: float | None, sweeps: int = 100) -> Duel:
    """Couplings rounded to bfloat16, against the same in float32, one core."""
    model = SpinModel.layered([width, width], C=1.0, seed=0)

    def work(precision: str) -> Work:
        return _on(
            1,
            lambda: sample(
                model,
                [1.0],
                replicas,
                sweeps,
                0,
                burn_in=0,
                every=sweeps,
                precision=precision,
            ),
        )

    def agree() -> None:
        both = [float(work(p)()["energy"].mean()) for p in ("bfloat16", "as given")]
        assert abs(both[0] / both[1] - 1) < 0.02, both

    scale = MILLION / (replicas * model.n * sweeps)
    return Duel(
        f"heat bath, {replicas} × {width}-{width} in bfloat16, a million updates, one core",
        "the same in float32",
        lambda: work("bfloat16"),
        lambda: work("as given"),
        agree,
        wanted=wanted,
        repeats=5,
        ours_scale=scale,
        peer_scale=scale,
        note="couplings are rounded, and the rounded model is sampled",
    )


def against_annealer(peer: str, n: int, reads: int = 16, sweeps: int = 100) -> Duel:
    """Anneal Sherrington-Kirkpatrick's model from β = 1 to 5, one core, against a named peer."""
    model = SpinModel.sk(n, seed=0)
    beta = np.geomspace(*BETAS, sweeps)
    system = sweeps_of(model)
    start = torch.from_numpy(np.random.default_rng(0).choice([-1.0, 1.0], (reads, n)))

    def ours() -> Work:
        def work() -> float:
            chains = system.begin(start, np.random.SeedSequence(0))
            for each in beta:
                system.sweep(chains, torch.full((reads,), each, dtype=torch.float64))
            return float(system.energy(chains).mean())

        return _on(1, work)

    def theirs() -> Work:
        return ANNEALERS[peer](model, reads, sweeps)

    def agree() -> None:
        found, other = ours()() / n, theirs()() / n
        assert abs(found - other) < 0.05, (found, other)

    scale = MILLION / (reads * n * sweeps)
    return Duel(
        f"{reads} anneals of {n} spins, all to all, β 1 to 5, a million updates, one core",
        peer,
        ours,
        theirs,
        agree,
        package=peer,
        repeats=5,
        ours_scale=scale,
        peer_scale=scale,
    )


def against_tempering(n: int, temperatures: int = 16, sweeps: int = 100) -> Duel:
    """Parallel tempering of Sherrington-Kirkpatrick's model, one core, against `peapods`.

    All pairs are a ring of an odd number of spins with neighbours at all distances there.
    """
    model = SpinModel.sk(n, seed=0)
    heats = 1 / np.geomspace(*BETAS, temperatures)

    def ours() -> Work:
        return _on(1, lambda: sample(model, heats, 1, sweeps, 0))

    def peer() -> Work:
        import peapods

        matrix, place = model.dense_bonds().numpy(), np.arange(n)
        distances = range(1, (n + 1) // 2)
        couplings = np.stack([matrix[place, (place + d) % n] for d in distances], 1)

        def work() -> float:
            ring = peapods.Ising(
                (n,),
                couplings=couplings,
                temperatures=heats,
                neighbor_offsets=[[d] for d in distances],
            )
            ring.sample(sweeps, sweep_mode="gibbs", pt_interval=1)
            return float(np.mean(ring.get_energies()))

        return work

    def agree() -> None:
        found, other = float(ours()()["energy"].mean()) / n, peer()()
        assert abs(abs(found) - abs(other)) < 0.1, (found, other)  # theirs is positive

    scale = MILLION / (temperatures * n * sweeps)
    return Duel(
        f"tempering, {temperatures} temperatures, {n} spins, all to all, a million updates",
        "peapods",
        ours,
        peer,
        agree,
        package="peapods",
        repeats=3,
        ours_scale=scale,
        peer_scale=scale,
        note="β from 1 to 5 in both",
    )


def phases(widths: tuple[int, ...]) -> Duel:
    """Phases of one network with four nulls, against three seconds."""
    model = SpinModel.layered(widths, C=1 / 3, seed=0)
    return Duel(
        f"phases of {'-'.join(map(str, widths))} with 4 nulls",
        "three seconds of sleep",
        lambda: lambda: phase(model, permutations=4),
        lambda: lambda: time.sleep(3.0),
        lambda: None,
        wanted=1.0,
        repeats=2,
        note="products layer by layer",
    )


def _drawn(
    model: SpinModel, spins: list[Tensor], k: int, doubled: float, generator: torch.Generator
) -> Tensor:
    field = torch.zeros_like(spins[k])
    if k > 0:
        field = field + spins[k - 1] @ model.layers[k - 1]
    if k < len(spins) - 1:
        field = field + spins[k + 1] @ model.layers[k].T
    up = torch.sigmoid(doubled * field)
    return (torch.rand(up.shape, generator=generator) < up).float() * 2 - 1


def _energy(model: SpinModel, spins: list[Tensor]) -> float:
    return float(model.energy(torch.cat(spins, 1)).mean())


def _on(threads: int | None, work: Work) -> Work:
    """The work on so many threads, all by default."""
    if threads is None:
        return work

    def limited() -> object:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            return work()
        finally:
            torch.set_num_threads(before)

    return limited


def _dwave(model: SpinModel, reads: int, sweeps: int) -> Work:
    import dimod
    from dwave.samplers import SimulatedAnnealingSampler

    problem = dimod.BinaryQuadraticModel.from_ising({}, _pairs(model))
    sampler = SimulatedAnnealingSampler()
    return lambda: float(
        sampler.sample(
            problem, beta_range=BETAS, num_reads=reads, num_sweeps=sweeps, seed=1
        ).record.energy.mean()
    )


def _openjij(model: SpinModel, reads: int, sweeps: int) -> Work:
    import openjij

    sampler = openjij.SASampler()
    pairs = _pairs(model)
    return lambda: float(
        np.mean(
            sampler.sample_ising(
                {},
                pairs,
                beta_min=BETAS[0],
                beta_max=BETAS[1],
                num_reads=reads,
                num_sweeps=sweeps,
                sparse=False,
                seed=1,
            ).energies
        )
    )


def _pairs(model: SpinModel) -> dict[tuple[int, int], float]:
    """Couplings with the peers' sign: their H = Σ J s s."""
    matrix = model.dense_bonds().double().numpy()
    rows, columns = np.triu_indices(len(matrix), 1)
    return {(int(i), int(j)): -float(matrix[i, j]) for i, j in zip(rows, columns, strict=True)}


ANNEALERS = {"dwave.samplers": _dwave, "openjij": _openjij}
