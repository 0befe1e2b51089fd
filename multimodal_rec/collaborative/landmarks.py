"""Likeness to items that the log knows, as features: what content tells is more than a sum of what its numbers tell."""

from __future__ import annotations

from typing import Self, final

import numpy as np
import torch
from torch import Tensor, nn

from multimodal_rec.collaborative.score import ContentBlock

NUM_LANDMARKS = 1000
"""Known items to which others are likened: more of them tell little more, and the model keeps each."""

_LEAST = 1e-6
"""Share of the largest below which a length or an eigenvalue is rounding."""


@final
class Landmarks(nn.Module):
    """Features of a block → features φ whose inner products are k(x, z) = ((1 + cos(x, z)) / 2)², (item, rank).

    φ(x) = k(x, Z) K(Z, Z)^-½ of landmarks Z, where x and z are read as directions from the known items' mean. A linear
    map of φ is one of the pairs of a block's features, of which there are too many to write down. Source: Williams and
    Seeger, Using the Nyström method to speed up kernel machines (NIPS 2000).
    """

    centre: Tensor
    """Buffer (width,): mean of the known items' features."""
    least: Tensor
    """Buffer (): an item that lies nearer to it points nowhere."""
    points: Tensor
    """Buffer (landmark, width): their directions."""
    root: Tensor
    """Buffer (landmark, rank): K(Z, Z)^-½."""

    def __init__(self, width: int, num_landmarks: int, rank: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(width))
        self.register_buffer("least", torch.tensor(_LEAST))
        self.register_buffer("points", torch.zeros(num_landmarks, width))
        self.register_buffer("root", torch.zeros(num_landmarks, rank))

    @classmethod
    def of(cls, block: ContentBlock, known: np.ndarray, *, seed: int = 0) -> Self:
        """The landmarks of a block: known items that have it, drawn where there are more than `NUM_LANDMARKS`.

        `known`: bool (item,), which of them the log taught.
        """
        rows = np.flatnonzero(known & block.present)
        features = torch.from_numpy(block.features[rows].astype(np.float64))
        drawn = np.sort(np.random.default_rng(seed).permutation(len(rows))[:NUM_LANDMARKS])
        centre = features.sum(dim=0) / max(len(rows), 1)
        least = _LEAST * max(float(features.norm(dim=1).max()) if len(rows) else 0.0, 1e-30)
        points = _directions(features[drawn] - centre, least)
        values, vectors = torch.linalg.eigh(_likeness(points, points))
        kept = values > _LEAST * float(values.max() if len(values) else 0.0)
        made = cls(features.shape[1], len(drawn), int(kept.sum()))
        made.centre.copy_(centre)
        made.least.fill_(least)
        made.points.copy_(points)
        made.root.copy_(vectors[:, kept] / values[kept].sqrt())
        return made

    def forward(self, features: Tensor) -> Tensor:
        """φ, (item, rank), of items that have the block, from features (item, width)."""
        return _likeness(_directions(features - self.centre, self.least), self.points) @ self.root


def _directions(centred: Tensor, least: Tensor | float) -> Tensor:
    return centred / centred.norm(dim=1, keepdim=True).clamp(min=least)


def _likeness(directions: Tensor, points: Tensor) -> Tensor:
    return (0.5 + 0.5 * directions @ points.T) ** 2
