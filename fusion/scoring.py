"""The context-aware score: what matters about an item depends on who asks, and when."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from fusion.parts import check_parts, zero_absent


@final
class ContextScore(nn.Module):
    """Score items for queries by attention of the query over each item's parts.

        score(q, i) = num_parts · Σ_p α(p; q, i) ⟨q_p, x(i, p)⟩
        α(·; q, i)  = softmax over present p of ⟨q_p, K_p x(i, p)⟩ / √dim + b_p

    No tower runs: scores are matrix products of stored embeddings, so that all items can be scored exactly. Absent
    parts get weight exactly 0. `K` starts at zero, where every present part weighs the same.
    """

    def __init__(self, embedding_dim: int, num_parts: int) -> None:
        super().__init__()
        self.key = nn.Parameter(torch.zeros(num_parts, embedding_dim, embedding_dim))
        self.bias = nn.Parameter(torch.zeros(num_parts))

    def contributions(self, queries: Tensor, tokens: Tensor, present: Tensor) -> Tensor:
        """What each part adds to each score: (query, item, part), 0 where the part is absent."""
        check_parts(tokens, present)
        if queries.ndim != 3 or queries.shape[1:] != tokens.shape[1:]:
            raise ValueError(
                f"queries have shape {tuple(queries.shape)}. Expected (query, {tokens.shape[1]}, {tokens.shape[2]})."
            )
        tokens = zero_absent(tokens, present)
        # (part, query, dim) @ (part, dim, item): one matrix product a part.
        by_part = queries.transpose(0, 1)
        items = tokens.permute(1, 2, 0)
        logits = (by_part @ self.key) @ items / tokens.shape[-1] ** 0.5 + self.bias[:, None, None]
        attention = logits.masked_fill(~present.T.unsqueeze(1), -torch.inf).softmax(dim=0)
        return (tokens.shape[1] * attention * (by_part @ items)).permute(1, 2, 0)

    def forward(self, queries: Tensor, tokens: Tensor, present: Tensor) -> Tensor:
        """Scores (query, item), higher is better.

        `queries`: (query, part, dim); `tokens`: (item, part, dim); `present`: bool (item, part). Raises `ValueError`
        where an item has no part, or where shapes disagree.
        """
        return self.contributions(queries, tokens, present).sum(dim=-1)
