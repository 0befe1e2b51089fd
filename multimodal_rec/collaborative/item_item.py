"""A person is the sum of what they took, an item what people who took other things took: EASE by its factors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self, final

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from multimodal_rec.collaborative.bag import weighed_sums
from multimodal_rec.collaborative.item_side import directions
from multimodal_rec.collaborative.item_weights import HeldOut, calibrated, chosen, factors
from multimodal_rec.collaborative.score import CollaborativeScore, ContentBlock, Log
from multimodal_rec.collaborative.settings import ItemItemConfig
from multimodal_rec.history import HistoryBatch

HALF_KNOWN = 5.0
"""People who took an item, c, count as 1 + c / this: above 0 for what nobody took."""


@final
class ItemItemScore(CollaborativeScore):
    """EASE by its strongest factors, B ≈ H Kᵀ: a person is the sum of H over what they took, an item its K.

    An item is [H | K / √(1 + c / 5) | log(1 + c / 5)], where c people took it. What an item is like and how many will
    take it are told by different content, and predicting them apart ranks new items better (MovieLens, twelve factors
    of the log on ten folds of films: NDCG@10 .316 in place of .300). `items` puts them together again. Scores are
    scaled so that a softmax makes held-out events likeliest, and divided by a power of how much a person took.

    Source: Steck (arXiv:1905.03375), equation 8; content stands as further rows under the log.
    """

    speaks: Tensor
    """Buffer (kind,): 1 for kinds of event that speak for a person, else 0."""
    scale: Tensor
    """Buffer (): what a person's sum is multiplied by."""
    damping: Tensor
    """Buffer (): power of the number of items taken that a person's sum is divided by."""

    def __init__(self, num_items: int, num_kinds: int, *, rank: int = 128) -> None:
        super().__init__()
        self.rank = rank
        self.register_buffer("vectors", torch.zeros(num_items, 2 * rank + 1))
        self.register_buffer("speaks", torch.ones(num_kinds))
        self.register_buffer("scale", torch.tensor(1.0))
        self.register_buffer("damping", torch.tensor(0.0))

    @classmethod
    def fit(cls, log: Log, config: ItemItemConfig | None = None, *, event_weights: Sequence[float]) -> Self:
        """The score of a log, from events of a weight above 0; the same item taken twice counts once.

        `event_weights`: how much each kind of event speaks for a person, by index. A tenth of what people with five or
        more took is held out first, where there are such people and not too many items, to choose λ, the weight of the
        log's content, and the scale; the weights are then solved for from all of it. See `item_weights.factors` for
        what is solved.
        """
        config = ItemItemConfig() if config is None else config
        score = cls(log.num_items, len(event_weights), rank=config.rank)
        score.speaks.copy_(torch.tensor([float(weight > 0) for weight in event_weights]))
        taken = sparse.csr_array(log.took().astype(np.float64))
        known = np.flatnonzero(np.asarray(taken.sum(axis=0)) > 0)
        if len(known) == 0:
            return score
        taken = sparse.csr_array(taken[:, known])
        likeness = _likeness(log.content, known)
        held_out = HeldOut.of(taken, np.random.default_rng(config.seed))
        setting = chosen(held_out, likeness, strength=config.strength, content_weight=config.content_weight)
        if held_out is not None:
            history_side, item_side = factors(held_out.rest, likeness, setting, rank=config.rank)
            scale, damping = calibrated(held_out, history_side, item_side)
            score.scale.fill_(scale)
            score.damping.fill_(damping)
        history_side, item_side = factors(taken, likeness, setting, rank=config.rank)
        log_count = np.log1p(np.asarray(taken.sum(axis=0)) / HALF_KNOWN)
        num_factors = history_side.shape[1]
        vectors = np.zeros((len(known), score.width), dtype=np.float32)
        vectors[:, :num_factors] = history_side
        vectors[:, config.rank : config.rank + num_factors] = item_side / np.exp(log_count / 2)[:, None]
        vectors[:, -1] = log_count
        score.vectors[torch.from_numpy(known)] = torch.from_numpy(vectors)
        return score

    @property
    def popularity_columns(self) -> tuple[int, ...]:
        """Which of an item's numbers say how many take it, and not what it is like."""
        return (2 * self.rank,)

    def items(self, vectors: Tensor) -> Tensor:
        """The side of items, (item, rank), from (item, width)."""
        # A prediction is kept from running away: below nobody, or above a million people.
        log_count = vectors[:, -1:].clamp(-2.0, 12.0)
        return vectors[:, self.rank : 2 * self.rank] * torch.exp(log_count / 2)

    def people(self, history: HistoryBatch, vectors: Tensor, person: Tensor) -> Tensor:
        """The side of people, (person, rank): what speaks for them, each item once; `person` is not read."""
        del person
        # A kind that the model has no name for is one that it was not told to weigh: it counts as the first.
        kind = torch.where(history.kind < len(self.speaks), history.kind, 0)
        counts = history.present & (self.speaks[kind] > 0)
        # Sorted, the same item taken again stands next to itself.
        item_index = torch.where(counts, history.item_index, -1).sort(dim=1).values
        once = item_index >= 0
        once[:, 1:] &= item_index[:, 1:] != item_index[:, :-1]
        weights = once.to(vectors.dtype)
        total = weighed_sums(vectors[:, : self.rank], item_index.clamp(min=0), weights)
        num_taken = weights.sum(dim=1, keepdim=True).clamp(min=1.0)
        return self.scale * total / num_taken**self.damping


def _likeness(content: Mapping[str, ContentBlock], known: np.ndarray) -> list[np.ndarray]:
    """Each block's `directions` of the known items, float64; none of a block in which nothing sets them apart."""
    blocks = [directions(each.features[known].astype(np.float64), each.present[known]) for each in content.values()]
    return [block for block in blocks if block.any()]
