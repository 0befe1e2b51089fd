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
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

from multimodal_rec import metrics
from multimodal_rec.errors import CatalogueError, ConfigError, SplitError, UnknownIdError

ScoreQueries = Callable[[pd.DataFrame], np.ndarray]
"""Queries (user_id and the context columns, one a row) → scores (query, item), aligned with `item_ids`."""

METRICS: Mapping[str, Callable[[metrics.Ranks], np.ndarray]] = {
    "ndcg@10": lambda ranks: metrics.ndcg(ranks, 10),
    "ndcg@20": lambda ranks: metrics.ndcg(ranks, 20),
    "recall@10": lambda ranks: metrics.recall(ranks, 10),
    "recall@20": lambda ranks: metrics.recall(ranks, 20),
    "hit@10": lambda ranks: metrics.hit_rate(ranks, 10),
    "mrr": metrics.reciprocal_rank,
}
"""Column of an `Evaluation` → how it comes from a query's ranks."""


@dataclass(frozen=True)
class Evaluation:
    """What a scorer reached: one row a person, and how sure one may be of the mean."""

    per_user: pd.DataFrame
    """Index user_id, one float column a metric, each in [0, 1]."""
    num_queries: int
    """Pairs of a person and a context that were ranked."""
    _: KW_ONLY
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Reason → how many test interactions could not be asked for: 'already known' to the person, 'not a candidate'."""

    def means(self) -> dict[str, float]:
        """Metric → mean over people."""
        return {str(name): float(value) for name, value in self.per_user.mean().items()}

    def intervals(self, level: float = 0.95, *, num_resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
        """Columns mean, low, high (index = metric): percentile bootstrap over people at `level`, between 0 and 1."""
        means = _resampled_means(self.per_user.to_numpy(), num_resamples, seed)
        low, high = np.quantile(means, _tails(level), axis=0)
        columns = {"mean": self.per_user.mean(), "low": low, "high": high}
        return pd.DataFrame(columns, index=self.per_user.columns)

    def __str__(self) -> str:
        lines = [f"{len(self.per_user)} people, {self.num_queries} queries", f"{'':<12}  mean   95% interval"]
        lines += [f"{name:<12} {row['mean']:.4f}  {row['low']:.4f} to {row['high']:.4f}" for name, row in self._rows()]
        if self.left_out:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.left_out.items())
            lines.append(f"test interactions left out: {reasons}")
        return "\n".join(lines)

    def _rows(self) -> list[tuple[str, dict[str, float]]]:
        return [(str(name), row.to_dict()) for name, row in self.intervals().iterrows()]


class PairedDifference(NamedTuple):
    """How much a scorer gains over another on the same people: mean, interval, and chance of that much by accident."""

    mean: float
    """Mean over people of the first's value less the second's."""
    low: float
    high: float
    """Ends of the 95% interval, percentile bootstrap."""
    p_value: float
    """Two-sided, in (0, 1]: how often a resampled mean strays from the observed one as far as that lies from 0."""
    num_users: int
    """People both have."""

    def __str__(self) -> str:
        return (
            f"{self.mean:+.4f} ({self.low:+.4f} to {self.high:+.4f}), p = {self.p_value:.3f}, {self.num_users} people"
        )


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
    places = kept["place"].to_numpy()[np.argsort(query_index, kind="stable")]
    positives = np.split(places, np.cumsum(np.bincount(query_index))[:-1])
    values = []
    for start in range(0, len(queries), batch_size):
        batch = queries.iloc[start : start + batch_size].reset_index(drop=True)
        scores = np.asarray(score(batch))
        if scores.shape != (len(batch), len(items)):
            raise ConfigError(
                f"scores have shape {scores.shape}. Expected ({len(batch)}, {len(items)}): a row a query, "
                "a column an item, in the order of item_ids."
            )
        ranked = scores[:, columns].astype(np.result_type(scores.dtype, np.float32))
        seen = sparse.csr_array(known_items[users.get_indexer(pd.Index(batch["user_id"]))]).toarray()
        ranked[seen[:, columns] > 0] = -np.inf
        ranks = metrics.ranks_of_positives(ranked, positives[start : start + batch_size])
        values.append(np.stack([metric(ranks) for metric in METRICS.values()], axis=1))
    per_query = pd.DataFrame(np.concatenate(values), columns=list(METRICS))
    per_user = per_query.groupby(queries["user_id"], sort=False).mean()
    return Evaluation(pd.DataFrame(per_user), len(queries), left_out=dict(+reasons))


def paired_difference(a: Evaluation, b: Evaluation, metric: str = "ndcg@10", *, seed: int = 0) -> PairedDifference:
    """`a` less `b` in `metric` over the people both have, with a 95% interval and a two-sided p-value.

    Paired bootstrap, 10,000 resamples of people: the same person is compared under both, so that what makes some
    people easy for everyone cancels. Raises `ConfigError` for an unknown metric, `SplitError` where nobody is in both.
    """
    for evaluation in (a, b):
        if metric not in evaluation.per_user:
            raise ConfigError(f"metric '{metric}' is unknown. Expected one of {', '.join(evaluation.per_user)}.")
    both = a.per_user.index.intersection(b.per_user.index)
    if both.empty:
        raise SplitError("the two evaluations have nobody in common. Evaluate both on the same test part.")
    difference = np.asarray(a.per_user.loc[both, metric]) - np.asarray(b.per_user.loc[both, metric])
    mean = difference.mean()
    resampled = _resampled_means(difference[:, None], 10_000, seed)[:, 0]
    low, high = np.quantile(resampled, _tails(0.95))
    # Centred at its own mean the bootstrap distribution is that of no difference. The tolerance is for sums whose
    # last bits differ; the 1 + keeps the p-value above 0, which no finite number of resamples can show.
    as_far = np.abs(resampled - mean) >= abs(mean) - 1e-12
    p_value = (1 + as_far.sum()) / (1 + len(resampled))
    return PairedDifference(float(mean), float(low), float(high), float(p_value), len(both))


def _resampled_means(values: np.ndarray, num_resamples: int, seed: int) -> np.ndarray:
    """Means (resample, metric) of `values` (user, metric) over as many people drawn with replacement."""
    rng = np.random.default_rng(seed)
    num_users, num_metrics = values.shape
    at_once = max(1, 1_000_000 // (num_users * num_metrics))
    means = []
    for start in range(0, num_resamples, at_once):
        drawn = rng.integers(0, num_users, (min(at_once, num_resamples - start), num_users))
        means.append(values[drawn].mean(axis=1))
    return np.concatenate(means)


def _tails(level: float) -> tuple[float, float]:
    if not 0 < level < 1:
        raise ConfigError(f"level is {level}. Expected a share between 0 and 1, such as 0.95.")
    return (1 - level) / 2, (1 + level) / 2


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
    return sparse.csr_array(sparse.coo_array(pairs, shape=(len(users) + 1, len(items)))), pd.Index(users)
