"""Collaborative scores beside the model's own, and how much each of them counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast, final

import torch
from torch import Tensor, nn

from multimodal_rec.collaborative.expectation import Expectation
from multimodal_rec.collaborative.item_item import ItemItemScore
from multimodal_rec.collaborative.placement import Placement
from multimodal_rec.collaborative.score import CollaborativeScore
from multimodal_rec.history import HistoryBatch


@final
class Blend(nn.Module):
    """score(person, i) = w_0 · model(person, i) + Σ_s w_s ⟨people_s(person), items_s(i)⟩ + level(person)

    with weights w of their own for items that somebody took and for new ones, and the level added to new ones alone.
    Scores are trained apart and weighed on validation: what one of them fits too closely no other has to make up for.
    """

    weights: Tensor
    """Buffer (2, 1 + score): for new items, then for those that somebody took; the model's own weight first."""

    def __init__(self, scores: Mapping[str, CollaborativeScore], content: Expectation, *, fused_dim: int = 0) -> None:
        """`fused_dim`: numbers of an item embedding that stand before those of the scores."""
        super().__init__()
        self.scores = nn.ModuleDict(scores)
        self.content = content
        self.register_buffer("weights", torch.ones(2, 1 + len(scores)))
        self.placement = Placement(fused_dim + self.dim - 1)

    @property
    def learned(self) -> Tensor:
        """What was learned of the items of the training log, (item, width); gone once they are embedded."""
        return self.beside_content(torch.cat([score.vectors for score in self._scores()], dim=1))

    def beside_content(self, vectors: Tensor) -> Tensor:
        """`vectors` (item, width), 0 where an item's number is what its content says anyway: what is kept of them."""
        return vectors * ~self._said_by_content(vectors.device)

    @property
    def turns(self) -> bool:
        """Whether a score reads the context, in the history as in the question."""
        return any(score.turns for score in self._scores())

    @property
    def width(self) -> int:
        """How many numbers an item is to all of them."""
        return sum(score.width for score in self._scores())

    @property
    def dim(self) -> int:
        """How many numbers either side of all scores has."""
        return sum(self._dims()) + 1

    @property
    def popularity_columns(self) -> tuple[int, ...]:
        """Which of an item's numbers say how many take it, as of `ItemItemScore.popularity_columns`."""
        found: list[int] = []
        start = 0
        for score in self._scores():
            if isinstance(score, ItemItemScore):
                found += [start + column for column in score.popularity_columns]
            start += score.width
        return tuple(found)

    @property
    def least_events(self) -> int:
        """How long histories are at least, padding counted, where a graph is made that takes them of any length."""
        return max([1, *(score.least_events for score in self._scores())])

    def vectors(self, content: Tensor, present: Tensor, vectors: Tensor, taken: Tensor) -> Tensor:
        """What each item is to the scores, (item, width): `vectors` where taken, else what its content says, which
        some numbers are in either case.

        `content`: (item, part, rank) of the parts that the content map reads, `present`: bool (item, part); `taken`:
        bool (item,).
        """
        expected = self.content.expand((content * present.unsqueeze(-1)).sum(dim=1))
        known = vectors + expected * self._said_by_content(vectors.device)
        return torch.where(taken.unsqueeze(1), known, expected)

    def items(self, vectors: Tensor, taken: Tensor) -> Tensor:
        """The items' side of all scores, weighed, (item, dim)."""
        weights = self.weights[taken.long(), 1:]
        sides = [score.items(part) for score, part in zip(self._scores(), self._split(vectors), strict=True)]
        new = (~taken).to(vectors.dtype).unsqueeze(1)
        return torch.cat([*(side * weights[:, [index]] for index, side in enumerate(sides)), new], dim=1)

    def people(self, history: HistoryBatch, vectors: Tensor, person: Tensor) -> Tensor:
        """The people's side of all scores but for the level, (person, dim - 1); arguments as of
        `CollaborativeScore.people`."""
        if not torch.compiler.is_exporting() and history.item_index.numel() < len(vectors):
            # A few people over many items: only what they took is touched.
            taken, place = history.item_index.unique(return_inverse=True)
            history, vectors = history._replace(item_index=place), vectors.index_select(0, taken)
        parts = zip(self._scores(), self._split(vectors), strict=True)
        sides = [score.people(history, part, person) for score, part in parts]
        return torch.cat(sides, dim=1)

    def asked(self, fused: Tensor, sides: Tensor, context: Tensor) -> Tensor:
        """The people's side of all scores in contexts (person, context width), (person, dim).

        `fused`: (person, fused dim), what the fused parts of items are multiplied by; `sides`: as `people` gives them.
        """
        if self.turns:
            parts = zip(self._scores(), sides.split(self._dims(), dim=1), strict=True)
            sides = torch.cat([score.turned(part, context) for score, part in parts], dim=1)
        level = self.placement(torch.cat([fused, sides], dim=1))
        return torch.cat([sides, level.unsqueeze(1)], dim=1)

    def own(self, taken: Tensor) -> Tensor:
        """How much the model's own score counts for each item, (item,)."""
        return self.weights[taken.long(), 0]

    def forget(self) -> None:
        """None; lets go of what was learned of the items, which from here on comes from where they are stored."""
        for score in self._scores():
            score.vectors = score.vectors[:0].clone()

    def _scores(self) -> list[CollaborativeScore]:
        return [cast(CollaborativeScore, score) for score in self.scores.values()]

    def _dims(self) -> list[int]:
        nothing = self.weights.new_zeros(0, self.width)
        return [score.items(part).shape[1] for score, part in zip(self._scores(), self._split(nothing), strict=True)]

    def _said_by_content(self, device: torch.device) -> Tensor:
        """Bool (width,)."""
        columns = [torch.arange(score.width, device=device) < score.content_columns for score in self._scores()]
        return torch.cat(columns)

    def _split(self, vectors: Tensor) -> tuple[Tensor, ...]:
        return vectors.split([score.width for score in self._scores()], dim=1)
