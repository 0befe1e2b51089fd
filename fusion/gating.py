"""A gate for each part, opened or closed by the whole item."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from fusion.mean import MeanFusion
from fusion.parts import check_parts, zero_absent


@final
class GatedFusion(nn.Module):
    """Fuse one item's part embeddings into one, each part times a gate that all parts decide about.

        e(i) = [g(p; i) · num_parts / |present| · x(i, p)]_p      g(·; i) = 2 σ(W [x(i); present] / √dim + b)

    with zeros in x where a part is absent. Gates lie between 0 and 2, and `W` and `b` start at zero, where every gate
    is 1. Unlike attention's weights they do not share a sum: an item's parts may all be loud, or all be quiet.
    Source: Gated Multimodal Units (arXiv:1702.01992); twice the sigmoid as in MMTM (arXiv:1911.08670).
    """

    def __init__(self, embedding_dim: int, num_parts: int) -> None:
        super().__init__()
        self._shape = (num_parts, embedding_dim)
        self.output_dim = embedding_dim * num_parts
        self.mean = MeanFusion(embedding_dim, num_parts)
        self.gate = nn.Linear(self.output_dim + num_parts, num_parts)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def gates(self, tokens: Tensor, present: Tensor) -> Tensor:
        """The gates (item, part): between 0 and 2, 1 for as loud as in the mean, and 0 where `present` is False."""
        check_parts(tokens, present, shape=self._shape)
        whole = torch.cat([zero_absent(tokens, present).flatten(start_dim=1), present.to(tokens.dtype)], dim=1)
        # Over √dim as attention's logits are, so that one learning rate suits both.
        return (2 * self.gate(whole / self._shape[1] ** 0.5).sigmoid()).masked_fill(~present, 0)

    def forward(self, tokens: Tensor, present: Tensor) -> Tensor:
        """The fused embedding, (item, part · dim).

        `tokens`: (item, part, dim); rows whose `present` (item, part) is False may hold anything, NaN included.
        Raises `ValueError` where an item has no part, or where shapes disagree; `TypeError` unless `present` is bool.
        """
        gates = self.gates(tokens, present)
        return (gates.unsqueeze(-1) * self.mean(tokens, present).unflatten(1, self._shape)).flatten(start_dim=1)
