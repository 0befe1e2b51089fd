"""Recommenders without training loops, to measure a model against: popularity, neighbours, EASE, content.

All of them keep one small contract: `fit` takes interactions, `score` takes queries and gives a dense matrix. A
person's history is what `fit` saw of that person, whatever the order or the context. Whoever `fit` never saw has an
empty history and, but for `Popularity`, scores 0 everywhere; an item without interactions scores 0 in all that read
behaviour only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Generic, NamedTuple, Self, TypeVar, final

import numpy as np
import pandas as pd
from scipy import sparse

from multimodal_rec.errors import ConfigError, NotFittedError, UnknownIdError
from multimodal_rec.evaluation import evaluate_ranking

_ITEMS_AT_ONCE = 1024
"""Rows of an item-item similarity that are held densely in one step."""


class Baseline(ABC):
    """The contract: `fit` on interactions, then `score` queries against every item."""

    def __init__(self) -> None:
        self._histories: sparse.csr_array | None = None
        self._users: pd.Index = pd.Index([])

    def fit(self, interactions: pd.DataFrame, item_ids: Sequence[str], *, content: np.ndarray | None = None) -> Self:
        """This baseline, having read who took what.

        `interactions`: user_id and item_id a row, repetitions counting once; dislikes are the caller's to drop.
        `item_ids`: every item that is to be scored, in the order of the scores' columns. `content`: float
        (item, dim) in the same order, read by content baselines and ignored by the others.

        Raises `UnknownIdError` for an interaction with an item outside `item_ids`.
        """
        items = pd.Index(item_ids)
        taken = interactions["item_id"].to_numpy()
        item_index = items.get_indexer(pd.Index(taken))
        if (item_index < 0).any():
            raise UnknownIdError(
                f"item '{taken[item_index < 0][0]}' of the interactions is not among the {len(items)} item_ids. "
                "Pass every item of the catalogue."
            )
        user_index, users = pd.factorize(interactions["user_id"])
        self._users = pd.Index(users)
        # One row more than people: index -1, which pandas gives for somebody unknown, then means an empty history.
        pairs = (np.ones(len(item_index)), (user_index, item_index))
        histories = sparse.csr_array(sparse.coo_array(pairs, shape=(len(users) + 1, len(items))))
        histories.sum_duplicates()
        histories.data[:] = 1.0
        self._histories = histories
        self._learn(histories, content)
        return self

    def score(self, queries: pd.DataFrame) -> np.ndarray:
        """Scores float32 (query, item), higher is better; what a person already took is scored like the rest.

        `queries`: a column user_id; contexts beside it are ignored. Raises `NotFittedError` before `fit`.
        """
        if self._histories is None:
            raise NotFittedError(f"{type(self).__name__} has not read any interactions. Call fit first.")
        user_index = self._users.get_indexer(pd.Index(queries["user_id"]))
        histories = sparse.csr_array(self._histories[user_index])
        return np.ascontiguousarray(self._score(histories), dtype=np.float32)

    @abstractmethod
    def _learn(self, histories: sparse.csr_array, content: np.ndarray | None) -> None:
        """Take what scoring needs from `histories`, float64 (user, item) of 0 and 1; some rows may be empty."""

    @abstractmethod
    def _score(self, histories: sparse.csr_array) -> np.ndarray:
        """Scores (query, item) of the queries' histories, float64 (query, item) of 0 and 1."""


@final
class Popularity(Baseline):
    """Number of people who took an item, the same for everybody, strangers included."""

    def _learn(self, histories: sparse.csr_array, content: np.ndarray | None) -> None:
        del content
        self._num_people = np.asarray(histories.sum(axis=0))

    def _score(self, histories: sparse.csr_array) -> np.ndarray:
        return np.tile(self._num_people, (len(histories.indptr) - 1, 1))


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

    def _learn(self, histories: sparse.csr_array, content: np.ndarray | None) -> None:
        del content
        by_item = sparse.csr_array(histories.T)
        norm = np.sqrt(np.asarray(histories.sum(axis=0)))

        def similarity(rows: slice) -> np.ndarray:
            together = (by_item[rows] @ histories).toarray()
            # An item nobody took has no one in common with any, so its denominator only must not be 0.
            return together / np.maximum(np.outer(norm[rows], norm) + self.shrinkage, 1e-12)

        self._to_scores = sparse.csr_array(_nearest(similarity, len(norm), self.k).T)

    def _score(self, histories: sparse.csr_array) -> np.ndarray:
        return sparse.csr_array(histories @ self._to_scores).toarray()


@final
class EASE(Baseline):
    """A linear map from histories to scores, the best in squared error whose diagonal is 0, in closed form.

    B = I − P / diag(P) column by column, P = (XᵀX + λI)⁻¹; scores = X B. `regularisation` is λ. Dense in items:
    time grows with their cube, memory with their square. Source: Steck (arXiv:1905.03375), equation 8.
    """

    def __init__(self, regularisation: float = 100.0) -> None:
        super().__init__()
        if not regularisation > 0:
            raise ConfigError(f"regularisation is {regularisation}. Expected a number above 0, such as 100.")
        self.regularisation = regularisation

    def _learn(self, histories: sparse.csr_array, content: np.ndarray | None) -> None:
        del content
        gram = (histories.T @ histories).toarray()
        gram[np.diag_indices_from(gram)] += self.regularisation
        inverse = np.linalg.inv(gram)
        to_scores = -inverse / np.diag(inverse)
        np.fill_diagonal(to_scores, 0.0)
        self._to_scores = to_scores.astype(np.float32)

    def _score(self, histories: sparse.csr_array) -> np.ndarray:
        return histories.astype(np.float32) @ self._to_scores


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

    def _learn(self, histories: sparse.csr_array, content: np.ndarray | None) -> None:
        taken = np.asarray(histories.sum(axis=0)) > 0
        num_items = len(taken)
        if content is None or content.ndim != 2 or len(content) != num_items:
            shape = "none" if content is None else f"shape {content.shape}"
            raise ConfigError(f"ContentKNN got content of {shape}. Expected ({num_items}, dim): a row an item.")
        if not np.isfinite(content).all():
            raise ConfigError("content holds NaN or infinity. Give an item without content a row of zeros.")
        norm = np.linalg.norm(content.astype(np.float64), axis=1, keepdims=True)
        self._content = content / np.where(norm == 0, 1.0, norm)
        if self.k is None:
            return

        def similarity(rows: slice) -> np.ndarray:
            # Neighbours nobody took are in no history: they would only crowd out those that are.
            return np.where(taken, self._content[rows] @ self._content.T, -np.inf)

        self._to_scores = sparse.csr_array(_nearest(similarity, num_items, self.k).T)

    def _score(self, histories: sparse.csr_array) -> np.ndarray:
        if self.k is not None:
            return sparse.csr_array(histories @ self._to_scores).toarray()
        scores = (histories @ self._content) @ self._content.T
        # Like an item's own diagonal above: that it was taken itself says nothing of what it is like.
        return scores - histories.toarray() * (self._content**2).sum(axis=1)


BaselineT = TypeVar("BaselineT", bound=Baseline)


class Tuned(NamedTuple, Generic[BaselineT]):
    """A baseline whose setting was chosen on validation and which was then fitted on train and valid."""

    label: str
    """Of the setting that won."""
    baseline: BaselineT
    valid: dict[str, float]
    """Label → validation NDCG@10 of each setting tried, fitted on train alone."""


def tuned(
    make: Mapping[str, Callable[[], BaselineT]],
    train: pd.DataFrame,
    *,
    valid: pd.DataFrame,
    item_ids: Sequence[str],
    content: np.ndarray | None = None,
    context_columns: Sequence[str] = (),
    candidates: Collection[str] | None = None,
) -> Tuned[BaselineT]:
    """The setting with the best NDCG@10 on `valid`, fitted once more on both; the first listed wins a tie.

    `make`: label → what builds the baseline with that setting. `content`, `context_columns` and `candidates` as in
    `Baseline.fit` and `evaluate_ranking`. Raises `ConfigError` where `make` is empty, `SplitError` where `valid`
    leaves nothing to rank.
    """
    if not make:
        raise ConfigError("no settings to choose from. Expected at least one label and what builds it.")
    reached = {}
    for label, build in make.items():
        candidate = build().fit(train, item_ids, content=content)
        evaluation = evaluate_ranking(
            candidate.score,
            valid,
            known=train,
            item_ids=item_ids,
            context_columns=context_columns,
            candidates=candidates,
        )
        reached[label] = evaluation.means()["ndcg@10"]
    label = max(reached, key=lambda name: reached[name])
    both = pd.concat([train, valid], ignore_index=True)
    return Tuned(label, make[label]().fit(both, item_ids, content=content), reached)


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
