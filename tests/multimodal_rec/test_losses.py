"""Losses against loops, and on numbers that can be worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from multimodal_rec.losses import alignment, liked_or_not, softmax_over_items


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
