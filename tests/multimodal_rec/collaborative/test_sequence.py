"""Sequences: states that have read what came before and nothing later."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from multimodal_rec.collaborative.sequence import CausalBlock, SequenceEncoder

DIM = 8


@pytest.fixture
def encoder() -> SequenceEncoder:
    torch.manual_seed(0)
    encoder = SequenceEncoder(DIM, num_blocks=2, num_heads=2, max_events=6, dropout=0.5).eval()
    with torch.no_grad():
        encoder.start.normal_()
    return encoder


@pytest.fixture
def events() -> Tensor:
    return torch.randn(3, 5, DIM, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("num_heads", [1, 4])
def test_a_block_is_the_slow_loop(num_heads: int, events: Tensor) -> None:
    torch.manual_seed(0)
    block = CausalBlock(DIM, num_heads, 0.0).requires_grad_(False)
    size = DIM // num_heads
    expected = events.clone()
    for row in range(len(events)):
        query, key, value = block.projection(block.attention_norm(events[row])).split(DIM, dim=-1)
        attended = torch.zeros_like(events[row])
        for place in range(events.shape[1]):
            for head in range(num_heads):
                part = slice(head * size, (head + 1) * size)
                likeness = torch.stack([query[place, part] @ key[j, part] for j in range(place + 1)]) / size**0.5
                attended[place, part] = likeness.softmax(dim=0) @ value[: place + 1, part]
        state = events[row] + block.output(attended)
        expected[row] = state + block.network(block.network_norm(state))
    torch.testing.assert_close(block(events), expected, rtol=1e-5, atol=1e-5)


def test_there_is_a_state_before_the_first_event_and_after_each(encoder: SequenceEncoder, events: Tensor) -> None:
    states = encoder(events)
    assert states.shape == (3, 6, DIM)
    # Nothing is read yet: the same for everybody, with events or without.
    nothing = encoder(torch.zeros(1, 0, DIM))
    assert nothing.shape == (1, 1, DIM)
    torch.testing.assert_close(states[:, :1], nothing.expand(3, 1, DIM))
    assert not torch.allclose(states[0, 1], states[1, 1])


def test_an_event_changes_the_states_after_it_and_none_before(encoder: SequenceEncoder, events: Tensor) -> None:
    changed = events.clone()
    changed[:, 2] *= -1  # a norm would not notice a shift
    before, after = encoder(events), encoder(changed)
    torch.testing.assert_close(after[:, :3], before[:, :3], rtol=0, atol=0)
    assert ((after[:, 3:] - before[:, 3:]).abs().amax(dim=-1) > 1e-4).all()


def test_what_follows_may_be_anything_or_missing(encoder: SequenceEncoder, events: Tensor) -> None:
    expected = encoder(events)[:, :4]
    torch.testing.assert_close(encoder(events[:, :3]), expected)
    spoiled = events.clone()
    spoiled[:, 3:] = 1e6
    torch.testing.assert_close(encoder(spoiled)[:, :4], expected)


def test_the_same_events_in_another_order_are_another_history(encoder: SequenceEncoder, events: Tensor) -> None:
    swapped = events[:, [1, 0, 2, 3, 4]]
    assert not torch.allclose(encoder(events)[:, -1], encoder(swapped)[:, -1], atol=1e-4)


def test_rows_are_independent(encoder: SequenceEncoder, events: Tensor) -> None:
    together = encoder(events)
    for row in range(3):
        torch.testing.assert_close(encoder(events[row : row + 1])[0], together[row])


def test_nobody_has_no_states(encoder: SequenceEncoder) -> None:
    assert encoder(torch.zeros(0, 4, DIM)).shape == (0, 5, DIM)


def test_as_many_events_are_read_as_promised(encoder: SequenceEncoder) -> None:
    assert encoder(torch.randn(1, 6, DIM)).shape == (1, 7, DIM)


def test_dropout_is_for_training_alone(encoder: SequenceEncoder, events: Tensor) -> None:
    torch.testing.assert_close(encoder(events), encoder(events), rtol=0, atol=0)
    encoder.train()
    assert not torch.allclose(encoder(events), encoder(events))


def test_every_weight_learns(events: Tensor) -> None:
    torch.manual_seed(0)
    encoder = SequenceEncoder(DIM, num_blocks=2, num_heads=2, max_events=5, dropout=0.0)
    (encoder(events) * torch.randn(3, 6, DIM)).sum().backward()
    still = [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []
    # Each place has its own.
    place = encoder.place.grad
    assert place is not None
    assert place.any(dim=1).all()
