"""Several windows of an item into one row."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_HEADS = 4
_KEY_DIM = 32
_POSITION_DIM = 16


def masked_mean(features: Tensor, present: Tensor) -> Tensor:
    """Mean over the windows that are present: (batch, window, dim), bool (batch, window) → (batch, dim).

    Absent windows may hold anything, NaN included.
    """
    kept = features.masked_fill(~present[..., None], 0.0)
    return kept.sum(dim=1) / present.sum(dim=1, keepdim=True).clamp(min=1).to(kept.dtype)


class MeanPooling(nn.Module):
    """The mean over an item's windows: no weights of its own."""

    def forward(self, features: Tensor, present: Tensor) -> Tensor:
        """(batch, window, dim), bool (batch, window) → (batch, dim)."""
        return masked_mean(features, present)


class FrameAttention(nn.Module):
    """The mean over a video's frames plus what attention by content and time finds in them.

    Each head has a learned query, and keys of a frame's features and its relative position in the video (0 first,
    1 last), so that one head may take the opening and another the end: their difference is motion, which a mean
    cannot see. Source: the pooling by attention of the Set Transformer (arXiv:1810.00825), with positions.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        value_dim = max(1, min(64, dim // _HEADS))
        self.norm = nn.LayerNorm(dim)
        # No bias: the softmax over frames takes no notice of one.
        self.key = nn.Linear(dim, _HEADS * _KEY_DIM, bias=False)
        self.position = nn.Linear(_POSITION_DIM, _HEADS * _KEY_DIM, bias=False)
        self.value = nn.Linear(dim, _HEADS * value_dim)
        self.query = nn.Parameter(torch.randn(_HEADS, _KEY_DIM) * 0.5)
        self.out = nn.Linear(_HEADS * value_dim, dim)

    def forward(self, features: Tensor, present: Tensor) -> Tensor:
        """(batch, frame, dim), bool (batch, frame) → (batch, dim)."""
        batch, frames, _ = features.shape
        kept = features.masked_fill(~present[..., None], 0.0)
        normed = self.norm(kept)
        keys = self.key(normed) + self.position(_positions(present).to(normed.dtype))
        keys = keys.view(batch, frames, _HEADS, _KEY_DIM)
        logits = torch.einsum("bfhk,hk->bhf", keys, self.query.to(keys.dtype)) / math.sqrt(_KEY_DIM)
        weights = logits.masked_fill(~present[:, None, :], float("-inf")).softmax(dim=-1)
        values = self.value(normed).view(batch, frames, _HEADS, -1)
        found = torch.einsum("bhf,bfhv->bhv", weights.to(values.dtype), values).flatten(1)
        return masked_mean(features, present) + self.out(found)


def _positions(present: Tensor) -> Tensor:
    """Sines and cosines of each frame's relative position: float32 (batch, frame, position_dim)."""
    index = torch.arange(present.shape[1], device=present.device, dtype=torch.float32)
    last = (present.sum(dim=1, keepdim=True) - 1).clamp(min=1)
    relative = (index[None, :] / last).clamp(max=1.0)
    octaves = torch.pow(2.0, torch.arange(_POSITION_DIM // 2, device=present.device, dtype=torch.float32)) * 0.5
    angles = relative[..., None] * octaves * math.pi
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
