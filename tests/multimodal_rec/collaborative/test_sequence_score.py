"""The sequence score: the last events of a history in their order, with kind, value, time and the person."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from multimodal_rec.collaborative.sequence import SequenceEncoder
from multimodal_rec.collaborative.sequence_score import SequenceScore
from multimodal_rec.history import Events, Histories, HistoryBatch

DIM, WINDOW, ITEMS = 8, 4, 9
NOBODY = torch.zeros(1, 2)


@pytest.fixture
def score() -> SequenceScore:
    torch.manual_seed(0)
    encoder = SequenceEncoder(DIM, num_blocks=2, num_heads=2, max_events=WINDOW, dropout=0.5)
    score = SequenceScore(encoder, num_items=ITEMS, num_kinds=3, person_width=2).eval().requires_grad_(False)
    for weight in score.parameters():
        weight.normal_(std=0.3)
    score.vectors.normal_()
    return score


def history(
    *items: int,
    kinds: list[int] | None = None,
    values: list[float] | None = None,
    seconds: list[float] | None = None,
) -> HistoryBatch:
    count = len(items)
    events = Events(
        np.zeros(count, dtype=np.int64),
        np.array(items, dtype=np.int64),
        np.array(kinds or [0] * count, dtype=np.int64),
        np.array(values or [0.0] * count, dtype=np.float32),
        np.zeros((count, 0), dtype=np.float32),
        np.array(seconds or [0.0] * count, dtype=np.float64),
    )
    return Histories(events, length=100, ordered=True).collate([np.arange(count)])


def people(score: SequenceScore, batch: HistoryBatch, person: Tensor | None = None) -> Tensor:
    given = torch.zeros(len(batch.present), 2) if person is None else person
    return score.people(batch, score.vectors, given)


def test_items_are_their_vectors(score: SequenceScore) -> None:
    assert score.width == DIM
    assert score.items(score.vectors) is score.vectors


def test_the_state_is_that_of_the_encoder_after_the_last_event(score: SequenceScore) -> None:
    found = people(score, history(3, 5, kinds=[1, 2], values=[0.7, 0.0], seconds=[100, 130]), torch.tensor([[0.0, 1]]))
    first = score.vectors[3] * DIM**0.5 + score.kind.weight[1] + score.value.weight[6] + score.gap.weight[-1]
    # Half a minute after; a value of 0 is one that is missing.
    second = score.vectors[5] * DIM**0.5 + score.kind.weight[2] + score.value.weight[-1] + score.gap.weight[3]
    expected = score.encoder(torch.stack([first, second])[None], score.person[1:])[:, -1]
    torch.testing.assert_close(found, expected)


def test_order_kind_value_time_and_person_each_matter(score: SequenceScore) -> None:
    plain = people(score, history(1, 2, 3))
    others = [
        people(score, history(2, 1, 3)),
        people(score, history(1, 2, 3, kinds=[0, 1, 0])),
        people(score, history(1, 2, 3, values=[0, 0, 1.2])),
        people(score, history(1, 2, 3, seconds=[0, 0, 4000])),
        people(score, history(1, 2, 3), torch.tensor([[1.0, 0.0]])),
    ]
    for other in others:
        assert (plain - other).abs().max() > 1e-4


def test_only_the_last_events_are_read(score: SequenceScore) -> None:
    longer, other = history(8, 7, 1, 2, 3, 4), history(5, 6, 1, 2, 3, 4)
    torch.testing.assert_close(people(score, longer), people(score, other))
    # That there was something before is known: the first that is read came soon after.
    assert not torch.allclose(people(score, longer), people(score, history(1, 2, 3, 4)))


def test_padding_and_neighbours_in_the_batch_change_nothing(score: SequenceScore) -> None:
    short, long = history(4, 2, seconds=[0, 50]), history(1, 2, 3, 4, 5, 6, 7)
    batch = HistoryBatch(
        *(
            torch.cat([torch.nn.functional.pad(a, (0, 0, 0, 5) if a.ndim == 3 else (0, 5), value=v), b])
            for a, b, v in zip(short, long, (8, 2, 9, 9, 9, 0, False), strict=True)
        )
    )
    together = people(score, batch)
    torch.testing.assert_close(together[0], people(score, short)[0])
    torch.testing.assert_close(together[1], people(score, long)[0])


def test_an_empty_history_is_the_start_and_knows_the_person(score: SequenceScore) -> None:
    nothing = HistoryBatch(*(part[:, :0] for part in history(1)))
    padded = history(1)._replace(present=torch.zeros(1, 1, dtype=torch.bool))
    expected = score.encoder(torch.zeros(1, 0, DIM), torch.zeros(1, DIM))[:, 0]
    torch.testing.assert_close(people(score, nothing), expected)
    torch.testing.assert_close(people(score, padded), expected)
    assert not torch.allclose(people(score, padded, torch.tensor([[1.0, 1.0]])), expected)


def test_an_unknown_kind_is_none(score: SequenceScore) -> None:
    torch.testing.assert_close(people(score, history(1, kinds=[7])), people(score, history(1, kinds=[0])))


def test_new_items_in_a_history_are_read(score: SequenceScore) -> None:
    vectors = torch.cat([score.vectors, torch.randn(1, DIM)])
    found = score.people(history(1, ITEMS), vectors, NOBODY)
    assert not torch.allclose(found, score.people(history(1, 2), vectors, NOBODY))


def test_the_weights_alone_make_the_score(score: SequenceScore) -> None:
    encoder = SequenceEncoder(DIM, num_blocks=2, num_heads=2, max_events=WINDOW, dropout=0.5)
    other = SequenceScore(encoder, num_items=ITEMS, num_kinds=3, person_width=2).eval()
    other.load_state_dict(score.state_dict())
    torch.testing.assert_close(people(other, history(1, 2, 3)), people(score, history(1, 2, 3)))
    torch.testing.assert_close(other.vectors, score.vectors)
