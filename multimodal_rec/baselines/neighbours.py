"""Baselines of counting and likeness: popularity, item neighbours by who took them, item neighbours by content."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import numpy as np
from scipy import sparse

from multimodal_rec.baselines.baseline import Baseline, Log
from multimodal_rec.errors import ConfigError

_ITEMS_AT_ONCE = 1024
"""Rows of an item-item similarity that are held densely in one step."""


@final
class Popularity(Baseline):
    """Number of people who took an item, the same for everybody, strangers included."""

    def _learn(self, log: Log, validate: Callable[[Baseline], float] | None) -> None:
        del validate
        self._num_people = np.asarray(log.histories.sum(axis=0))

    def _score(self, log: Log, user_index: np.ndarray) -> np.ndarray:
        del log
        return np.tile(self._num_people, (len(user_index), 1))


@final
class ItemKNN(Baseline):
    """Sum of an item's similarity to what the person took: cosine of who took them, k nearest items only.

    similarity(i, j) = n(i, j) / (sqrt(n(i) n(j)) + shrinkage), n counting people; `shrinkage` in people discounts
    items that few have taken. Of each item its `k` nearest count. Source: Deshpande and Karypis, "Item-based top-N
    recommendation algorithms" (2004).
    """

    def __init__(self, k: int = 100, *, shrinkage: float = 10.0) -> None:
        super().__init__()
        if k < 1 or shrinkage < 0:
            raise ConfigError(f"k is {k} and shrinkage {shrinkage}. Expected k of at least 1, shrinkage of at least 0.")
        self.k, self.shrinkage = k, shrinkage

    def _learn(self, log: Log, validate: Callable[[Baseline], float] | None) -> None:
        del validate
        by_item = sparse.csr_array(log.histories.T)
        norm = np.sqrt(np.asarray(log.histories.sum(axis=0)))

        def similarity(rows: slice) -> np.ndarray:
            together = (by_item[rows] @ log.histories).toarray()
            # An item nobody took has no one in common with any, so its denominator only must not be 0.
            return together / np.maximum(np.outer(norm[rows], norm) + self.shrinkage, 1e-12)

        self._to_scores = sparse.csr_array(_nearest(similarity, log.num_items, self.k).T)

    def _score(self, log: Log, user_index: np.ndarray) -> np.ndarray:
        return sparse.csr_array(log.histories[user_index] @ self._to_scores).toarray()


@final
class ContentKNN(Baseline):
    """Sum of an item's likeness in content to what the person took; an item that arrived today scores like the rest.

    Rows of `content` are L2-normalised, so likeness is the cosine; a row of zeros says that the item has no content,
    and it is like nothing. With `k`, of each item only the k nearest among the items that anybody took count; None
    takes all. Negative likeness counts as it is.
    """

    def __init__(self, k: int | None = None) -> None:
        super().__init__()
        if k is not None and k < 1:
            raise ConfigError(f"k is {k}. Expected at least 1, or None for all.")
        self.k = k

    def _learn(self, log: Log, validate: Callable[[Baseline], float] | None) -> None:
        del validate
        content = log.features("ContentKNN")
        norm = np.linalg.norm(content, axis=1, keepdims=True)
        self._content = content / np.where(norm == 0, 1.0, norm)
        if self.k is None:
            return
        taken = np.asarray(log.histories.sum(axis=0)) > 0

        def similarity(rows: slice) -> np.ndarray:
            # Neighbours nobody took are in no history: they would only crowd out those that are.
            return np.where(taken, self._content[rows] @ self._content.T, -np.inf)

        self._to_scores = sparse.csr_array(_nearest(similarity, log.num_items, self.k).T)

    def _score(self, log: Log, user_index: np.ndarray) -> np.ndarray:
        histories = sparse.csr_array(log.histories[user_index])
        if self.k is not None:
            return sparse.csr_array(histories @ self._to_scores).toarray()
        scores = (histories @ self._content) @ self._content.T
        # Like an item's own diagonal above: that it was taken itself says nothing of what it is like.
        return scores - histories.toarray() * (self._content**2).sum(axis=1)


def _nearest(similarity: Callable[[slice], np.ndarray], num_items: int, k: int) -> sparse.csr_array:
    """Similarities (item, neighbour) of each item's `k` nearest others, block by block; -inf is no neighbour."""
    k = min(k, num_items)
    blocks = [sparse.csr_array((0, num_items))]
    for start in range(0, num_items, _ITEMS_AT_ONCE):
        rows = slice(start, min(start + _ITEMS_AT_ONCE, num_items))
        near = similarity(rows)
        near[np.arange(len(near)), np.arange(rows.start, rows.stop)] = -np.inf
        column = np.argpartition(-near, k - 1, axis=1)[:, :k]
        row = np.repeat(np.arange(len(near)), k)
        values = np.take_along_axis(near, column, axis=1).ravel()
        values[np.isneginf(values)] = 0.0
        blocks.append(sparse.csr_array((values, (row, column.ravel())), shape=near.shape))
    return sparse.csr_array(sparse.vstack(blocks))
