"""Losses against loops, and on numbers that can be worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from multimodal_rec.losses import (
    alignment,
    bce,
    bpr,
    liked_or_not,
    rating_error,
    softmax_over_items,
)

Loss = Callable[[Tensor, Tensor | None], Tensor]


def of_rows(name: str, rows: Tensor) -> Loss:
    """One of the losses of events as a function of scores (event, 7) and weights, of these rows of one log."""
    generator = torch.Generator().manual_seed(5)
    targets = torch.randint(0, 7, (8,), generator=generator)
    negatives = torch.randint(0, 7, (8, 3), generator=generator)
    marked = torch.rand(8, 7, generator=generator) < 0.4
    ratings = torch.randn(8, generator=generator)
    losses: dict[str, Loss] = {
        "softmax_over_items": lambda s, w: softmax_over_items(s, targets[rows], excluded=marked[rows], weights=w),
        "bpr": lambda s, w: bpr(s, targets[rows], negatives[rows], weights=w),
        "bce": lambda s, w: bce(s, targets[rows], negatives[rows], weights=w),
        "liked_or_not": lambda s, w: liked_or_not(s[:, 0], marked[rows, 0], weights=w),
        "rating_error": lambda s, w: rating_error(s[:, 0], ratings[rows], weights=w),
    }
    return losses[name]


NAMES = ["softmax_over_items", "bpr", "bce", "liked_or_not", "rating_error"]


def test_softmax_equals_the_slow_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(6, 9, generator=generator)
    targets = torch.randint(0, 9, (6,), generator=generator)
    excluded = torch.rand(6, 9, generator=generator) < 0.4
    log_share = torch.randn(9, generator=generator)
    losses = []
    for event in range(6):
        target = int(targets[event])
        exponentials = {
            item: math.exp(float(scores[event, item] - log_share[item]))
            for item in range(9)
            if item == target or not excluded[event, item]
        }
        losses.append(-math.log(exponentials[target] / sum(exponentials.values())))
    given = softmax_over_items(scores, targets, excluded=excluded, log_share=log_share)
    assert float(given) == pytest.approx(sum(losses) / 6, rel=1e-5)


def test_softmax_of_a_target_alone_is_zero_even_where_it_is_excluded() -> None:
    scores = torch.tensor([[0.5, 3.0, 2.0]], requires_grad=True)
    loss = softmax_over_items(scores, torch.tensor([0]), excluded=torch.ones(1, 3, dtype=torch.bool))
    loss.backward()
    assert float(loss.detach()) == 0
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()


def test_the_share_correction_takes_popularity_out() -> None:
    """Scores that are nothing but log popularity say nothing once it is subtracted."""
    log_share = torch.tensor([0.7, 0.2, 0.1]).log()
    loss = softmax_over_items(
        log_share.expand(3, 3), torch.arange(3), excluded=torch.zeros(3, 3, dtype=torch.bool), log_share=log_share
    )
    assert float(loss) == pytest.approx(math.log(3))


def test_alignment_equals_the_slow_loop() -> None:
    generator = torch.Generator().manual_seed(1)
    embeddings = [torch.randn(9, 4, generator=generator) for _ in range(3)]
    present = [torch.rand(9, generator=generator) < 0.8 for _ in range(3)]
    losses: list[tuple[float, int]] = []
    for first, second in [(0, 1), (0, 2), (1, 2)]:
        items = [item for item in range(9) if present[first][item] and present[second][item]]
        assert len(items) > 1
        for a, b in [(first, second), (second, first)]:
            for item in items:
                cosines = [
                    float(torch.cosine_similarity(embeddings[a][item], embeddings[b][other], dim=0)) for other in items
                ]
                powers = [math.exp(cosine / 0.2) for cosine in cosines]
                own = powers[items.index(item)]
                losses.append((-math.log(own / sum(powers)), len(items)))
    expected = sum(loss / count for loss, count in losses) / 6
    assert float(alignment(embeddings, present, temperature=0.2)) == pytest.approx(expected, rel=1e-4)


def test_alignment_ignores_what_is_absent() -> None:
    generator = torch.Generator().manual_seed(2)
    first, second = torch.randn(5, 4, generator=generator), torch.randn(5, 4, generator=generator)
    present = torch.tensor([True, True, False, True, True])
    everywhere = torch.ones(5, dtype=torch.bool)
    expected = alignment([first[present], second[present]], [everywhere[:4], everywhere[:4]])
    first[2] = float("nan")
    first.requires_grad_()
    given = alignment([first, second], [present, everywhere])
    torch.testing.assert_close(given, expected)


@pytest.mark.parametrize("shared", [0, 1])
def test_alignment_of_nothing_is_zero_with_a_gradient(shared: int) -> None:
    first = torch.randn(3, 2, requires_grad=True)
    here = torch.arange(3) < shared
    loss = alignment([first, torch.randn(3, 2)], [here, torch.ones(3, dtype=torch.bool)])
    loss.backward()
    assert float(loss.detach()) == 0
    assert float(alignment([], [])) == 0


def test_likes_and_dislikes() -> None:
    loss = liked_or_not(torch.tensor([math.log(3), -math.log(4)]), torch.tensor([True, False]))
    assert float(loss) == pytest.approx(-(math.log(3 / 4) + math.log(4 / 5)) / 2)


def test_squared_errors() -> None:
    predictions, ratings = torch.tensor([3.0, 4.5, 1.0]), torch.tensor([4, 4, 1])
    assert float(rating_error(predictions, ratings)) == pytest.approx((1 + 1 / 4 + 0) / 3)
    weighted = rating_error(predictions, ratings, weights=torch.tensor([0.5, 2.0, 1.5]))
    assert float(weighted) == pytest.approx((0.5 * 1 + 2 / 4 + 0) / 4)


def test_ratings_of_another_shape_say_so() -> None:
    with pytest.raises(ValueError, match=r"predictions are of shape \(3, 1\) and ratings of \(3,\)"):
        rating_error(torch.zeros(3, 1), torch.zeros(3))


@pytest.mark.parametrize("name", NAMES)
def test_whole_weights_are_repeated_rows(name: str) -> None:
    scores = torch.randn(8, 7, generator=torch.Generator().manual_seed(3))
    times = torch.tensor([2, 0, 1, 3, 1, 0, 4, 1])
    rows = torch.arange(8).repeat_interleave(times)
    repeated = of_rows(name, rows)(scores[rows], None)
    everything = of_rows(name, torch.arange(8))
    torch.testing.assert_close(everything(scores, times.float()), repeated)
    torch.testing.assert_close(everything(scores, times), repeated)
    torch.testing.assert_close(everything(scores, times * 0.3), repeated)
    assert abs(float(everything(scores, None) - repeated)) > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_flags_as_weights_choose_rows(name: str) -> None:
    scores = torch.randn(8, 7, generator=torch.Generator().manual_seed(3))
    chosen = torch.tensor([True, False, True, True, False, False, True, True])
    expected = of_rows(name, torch.arange(8)[chosen])(scores[chosen], None)
    torch.testing.assert_close(of_rows(name, torch.arange(8))(scores, chosen), expected)


@pytest.mark.parametrize("name", NAMES)
def test_events_that_all_weigh_nothing_are_0_with_a_gradient_of_0(name: str) -> None:
    scores = torch.randn(8, 7, generator=torch.Generator().manual_seed(3), requires_grad=True)
    loss = of_rows(name, torch.arange(8))(scores, torch.zeros(8))
    loss.backward()
    assert float(loss.detach()) == 0
    assert scores.grad is not None
    assert not scores.grad.any()


@pytest.mark.parametrize("name", NAMES)
def test_weights_of_another_shape_say_so(name: str) -> None:
    with pytest.raises(ValueError, match=r"weights are of shape \(8, 1\)\. Expected \(8,\), one for each row"):
        of_rows(name, torch.arange(8))(torch.zeros(8, 7), torch.ones(8, 1))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("weights", [None, torch.linspace(0, 2, 8, dtype=torch.float64)])
def test_gradients_are_right(name: str, weights: Tensor | None) -> None:
    scores = torch.randn(8, 7, generator=torch.Generator().manual_seed(4), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda told: of_rows(name, torch.arange(8))(told, weights), scores)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_scores_are_added_up_in_single(name: str) -> None:
    """4,096 rows alike have the loss of one, which sums of 8 bits would miss by far."""
    row = torch.randn(1, 7, generator=torch.Generator().manual_seed(4)).to(torch.bfloat16)
    rows = torch.ones(4096, dtype=torch.int64)
    loss = of_rows(name, rows)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        given = loss(row.expand(4096, 7), torch.ones(4096))
    assert given.dtype == torch.float32
    torch.testing.assert_close(given, of_rows(name, rows[:1])(row.float(), None), rtol=1e-5, atol=1e-6)


def test_pairs_and_halves_equal_the_slow_loop() -> None:
    generator = torch.Generator().manual_seed(6)
    scores = torch.randn(5, 9, generator=generator)
    targets = torch.randint(0, 9, (5,), generator=generator)
    negatives = torch.randint(0, 9, (5, 4), generator=generator)

    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    pairs, halves = [], []
    for event in range(5):
        taken = float(scores[event, targets[event]])
        others = [float(scores[event, column]) for column in negatives[event]]
        pairs.append(sum(-math.log(sigmoid(taken - other)) for other in others) / 4)
        halves.append((-math.log(sigmoid(taken)) + sum(-math.log(1 - sigmoid(other)) for other in others) / 4) / 2)
    assert float(bpr(scores, targets, negatives)) == pytest.approx(sum(pairs) / 5, rel=1e-5)
    assert float(bce(scores, targets, negatives)) == pytest.approx(sum(halves) / 5, rel=1e-5)


@pytest.mark.parametrize("loss", [bpr, bce])
def test_scores_that_say_nothing_cost_one_bit_however_many_are_drawn(loss: Callable[..., Tensor]) -> None:
    for num in (1, 7):
        negatives = torch.arange(1, num + 1).expand(3, num)
        told = loss(torch.zeros(3, 9), torch.zeros(3, dtype=torch.int64), negatives)
        assert float(told) == pytest.approx(math.log(2))


def test_the_order_alone_counts_in_pairs_and_the_level_in_halves() -> None:
    scores = torch.randn(4, 6, generator=torch.Generator().manual_seed(7))
    targets, negatives = torch.tensor([0, 1, 2, 3]), torch.tensor([[4, 5]] * 4)
    torch.testing.assert_close(bpr(scores + 3, targets, negatives), bpr(scores, targets, negatives))
    assert float(bce(scores + 3, targets, negatives)) > float(bce(scores, targets, negatives)) + 0.1


@pytest.mark.parametrize("loss", [bpr, bce])
def test_large_scores_stay_finite(loss: Callable[..., Tensor]) -> None:
    scores = torch.tensor([[-1e4, 1e4]], requires_grad=True)
    told = loss(scores, torch.tensor([0]), torch.tensor([[1]]))
    told.backward()
    assert float(told.detach()) == pytest.approx(2e4 if loss is bpr else 1e4)
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()


@pytest.mark.parametrize("loss", [bpr, bce])
@pytest.mark.parametrize("shape", [(3,), (3, 0), (2, 4)])
def test_negatives_of_another_shape_say_so(loss: Callable[..., Tensor], shape: tuple[int, ...]) -> None:
    negatives = torch.zeros(shape, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"for scores of \(3, 9\)\. Expected \(3, n\) columns with n at least 1"):
        loss(torch.zeros(3, 9), torch.zeros(3, dtype=torch.int64), negatives)
