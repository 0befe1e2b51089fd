"""What is drawn, how often, and what never is."""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations

import pytest
import torch
from torch import Tensor

from multimodal_rec.errors import ConfigError
from multimodal_rec.losses import bpr
from multimodal_rec.negatives import Negatives, draw_negatives


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Scores, targets and exclusions of 200 events over 50 items, some events with many exclusions, some with few."""
    generator = seeded()
    scores = torch.randn(200, 50, generator=generator)
    targets = torch.randint(0, 50, (200,), generator=generator)
    excluded = torch.rand(200, 50, generator=generator) < torch.linspace(0, 0.95, 200).unsqueeze(1)
    return scores, targets, excluded


def candidates_of(targets: Tensor, excluded: Tensor) -> list[set[int]]:
    return [
        {item for item in range(excluded.shape[1]) if not excluded[event, item] and item != int(targets[event])}
        for event in range(len(targets))
    ]


@pytest.mark.parametrize("hard_share", [0.0, 0.4, 1.0])
def test_only_candidates_are_drawn(batch: tuple[Tensor, Tensor, Tensor], hard_share: float) -> None:
    scores, targets, excluded = batch
    drawn = draw_negatives(
        scores, 6, targets=targets, excluded=excluded, hard_share=hard_share, pool_factor=3, generator=seeded(1)
    )
    assert drawn.columns.shape == (200, 6)
    assert drawn.columns.dtype == torch.int64
    sizes = set()
    for event, candidates in enumerate(candidates_of(targets, excluded)):
        assert bool(drawn.present[event]) == bool(candidates)
        assert set(drawn.columns[event].tolist()) <= (candidates or {int(targets[event])})
        sizes.add(len(candidates))
    assert min(sizes) < 6
    assert max(sizes) > 18


def test_no_item_comes_twice_while_there_are_others(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    scores, targets, excluded = batch
    drawn = draw_negatives(scores, 6, targets=targets, excluded=excluded, generator=seeded(1))
    for row, candidates in zip(drawn.columns.tolist(), candidates_of(targets, excluded), strict=True):
        times = [count for item, count in Counter(row).items() if item in candidates]
        assert len(times) == min(6, len(candidates))
        assert not times or max(times) - min(times) <= 1


def test_easy_and_hard_ones_do_not_repeat_each_other() -> None:
    """1 + 5 · 4 draws out of exactly 21 candidates: the easy one is never a hard one too."""
    scores = torch.randn(300, 22, generator=seeded())
    excluded = torch.zeros(300, 22, dtype=torch.bool)
    targets = torch.full((300,), 4)
    drawn = draw_negatives(
        scores, 6, targets=targets, excluded=excluded, hard_share=5 / 6, pool_factor=4, generator=seeded(1)
    )
    assert all(len(set(row)) == 6 for row in drawn.columns.tolist())


def test_every_set_of_candidates_is_as_likely_as_any_other() -> None:
    """2 of 5 candidates, 10 sets, 1,500 draws: a chi-squared below its 99.9% quantile for 9 degrees of freedom."""
    excluded = torch.tensor([[False, True, False, False, False, True, False, False]])
    targets = torch.tensor([3])
    generator = seeded()
    drawn: Counter[frozenset[int]] = Counter()
    first: Counter[int] = Counter()
    for _ in range(1500):
        # Events share an order, and differ in where they start.
        rows = draw_negatives(
            torch.zeros(5, 8), 2, targets=targets.expand(5), excluded=excluded.expand(5, 8), generator=generator
        ).columns.tolist()
        drawn.update(frozenset(row) for row in rows[:1])
        first.update(row[0] for row in rows)
    sets = [frozenset(pair) for pair in combinations([0, 2, 4, 6, 7], 2)]
    assert sum((drawn[pair] - 150) ** 2 / 150 for pair in sets) < 27.9
    assert set(drawn) == set(sets)
    # Rows of one call are not independent, so that this one is a bound on shares rather than a test of them.
    assert all(abs(first[item] / 7500 - 1 / 5) < 0.02 for item in [0, 2, 4, 6, 7])


def test_events_of_one_call_draw_different_items() -> None:
    drawn = draw_negatives(
        torch.zeros(50, 1000),
        5,
        targets=torch.zeros(50, dtype=torch.int64),
        excluded=torch.zeros(50, 1000, dtype=torch.bool),
        generator=seeded(),
    )
    assert len(torch.unique(drawn.columns)) > 150


def test_hard_ones_are_the_best_of_their_pool() -> None:
    """With a pool of all 20 candidates, the hard half of 4 are the best two, best first."""
    scores = torch.randn(30, 23, generator=seeded())
    targets = torch.arange(30) % 23
    excluded = torch.zeros(30, 23, dtype=torch.bool)
    excluded[torch.arange(30), (targets + 1) % 23] = True
    excluded[torch.arange(30), (targets + 2) % 23] = True
    drawn = draw_negatives(
        scores, 4, targets=targets, excluded=excluded, hard_share=0.5, pool_factor=10, generator=seeded(1)
    )
    masked = scores.masked_fill(excluded, -math.inf).scatter(1, targets.unsqueeze(1), -math.inf)
    assert torch.equal(drawn.columns[:, 2:], masked.topk(2, dim=1).indices)


def test_hard_ones_are_hard_and_not_the_hardest() -> None:
    """The best of 10 of 1,000 stands at place 91 on average, (1,000 + 1) / (10 + 1); the first place comes 1 in 100."""
    scores = torch.arange(1000.0).flip(0).expand(2000, 1000)
    drawn = draw_negatives(
        scores,
        2,
        targets=torch.full((2000,), 999),
        excluded=torch.zeros(2000, 1000, dtype=torch.bool),
        hard_share=0.5,
        generator=seeded(),
    )
    easy, hard = drawn.columns[:, 0].double() + 1, drawn.columns[:, 1].double() + 1
    assert float(easy.mean()) == pytest.approx(500, abs=30)
    assert float(hard.mean()) == pytest.approx(91, abs=15)
    assert 0 < float((hard == 1).double().mean()) < 0.03


def test_events_with_few_candidates_repeat_them() -> None:
    scores = torch.tensor([[0.0, 1.0, 2.0, 3.0]]).expand(3, 4)
    excluded = torch.tensor(
        [[False, False, True, True], [False, False, False, True], [True, False, True, True]]
    )  # candidates 1; 0 and 2; none
    targets = torch.tensor([0, 1, 1])
    for hard_share in (0.0, 0.5, 1.0):
        drawn = draw_negatives(
            scores, 4, targets=targets, excluded=excluded, hard_share=hard_share, generator=seeded(1)
        )
        assert drawn.present.tolist() == [True, True, False]
        assert drawn.columns[0].tolist() == [1, 1, 1, 1]
        assert set(drawn.columns[1].tolist()) == {0, 2}
        assert drawn.columns[2].tolist() == [1, 1, 1, 1]


def test_events_without_negatives_leave_a_loss_where_present_weighs_it() -> None:
    scores = torch.randn(2, 3, generator=seeded(), requires_grad=True)
    targets = torch.tensor([0, 1])
    excluded = torch.tensor([[False, False, True], [True, False, True]])
    drawn = draw_negatives(scores, 3, targets=targets, excluded=excluded)
    assert drawn.columns.requires_grad is False
    loss = bpr(scores, targets, drawn.columns, weights=drawn.present)
    loss.backward()
    read = scores.detach()
    assert float(loss.detach()) == pytest.approx(math.log1p(math.exp(float(read[0, 1] - read[0, 0]))), rel=1e-5)
    assert scores.grad is not None
    assert scores.grad[0, :2].abs().min() > 0
    assert not scores.grad[1].any()


def test_an_event_draws_whatever_others_may(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    scores, targets, excluded = batch

    def draw(told: Tensor) -> Negatives:
        return draw_negatives(scores, 5, targets=targets, excluded=told, hard_share=0.4, generator=seeded(3))

    others = excluded.clone()
    others[1:] = ~excluded[1:]
    assert torch.equal(draw(excluded).columns, draw(excluded).columns)
    assert torch.equal(draw(excluded).columns[0], draw(others).columns[0])


def test_no_events_draw_nothing() -> None:
    nobody = torch.zeros(0, 7)
    drawn = draw_negatives(nobody, 2, targets=torch.zeros(0, dtype=torch.int64), excluded=nobody.bool(), hard_share=0.5)
    assert drawn.columns.shape == (0, 2)
    assert drawn.present.shape == (0,)


def test_half_precision_scores_rank_too() -> None:
    scores = torch.arange(12.0).to(torch.bfloat16).expand(3, 12)
    drawn = draw_negatives(
        scores,
        1,
        targets=torch.full((3,), 11),
        excluded=torch.zeros(3, 12, dtype=torch.bool),
        hard_share=1.0,
        pool_factor=11,
    )
    assert drawn.columns.tolist() == [[10], [10], [10]]


@pytest.mark.parametrize(
    ("num", "hard_share", "pool_factor"), [(0, 0.0, 10), (1, -0.1, 10), (1, 1.1, 10), (1, math.nan, 10), (1, 0.5, 0)]
)
def test_impossible_draws_say_so(num: int, hard_share: float, pool_factor: int) -> None:
    with pytest.raises(ConfigError, match=rf"num is {num}, pool_factor {pool_factor} and hard_share {hard_share}"):
        draw_negatives(
            torch.zeros(1, 3),
            num,
            targets=torch.zeros(1, dtype=torch.int64),
            excluded=torch.zeros(1, 3, dtype=torch.bool),
            hard_share=hard_share,
            pool_factor=pool_factor,
        )
