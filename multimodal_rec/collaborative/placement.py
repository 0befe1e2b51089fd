"""Where new items stand among known ones, for each person apart."""

from __future__ import annotations

from typing import NamedTuple, final

import torch
from torch import Tensor, nn

NEW, TAKEN = 0, 1
"""Kinds of items: nobody took them, or somebody did; rows of a blend's weights."""


class Lie(NamedTuple):
    """How scores lie, for each person."""

    new: Tensor
    """(person,): mean score of new items."""
    known: Tensor
    """(person,): mean score of known items."""
    spread: Tensor
    """(person,): standard deviation of the scores of known items."""


@final
class Placement(nn.Module):
    """level(person) = μ_known + h σ_known − μ_new, which is added to the person's scores of new items.

    Their mean then stands h deviations above the mean of the known ones, for somebody with a long history, whose
    scores are far apart, as for somebody with a short one. Means and deviations of inner products follow from mean and
    covariance of the items' embeddings, so that nobody's scores are passed over. Before `learn` it is 0.
    """

    centre: Tensor
    """Buffer (2, width): mean item embedding, of new items and of known ones."""
    covariance: Tensor
    """Buffer (width, width), of the embeddings of known items."""
    height: Tensor
    """Buffer (): h."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(2, width))
        self.register_buffer("covariance", torch.zeros(width, width))
        self.register_buffer("height", torch.zeros(()))

    def learn(self, new: Tensor, known: Tensor) -> None:
        """None; reads how items lie from embeddings (item, width) of both kinds, less their last number."""
        self.centre[NEW], self.centre[TAKEN] = new.float().mean(dim=0), known.float().mean(dim=0)
        from_centre = known.float() - self.centre[TAKEN]
        self.covariance.copy_(from_centre.T @ from_centre / len(known))

    @property
    def learned(self) -> bool:
        """Whether it was told how items lie."""
        return bool(self.covariance.any())

    def lie(self, people: Tensor) -> Lie:
        """How scores lie for `people`, (person, width): what item embeddings are multiplied by."""
        new, known = (people @ self.centre.T).unbind(dim=1)
        square = ((people @ self.covariance) * people).sum(dim=1)
        # Rounding may take a person to whom all items are alike below 0.
        return Lie(new, known, square.clamp(min=0).sqrt())

    def forward(self, people: Tensor) -> Tensor:
        """The level (person,), from (person, width)."""
        new, known, spread = self.lie(people)
        return known + self.height * spread - new
