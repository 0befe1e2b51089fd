"""Weights of blended scores: one at a time, and only for a gain."""

from __future__ import annotations

import torch
from torch import Tensor

from multimodal_rec.collaborative.weighing import weigh

NEW, TAKEN = 0, 1


def test_the_best_weights_of_the_grid_are_found() -> None:
    wanted = torch.tensor([[1.0, 1.0, 1.0], [0.5, 2.0, 0.0]])

    def measure(weights: Tensor) -> float:
        return -float((weights[TAKEN] - wanted[TAKEN]).abs().sum())

    found, value = weigh(measure, torch.ones(2, 3), row=TAKEN)
    assert torch.equal(found, wanted)
    assert value == 0


def test_what_is_not_measured_stays() -> None:
    start = torch.tensor([[0.3, 0.7], [1.0, 1.0]])
    found, value = weigh(lambda weights: float(weights[NEW].sum()), start, row=TAKEN)
    assert torch.equal(found, start)
    assert value == 1.0
    found, _ = weigh(lambda weights: float(weights[NEW].sum()), start, row=NEW)
    assert found.tolist() == [[4.0, 4.0], [1.0, 1.0]]


def test_a_tie_changes_nothing_and_nothing_is_weighed_to_nothing() -> None:
    assert torch.equal(weigh(lambda _: 0.5, torch.ones(2, 2), row=NEW)[0], torch.ones(2, 2))
    # The less the better, but somebody has to score.
    found, _ = weigh(lambda weights: -float(weights[NEW].sum()), torch.ones(2, 2), row=NEW)
    assert sorted(found[NEW].tolist()) == [0.0, 0.125]


def test_a_weight_that_pays_only_beside_another_is_found_in_a_later_sweep() -> None:
    def measure(weights: Tensor) -> float:
        first, second = weights[NEW].tolist()
        return second - (10.0 if first == 0 and second < 4 else 0.0) + (5.0 if first == 0 else 0.0)

    found, _ = weigh(measure, torch.ones(2, 2), row=NEW)
    assert found[NEW].tolist() == [0.0, 4.0]
    found, _ = weigh(measure, torch.ones(2, 2), row=NEW, sweeps=1)
    assert found[NEW].tolist() == [1.0, 4.0]
