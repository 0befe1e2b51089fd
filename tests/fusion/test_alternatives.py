"""Mean, concatenation and gating, on numbers that can be worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from fusion import AttentionFusion, ConcatenationFusion, FusedScore, GatedFusion, MeanFusion

TOKENS = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]])
PRESENT = torch.tensor([[True, True], [False, True]])


def test_the_mean_gives_what_is_there_the_weight_of_what_is_not() -> None:
    assert MeanFusion(2, 2)(TOKENS, PRESENT).tolist() == [[1, 2, 3, 4], [0, 0, 14, 16]]


def test_the_mean_is_attention_before_it_has_learned() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(50, 5, 8, generator=generator)
    present = torch.rand(50, 5, generator=generator) < 0.5
    present[:, 3] |= ~present.any(dim=1)
    expected = AttentionFusion(8, 5)(tokens, present)
    torch.testing.assert_close(MeanFusion(8, 5)(tokens, present), expected, rtol=1e-6, atol=1e-6)


def test_concatenation_lets_a_part_speak_for_another_and_for_what_is_missing() -> None:
    fusion = ConcatenationFusion(2, 2)
    with torch.no_grad():
        fusion.mix.weight[0, 3] = 10  # the second number of the second part, into the first of the first
        fusion.mix.weight[1, 4] = -5  # where the first part is present
    assert fusion(TOKENS, PRESENT).tolist() == [[1 + 40, 2 - 5, 3, 4], [0 + 160, 0, 14, 16]]


def test_gates_follow_the_whole_item_and_what_is_present() -> None:
    fusion = GatedFusion(4, 2)
    with torch.no_grad():
        fusion.gate.weight[0, 4] = 2 * math.log(3)  # over √4, and times the second part's first number: log 3
        fusion.gate.weight[1, 8] = -2 * math.log(3)  # where the first part is present
        fusion.gate.bias[1] = math.log(9)
    tokens = torch.ones(2, 2, 4)
    gates = fusion.gates(tokens, PRESENT)
    torch.testing.assert_close(gates, torch.tensor([[2 * 3 / 4, 2 * 3 / 4], [0, 2 * 9 / 10]]))
    expected = torch.tensor([[1.5] * 8, [0] * 4 + [2 * 1.8] * 4])
    torch.testing.assert_close(fusion(tokens, PRESENT), expected)


def test_gates_stay_between_nothing_and_twice() -> None:
    fusion = GatedFusion(2, 2)
    with torch.no_grad():
        fusion.gate.bias.copy_(torch.tensor([-200.0, 200.0]))
    assert fusion.gates(TOKENS, PRESENT).tolist() == [[0, 2], [0, 2]]


def test_the_score_of_a_fusion_is_the_inner_product_with_what_it_makes() -> None:
    queries = torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 1.0]], [[1.0, 1.0], [1.0, 1.0]]])
    assert FusedScore(MeanFusion(2, 2))(queries, TOKENS, PRESENT).tolist() == [[1, 0], [4, 16], [10, 30]]


def test_the_mean_keeps_the_precision_of_its_tokens() -> None:
    thirds = torch.tensor([[True] * 3 + [False] * 2])
    tokens = torch.ones(1, 5, 1)
    assert MeanFusion(1, 5)(tokens.double(), thirds)[0, 0].item() == pytest.approx(5 / 3, rel=1e-14)
    assert MeanFusion(1, 5)(tokens.bfloat16(), thirds).dtype == torch.bfloat16
