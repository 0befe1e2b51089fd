"""What an item starts from in every learned score: an embedding of its own and linear maps of its content."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import numpy as np
import torch
from torch import Tensor, nn

from multimodal_rec.collaborative.score import ContentBlock


def directions(features: np.ndarray, present: np.ndarray) -> np.ndarray:
    """(item, width), of the type of `features`: less their mean over the items that have them, rows of length 1.

    `present`: bool (item,); the others, whatever their features hold, are 0. What all items share would make everything
    like everything, and blocks of unlike units are to count alike.
    """
    there = present[:, None]
    kept = np.where(there, features, 0).astype(features.dtype)
    centred = np.where(there, kept - kept.sum(axis=0) / max(int(present.sum()), 1), 0)
    norm = np.linalg.norm(centred, axis=1, keepdims=True)
    # An item like the mean points nowhere: what is left of it is rounding.
    least = 1e-6 * np.linalg.norm(kept, axis=1).max(initial=0.0)
    return (centred / np.where(norm <= least, np.inf, norm)).astype(features.dtype)


def block_directions(block: ContentBlock) -> np.ndarray:
    """`directions` of a block, float32 (item, width)."""
    return directions(block.features.astype(np.float32), block.present)


@final
class ItemSide(nn.Module):
    """z_i = id_i + Σ_b W_b x(i, b), over the blocks b of content; an item that nobody took has no id embedding.

    `content`: its features are read as `directions` gives them. `taken`: bool (item,). `scale`: standard deviation of
    the id embeddings at the start; that of the maps too: a row of
    length 1 then starts as long as an id.
    """

    taken: Tensor

    def __init__(self, content: Mapping[str, ContentBlock], taken: np.ndarray, dim: int, *, scale: float) -> None:
        super().__init__()
        self.item = nn.Parameter(torch.randn(len(taken), dim) * scale)
        widths = [block.features.shape[1] for block in content.values()]
        self.maps = nn.ParameterList(torch.randn(width, dim) * scale for width in widths)
        self.register_buffer("taken", torch.from_numpy(taken), persistent=False)
        self._blocks: list[str] = []
        for number, block in enumerate(content.values()):
            self._blocks.append(f"block{number}")
            self.register_buffer(self._blocks[-1], torch.from_numpy(block_directions(block)), persistent=False)

    def forward(self) -> Tensor:
        """Embeddings (item, dim)."""
        around = self.item.where(self.taken[:, None], self.item.new_zeros(()))
        for name, layer in zip(self._blocks, self.maps, strict=True):
            around = around + getattr(self, name) @ layer
        return around
