"""Concatenation and one linear map: every dimension of every part may speak for every other."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from fusion.mean import MeanFusion


@final
class ConcatenationFusion(nn.Module):
    """Fuse one item's part embeddings into one by a linear map of all of them.

        e(i) = z + W [z; present]      z = [num_parts / |present| · x(i, p)]_p, 0 where a part is absent

    `W` starts at zero, where this is the mean of the parts: what is learned, and what weight decay shrinks, is the
    way from there. `present` lets the map fill in for a part that is not there. No bias: what all items share ranks
    none of them.
    """

    def __init__(self, embedding_dim: int, num_parts: int) -> None:
        super().__init__()
        self.output_dim = embedding_dim * num_parts
        self.mean = MeanFusion(embedding_dim, num_parts)
        self.mix = nn.Linear(self.output_dim + num_parts, self.output_dim, bias=False)
        nn.init.zeros_(self.mix.weight)

    def forward(self, tokens: Tensor, present: Tensor) -> Tensor:
        """The fused embedding, (item, part · dim).

        `tokens`: (item, part, dim); rows whose `present` (item, part) is False may hold anything, NaN included.
        Raises `ValueError` where an item has no part, or where shapes disagree; `TypeError` unless `present` is bool.
        """
        parts = self.mean(tokens, present)
        return parts + self.mix(torch.cat([parts, present.to(parts.dtype)], dim=1))
