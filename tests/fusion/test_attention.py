"""Attention over the parts of an item, on numbers that can be worked out by hand."""

from __future__ import annotations

import math

import torch

from fusion import AttentionFusion


def test_a_fresh_fusion_weighs_present_parts_equally() -> None:
    fusion = AttentionFusion(2, 3)
    present = torch.tensor([[True, True, True], [True, False, True], [False, False, True]])
    weights = fusion.weights(torch.randn(3, 3, 2), present)
    torch.testing.assert_close(weights, torch.tensor([[1 / 3, 1 / 3, 1 / 3], [0.5, 0, 0.5], [0, 0, 1.0]]))


def test_weights_follow_the_query_and_the_bias() -> None:
    fusion = AttentionFusion(4, 2)
    with torch.no_grad():
        fusion.query[0, 0] = 2 * math.log(3)  # over √4, and times a token of 1: log 3
        fusion.bias[1] = math.log(2)
    tokens = torch.zeros(2, 2, 4)
    tokens[0, 0, 0] = 1
    weights = fusion.weights(tokens, torch.ones(2, 2, dtype=torch.bool))
    torch.testing.assert_close(weights, torch.tensor([[3 / 5, 2 / 5], [1 / 3, 2 / 3]]))


def test_an_item_of_one_part_is_that_part() -> None:
    fusion = AttentionFusion(2, 3)
    tokens = torch.full((1, 3, 2), torch.nan)
    tokens[0, 1] = torch.tensor([5.0, -1.0])
    fused = fusion(tokens, torch.tensor([[False, True, False]]))
    assert fused.tolist() == [[0, 0, 15, -3, 0, 0]]
    assert fusion.output_dim == 6


def test_an_inner_product_with_a_query_is_a_weighted_sum_over_parts() -> None:
    fusion = AttentionFusion(4, 3)
    with torch.no_grad():
        fusion.query.normal_(generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    tokens, query = torch.randn(6, 3, 4, generator=generator), torch.randn(3, 4, generator=generator)
    present = torch.rand(6, 3, generator=generator) < 0.7
    present[:, 0] = True
    weights = fusion.weights(tokens, present).detach()
    slow = [
        sum(3 * float(weights[i, p]) * float(tokens[i, p] @ query[p]) for p in range(3) if present[i, p])
        for i in range(6)
    ]
    torch.testing.assert_close(fusion(tokens, present) @ query.flatten(), torch.tensor(slow))
