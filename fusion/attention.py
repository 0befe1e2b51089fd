"""Attention of a learned query over the parts of an item: one embedding, free of person and context."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class AttentionFusion(nn.Module):
    """Fuse one item's part embeddings into one.

    A learned query attends over the parts that the item has; an absent one gets weight exactly 0, so an item of text
    alone is fused from its text alone. Each of `num_parts` kinds of part has its own key and value projection.
    Source: Set Transformer's PMA block (arXiv:1810.00825), with the projections untied by kind of part.
    """

    def __init__(self, embedding_dim: int, num_parts: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(embedding_dim))
        self.keys = PartLinear(num_parts, embedding_dim)
        self.values = PartLinear(num_parts, embedding_dim)

    def weights(self, tokens: Tensor, present: Tensor) -> Tensor:
        """Attention weights (batch, part), rows summing to 1, 0 where `present` is False."""
        check_parts(tokens, present)
        keys = self.keys(zero_absent(tokens, present))
        logits = keys @ self.query / tokens.shape[-1] ** 0.5
        return logits.masked_fill(~present, -torch.inf).softmax(dim=-1)

    def forward(self, tokens: Tensor, present: Tensor) -> Tensor:
        """The fused embedding, (batch, dim).

        `tokens`: (batch, part, dim); rows whose `present` (batch, part) is False may hold anything, NaN included.
        Raises `ValueError` where a row has no part, or where shapes disagree.
        """
        weights = self.weights(tokens, present)
        values = self.values(zero_absent(tokens, present))
        return torch.einsum("bp,bpd->bd", weights, values)


class PartLinear(nn.Module):
    """A linear map of its own for each kind of part: (..., part, dim) to (..., part, dim)."""

    def __init__(self, num_parts: int, embedding_dim: int) -> None:
        super().__init__()
        # Near the identity: parts begin comparable, and each map leaves from there.
        noise = torch.randn(num_parts, embedding_dim, embedding_dim) * 0.5 * embedding_dim**-0.5
        self.weight = nn.Parameter(torch.eye(embedding_dim) + noise)

    def forward(self, tokens: Tensor) -> Tensor:
        """Each part through its own map."""
        return torch.einsum("...pd,pde->...pe", tokens, self.weight)


def zero_absent(tokens: Tensor, present: Tensor) -> Tensor:
    """`tokens` with zeros where a part is absent; `where` rather than a product, since NaN · 0 is NaN."""
    return torch.where(present.unsqueeze(-1), tokens, tokens.new_zeros(()))


def check_parts(tokens: Tensor, present: Tensor) -> None:
    """Raise `ValueError` unless `tokens` is (batch, part, dim), `present` (batch, part), and no row is empty."""
    if tokens.ndim != 3 or present.shape != tokens.shape[:2]:
        raise ValueError(
            f"tokens have shape {tuple(tokens.shape)} and present {tuple(present.shape)}. "
            "Expected (batch, part, dim) and (batch, part)."
        )
    if not bool(present.any(dim=-1).all()):
        rows = (~present.any(dim=-1)).nonzero().flatten().tolist()[:5]
        raise ValueError(f"rows {rows} have no part present. Expected at least one in each row; leave such items out.")
