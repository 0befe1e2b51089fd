"""The contract that every baseline keeps: `fit` on interactions, then `score` queries against every item."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

import numpy as np
import pandas as pd
from scipy import sparse

from multimodal_rec.collaborative.item_side import directions
from multimodal_rec.errors import ConfigError, NotFittedError, UnknownIdError
from multimodal_rec.splits import interaction_order

_ORDERED_BY = ("timestamp", "position")


class Log(NamedTuple):
    """What a baseline learns from and scores with: who took what, in which order, and what the items are."""

    histories: sparse.csr_array
    """Float64 (user + 1, item) of 0 and 1, repetitions counted once. The last row is empty: it is any stranger's."""
    user_index: np.ndarray
    """Int64 (event,): who took something, repetitions included, from the earliest event to the latest.

    The order is that of timestamp, else of position, else of the rows as they came.
    """
    item_index: np.ndarray
    """Int64 (event,): what was taken."""
    content: np.ndarray | None
    """Float (item, dim), a row of zeros where an item has none."""

    @property
    def num_users(self) -> int:
        """People with a history; it is also the `user_index` of strangers."""
        return len(self.histories.indptr) - 2

    @property
    def num_items(self) -> int:
        """Items that are scored, taken by anybody or not."""
        return int(self.histories.sum(axis=0).size)

    def sequences(self) -> tuple[np.ndarray, np.ndarray]:
        """Every person's items in order, one person after the other, and where each begins.

        The first is int64 (event,), the second int64 (user + 2,): person u took `items[starts[u]:starts[u + 1]]`,
        the oldest first, and a stranger (u = num_users) nothing.
        """
        order = np.argsort(self.user_index, kind="stable")
        counts = np.bincount(self.user_index, minlength=self.num_users + 1)
        return self.item_index[order], np.concatenate(([0], np.cumsum(counts)))

    def features(self, who: str) -> np.ndarray:
        """`content` as float64 (item, dim), for `who` cannot do without.

        Raises `ConfigError` where there is none, where it has not a row an item, or where it is not finite.
        """
        if self.content is None or self.content.ndim != 2 or len(self.content) != self.num_items:
            shape = "none" if self.content is None else f"shape {self.content.shape}"
            raise ConfigError(f"{who} got content of {shape}. Expected ({self.num_items}, dim): a row an item.")
        if not np.isfinite(self.content).all():
            raise ConfigError("content holds NaN or infinity. Give an item without content a row of zeros.")
        return self.content.astype(np.float64)

    def directions(self, who: str) -> np.ndarray:
        """`features` less their mean over the items that have any, each row of length 1; zeros stay zeros."""
        content = self.features(who)
        return directions(content, np.asarray(content.any(axis=1)))


class Baseline(ABC):
    """The contract: `fit` on interactions, then `score` queries against every item.

    A person's history is what `fit` and `read` saw of that person; contexts are ignored. Whoever they never saw has
    an empty history and, but for `Popularity`, scores 0 everywhere.
    """

    def __init__(self) -> None:
        self._events = pd.DataFrame()
        self._users = pd.Index([])
        self._items = pd.Index([])
        self._log: Log | None = None

    def fit(
        self,
        interactions: pd.DataFrame,
        item_ids: Sequence[str],
        *,
        content: np.ndarray | None = None,
        validate: Callable[[Baseline], float] | None = None,
    ) -> Self:
        """This baseline, having learned from who took what.

        - `interactions`: user_id and item_id a row, and timestamp or position for baselines that know an order;
          dislikes are the caller's to drop.
        - `item_ids`: every item that is to be scored, in the order of the scores' columns.
        - `content`: float (item, dim) in the same order, read by content baselines and ignored by the others.
        - `validate`: how good this baseline is on validation, higher is better, asked now and then by baselines that
          learn step by step, to know when to stop; the others ignore it.

        Raises `UnknownIdError` for an interaction with an item outside `item_ids`, `ConfigError` where content is
        needed and unfit.
        """
        self._items, self._users = pd.Index(item_ids), pd.Index([])
        self._log = log = self._logged(interactions, content)
        self._learn(log, validate)
        self._read(log)
        return self

    def read(self, interactions: pd.DataFrame) -> Self:
        """This baseline with histories that these interactions have joined, new people's too; nothing is learned.

        Raises `NotFittedError` before `fit`, `UnknownIdError` for an item that `fit` was not told of.
        """
        log = self._fitted()
        self._log = log = self._logged(pd.concat([self._events, interactions], ignore_index=True), log.content)
        self._read(log)
        return self

    def score(self, queries: pd.DataFrame) -> np.ndarray:
        """Scores float32 (query, item), higher is better; what a person already took is scored like the rest.

        `queries`: a column user_id; contexts beside it are ignored. Raises `NotFittedError` before `fit`.
        """
        log = self._fitted()
        user_index = self._users.get_indexer(pd.Index(queries["user_id"]))
        user_index = np.where(user_index < 0, log.num_users, user_index).astype(np.int64)
        return np.ascontiguousarray(self._score(log, user_index), dtype=np.float32)

    @abstractmethod
    def _learn(self, log: Log, validate: Callable[[Baseline], float] | None) -> None:
        """Take what scoring needs from `log`; whoever calls `validate` prepares for `_score` beforehand."""

    def _read(self, log: Log) -> None:
        """Prepare what scoring needs of histories that have grown; `log` numbers people and items as in `_learn`."""
        del log

    @abstractmethod
    def _score(self, log: Log, user_index: np.ndarray) -> np.ndarray:
        """Scores (query, item) of the people in `user_index`, int64 (query,), some perhaps unknown to `_learn`.

        People whom only `read` brought have numbers from the `num_users` of `_learn` on; `log.num_users` is a stranger.
        """

    def _fitted(self) -> Log:
        if self._log is None:
            raise NotFittedError(f"{type(self).__name__} has not read any interactions. Call fit first.")
        return self._log

    def _logged(self, interactions: pd.DataFrame, content: np.ndarray | None) -> Log:
        kept = ["user_id", "item_id", *(name for name in _ORDERED_BY if name in interactions)]
        events = pd.DataFrame(interactions[kept])
        taken = events["item_id"].to_numpy()
        item_index = self._items.get_indexer(pd.Index(taken))
        if (item_index < 0).any():
            raise UnknownIdError(
                f"item '{taken[item_index < 0][0]}' of the interactions is not among the {len(self._items)} item_ids. "
                "Pass every item of the catalogue."
            )
        # In the order of their ids, so that rows may come in any; those already known keep their numbers.
        new = pd.Index(events["user_id"].unique()).difference(self._users).sort_values()
        users = self._users.append(new) if len(self._users) else new
        user_index = users.get_indexer(pd.Index(events["user_id"]))
        order = interaction_order(events)
        if order is not None:
            user_index, item_index = user_index[order], item_index[order]
        # One row more than people: it stays empty, for strangers.
        pairs = (np.ones(len(item_index)), (user_index, item_index))
        histories = sparse.csr_array(sparse.coo_array(pairs, shape=(len(users) + 1, len(self._items))))
        histories.sum_duplicates()
        histories.data[:] = 1.0
        self._events, self._users = events, users
        return Log(histories, user_index.astype(np.int64), item_index.astype(np.int64), content)
