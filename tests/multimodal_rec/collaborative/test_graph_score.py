"""The graph score: people are the direction of what they took."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from multimodal_rec.collaborative.graph_score import GraphScore
from multimodal_rec.history import HistoryBatch

NOBODY = torch.zeros(1, 0)


def history(*items: int, kinds: list[int] | None = None, present: int | None = None) -> HistoryBatch:
    count = len(items)
    nothing = torch.zeros(1, count)
    return HistoryBatch(
        torch.tensor([items], dtype=torch.int64).reshape(1, -1),
        torch.tensor([kinds or [0] * count], dtype=torch.int64).reshape(1, -1),
        nothing,
        nothing,
        nothing,
        torch.zeros(1, count, 0),
        torch.arange(count)[None] < (count if present is None else present),
    )


@pytest.fixture
def score() -> GraphScore:
    score = GraphScore(4, 2, temperature=0.5, taking=torch.tensor([1.0, 1.0, 0.0]))
    score.vectors.copy_(torch.tensor([[3.0, 0, 1, 0], [0, 4, 0, 1], [0, -4, 0.6, 0.8], [9, 9, -1, 0]]))
    return score


def scores(score: GraphScore, batch: HistoryBatch) -> Tensor:
    return score.people(batch, score.vectors, NOBODY) @ score.items(score.vectors).T


def test_the_known_answer(score: GraphScore) -> None:
    assert score.width == 4
    # 3, 4 → length 5, over the temperature.
    expected = torch.tensor([[0.6, 0.8, 0.6 * 0.6 + 0.8 * 0.8, -0.6]]) * 2
    torch.testing.assert_close(scores(score, history(0, 1)), expected)


def test_order_repetition_and_padding_change_nothing(score: GraphScore) -> None:
    expected = scores(score, history(0, 1))
    torch.testing.assert_close(scores(score, history(1, 0, 1, 1)), expected)
    torch.testing.assert_close(scores(score, history(0, 1, 3, 0, present=2)), expected)
    # Padding that looks like the first item does not hide it.
    torch.testing.assert_close(scores(score, history(1, 0, 0, present=2)), expected)


def test_what_was_disliked_is_not_taken(score: GraphScore) -> None:
    torch.testing.assert_close(scores(score, history(0, 1, 3, kinds=[0, 1, 2])), scores(score, history(0, 1)))
    # Of a kind that the log did not have, as of none.
    torch.testing.assert_close(scores(score, history(0, 1, kinds=[0, 7])), scores(score, history(0, 1)))


@pytest.mark.parametrize("batch", [history(), history(1, present=0), history(1, kinds=[2])])
def test_nothing_taken_is_nothing_said(score: GraphScore, batch: HistoryBatch) -> None:
    assert not scores(score, batch).any()


def test_new_items_are_read_and_scored_by_their_vectors(score: GraphScore) -> None:
    vectors = torch.cat([score.vectors, torch.tensor([[0.0, 2, 0, 0.5]])])
    found = score.people(history(4), vectors, NOBODY) @ score.items(vectors).T
    torch.testing.assert_close(found, torch.tensor([[0.0, 2, 1.6, 0, 1.0]]))


def test_rows_are_independent(score: GraphScore) -> None:
    batch = HistoryBatch(*(torch.cat(pair) for pair in zip(history(0, 1, 2), history(3, 3, 1, present=1), strict=True)))
    found = scores(score, batch)
    torch.testing.assert_close(found[:1], scores(score, history(0, 1, 2)))
    torch.testing.assert_close(found[1:], scores(score, history(3)))
