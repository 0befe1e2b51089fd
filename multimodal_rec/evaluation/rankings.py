"""What is kept of rankings once the scores are gone: where each positive stood, and each query's first items.

From this every ranking metric at any cutoff, for any part of people, situations or items, is arithmetic. It takes
some forty bytes a positive and four a listed item, whatever the size of the catalogue.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from multimodal_rec.errors import ConfigError
from multimodal_rec.evaluation import metrics
from multimodal_rec.evaluation.list_metrics import Lists
from multimodal_rec.evaluation.metrics import Standings

_QUERIES_AT_ONCE = 4096
"""Queries whose ranks are padded to one matrix; bounds the memory where one person took very much."""


@dataclass(frozen=True, eq=False)
class Rankings:
    """Where the positives of every query stood among how many, and what was listed first."""

    queries: pd.DataFrame
    """(query,): user_id and the context columns, index 0 to n - 1."""
    standings: Standings
    """(positive,): each positive's query, items above it and items tied with it."""
    item_index: NDArray[np.int64]
    """(positive,): which item it is, a place in `item_ids`."""
    num_candidates: NDArray[np.int64]
    """(query,): items that were ranked, positives included."""
    lists: Lists
    """(query, depth): places in `item_ids` of the first items, best first, padded with -1."""
    item_ids: pd.Index
    """Every item, in the order of the scores' columns."""
    num_items: int
    """Items that could be ranked for somebody: all, or as many as `candidates` named."""

    def frame(self) -> pd.DataFrame:
        """One row a positive: query_index, user_id, the context columns, item_id, rank and num_candidates.

        Of positives with one score, which takes which of the tie's places is the order of the test rows.
        """
        query = self.standings.query
        frame = self.queries.iloc[query].reset_index(drop=True)
        frame.insert(0, "query_index", query)
        kept = {"item_id": self.item_ids[self.item_index], "rank": metrics.places(self.standings)}
        return frame.assign(**kept, num_candidates=self.num_candidates[query])

    def per_query(self, names: Sequence[str]) -> pd.DataFrame:
        """Floats (query, metric), NaN where a query has no value; `names` as of `metrics.metric_named`, or 'auc'."""
        named = {name: metrics.metric_named(name) for name in names if name != "auc"}
        query, above, tied = self.standings
        columns: dict[str, list[np.ndarray]] = {name: [] for name in names}
        for start in range(0, max(len(self.queries), 1), _QUERIES_AT_ONCE):
            candidates = self.num_candidates[start : start + _QUERIES_AT_ONCE]
            part = slice(*np.searchsorted(query, (start, start + _QUERIES_AT_ONCE)))
            standing = Standings(query[part] - start, above[part], tied[part])
            ranks = metrics.padded_ranks(standing, len(candidates))
            for name, values in columns.items():
                is_auc = name == "auc"
                values.append(metrics.auc_of_standings(standing, candidates) if is_auc else named[name](ranks))
        return pd.DataFrame({name: np.concatenate(values) for name, values in columns.items()})

    def per_user(self, names: Sequence[str]) -> pd.DataFrame:
        """Floats (user, metric), index user_id: the mean over a person's queries, of those that have a value."""
        return self.mean_of_queries(self.per_query(names))

    def mean_of_queries(self, values: pd.DataFrame) -> pd.DataFrame:
        """Means over each person's queries of `values`, one row a query; index user_id, in the order of the queries."""
        return pd.DataFrame(values.groupby(self.queries["user_id"], sort=False).mean())

    def of_positives(self, kept: NDArray[np.bool_]) -> Rankings:
        """The rankings with the positives outside `kept`, bool (positive,), taken out, as if they were no candidates.

        They are then neither right nor wrong: whatever stood below one moves up. Queries without positives go.
        """
        query, above, tied = self.standings
        order = np.lexsort((above, query))
        gone = ~kept[order]
        is_first = np.ones(order.size, dtype=bool)
        is_first[1:] = (np.diff(query[order]) != 0) | (np.diff(above[order]) != 0)
        group = np.cumsum(is_first) - 1
        gone_before = np.concatenate(([0], np.cumsum(gone)))  # of all queries; the query's own begin at its first
        first_of_query = np.searchsorted(query, query[order])
        first_of_group = np.flatnonzero(is_first)[group]
        fewer_above, fewer_tied = np.empty_like(above), np.empty_like(tied)
        fewer_above[order] = gone_before[first_of_group] - gone_before[first_of_query]
        fewer_tied[order] = np.bincount(group, weights=gone)[group].astype(np.int64)
        num_gone = np.bincount(query, weights=~kept, minlength=len(self.queries)).astype(np.int64)
        changed = replace(
            self,
            standings=Standings(query[kept], (above - fewer_above)[kept], (tied - fewer_tied)[kept]),
            item_index=self.item_index[kept],
            num_candidates=self.num_candidates - num_gone,
        )
        return changed.of_queries(np.bincount(query[kept], minlength=len(self.queries)) > 0)

    def of_queries(self, kept: NDArray[np.bool_]) -> Rankings:
        """The rankings of some queries only; `kept`: bool (query,)."""
        query, above, tied = self.standings
        rows = kept[query]
        number = np.cumsum(kept) - 1
        return replace(
            self,
            queries=self.queries.loc[kept].reset_index(drop=True),
            standings=Standings(number[query[rows]], above[rows], tied[rows]),
            item_index=self.item_index[rows],
            num_candidates=self.num_candidates[kept],
            lists=self.lists[kept],
        )

    def lists_at(self, k: int) -> Lists:
        """The first `k` items of each query, (query, k). Raises `ConfigError` for more than were kept."""
        if not 1 <= k <= self.lists.shape[1]:
            raise ConfigError(f"k is {k}. Expected 1 to {self.lists.shape[1]}, as many items as are kept of a list.")
        return self.lists[:, :k]
