"""The context-aware score: what matters about an item depends on who asks, and when."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from fusion.parts import check_parts, check_queries, zero_absent
from fusion.pooling import attention_pool


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
        self._shape = (num_parts, embedding_dim)
        self.key = nn.Parameter(torch.zeros(num_parts, embedding_dim, embedding_dim))
        self.bias = nn.Parameter(torch.zeros(num_parts))

    def weights(self, queries: Tensor, tokens: Tensor, present: Tensor) -> Tensor:
        """Attention weights (query, item, part): over parts they sum to 1, and are 0 where the part is absent."""
        logits, _ = self._by_part(queries, tokens, present)
        return logits.softmax(dim=0).permute(1, 2, 0)

    def contributions(self, queries: Tensor, tokens: Tensor, present: Tensor) -> Tensor:
        """What each part adds to each score: (query, item, part), 0 where the part is absent."""
        logits, values = self._by_part(queries, tokens, present)
        return (logits.softmax(dim=0) * values).permute(1, 2, 0)

    def forward(self, queries: Tensor, tokens: Tensor, present: Tensor) -> Tensor:
        """Scores (query, item), higher is better.

        `queries`: (query, part, dim); `tokens`: (item, part, dim), anything where `present` (item, part) is False, NaN
        included. Raises `ValueError` where an item has no part, or where shapes disagree; `TypeError` unless `present`
        is bool.
        """
        return attention_pool(*self._by_part(queries, tokens, present))

    def of_own(self, queries: Tensor, tokens: Tensor, present: Tensor) -> Tensor:
        """Scores (query, item) of items that each query has of its own.

        `queries`: (query, part, dim); `tokens`: (query, item, part, dim); `present`: (query, item, part). Raises as
        `forward` does.
        """
        check_parts(tokens.flatten(end_dim=1), present.flatten(end_dim=1), shape=self._shape)
        check_queries(queries, shape=self._shape)
        num_parts, dim = self._shape
        items = zero_absent(tokens, present)
        keys = torch.einsum("qpd,pde->qpe", queries, self.key) / dim**0.5
        logits = torch.einsum("qpd,qipd->qip", keys, items) + self.bias
        weights = logits.masked_fill(~present, -torch.inf).softmax(dim=-1)
        return num_parts * (weights * torch.einsum("qpd,qipd->qip", queries, items)).sum(dim=-1)

    def _by_part(self, queries: Tensor, tokens: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of attention and num_parts · ⟨q_p, x(i, p)⟩, each (part, query, item)."""
        check_parts(tokens, present, shape=self._shape)
        check_queries(queries, shape=self._shape)
        num_parts, dim = self._shape
        # (part, query, dim) @ (part, dim, item): one matrix product a part. Scales are of the queries, and bias and
        # mask go into the product: the large tensors are written once.
        by_part = queries.transpose(0, 1)
        items = zero_absent(tokens, present).permute(1, 2, 0)
        prior = self.bias[:, None].where(present.T, -torch.inf)
        logits = torch.baddbmm(prior.unsqueeze(1), by_part @ self.key / dim**0.5, items)
        return logits, (num_parts * by_part) @ items


@final
class FusedScore(nn.Module):
    """Score items for queries by the inner product of a query with what a fusion makes of an item.

        score(q, i) = ⟨q, fusion(x(i))⟩

    Stands where `ContextScore` does, for fusions that have no attention which a query could take over: context speaks
    through the query alone. `fusion` gives (item, part · dim) from tokens (item, part, dim) and `present`.
    """

    def __init__(self, fusion: nn.Module) -> None:
        super().__init__()
        self.fusion = fusion

    def forward(self, queries: Tensor, tokens: Tensor, present: Tensor) -> Tensor:
        """Scores (query, item), higher is better.

        `queries`: (query, part, dim); `tokens`: (item, part, dim), anything where `present` (item, part) is False, NaN
        included. Raises `ValueError` where an item has no part, or where shapes disagree; `TypeError` unless `present`
        is bool.
        """
        fused = self.fusion(tokens, present)
        check_queries(queries, shape=(tokens.shape[1], tokens.shape[2]))
        return queries.flatten(start_dim=1) @ fused.T

    def of_own(self, queries: Tensor, tokens: Tensor, present: Tensor) -> Tensor:
        """Scores (query, item) of items that each query has of its own; arguments as of `ContextScore.of_own`."""
        fused = self.fusion(tokens.flatten(end_dim=1), present.flatten(end_dim=1)).unflatten(0, tokens.shape[:2])
        check_queries(queries, shape=(tokens.shape[2], tokens.shape[3]))
        return torch.einsum("qd,qid->qi", queries.flatten(start_dim=1), fused)
