"""A side network: learns from what every layer of a frozen backbone gave, which is computed once and kept."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SideNetwork(nn.Module):
    """A small gated network beside a frozen backbone.

    It walks along the backbone's pooled layers: at each it mixes what it holds with that layer, by a learned gate, and
    thinks once. What it holds at the end is added to the backbone's own output, through weights that start at zero.
    No gradient goes through the backbone, so its layers can come from a cache. Source: IISAN, arXiv:2404.02059, here
    with one modality a network and `8 * rank` numbers held.

    `dim`: of the backbone's output; `layer_dims`: of its pooled layers, which may differ (a convolutional net's do).
    """

    def __init__(self, dim: int, layer_dims: Sequence[int], rank: int) -> None:
        super().__init__()
        held = 8 * rank
        self.widths = (dim, *layer_dims)
        self.down = nn.ModuleList([nn.Linear(width, held) for width in layer_dims])
        self.think = nn.ModuleList([nn.Linear(held, held) for _ in layer_dims])
        self.gates = nn.Parameter(torch.zeros(len(layer_dims)))
        self.up = nn.Linear(held, dim)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, rows: Tensor) -> Tensor:
        """The backbone's output, adapted, (..., dim), from its output and layers side by side, (..., sum of widths)."""
        base, *layers = rows.split(self.widths, dim=-1)
        gates = self.gates.sigmoid()
        held = torch.zeros_like(base[..., :1])
        for index, layer in enumerate(layers):
            # Layers differ in scale by orders of magnitude; without the norm the last ones would drown the others.
            entering = self.down[index](F.layer_norm(layer, layer.shape[-1:]))
            held = gates[index] * held + (1 - gates[index]) * entering
            held = held + self.think[index](F.gelu(held))
        return base + self.up(held)
