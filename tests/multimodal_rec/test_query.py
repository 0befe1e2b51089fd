"""Queries: what of a person and a context they depend on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from multimodal_rec.history import HistoryBatch
from multimodal_rec.query import QueryEncoder, QueryInput

ITEMS, PARTS, DIM, CONTEXT, PERSON = 6, 3, 4, 2, 2


@pytest.fixture
def encoder() -> QueryEncoder:
    """Kinds of event: unknown, like, dislike."""
    torch.manual_seed(0)
    encoder = QueryEncoder(
        DIM, PARTS, context_width=CONTEXT, person_width=PERSON, event_weights=[1.0, 1.0, -1.0]
    ).requires_grad_(False)
    for weight in encoder.offset.parameters():
        weight.normal_()
    return encoder


@pytest.fixture
def items() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    present = torch.ones(ITEMS, PARTS, dtype=torch.bool)
    present[2, 1] = False
    return torch.randn(ITEMS, PARTS, DIM, generator=generator), present


def _inputs(*people: list[int], kind: int = 1, contexts: list[list[float]] | None = None) -> QueryInput:
    width = max([len(person) for person in people] + [1])
    zeros = torch.zeros(len(people), width)
    index, present = zeros.long(), zeros.bool()
    for row, person in enumerate(people):
        index[row, : len(person)] = torch.tensor(person, dtype=torch.int64)
        present[row, : len(person)] = True
    history = HistoryBatch(
        index,
        torch.full_like(index, kind),
        zeros.clone(),
        zeros.clone(),
        zeros.clone(),
        torch.zeros(len(people), width, CONTEXT),
        present,
    )
    context = torch.zeros(len(people), CONTEXT) if contexts is None else torch.tensor(contexts)
    return QueryInput(history, torch.zeros(len(people), PERSON), context)


def _taste_alone(encoder: QueryEncoder) -> None:
    """Leave what is said whatever the history's items are out of the query."""
    for weight in encoder.offset.parameters():
        weight.zero_()


def test_a_block_a_part_and_people_are_independent(encoder: QueryEncoder, items: tuple[Tensor, Tensor]) -> None:
    together = encoder(_inputs([0, 1], [2], []), *items)
    assert together.shape == (3, PARTS, DIM)
    assert torch.isfinite(together).all()
    for row, person in enumerate([[0, 1], [2], []]):
        torch.testing.assert_close(encoder(_inputs(person), *items)[0], together[row])
    assert not torch.allclose(together[0], together[1])


def test_padding_may_hold_anything(encoder: QueryEncoder, items: tuple[Tensor, Tensor]) -> None:
    inputs = _inputs([0, 1], [2])
    expected = encoder(inputs, *items)
    history = inputs.history
    for name, value in (("item_index", 5), ("kind", 2), ("value", 9.0), ("distance", 3.0), ("age_days", 80.0)):
        spoiled = getattr(history, name).clone()
        spoiled[1, 1] = value
        torch.testing.assert_close(
            encoder(inputs._replace(history=history._replace(**{name: spoiled})), *items), expected
        )


def test_absent_parts_of_the_past_may_hold_nan(encoder: QueryEncoder, items: tuple[Tensor, Tensor]) -> None:
    tokens, present = items
    expected = encoder(_inputs([0, 2]), tokens, present)
    spoiled = tokens.clone()
    spoiled[2, 1] = float("nan")
    torch.testing.assert_close(encoder(_inputs([0, 2]), spoiled, present), expected)


def test_a_dislike_speaks_against(encoder: QueryEncoder, items: tuple[Tensor, Tensor]) -> None:
    _taste_alone(encoder)
    nobody, liked, disliked = (encoder(inputs, *items) for inputs in (_inputs([]), _inputs([3]), _inputs([3], kind=2)))
    torch.testing.assert_close(liked - nobody, nobody - disliked)
    assert (liked - nobody).abs().max() > 0.1


def test_who_likes_an_item_asks_for_its_like(encoder: QueryEncoder, items: tuple[Tensor, Tensor]) -> None:
    _taste_alone(encoder)
    tokens, present = items
    taste = encoder(_inputs([3]), tokens, present) - encoder(_inputs([]), tokens, present)
    assert float((taste[0] * tokens[3]).sum()) > 0


def test_long_ago_counts_no_more_than_yesterday(encoder: QueryEncoder) -> None:
    history = _inputs([0, 1, 2]).history
    far = history._replace(distance=torch.tensor([[20.0, 5.0, 0.0]]), age_days=torch.tensor([[300.0, 30.0, 0.0]]))
    weights = encoder.weights(far)[0]
    assert 0 < weights[0] < weights[1] < weights[2]


def test_context_and_attributes_change_the_query(encoder: QueryEncoder, items: tuple[Tensor, Tensor]) -> None:
    plain = encoder(_inputs([0, 1]), *items)
    assert not torch.allclose(encoder(_inputs([0, 1], contexts=[[1.0, 0.0]]), *items), plain)
    assert not torch.allclose(encoder(_inputs([], contexts=[[1.0, 0.0]]), *items), encoder(_inputs([]), *items))
    older = _inputs([0, 1])._replace(person=torch.ones(1, PERSON))
    assert not torch.allclose(encoder(older, *items), plain)


def test_what_was_taken_then_is_read_in_the_light_of_then(encoder: QueryEncoder, items: tuple[Tensor, Tensor]) -> None:
    inputs = _inputs([0, 1])
    at_night = inputs.history._replace(context=torch.ones_like(inputs.history.context))
    assert not torch.allclose(encoder(inputs, *items), encoder(inputs._replace(history=at_night), *items))


def test_the_mean_item_says_nothing(encoder: QueryEncoder, items: tuple[Tensor, Tensor]) -> None:
    _taste_alone(encoder)
    tokens, present = items
    spoiled = tokens.masked_fill(~present.unsqueeze(-1), float("nan"))
    encoder.set_centre(spoiled, present)
    mean = torch.stack([tokens[present[:, part], part].mean(dim=0) for part in range(PARTS)])
    torch.testing.assert_close(encoder.centre, mean)
    tokens[4] = mean
    torch.testing.assert_close(encoder(_inputs([4]), tokens, present), encoder(_inputs([]), tokens, present))
    assert "centre" in encoder.state_dict()
