"""The context-aware score against a loop over queries, items and parts."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fusion import ContextScore, FusionKind, build_fusion

QUERIES, ITEMS, PARTS, DIM = 4, 6, 3, 5


@pytest.fixture
def score() -> ContextScore:
    module = ContextScore(DIM, PARTS)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in module.parameters():
            weight.normal_(generator=generator)
    return module.requires_grad_(False)


@pytest.fixture
def inputs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    present = torch.rand(ITEMS, PARTS, generator=generator) < 0.6
    present[:, 1] |= ~present.any(dim=1)
    queries = torch.randn(QUERIES, PARTS, DIM, generator=generator)
    return queries, torch.randn(ITEMS, PARTS, DIM, generator=generator), present


def test_scores_equal_the_slow_loop(score: ContextScore, inputs: tuple[Tensor, Tensor, Tensor]) -> None:
    queries, tokens, present = inputs
    expected = torch.zeros(QUERIES, ITEMS, PARTS)
    for q in range(QUERIES):
        for i in range(ITEMS):
            parts = [p for p in range(PARTS) if present[i, p]]
            logits = [float(queries[q, p] @ score.key[p] @ tokens[i, p]) / math.sqrt(DIM) for p in parts]
            powers = [math.exp(logit + float(score.bias[p])) for p, logit in zip(parts, logits, strict=True)]
            for p, power in zip(parts, powers, strict=True):
                expected[q, i, p] = PARTS * power / sum(powers) * float(queries[q, p] @ tokens[i, p])
    torch.testing.assert_close(score.contributions(queries, tokens, present), expected)


def test_scores_are_the_sum_of_contributions(score: ContextScore, inputs: tuple[Tensor, Tensor, Tensor]) -> None:
    torch.testing.assert_close(score(*inputs), score.contributions(*inputs).sum(dim=-1))
    assert score(*inputs).shape == (QUERIES, ITEMS)


def test_a_fresh_score_is_the_plain_inner_product_of_what_is_there(inputs: tuple[Tensor, Tensor, Tensor]) -> None:
    queries, tokens, _ = inputs
    everything = torch.ones(ITEMS, PARTS, dtype=torch.bool)
    expected = queries.flatten(1) @ tokens.flatten(1).T
    torch.testing.assert_close(ContextScore(DIM, PARTS)(queries, tokens, everything), expected)


def test_what_matters_about_an_item_depends_on_who_asks() -> None:
    score = ContextScore(2, 2)
    with torch.no_grad():
        score.key.copy_(torch.eye(2) * 10)
    tokens = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    queries = torch.tensor([[[1.0, 0.0], [0.0, 0.1]], [[0.1, 0.0], [0.0, 1.0]]])
    parts = score.contributions(queries, tokens, torch.ones(1, 2, dtype=torch.bool))[:, 0]
    assert parts[0, 0] > 1.9
    assert parts[1, 1] > 1.9


def test_weights_are_shares_of_what_is_there(score: ContextScore, inputs: tuple[Tensor, Tensor, Tensor]) -> None:
    _, tokens, present = inputs
    weights = score.weights(*inputs)
    assert weights.shape == (QUERIES, ITEMS, PARTS)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(QUERIES, ITEMS))
    assert (weights[:, ~present] == 0).all()
    assert (weights[:, present] > 0).all()
    by_part = torch.einsum("qpd,ipd->qip", inputs[0], tokens)
    torch.testing.assert_close(PARTS * weights * by_part, score.contributions(*inputs))


def test_what_is_learned_equals_what_the_equation_would_learn(
    score: ContextScore, inputs: tuple[Tensor, Tensor, Tensor]
) -> None:
    score.double().requires_grad_()
    queries, tokens = (tensor.double().requires_grad_() for tensor in inputs[:2])
    learned = (queries, tokens, *score.parameters())
    weight = torch.randn(QUERIES, ITEMS, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    plain = score.contributions(queries, tokens, inputs[2]).sum(dim=-1)
    expected = torch.autograd.grad((plain * weight).sum(), learned)
    found = torch.autograd.grad((score(queries, tokens, inputs[2]) * weight).sum(), learned)
    for got, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", ["attention", "gating"])
def test_items_of_ones_own_score_as_those_of_everybody(kind: FusionKind, inputs: tuple[Tensor, Tensor, Tensor]) -> None:
    queries, tokens, present = inputs
    _, score = build_fusion(kind, DIM, PARTS)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in score.parameters():
            weight.normal_(generator=generator)
    own = torch.randint(0, ITEMS, (QUERIES, 4), generator=generator)
    absent = tokens.where(present.unsqueeze(-1), torch.nan)
    found = score.of_own(queries, absent[own], present[own])
    torch.testing.assert_close(found, score(queries, tokens, present).gather(1, own))
