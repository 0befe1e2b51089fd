"""What content lets expect of an item's vectors, cut down to what can be kept for every part of every item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal_rec.collaborative.content_map import ContentMap
from multimodal_rec.collaborative.details import AttributeDetails
from multimodal_rec.collaborative.score import ContentBlock

DETAILS = "attribute details"
"""The name of that block of content."""

RANK = 64
"""Numbers that are kept: content tells less of an item than this many directions hold."""


@final
class Expectation(nn.Module):
    """vectors = offset + U Σ_b D (W_b x_b + c_b), over the blocks b of content that an item has.

    The maps W of all scores side by side, through the `rank` directions D in which what they say of known items
    differs most, every score as large as any other.
    """

    offset: Tensor
    """Buffer (width,)."""
    up: Tensor
    """Buffer (rank, width)."""

    def __init__(
        self, block_widths: Mapping[str, int], width: int, *, rank: int = RANK, details: AttributeDetails | None = None
    ) -> None:
        super().__init__()
        self.block_widths, self.rank = dict(block_widths), rank
        self.details = AttributeDetails({}) if details is None else details
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
    ) -> Self:
        """What these maps say, side by side.

        `content` of the items that they learned from; `details`: what made its block of the attributes' details.
        """
        widths = {name: block.features.shape[1] for name, block in content.items()}
        made = cls(widths, sum(each.width for each in maps), rank=rank, details=details)
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

        Attributes speak for their details too. A part of no block says nothing.
        """
        said = self._block(name, features)
        return said + self._block(DETAILS, self.details(features)) if name == "attributes" else said

    def expand(self, said: Tensor) -> Tensor:
        """Vectors (item, width) from the sum (item, rank) of what the parts say."""
        return self.offset + said @ self.up

    def _block(self, name: str, features: Tensor) -> Tensor:
        if name not in self.block_widths:
            return features.new_zeros(len(features), self.rank)
        place = list(self.block_widths).index(name)
        # Where no item of a batch has any of the columns of text, there are fewer windows.
        features = F.pad(features, (0, self.block_widths[name] - features.shape[1]))
        added = features @ getattr(self, f"weight_{place}") + getattr(self, f"bias_{place}")
        return torch.where((features != 0).any(dim=1, keepdim=True), added, 0.0)


def _size(part: Tensor) -> Tensor:
    """Standard deviation of what is said, 1 where nothing is."""
    size = part.std(dim=0).norm() if len(part) > 1 else part.new_zeros(())
    return torch.where(size > 0, size, size.new_ones(())).reshape(1)
