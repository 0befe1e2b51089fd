"""Attention of a learned query over the parts of an item: one embedding, free of person and context."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from fusion.parts import check_parts, zero_absent


@final
class AttentionFusion(nn.Module):
    """Fuse one item's part embeddings into one.

    A learned query attends over the parts that the item has; an absent one gets weight exactly 0, so an item of text
    alone is fused from its text alone. The weighted parts stand side by side rather than summed, so that the inner
    product with a query of one block a part is a weighted sum over parts and no part is read as another:

        e(i) = [num_parts · α(p; i) · x(i, p)]_p      α(·; i) = softmax over present p of ⟨u_p, x(i, p)⟩ / √dim + b_p

    Source: Set Transformer's PMA block (arXiv:1810.00825), with a query of its own for each kind of part.
    """

    def __init__(self, embedding_dim: int, num_parts: int) -> None:
        super().__init__()
        self._shape = (num_parts, embedding_dim)
        self.output_dim = embedding_dim * num_parts
        self.query = nn.Parameter(torch.zeros(num_parts, embedding_dim))
        self.bias = nn.Parameter(torch.zeros(num_parts))

    def weights(self, tokens: Tensor, present: Tensor) -> Tensor:
        """Attention weights (item, part): each row sums to 1, and is 0 where `present` is False."""
        check_parts(tokens, present, shape=self._shape)
        tokens = zero_absent(tokens, present)
        logits = torch.einsum("ipd,pd->ip", tokens, self.query) / tokens.shape[-1] ** 0.5 + self.bias
        return logits.masked_fill(~present, -torch.inf).softmax(dim=-1)

    def forward(self, tokens: Tensor, present: Tensor) -> Tensor:
        """The fused embedding, (item, part · dim).

        `tokens`: (item, part, dim); rows whose `present` (item, part) is False may hold anything, NaN included.
        Raises `ValueError` where an item has no part, or where shapes disagree; `TypeError` unless `present` is bool.
        """
        weights = self.weights(tokens, present) * tokens.shape[1]
        return (weights.unsqueeze(-1) * zero_absent(tokens, present)).flatten(start_dim=1)
