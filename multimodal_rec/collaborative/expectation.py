"""What content lets expect of an item's vectors, cut down to what can be kept for every part of every item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal_rec.collaborative.content_map import ContentMap
from multimodal_rec.collaborative.details import AttributeDetails
from multimodal_rec.collaborative.landmarks import Landmarks
from multimodal_rec.collaborative.score import ContentBlock

RANK = 64
"""Numbers that are kept: content tells less of an item than this many directions hold."""


@final
class Expectation(nn.Module):
    """vectors = offset + U Σ_b D (W_b x_b + c_b), over the blocks b of content that an item has.

    The maps W of all scores side by side, through the `rank` directions D in which what they say of known items
    differs most, every score as large as any other. An item that has a part has a block of the part's features, one
    of their likeness to the landmarks, and of attributes one of the curves of each number.
    """

    offset: Tensor
    """Buffer (width,)."""
    up: Tensor
    """Buffer (rank, width)."""

    def __init__(
        self,
        block_widths: Mapping[str, int],
        width: int,
        *,
        rank: int = RANK,
        details: AttributeDetails | None = None,
        landmarks: Mapping[str, Landmarks] | None = None,
    ) -> None:
        super().__init__()
        self.block_widths, self.rank = dict(block_widths), rank
        self.details = AttributeDetails({}) if details is None else details
        self.landmarks = nn.ModuleDict(landmarks)
        self.register_buffer("offset", torch.zeros(width))
        self.register_buffer("up", torch.zeros(rank, width))
        for place, block_width in enumerate(block_widths.values()):
            self.register_buffer(f"weight_{place}", torch.zeros(block_width, rank))
            self.register_buffer(f"bias_{place}", torch.zeros(rank))

    @classmethod
    def of(
        cls,
        maps: Sequence[ContentMap],
        content: Mapping[str, ContentBlock],
        *,
        rank: int = RANK,
        details: AttributeDetails | None = None,
        landmarks: Mapping[str, Landmarks] | None = None,
    ) -> Self:
        """What these maps say, side by side.

        `content` of the items that they learned from, as `described` gives it; `details` and `landmarks`: what made
        its blocks of curves and of likeness.
        """
        widths = {name: block.features.shape[1] for name, block in content.items()}
        made = cls(widths, sum(each.width for each in maps), rank=rank, details=details, landmarks=landmarks)
        made.offset.copy_(torch.cat([each.offset for each in maps]))
        said = torch.zeros(len(next(iter(content.values())).present) if content else 0, made.up.shape[1])
        weights: dict[str, Tensor] = {}
        biases: dict[str, Tensor] = {}
        for name, block in content.items():
            nothing = torch.zeros(1, widths[name])
            biases[name] = torch.cat([each.block(name, nothing) for each in maps], dim=1)[0]
            weights[name] = (
                torch.cat([each.block(name, torch.eye(widths[name])) for each in maps], dim=1) - biases[name]
            )
            added = torch.from_numpy(block.features) @ weights[name] + biases[name]
            said += added * torch.from_numpy(block.present).unsqueeze(1)
        scale = torch.cat([_size(part).expand(part.shape[1]) for part in said.split([m.width for m in maps], dim=1)])
        _, _, axes = torch.linalg.svd(said / scale, full_matrices=False)
        axes = axes[:rank]
        made.up[: len(axes)] = axes * scale
        for place, name in enumerate(widths):
            getattr(made, f"weight_{place}")[:, : len(axes)] = (weights[name] / scale) @ axes.T
            getattr(made, f"bias_{place}")[: len(axes)] = (biases[name] / scale) @ axes.T
        return made

    def part(self, name: str, features: Tensor) -> Tensor:
        """What a part says, (item, rank), from (item, part width): 0 where an item has nothing of it.

        A part of no block says nothing.
        """
        if name not in self.block_widths:
            return features.new_zeros(len(features), self.rank)
        # Where no item of a batch has any of the columns of text, there are fewer windows.
        features = F.pad(features, (0, self.block_widths[name] - features.shape[1]))
        blocks = {name: features}
        if name in self.landmarks:
            blocks[likeness_of(name)] = self.landmarks[name](features)
        there = (features != 0).any(dim=1, keepdim=True)
        said = torch.where(there, sum(self._block(each, read) for each, read in blocks.items()), 0.0)
        if name == "attributes":
            for column, curves in self.details.curves(features).items():
                said = said + torch.where(
                    (curves != 0).any(dim=1, keepdim=True), self._block(curves_of(column), curves), 0.0
                )
        return said

    def expand(self, said: Tensor) -> Tensor:
        """Vectors (item, width) from the sum (item, rank) of what the parts say."""
        return self.offset + said @ self.up

    def _block(self, name: str, features: Tensor) -> Tensor:
        place = list(self.block_widths).index(name)
        return features @ getattr(self, f"weight_{place}") + getattr(self, f"bias_{place}")


def described(
    content: Mapping[str, ContentBlock], details: AttributeDetails, landmarks: Mapping[str, Landmarks]
) -> dict[str, ContentBlock]:
    """The blocks that content maps read: those of `content`, their likeness to landmarks, and the curves of numbers."""
    blocks = dict(content)
    for name, marks in landmarks.items():
        features, present = content[name]
        like = marks(torch.from_numpy(features)).numpy()
        blocks[likeness_of(name)] = ContentBlock(np.where(present[:, None], like, 0.0).astype(np.float32), present)
    if "attributes" in content:
        for column, curves in details.curves(torch.from_numpy(content["attributes"].features)).items():
            blocks[curves_of(column)] = ContentBlock(curves.numpy(), curves.any(dim=1).numpy())
    return blocks


def likeness_of(name: str) -> str:
    """The name of a part's block of likeness to landmarks."""
    return f"{name}, likeness"


def curves_of(column: str) -> str:
    """The name of a column of numbers' block of curves."""
    return f"curves of {column}"


def _size(part: Tensor) -> Tensor:
    """Standard deviation of what is said, 1 where nothing is."""
    size = part.std(dim=0).norm() if len(part) > 1 else part.new_zeros(())
    return torch.where(size > 0, size, size.new_ones(())).reshape(1)
