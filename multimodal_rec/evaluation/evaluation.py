"""How well a scorer ranks what people took next, in the situation they took it in, with an interval around it.

A *query* is a person in a context: test interactions are grouped by user_id and the context columns. Its positives
are the items taken there; what the person was already known to have taken is not ranked. Every other item is: there
are no sampled negatives. A person's value is the mean over the person's queries, and people are what is averaged,
resampled and compared. Without context columns this is the usual ranking, one query a person.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field

import numpy as np
import pandas as pd
from scipy import sparse

from multimodal_rec.errors import CatalogueError, ConfigError, SplitError, UnknownIdError
from multimodal_rec.evaluation import list_metrics, metrics, segments
from multimodal_rec.evaluation.rankings import Rankings
from multimodal_rec.evaluation.significance import intervals

ScoreQueries = Callable[[pd.DataFrame], np.ndarray]
"""Queries (user_id and the context columns, one a row) → scores (query, item), aligned with `item_ids`."""

METRICS = (
    "ndcg@10", "ndcg@20", "recall@10", "recall@20", "precision@10", "f1@10", "hit@10", "map@10", "mrr", "auc"
)  # fmt: skip
"""Columns of an evaluation; `Evaluation.values` gives any other cutoff."""

LIST_DEPTH = 20
"""Items that are kept of each query's list: the deepest cutoff of `METRICS`."""

_SHOWN = ("ndcg@10", "ndcg@20", "recall@10", "recall@20", "hit@10", "mrr")
_CELLS_AT_ONCE = 1 << 22
"""Scores that are masked and compared in one step, 16 MB of float32; a copy, for the caller's are left alone."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a scorer reached: one row a person, and how sure one may be of the mean."""

    per_user: pd.DataFrame
    """Index user_id, one float column a metric, each in [0, 1]; NaN for an AUC of somebody who took all there is."""
    num_queries: int
    """Pairs of a person and a context that were ranked."""
    _: KW_ONLY
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Reason → how many test interactions could not be asked for: 'already known' to the person, 'not a candidate'."""
    rankings: Rankings | None = None
    """Where each positive stood, and each query's first `LIST_DEPTH` items; None where only the values were kept."""

    def means(self) -> dict[str, float]:
        """Metric → mean over people."""
        return {str(name): float(value) for name, value in self.per_user.mean().items()}

    def intervals(self, level: float = 0.95, *, num_resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
        """Columns mean, low, high (index = metric): percentile bootstrap over people at `level`, between 0 and 1."""
        return intervals(self.per_user, level, num_resamples=num_resamples, seed=seed)

    def values(self, metric: str) -> pd.Series:
        """One value a person of any metric: ndcg, recall, precision, f1, hit, map or mrr at any cutoff, mrr, auc.

        Raises `ConfigError` for another name, or where it is not in `per_user` and no rankings were kept.
        """
        if metric in self.per_user:
            return pd.Series(self.per_user[metric])
        return pd.Series(self._kept().per_user([metric])[metric])

    def by_item(self, labels: Mapping[str, str], metric: str = "ndcg@10") -> pd.DataFrame:
        """`metric` for the positives of each label: people, queries, positives, mean, low, high (index = label).

        `labels`: item id → label, of every item that is a positive ('hot', 'warm', 'cold' from
        `segments.popularity_labels`; 'with picture', 'without'; a category). A query's positives of other labels are
        neither right nor wrong: they are taken out of its ranking. All other items stay: this asks whether a cold
        item is found among everything. Intervals at 95%, over people. Raises `UnknownIdError` for an item without
        a label.
        """
        return segments.by_item(self._kept(), labels, metric)

    def by_person(self, labels: Mapping[str, str], metric: str = "ndcg@10") -> pd.DataFrame:
        """`metric` for the people of each label; columns as of `by_item`. `labels`: user id → label."""
        return segments.by_person(self._kept(), labels, metric)

    def by_context(self, column: str, metric: str = "ndcg@10") -> pd.DataFrame:
        """`metric` for the queries of each value of a context column, an absent one included; columns as of `by_item`.

        A person counts for every value in which they were asked. Raises `ConfigError` for a column that the queries
        do not have.
        """
        return segments.by_context(self._kept(), column, metric)

    def list_metrics(
        self, k: int = 10, *, known: pd.DataFrame | None = None, content: np.ndarray | None = None
    ) -> pd.DataFrame:
        """What the lists of `k` items are like, right or wrong: columns mean, low, high (index = metric).

        `coverage@k` and `gini@k` are over the candidates and belong to all lists together, so that they have no
        interval (NaN). `novelty@k`, in bits, is there with `known` (user_id, item_id), from how many people took what;
        `diversity@k` with `content`, float (item, dim) in the order of the scores' columns, zeros where an item has
        none. Both are means over people. Definitions in `list_metrics`. Raises `ConfigError` for a `k` above
        `LIST_DEPTH`, or content of another number of items; `UnknownIdError` for a known item nobody could rank.
        """
        rankings = self._kept()
        lists, items = rankings.lists_at(k), rankings.item_ids
        per_query = pd.DataFrame(index=rankings.queries.index)
        if known is not None:
            known_items, users = _known_items(known, items)
            num_takers = np.bincount(known_items.indices, minlength=len(items))
            per_query[f"novelty@{k}"] = list_metrics.novelty(lists, num_takers, len(users))
        if content is not None:
            if content.ndim != 2 or len(content) != len(items):
                raise ConfigError(f"content has shape {content.shape}. Expected ({len(items)}, dim): a row an item.")
            per_query[f"diversity@{k}"] = list_metrics.intra_list_diversity(lists, content)
        whole = {
            f"coverage@{k}": list_metrics.coverage(lists, rankings.num_items),
            f"gini@{k}": list_metrics.gini(lists, rankings.num_items),
        }
        table = pd.DataFrame({"mean": whole}, columns=["mean", "low", "high"], dtype=float)
        if per_query.empty:
            return table
        return pd.concat([table, intervals(rankings.mean_of_queries(per_query))])

    def _kept(self) -> Rankings:
        if self.rankings is None:
            raise ConfigError("this evaluation keeps only values a person. Expected one that evaluate_ranking gave.")
        return self.rankings

    def __str__(self) -> str:
        lines = [f"{len(self.per_user)} people, {self.num_queries} queries", f"{'':<12}  mean   95% interval"]
        lines += [f"{name:<12} {row['mean']:.4f}  {row['low']:.4f} to {row['high']:.4f}" for name, row in self._rows()]
        if self.left_out:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.left_out.items())
            lines.append(f"test interactions left out: {reasons}")
        return "\n".join(lines)

    def _rows(self) -> list[tuple[str, dict[str, float]]]:
        shown = [name for name in _SHOWN if name in self.per_user] or list(self.per_user)
        return [(str(name), row.to_dict()) for name, row in intervals(pd.DataFrame(self.per_user[shown])).iterrows()]


def evaluate_ranking(
    score: ScoreQueries,
    test: pd.DataFrame,
    *,
    known: pd.DataFrame,
    item_ids: Sequence[str],
    context_columns: Sequence[str] = (),
    candidates: Collection[str] | None = None,
    batch_size: int = 512,
) -> Evaluation:
    """Rank all items for every query of `test` and judge where the taken ones stand.

    - `score`: queries → (query, item) in the order of `item_ids`; higher is better, -inf never ranked, NaN an error.
      It is called with at most `batch_size` queries, which bounds the memory.
    - `test`: interactions to predict, with user_id, item_id and the context columns. Events that mean dislike are
      the caller's to drop beforehand.
    - `known`: interactions (user_id, item_id) that whoever recommends has seen, train and valid; a person's known
      items are not ranked for that person, and count as no positive if taken again.
    - `context_columns`: what besides the person makes a query.
    - `candidates`: rank only these items (late items among late items); queries that took none of them are left out.

    Raises `CatalogueError` for a column that is absent, `UnknownIdError` for an item outside `item_ids`,
    `SplitError` where no query is left, `ConfigError` where the scores' shape is wrong or one is NaN.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}. Expected at least 1.")
    key = ["user_id", *context_columns]
    _check_columns(test, [*key, "item_id"], "test")
    _check_columns(known, ["user_id", "item_id"], "known")
    items = pd.Index(item_ids)
    known_items, users = _known_items(known, items)

    taken = test[[*key, "item_id"]].drop_duplicates()
    taken_item = _item_index(np.asarray(taken["item_id"]), items, "the test interactions")
    columns = np.arange(len(items))
    if candidates is not None:
        columns = np.sort(_item_index(np.array(sorted(set(candidates)), dtype=object), items, "candidates"))
    place = np.full(len(items), -1)
    place[columns] = np.arange(len(columns))
    # One number a pair of person and item; a stranger's index is -1, which makes it negative and never found.
    known_user, known_item = known_items.nonzero()
    taken_user = users.get_indexer(pd.Index(taken["user_id"]))
    is_known = np.isin(taken_user * len(items) + taken_item, known_user.astype(np.int64) * len(items) + known_item)
    is_candidate = place[taken_item] >= 0
    reasons = Counter({"already known": int(is_known.sum()), "not a candidate": int((~is_known & ~is_candidate).sum())})
    kept = taken.assign(place=place[taken_item]).loc[~is_known & is_candidate]
    if kept.empty:
        raise SplitError(
            f"none of {len(taken)} test interactions can be ranked: {dict(+reasons) or 'the test part is empty'}. "
            "Check that the split leaves people with items they have not taken before."
        )

    query_index = kept.groupby(key, sort=False, dropna=False).ngroup().to_numpy()
    queries = kept[key].drop_duplicates().reset_index(drop=True)
    kept_places = kept["place"].to_numpy()[np.argsort(query_index, kind="stable")]
    positives = np.split(kept_places, np.cumsum(np.bincount(query_index))[:-1])
    judge = _Judge(known_items, positives, users.get_indexer(pd.Index(queries["user_id"])), columns)
    for start in range(0, len(queries), batch_size):
        batch = queries.iloc[start : start + batch_size].reset_index(drop=True)
        # Scores are held by nobody here, so that two batches of them are never in memory at once.
        judge.take(np.asarray(score(batch)), start, (len(batch), len(items)))
    rankings = Rankings(
        queries=queries,
        standings=judge.standings(),
        item_index=columns[kept_places],
        num_candidates=judge.num_candidates,
        lists=judge.lists(),
        item_ids=items,
        num_items=len(columns),
    )
    return Evaluation(rankings.per_user(METRICS), len(queries), left_out=dict(+reasons), rankings=rankings)


class _Judge:
    """Keeps of the scores of some queries at a time where the positives stand, and the first items."""

    def __init__(
        self, known: sparse.csr_array, positives: Sequence[np.ndarray], user_index: np.ndarray, columns: np.ndarray
    ) -> None:
        # `known`: (user, item), its last row empty; `positives` (places in `columns`) and `user_index`: one a query;
        # `columns`: the items that are candidates, ascending.
        self._known, self._columns = sparse.csr_array(known[:, columns]), columns
        self._positives, self._user_index = positives, user_index
        num_known = np.diff(self._known.indptr)[user_index]
        self.num_candidates: np.ndarray = (len(columns) - num_known).astype(np.int64)
        self._standings: list[metrics.Standings] = []
        self._lists: list[np.ndarray] = []

    def take(self, scores: np.ndarray, start: int, shape: tuple[int, int]) -> None:
        """Judge `scores` (query, item), expected in `shape`, of the queries from `start`."""
        if scores.shape != shape:
            raise ConfigError(
                f"scores have shape {scores.shape}. Expected {shape}: a row a query, "
                "a column an item, in the order of item_ids."
            )
        at_once = max(1, _CELLS_AT_ONCE // shape[1])
        for first in range(0, len(scores), at_once):
            part = scores[first : first + at_once]
            self._take(part if shape[1] == len(self._columns) else part[:, self._columns], start + first)

    def _take(self, scores: np.ndarray, start: int) -> None:
        queries = slice(start, start + len(scores))
        ranked = np.array(scores, dtype=np.result_type(scores.dtype, np.float32))
        seen = sparse.csr_array(self._known[self._user_index[queries]])
        ranked[np.repeat(np.arange(len(ranked)), np.diff(seen.indptr)), seen.indices] = -np.inf
        positives, num_candidates = self._positives[queries], self.num_candidates[queries]
        standing = metrics.standings(ranked, positives, num_candidates=num_candidates)
        self._standings.append(standing._replace(query=standing.query + start))
        self._lists.append(list_metrics.top_lists(ranked, LIST_DEPTH))

    def standings(self) -> metrics.Standings:
        return metrics.Standings(*(np.concatenate(part) for part in zip(*self._standings, strict=True)))

    def lists(self) -> np.ndarray:
        """The lists, int32 (query, depth), as places among all items."""
        lists = np.concatenate(self._lists)
        return np.where(lists >= 0, self._columns[lists], -1).astype(np.int32)


def _check_columns(frame: pd.DataFrame, names: Sequence[str], what: str) -> None:
    missing = [name for name in names if name not in frame]
    if missing:
        raise CatalogueError(
            f"the {what} interactions have no column {', '.join(map(repr, missing))}; they have "
            f"{', '.join(map(repr, frame.columns))}. Declare it in catalogue.toml or leave it out of context_columns."
        )


def _item_index(ids: np.ndarray, items: pd.Index, what: str) -> np.ndarray:
    index = items.get_indexer(pd.Index(ids))
    if (index < 0).any():
        unknown = ids[index < 0]
        raise UnknownIdError(
            f"{len(set(unknown))} items of {what} are not among the {len(items)} item_ids, "
            f"such as '{unknown[0]}'. Pass every item of the catalogue."
        )
    return index


def _known_items(known: pd.DataFrame, items: pd.Index) -> tuple[sparse.csr_array, pd.Index]:
    """Matrix (user, item), above 0 where known, and the users of its rows; a last row is empty, for strangers."""
    user_index, users = pd.factorize(known["user_id"])
    item_index = _item_index(np.asarray(known["item_id"]), items, "the known interactions")
    pairs = (np.ones(len(item_index), dtype=np.float32), (user_index, item_index))
    known_items = sparse.csr_array(sparse.coo_array(pairs, shape=(len(users) + 1, len(items))))
    known_items.sum_duplicates()  # a known item is one candidate less, however often it was taken
    return known_items, pd.Index(users)
