"""The order in which things were taken: causal self-attention over a history."""

from __future__ import annotations

from typing import Self, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal_rec.collaborative.settings import SequenceConfig


@final
class CausalBlock(nn.Module):
    """One block of causal self-attention and a two-layer network, each after a layer norm and beside a residual."""

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.dim, self.num_heads, self.dropout_share = dim, num_heads, dropout
        self.attention_norm, self.network_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.projection, self.output = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        dropped = nn.Dropout(dropout)
        self.network = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), dropped, nn.Linear(dim, dim), dropped)
        self.dropout = dropped

    def forward(self, state: Tensor) -> Tensor:
        """States (batch, place, dim) that depend on the places up to their own."""
        batch, length, dim = state.shape
        # Sizes told, not -1: nobody asked is a batch of none, whose sizes cannot be worked out.
        sizes = (batch, length, 3, self.num_heads, dim // self.num_heads)
        parts = self.projection(self.attention_norm(state)).reshape(sizes)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(dim=0)
        share = self.dropout_share if self.training else 0.0
        attended = F.scaled_dot_product_attention(query, key, value, dropout_p=share, is_causal=True)
        state = state + self.dropout(self.output(attended.transpose(1, 2).reshape(batch, length, dim)))
        return state + self.network(self.network_norm(state))


@final
class SequenceEncoder(nn.Module):
    """A state after each event of a history, and before the first.

    Place t depends on the events before t and on nothing later, so padding goes at the end and needs no mask. Source:
    SASRec (arXiv:1808.09781).
    """

    def __init__(self, dim: int, *, num_blocks: int, num_heads: int, max_events: int, dropout: float) -> None:
        super().__init__()
        self.dim, self.max_events = dim, max_events
        self.start = nn.Parameter(torch.zeros(dim))
        self.place = nn.Parameter(torch.randn(max_events + 1, dim) * 0.02)
        self.blocks = nn.Sequential(*(CausalBlock(dim, num_heads, dropout) for _ in range(num_blocks)))
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    @classmethod
    def of(cls, settings: SequenceConfig) -> Self:
        """The encoder that these settings describe, its weights drawn anew."""
        return cls(
            settings.dim,
            num_blocks=settings.num_blocks,
            num_heads=settings.num_heads,
            max_events=settings.window,
            dropout=settings.dropout,
        )

    def forward(self, events: Tensor, person: Tensor | None = None) -> Tensor:
        """States (batch, event + 1, dim) from event vectors (batch, event, dim), oldest first; state t has read t.

        `person`: (batch, dim), added to the events and to the start.
        """
        first = self.start.expand(len(events), 1, -1)
        state = torch.cat([first, events], dim=1)
        if person is not None:
            state = state + person.unsqueeze(1)
        return self.norm(self.blocks(self.dropout(state + self.place[: state.shape[1]])))
