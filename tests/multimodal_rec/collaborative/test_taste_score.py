"""The taste score: the most probable taste of a history, in context."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from multimodal_rec.collaborative.settings import TasteConfig
from multimodal_rec.collaborative.taste_score import TasteScore
from multimodal_rec.history import HistoryBatch

NOBODY = torch.zeros(1, 0)


def history(
    items: list[int], contexts: list[list[float]] | None = None, kinds: list[int] | None = None
) -> HistoryBatch:
    count = len(items)
    nothing = torch.zeros(1, count)
    return HistoryBatch(
        torch.tensor([items], dtype=torch.int64).reshape(1, -1),
        torch.tensor([kinds or [0] * count], dtype=torch.int64).reshape(1, -1),
        nothing,
        nothing,
        nothing,
        torch.tensor([contexts or [[0.0]] * count]).reshape(1, count, 1),
        torch.ones(1, count, dtype=torch.bool),
    )


@pytest.fixture
def score() -> TasteScore:
    """Two kinds of content of two directions, one more that content does not tell, and popularity; nine items."""
    made = TasteScore(
        9,
        TasteConfig(dim=2, num_unexplained=1, num_alternatives=12, window=6),
        num_parts=2,
        context_width=1,
        speaks=torch.tensor([1.0, 1.0, 0.0]),
    )
    random = torch.Generator().manual_seed(3)
    made.vectors.copy_(torch.randn(9, 6, generator=random) * 2)
    made.gate_weight.copy_(torch.tensor([[0.5], [-2.0]]))
    made.gate_bias.copy_(torch.tensor([1.0, 0.25]))
    made.keep_alternatives(made.vectors, random)
    return made


def cost_of(score: TasteScore, items: list[int], contexts: list[float]) -> Callable[[np.ndarray], float]:
    """What the docstring describes, to be made as small as it goes."""
    vectors = score.vectors.double().numpy()
    traits, popularity = vectors[:, :-1], vectors[:, -1]
    gates = [np.array([1 + 0.5 * c, 1 + 0.5 * c, 0.25 - 2 * c, 0.25 - 2 * c, 1.0]) for c in contexts]

    def cost(taste: np.ndarray) -> float:
        total = taste @ taste / 2
        for item, gate in zip(items, gates, strict=True):
            scores = traits @ (gate * taste) + popularity
            total -= scores[item] - np.logaddexp.reduce(scores)
        return float(total)

    return cost


def most_probable(score: TasteScore, items: list[int], contexts: list[float]) -> np.ndarray:
    """The same taste by another optimiser."""
    cost = cost_of(score, items, contexts)
    return minimize(cost, np.zeros(score.width - 1), method="BFGS", options={"gtol": 1e-7}).x


@pytest.mark.parametrize("items", [[4], [0, 1, 2], [0, 0, 0, 7, 5, 8]])
def test_the_taste_is_the_most_probable_one(score: TasteScore, items: list[int]) -> None:
    contexts = [0.5 * (place % 3 - 1) for place in range(len(items))]
    found = score.people(history(items, [[c] for c in contexts]), score.vectors, NOBODY)
    np.testing.assert_allclose(found[0, :-1].numpy(), most_probable(score, items, contexts), atol=2e-4)
    assert float(found[0, -1]) == 1.0


def test_whole_steps_that_go_too_far_are_cut_short(score: TasteScore) -> None:
    score.window = 300
    items = [0, 3] * 150
    found = score.people(history(items), score.vectors, NOBODY)[0, :-1].double().numpy()
    cost = cost_of(score, items, [0.0] * 300)
    best = cost(most_probable(score, items, [0.0] * 300))
    assert cost(found) - best < 0.02 * (cost(np.zeros(len(found))) - best)


def test_nothing_taken_leaves_popularity_alone(score: TasteScore) -> None:
    for nothing in (history([]), history([2], kinds=[2])):
        people = score.people(nothing, score.vectors, NOBODY)
        torch.testing.assert_close(people @ score.items(score.vectors).T, score.vectors[:, -1:].T)


def test_the_context_turns_each_kind_of_content_by_its_own_gate(score: TasteScore) -> None:
    people = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 1.0]]).expand(2, -1)
    turned = score.turned(people, torch.tensor([[0.0], [1.0]]))
    expected = [[1.0, 2.0, 0.75, 1.0, 5.0, 1.0], [1.5, 3.0, -5.25, -7.0, 5.0, 1.0]]
    torch.testing.assert_close(turned, torch.tensor(expected))


def test_the_last_events_of_the_window_are_read_and_padding_is_not(score: TasteScore) -> None:
    long, last = history([8, 8, 8, 1, 2, 3, 4, 5, 6]), history([1, 2, 3, 4, 5, 6])
    expected = score.people(last, score.vectors, NOBODY)
    torch.testing.assert_close(score.people(long, score.vectors, NOBODY), expected)
    padded = history([1, 2, 3, 4, 5, 6, 8, 8, 8])
    padded.present[:, 6:] = False
    torch.testing.assert_close(score.people(padded, score.vectors, NOBODY), expected)


def test_alternatives_are_drawn_from_what_is_given_and_fill_up_with_nothing(score: TasteScore) -> None:
    kept = {tuple(row) for row in score.alternatives[:9].tolist()}
    assert kept == {tuple(row) for row in score.vectors.tolist()}
    assert (score.alternatives[9:, -1] < -1000).all()
    score.keep_alternatives(score.vectors[:2], torch.Generator().manual_seed(0))
    assert int((score.alternatives[:, -1] > -1000).sum()) == 2


def scores_of(score: TasteScore, batch: HistoryBatch) -> Tensor:
    return score.people(batch, score.vectors, NOBODY) @ score.items(score.vectors).T


def test_people_do_not_depend_on_each_other(score: TasteScore) -> None:
    one, other = history([0, 1, 2]), history([5, 5, 7])
    both = HistoryBatch(*(torch.cat(pair) for pair in zip(one, other, strict=True)))
    apart = torch.cat([scores_of(score, one), scores_of(score, other)])
    torch.testing.assert_close(scores_of(score, both), apart, rtol=0, atol=1e-4)
