"""The context-aware score: what matters about an item depends on who asks, and when."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fusion.attention import PartLinear, check_parts, zero_absent


class ContextScore(nn.Module):
    """Score items for queries by attention of the query over each item's parts.

        score(q, i) = Σ_p α(p; q, i) ⟨q, v(i, p)⟩      α(·; q, i) = softmax over present p of ⟨W q, k(i, p)⟩ / √dim

    No tower runs: keys and values are linear maps of stored embeddings, so that all items can be scored exactly.
    """

    def __init__(self, embedding_dim: int, num_parts: int) -> None:
        super().__init__()
        self.query = nn.Linear(embedding_dim, embedding_dim)
        self.keys = PartLinear(num_parts, embedding_dim)
        self.values = PartLinear(num_parts, embedding_dim)

    def contributions(self, queries: Tensor, tokens: Tensor, present: Tensor) -> Tensor:
        """What each part adds to each score: (query, item, part), 0 where `present` (item, part) is False."""
        check_parts(tokens, present)
        tokens = zero_absent(tokens, present)
        logits = torch.einsum("qd,ipd->qip", self.query(queries), self.keys(tokens)) / queries.shape[-1] ** 0.5
        attention = logits.masked_fill(~present, -torch.inf).softmax(dim=-1)
        return attention * torch.einsum("qd,ipd->qip", queries, self.values(tokens))

    def forward(self, queries: Tensor, tokens: Tensor, present: Tensor) -> Tensor:
        """Scores (query, item) of `queries` (query, dim) for items with `tokens` (item, part, dim)."""
        return self.contributions(queries, tokens, present).sum(dim=-1)
