"""What is in attributes besides what each says by itself: where a number lies, how many tags there are, what lacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self, final

import torch
from torch import Tensor, nn

from multimodal_rec.fields import FieldEncoder

NUM_BUMPS = 12
"""Bell curves a column of numbers."""


DETAILS = "attribute details"
"""The name of that block of a log's content."""


@final
class AttributeDetails(nn.Module):
    """Encoded attributes → further features of them, (item, width).

    A column of numbers gives bell curves around its quantiles: how much something is taken rises and falls with its
    year, where a linear map knows only older and newer. A column of tags gives the logarithm of how many there are,
    and every column whether it has nothing.
    """

    centres: Tensor
    """Buffer (number column, bump), in standard deviations."""

    def __init__(self, columns: Mapping[str, tuple[str, int]]) -> None:
        """`columns`: column → kind of field and number of features, in the order of the features."""
        super().__init__()
        ends = torch.tensor([width for _, width in columns.values()]).cumsum(dim=0).tolist() if columns else []
        self._spans = [
            (kind, end - width, end) for (kind, width), end in zip(columns.values(), ends, strict=True) if width
        ]
        self.numbers = tuple(name for name, (kind, width) in columns.items() if kind == "number" and width)
        """The columns of numbers, in their order."""
        self.register_buffer("centres", torch.zeros(sum(kind == "number" for kind, *_ in self._spans), NUM_BUMPS))

    @classmethod
    def of(cls, encoder: FieldEncoder, attributes: Tensor) -> Self:
        """The details of these items' attributes (item, attribute width), as `encoder` made them."""
        made = cls(encoder.columns)
        share = (torch.arange(NUM_BUMPS) + 0.5) / NUM_BUMPS
        numbers = [attributes[:, start] for kind, start, _ in made._spans if kind == "number"]
        for place, values in enumerate(numbers):
            there = values[values != 0]
            if len(there):
                made.centres[place] = torch.quantile(there[:1_000_000], share)
        return made

    @property
    def width(self) -> int:
        """Number of features."""
        return self.centres.numel() + sum(2 if kind == "tags" else 1 for kind, *_ in self._spans)

    def forward(self, attributes: Tensor) -> Tensor:
        """Features (item, width) of attributes (item, attribute width)."""
        found: list[Tensor] = []
        curves = iter(self.curves(attributes).values())
        for kind, start, end in self._spans:
            own = attributes[:, start:end]
            there = (own != 0).any(dim=1, keepdim=True)
            found.append((~there).to(own.dtype))
            if kind == "tags":
                found.append(torch.log1p((own != 0).sum(dim=1, keepdim=True).to(own.dtype)))
            if kind == "number":
                found.append(next(curves))
        return torch.cat(found, dim=1) if found else attributes.new_zeros(len(attributes), 0)

    def curves(self, attributes: Tensor) -> dict[str, Tensor]:
        """Column of numbers → its bell curves alone, (item, bump), 0 where an item lacks the number."""
        starts = [start for kind, start, _ in self._spans if kind == "number"]
        found: dict[str, Tensor] = {}
        for name, start, centre in zip(self.numbers, starts, self.centres, strict=True):
            own = attributes[:, start : start + 1]
            # Neighbours overlap at half height and no curve is narrower than a tenth of the spread.
            spread = torch.gradient(centre)[0].clamp(min=0.1)
            found[name] = torch.exp(-0.5 * ((own - centre) / spread) ** 2) * (own != 0)
        return found
