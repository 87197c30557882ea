"""Barriers of known height along paths."""

import pytest
import torch

from spinscape.landscape.paths import path_barrier

BARRIERS = [  # losses, lam, line, mean
    ([1.0, 3.0, 1.0], None, 2.0, 2.0),
    ([0.0, 3.0, 2.0], None, 2.0, 2.0),
    ([0.0, 0.5, 1.0], None, 0.0, 0.5),
    ([1.0, 0.2, 0.0], None, 0.0, 0.5),
    ([0.0, 2.0, 4.0], [0.0, 0.25, 1.0], 1.0, 2.0),
    ([2.0, 2.5, 0.0], [0.0, 0.75, 1.0], 2.0, 1.5),
    ([5.0, 1.0, 5.0], None, 0.0, 0.0),
    ([1.0, 2.0], None, 0.0, 0.5),
]


@pytest.mark.parametrize(("loss", "lam", "line", "mean"), BARRIERS)
def test_barriers_of_known_height(loss, lam, line, mean):
    loss = torch.tensor(loss, dtype=torch.float64)
    lam = None if lam is None else torch.tensor(lam)
    assert float(path_barrier(loss, lam)) == line
    assert float(path_barrier(loss, lam, definition="mean")) == mean
    assert path_barrier(loss.expand(2, 1, -1), lam).tolist() == [[line]] * 2


def test_a_barrier_is_never_negative_and_not_a_number_where_a_loss_is_not():
    loss = torch.randn(500, 7, generator=torch.Generator().manual_seed(0))
    for definition in ("line", "mean"):
        assert (path_barrier(loss, definition=definition) >= 0).all()
    loss[3, 2] = torch.nan
    assert path_barrier(loss).isnan().nonzero().tolist() == [[3]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"definition": "max"}, "definition='max': expected 'line' or 'mean'"),
        ({"loss": torch.zeros(3, 1)}, r"loss has shape \(3, 1\)"),
        ({"lam": torch.tensor([0.0, 1.0])}, "lam: expected 3 rising values"),
        ({"lam": torch.tensor([0.0, 0.5, 0.9])}, "lam: expected 3 rising"),
        ({"lam": torch.tensor([0.0, 0.0, 1.0])}, "lam: expected 3 rising"),
    ],
)
def test_barriers_refuse_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        path_barrier(**{"loss": torch.zeros(3), **arguments})
