"""Walks against laws that are known exactly, each within three standard errors at a fixed seed."""

from math import exp, sqrt

import numpy as np
import pytest
import torch
from scipy.stats import t as student

import oracles
from spinscape.glass.walking.langevin import Langevin
from spinscape.glass.walking.memory import autocorrelation
from spinscape.glass.walking.moves import FilterGaussian, Gaussian
from spinscape.glass.walking.sublevel import effective_dimension
from spinscape.glass.walking.walks import walk

ERRORS = 3.0


class Bowl(oracles.Bowl):
    """Energy ½ Σ h w², with its gradient."""

    def gradient(self, points):
        return self.curvatures * points


def close(values, expected, se=None):
    """Whether the mean of independent values is the expected one within its standard error."""
    values = np.asarray(values, dtype=float)
    se = values.std(ddof=1) / sqrt(len(values)) if se is None else se
    return abs(values.mean() - expected) < ERRORS * se


def flat(points):
    return points.new_zeros(points.shape[:-1])


def normal(*shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(
    ("n", "length", "rate", "digits"),
    [
        (2, 2.38, 0.356, 5e-4),
        (5, 2.38, 0.287, 5e-4),
        (20, 2.38, 0.248, 5e-4),
        (100, 2.38, 0.2369, 5e-5),
        (1000, 0.5, 0.803, 1e-3),
        (1000, 1.0, 0.617, 1e-3),
        (1000, 2.38, 0.234, 1e-3),
        (1000, 4.0, 0.0455, 1e-3),
    ],
)
def test_gaussian_steps_are_accepted_as_student_s_t_says(n, length, rate, digits):
    exact = 2 * student.cdf(-length / 2, n)
    assert exact == pytest.approx(rate, abs=digits)  # the last four: 2Φ(−l/2), the limit of n → ∞
    found = walk(
        Bowl([1.0] * n),
        normal(600, n, seed=n),
        rule="thermal",
        temperature=1.0,
        move=Gaussian(length / sqrt(n)),
        steps=20,
        record=2,
        seed=1,
    )
    assert close(found.acceptance, exact)


EQUILIBRIUM = {
    "gaussian": (Gaussian(0.8), 4.0, 40),
    "filters": (FilterGaussian(1.0, torch.arange(6).split(3)), None, 150),
    "langevin": (Langevin(0.9), 4.0, 40),
    "langevin from the bottom": (Langevin(0.9), 0.0, 60),
}


@pytest.mark.parametrize("case", EQUILIBRIUM)
def test_all_moves_have_the_same_equilibrium(case):
    """Mean n T / 2 and variance n T² / 2: the energy is Gamma distributed."""
    move, spread, steps = EQUILIBRIUM[case]
    n, temperature, walkers, k = 6, 0.7, 2500, torch.linspace(0.5, 2, 6, dtype=torch.float64)
    if spread is None:  # a walker's start sets its filters' steps: the same for all
        start = torch.full((walkers, n), 0.7, dtype=torch.float64)
    else:
        start = spread / 4 * normal(walkers, n, seed=2) * (temperature / k).sqrt()
    found = walk(
        Bowl(k),
        start,
        rule="thermal",
        temperature=temperature,
        move=move,
        steps=steps,
        record=2,
        seed=3,
    )
    energy = found.energy.isel(step=-1).values
    variance, shape = n * temperature**2 / 2, n / 2
    assert close(energy, n * temperature / 2, sqrt(variance / walkers))
    fourth = (2 * shape**2 + 6 * shape) * temperature**4
    assert close((energy - energy.mean()) ** 2, variance, sqrt(fourth / walkers))
    assert 0.1 < found.acceptance.mean() < 0.97


@pytest.mark.parametrize("n", [2, 5, 20])
def test_a_threshold_walk_stays_near_its_threshold(n):
    top, drawn = 0.8, normal(2000, n, seed=4)
    radius = sqrt(2 * top) * torch.rand(2000, 1, generator=torch.Generator().manual_seed(5)) ** (
        1 / n
    )
    found = walk(
        Bowl([1.0] * n),
        drawn / drawn.norm(dim=1, keepdim=True) * radius,
        rule="threshold",
        threshold=top,
        move=Gaussian(1.5 / n),
        steps=30,
        record=2,
        seed=6,
    )
    assert float(found.energy.max()) <= top
    assert close(found.energy.isel(step=-1) / top, n / (n + 2))
    assert 0.1 < found.acceptance.mean() < 0.9


@pytest.mark.parametrize("curvatures", [[1.0] * 6, [2.0, 1.0, 0.5, 0, 0, 0, 0, 0]])
def test_the_effective_dimension_is_the_rank_of_the_bowl(curvatures):
    rank = np.count_nonzero(curvatures)
    found = walk(
        Bowl(curvatures) if rank > 3 else lambda w: 5 + Bowl(curvatures).energy(w),
        torch.zeros(60, len(curvatures), dtype=torch.float64),
        rule="threshold",
        threshold=1.0 if rank > 3 else 6.0,
        move=Gaussian(0.5),
        steps=1500,
        record=400,
        seed=7,
    )
    bottom = 0.0 if rank > 3 else 5.0
    dimension = effective_dimension(found, minimum=bottom, level=0.9973)
    assert dimension.low < rank < dimension.high
    assert dimension.high - dimension.low < 0.2 * rank


def test_a_free_walk_leaves_its_sphere_and_all_walkers_alike():
    n, step, steps = 2000, 0.03, 40
    start = normal(200, n, seed=8)
    start /= start.norm(dim=1, keepdim=True)
    found = walk(flat, start, move=Gaussian(step), steps=steps, record=2, seed=9)
    squares = np.square(found.point.values).sum(1)
    grown = n * step**2 * steps
    assert close(squares - 1, grown)
    variance = 4 * step**2 * steps + 2 * n * step**4 * steps**2
    assert close((squares - 1 - grown) ** 2, variance)
    assert squares.std() / squares.mean() < 0.05


def test_a_langevin_walk_in_a_bowl_is_an_ornstein_uhlenbeck_process():
    """⟨Δ(t_w, t_w + t)⟩ = 2 (T/k) (1 − (1 − h²k/2T)^t), at any t_w, in equilibrium."""
    k, temperature, step, walkers, n = 2.0, 0.5, 0.1, 400, 5
    found = walk(
        Bowl([k] * n),
        normal(walkers, n, seed=10) * sqrt(temperature / k),
        rule="thermal",
        temperature=temperature,
        move=Langevin(step),
        steps=300,
        record=31,
        waiting=[0, 100],
        seed=11,
    )
    assert found.acceptance.mean() > 0.998  # each rejection slows the process
    memory = 1 - step**2 * k / 2 / temperature
    for wait, lag in [(0, 10), (0, 50), (0, 300), (100, 10), (100, 50), (100, 200)]:
        moved = found.two_time.sel(waiting=wait, step=wait + lag).values
        assert close(moved, 2 * temperature / k * (1 - memory**lag))
        both = found.two_time_overlap.sel(waiting=wait, step=wait + lag).values
        assert abs(both.mean() - memory**lag) < 0.15
    assert found.two_time.sel(waiting=100, step=90).isnull().all()


class Flip:
    """Flips one spin, drawn at random."""

    step = 1.0

    def init(self, points):
        return points.new_ones(1, 1)

    def propose(self, points, fixed, generators):
        where = torch.stack(
            [torch.randint(points.shape[1], (), generator=one) for one in generators]
        )
        flipped = points.clone()
        flipped[torch.arange(len(points)), where] *= -1
        return flipped


def spin_model(p, n, seed):
    """Energies of a p-spin model with distinct indices; for p = 2 the SK model."""
    indices = torch.combinations(torch.arange(n), p)
    couplings = normal(len(indices), seed=seed)

    def energy(points):
        return points[..., indices].prod(-1) @ couplings / sqrt(len(indices))

    return energy


@pytest.mark.parametrize(("p", "n"), [(2, 24), (3, 16), (4, 12)])
def test_spin_flips_forget_the_energy_at_the_exact_rate(p, n):
    """r(1) = 1 − 2p/N, for SK 1 − 4/N, and r(k) = r(1)^k: a flip is linear in the energy."""
    walkers, steps = 250, 120
    start = torch.sign(normal(walkers, n, seed=12))
    found = walk(
        spin_model(p, n, seed=13), start, move=Flip(), steps=steps, record=steps + 1, seed=14
    )
    r = autocorrelation(found, detrend="mean", surrogates=0)
    energy = found.energy.values
    for lag in (1, 2, 5):
        exact = (1 - 2 * p / n) ** lag
        # Residuals of walkers are independent.
        rest = (energy[:, lag:] - exact * energy[:, :-lag]) * energy[:, :-lag]
        se = rest.mean(1).std() / sqrt(walkers) / (energy**2).mean()
        assert abs(float(r.correlation_mean.sel(lag=lag)) - exact) < ERRORS * se
        assert se < 0.05
    assert float(r.integrated_length) == pytest.approx(n / 2 / p - 0.5, rel=0.25)


def test_gaussian_steps_over_a_gaussian_field_forget_it_as_a_power():
    """(1 + k s²/ℓ²)^(−D/2) at lag k, for the covariance exp(−r²/2ℓ²), of random waves."""
    dimension, features, length, step, walkers = 3, 1500, 0.7, 0.25, 300
    waves = normal(features, dimension, seed=15) / length
    phases = 2 * torch.pi * torch.rand(features, generator=torch.Generator().manual_seed(16))

    def field(points):
        return torch.cos(points @ waves.mT + phases).sum(-1) * sqrt(2 / features)

    found = walk(
        field,
        100 * normal(walkers, dimension, seed=17),  # far apart: independent ground
        move=Gaussian(step),
        steps=40,
        record=41,
        seed=18,
    )
    r = autocorrelation(found, detrend="mean", surrogates=0)
    energy = found.energy.values
    for lag in (1, 4, 12):
        exact = (1 + lag * step**2 / length**2) ** (-dimension / 2)
        rest = (energy[:, lag:] - exact * energy[:, :-lag]) * energy[:, :-lag]
        walks = rest.mean(1).std() / sqrt(walkers) / (energy**2).mean()
        spread = (1 + 2 * lag * step**2 / length**2) ** (-dimension / 2) - exact**2
        se = sqrt(walks**2 + spread / features)  # of the walkers, and of the finite sum of waves
        assert abs(float(r.correlation_mean.sel(lag=lag)) - exact) < ERRORS * se
    crossing = (exp(2 / dimension) - 1) * (length / step) ** 2
    assert float(r.correlation_length) == pytest.approx(crossing, rel=0.2)
