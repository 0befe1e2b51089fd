"""The list that a step reads and gives back, and what is known of its items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property
from typing import final

import numpy as np

from multimodal_rec.attributes import AttributeColumns
from multimodal_rec.reranking.uncertainty import content_uncertainty

_LITTLE_KNOWN = 0.05


@final
class Shelf:
    """What steps may read of all items that can be recommended; made once, and read by every request."""

    def __init__(
        self,
        ids: Sequence[str],
        embeddings: np.ndarray,
        counts: np.ndarray,
        *,
        attributes: Sequence[Mapping[str, object]],
        columns: AttributeColumns | None = None,
    ) -> None:
        """`embeddings`: float (item, dim), of any length; `counts`: (item,), how often each was taken; `attributes`:
        a row an item; `columns`: the same, where it was made already."""
        self.ids = ids
        self.counts = counts
        self.attributes = attributes
        self.columns = AttributeColumns(attributes) if columns is None else columns
        self._embeddings = embeddings

    @cached_property
    def uncertainty(self) -> np.ndarray:
        """Standard deviation of what is not known of each item's score, float64 (item,); `content_uncertainty`."""
        return content_uncertainty(self._embeddings, self.counts)

    @cached_property
    def little_known(self) -> np.ndarray:
        """The twentieth of the items of which least is known, bool (item,)."""
        return self.uncertainty >= np.quantile(self.uncertainty, 1 - _LITTLE_KNOWN)

    def unit(self, rows: np.ndarray) -> np.ndarray:
        """Embeddings of some items, divided by their length, float32 (row, dim); 0 stays 0."""
        chosen = np.asarray(self._embeddings[rows], dtype=np.float32)
        length = np.linalg.norm(chosen, axis=1, keepdims=True)
        return chosen / np.where(length > 0, length, 1)


@dataclass(frozen=True, eq=False)
class Candidates:
    """One person's list, best first: more items than are shown, so that a step has something to choose from."""

    shelf: Shelf
    rows: np.ndarray
    """Int64 (candidate,), rows of the shelf; none twice."""
    scores: np.ndarray
    """Float32 (candidate,), the model's own; they need not descend once a step has reordered the list."""
    _: KW_ONLY
    taken: np.ndarray
    """Int64, rows of what the person took."""
    person: str = ""
    """Whose list it is: steps that draw at random draw anew for each person, and the same again when asked again."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def ids(self) -> list[str]:
        """Item ids in order."""
        return [self.shelf.ids[int(row)] for row in self.rows]

    @cached_property
    def embeddings(self) -> np.ndarray:
        """Of length 1, float32 (candidate, dim)."""
        return self.shelf.unit(self.rows)

    @property
    def relevance(self) -> np.ndarray:
        """Scores as standard deviations above the list's mean, float64 (candidate,); 0 where all are alike.

        So that a step's strength means the same whatever the scale of a model's scores, and a pool of any length.
        """
        scores = self.scores.astype(np.float64)
        spread = scores.std() if len(scores) else 0.0
        return (scores - scores.mean()) / spread if spread > 0 else np.zeros(len(scores))

    def take(self, places: Sequence[int] | np.ndarray) -> Candidates:
        """The candidates at these places, in this order."""
        chosen = np.asarray(places, dtype=np.int64)
        return replace(self, rows=self.rows[chosen], scores=self.scores[chosen])

    def first(self, places: Sequence[int]) -> Candidates:
        """These places first, in this order, and after them all others in theirs."""
        rest = np.ones(len(self), dtype=bool)
        rest[list(places)] = False
        return self.take([*places, *np.flatnonzero(rest).tolist()])
