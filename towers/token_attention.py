"""A window's tokens into one row, by what the tower learns to look for."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class TokenAttention(nn.Module):
    """The mean over tokens, each weighted by the softmax of its likeness to a learned query.

    The query starts at zero, where all weights are equal: a fresh one gives exactly the mean, and so leaves a
    pretrained encoder's embeddings as they are until training finds better ones. Source: the attention over words of
    hierarchical attention networks (NAACL 2016, doi:10.18653/v1/N16-1174), without its hidden layer.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(dim))

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """(window, token, dim), mask (window, token), not 0 where there is a token → (window, dim).

        What stands where the mask is 0 has no weight and may be anything, NaN included. A window without a token
        gives zeros.
        """
        there = mask.bool()
        kept = tokens.masked_fill(~there[..., None], 0.0)
        logits = (kept @ self.query.to(kept.dtype)).float() / math.sqrt(len(self.query))
        # The lowest number, not minus infinity: a row of those would be NaN, forwards and backwards.
        weights = logits.masked_fill(~there, torch.finfo(logits.dtype).min).softmax(dim=-1)
        return torch.einsum("wt,wtd->wd", weights.to(kept.dtype), kept)
