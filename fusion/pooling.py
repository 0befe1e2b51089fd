"""Softmax over parts and weighted sum in one, for all pairs of a query and an item at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def attention_pool(logits: Tensor, values: Tensor) -> Tensor:
    """`values` weighed by the softmax of `logits` over the first dimension, and summed over it: (query, item).

        s = Σ_p a_p v_p      a = softmax over p of logits

    `logits`: (part, query, item), -inf where a part has no say, not everywhere; `values`: the same shape, finite. The
    softmax of half precision is computed in float32. Differentiable once.
    """
    return _AttentionPool.apply(logits, values)


class _AttentionPool(torch.autograd.Function):
    """Writes each (part, query, item) tensor once where the chain of plain operations would do so several times.

    There are as many numbers in one as parts times queries times items: what this costs is memory traffic, not sums.
    With g the gradient of s, that of v_p is a_p g, and since ∂s/∂l_p = a_p (v_p - s), that of l_p is a_p g (v_p - s).
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, values: Tensor) -> Tensor:
        weights = logits.softmax(dim=0, dtype=torch.promote_types(logits.dtype, torch.float32))
        pooled = (weights * values).sum(dim=0)
        ctx.save_for_backward(weights, values, pooled)
        return pooled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        weights, values, pooled = ctx.saved_tensors
        of_values = weights * grad
        return (values - pooled).mul_(of_values), of_values
