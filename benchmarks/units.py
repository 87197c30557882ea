"""Moves of one hidden unit, against whole evaluations, and in wide networks against narrow ones."""

import torch

from benchmarks.harness import Duel, Work
from spinscape.glass.walking.moves import generators
from spinscape.glass.walking.rules import RULES
from spinscape.glass.walking.unit_moves import SingleUnit
from spinscape.landscape.energy import Landscape
from spinscape.nets import models
from spinscape.nets.initialisation import initial_points

__all__ = ["against_whole", "duels", "flat"]

MOVES = 32
MOVE = SingleUnit(0.01)
TEMPERATURE = 1e-5  # of about half of the moves accepted


def duels() -> list[Duel]:
    """List the rows."""
    return [
        against_whole(64, 32, wanted=None),
        against_whole(64, 128, wanted=40.0),
        against_whole(64, 512, wanted=None),
        against_whole(1, 128, wanted=None),
        flat(),
    ]


def against_whole(
    walkers: int, hidden: int, wanted: float | None, inputs: int = 784, samples: int = 2000
) -> Duel:
    """A move of one unit of each walker, against the energies of so many points."""
    setting = _Setting(walkers, hidden, inputs, samples)

    def peer() -> Work:
        return lambda: setting.landscape.loss(setting.points)

    return Duel(
        f"moves of one unit of {walkers} × {setting.shape}, {samples:,} samples",
        "whole evaluation",
        setting.moves,
        peer,
        setting.check,
        wanted=wanted,
        repeats=5,
        ours_scale=1 / MOVES,
        note=f"times {hidden + 1} moves a sweep; random numbers and acceptance included",
    )


def flat(
    walkers: int = 64, widths: tuple[int, int] = (32, 512), inputs: int = 784, samples: int = 2000
) -> Duel:
    """A move in a wide network against one in a narrow network: the cost is to be the same."""
    narrow, wide = (_Setting(walkers, hidden, inputs, samples) for hidden in widths)
    return Duel(
        f"moves of one unit of {walkers} × {wide.shape}, {samples:,} samples, wide",
        f"the same with {widths[0]} units",
        wide.moves,
        narrow.moves,
        wide.check,
        wanted=round(1 / 1.5, 2),
        ours_scale=1 / MOVES,
        peer_scale=1 / MOVES,
        note="at most 1.5 times as long",
    )


class _Setting:
    """Random images and labels, a network of one hidden layer, and walkers."""

    def __init__(self, walkers: int, hidden: int, inputs: int, samples: int) -> None:
        generator = torch.Generator().manual_seed(0)
        x = torch.rand(samples, inputs, generator=generator)
        y = torch.randint(0, 10, (samples,), generator=generator)
        module = models.mlp(inputs, [hidden], 10)
        self.landscape = Landscape(module, x, y)
        self.points = initial_points(module, range(walkers))
        self.walkers, self.shape = walkers, f"{inputs}-{hidden}-10"

    def moves(self) -> Work:
        """`MOVES` moves of a thermal walk."""
        temperature = torch.full((self.walkers,), TEMPERATURE, dtype=torch.float64)
        walker = MOVE.walker(self.landscape, RULES["thermal"], temperature)
        state, streams = walker.init(self.points), generators(0, self.walkers)

        def work() -> torch.Tensor:
            nonlocal state
            for _ in range(MOVES):
                state, _ = walker.step(state, streams)
            self.last = state
            return state.energy

        return work

    def check(self) -> None:
        """The energies that are kept are those of a whole evaluation."""
        found = self.moves()()
        expected = self.landscape.loss(self.last.point)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
