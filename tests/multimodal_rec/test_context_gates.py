"""Gates of context from pairs of events, against gates that events were drawn with."""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from multimodal_rec.context_gates import context_gates
from multimodal_rec.history import HistoryBatch

ITEMS, DIM = 300, 6


class Log(NamedTuple):
    history: HistoryBatch
    tokens: Tensor
    present: Tensor


def _log(*, context: str, people: int = 120, events: int = 20) -> Log:
    """Three parts: one that context turns over, one that it leaves alone, one that speaks of no taste at all."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(ITEMS, 3, DIM, generator=generator) + 2
    present = torch.rand(ITEMS, 3, generator=generator) < 0.9
    if context == "device":
        phone = torch.rand(people, events, generator=generator) < 0.5
        contexts = torch.stack([phone, ~phone], dim=-1).float()
        sign = torch.where(phone, 1.0, -1.0)
    else:
        angle = 2 * math.pi * torch.rand(people, events, generator=generator)
        contexts = torch.stack([angle.sin(), angle.cos()], dim=-1)
        sign = 2**0.5 * (angle - 1).cos()
    taste = torch.randn(people, 2, DIM, generator=generator)
    shown = (tokens - 2) * present.unsqueeze(-1)
    turned = torch.einsum("uh,ud,id->uhi", sign, taste[:, 0], shown[:, 0])
    always = torch.einsum("ud,id->ui", taste[:, 1], shown[:, 1]).unsqueeze(1)
    utility = turned + always
    item = torch.multinomial(utility.softmax(dim=-1).flatten(end_dim=1), 1, generator=generator).view(people, events)
    zeros = torch.zeros(people, events)
    there = torch.rand(people, events, generator=generator) < 0.9
    return Log(HistoryBatch(item, zeros.long(), zeros, zeros, zeros, contexts, there), tokens, present)


@pytest.mark.parametrize(
    ("context", "asked", "expected"),
    [
        ("device", torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([1.0, -1.0])),
        ("hour", torch.tensor([[math.sin(1.0), math.cos(1.0)], [math.sin(4.0), math.cos(4.0)]]), None),
    ],
)
def test_gates_are_those_that_events_were_drawn_with(context: str, asked: Tensor, expected: Tensor | None) -> None:
    gates = context_gates(*_log(context=context))
    found = asked @ gates.weight.T + gates.bias
    if expected is None:
        expected = 2**0.5 * (torch.tensor([1.0, 4.0]) - 1).cos()
    # g and -g say the same of two events.
    turned = found[:, 0] * torch.sign(found[0, 0] * expected[0])
    torch.testing.assert_close(turned, expected, atol=0.1, rtol=0)
    torch.testing.assert_close(found[:, 1], torch.ones(2), atol=0.1, rtol=0)
    # Where nothing is known, what turns over says nothing, and the rest speaks as ever.
    assert abs(float(gates.bias[0])) < 0.15
    torch.testing.assert_close(float(gates.bias[1]), 1.0, atol=0.15, rtol=0)


def test_without_contexts_or_pairs_every_gate_is_open() -> None:
    log = _log(context="device", people=5)
    history = log.history
    silent = context_gates(history._replace(context=torch.zeros_like(history.context)), log.tokens, log.present)
    once = history._replace(present=torch.arange(history.present.shape[1]).expand_as(history.present) == 0)
    alone = context_gates(once, log.tokens, log.present)
    for gates in (silent, alone):
        assert torch.equal(gates.bias, torch.ones(3))
        assert torch.equal(gates.weight, torch.zeros(3, 2))


def test_absent_parts_and_padding_may_hold_anything() -> None:
    log = _log(context="device", people=30)
    expected = context_gates(*log)
    spoiled = log.tokens.masked_fill(~log.present.unsqueeze(-1), float("nan"))
    context = log.history.context.masked_fill(~log.history.present.unsqueeze(-1), 7.0)
    found = context_gates(log.history._replace(context=context), spoiled, log.present)
    torch.testing.assert_close(found.weight, expected.weight)
    torch.testing.assert_close(found.bias, expected.bias)


def test_few_pairs_do_not_tell_contexts_apart() -> None:
    """Where contexts change nothing, few events must not seem to say that they do."""
    gates = context_gates(*_log(context="device", people=6, events=6))
    assert gates.weight[2].abs().max() < 0.3


def test_people_who_take_only_what_is_unlike_leave_every_gate_open() -> None:
    """What one person takes is less alike than chance: no gate explains that, and none is made of it."""
    tokens = torch.tensor([1.0, -1.0]).view(2, 1, 1).expand(2, 1, DIM)
    zeros, present = torch.zeros(40, 2), torch.ones(40, 2, dtype=torch.bool)
    contexts = torch.ones(40, 2, 1)
    history = HistoryBatch(torch.tensor([0, 1]).expand(40, 2), zeros.long(), zeros, zeros, zeros, contexts, present)
    gates = context_gates(history, tokens, torch.ones(2, 1, dtype=torch.bool))
    assert torch.equal(gates.bias, torch.ones(1))
    assert torch.equal(gates.weight, torch.zeros(1, 1))
