"""What every way of scoring from the log alone shares: a vector an item, one a person, and their inner product."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy import sparse
from torch import Tensor, nn

from multimodal_rec.history import Events, HistoryBatch


class ContentBlock(NamedTuple):
    """One kind of content, such as what the text tower's backbone gave, or the encoded attributes."""

    features: np.ndarray
    """Float32 (item, width), 0 where absent."""
    present: np.ndarray
    """Bool (item,)."""


class Log(NamedTuple):
    """Who took what, and what is known of either."""

    events: Events
    """Each person's events in their order, where there is one."""
    weights: np.ndarray
    """Float32 (event,): above 0 = something taken, below 0 = something disliked, 0 = neither."""
    num_people: int
    num_items: int
    ordered: bool
    """Whether events have an order."""
    people: np.ndarray
    """Float32 (person, person width): encoded attributes, 0 where unknown."""
    content: Mapping[str, ContentBlock]
    """Name of the kind → content of the items."""

    def took(self) -> sparse.csr_array:
        """Who took what: float32 (person, item) of 0 and 1."""
        did = self.weights > 0
        pairs = (np.ones(int(did.sum()), np.float32), (self.events.user_index[did], self.events.item_index[did]))
        took = sparse.csr_array(sparse.coo_array(pairs, shape=(self.num_people, self.num_items)))
        took.sum_duplicates()
        took.data[:] = 1
        return took


class CollaborativeScore(nn.Module, ABC):
    """Scores ⟨person, item⟩ learned from a log, of the size of log-odds.

    An item is `width` numbers, which the store keeps: `vectors` for those of the training log, and what their content
    lets expect for later ones. A person is what their history makes of those numbers, so that whoever is new is
    scored as whoever was there.
    """

    vectors: Tensor
    """Buffer (item, width): of the items of the training log, 0 where nobody took the item."""

    @property
    def width(self) -> int:
        """How many numbers an item is."""
        return self.vectors.shape[1]

    @property
    def content_columns(self) -> int:
        """How many of an item's numbers, the first ones, its content says, whether somebody took it or not."""
        return 0

    @property
    def turns(self) -> bool:
        """Whether `turned` does anything."""
        return False

    @property
    def least_events(self) -> int:
        """How long histories are at least, padding counted, where a graph is made that takes them of any length."""
        return 1

    @abstractmethod
    def items(self, vectors: Tensor) -> Tensor:
        """The side of items, (item, dim), from (item, width)."""

    @abstractmethod
    def people(self, history: HistoryBatch, vectors: Tensor, person: Tensor) -> Tensor:
        """The side of people, (person, dim); an empty history says what people take who took nothing yet, or 0.

        `history`: whole histories that index `vectors` (item, width); `person`: encoded attributes (person, person
        width).
        """

    def turned(self, people: Tensor, context: Tensor) -> Tensor:
        """The side of people in contexts, (person, dim), from what `people` gave of them: here the same in all.

        `context`: encoded, (person, context width).
        """
        del context
        return people
