"""Where new items stand among known ones, for each person apart."""

from __future__ import annotations

import torch

from multimodal_rec.collaborative.placement import Placement


def drawn() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    made = torch.Generator().manual_seed(0)
    new, known = torch.randn(30, 4, generator=made) + 1, 3 * torch.randn(50, 4, generator=made) - 2
    return new, known, torch.randn(6, 4, generator=made)


def test_means_and_deviations_are_those_of_the_scores() -> None:
    new, known, people = drawn()
    placement = Placement(4)
    placement.learn(new, known)
    lie = placement.lie(people)
    torch.testing.assert_close(lie.new, (people @ new.T).mean(dim=1))
    torch.testing.assert_close(lie.known, (people @ known.T).mean(dim=1))
    torch.testing.assert_close(lie.spread, (people @ known.T).std(dim=1, correction=0))


def test_the_mean_of_new_items_stands_as_high_for_everybody() -> None:
    new, known, people = drawn()
    placement = Placement(4)
    placement.learn(new, known)
    placement.height.fill_(1.5)
    # A person of ten times the history has scores ten times as far apart.
    people = torch.cat([people, 10 * people])
    scores = people @ known.T
    levelled = (people @ new.T + placement(people).unsqueeze(1)).mean(dim=1)
    height = (levelled - scores.mean(dim=1)) / scores.std(dim=1, correction=0)
    torch.testing.assert_close(height, torch.full((12,), 1.5))


def test_it_adds_nothing_before_it_was_told_and_to_whom_all_is_alike() -> None:
    new, known, people = drawn()
    placement = Placement(4)
    placement.height.fill_(2.0)
    assert not placement.learned
    assert not placement(people).any()
    placement.learn(new, known)
    assert placement.learned
    assert not placement(torch.zeros(1, 4)).any()
