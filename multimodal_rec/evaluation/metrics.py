"""How good rankings are, as pure functions of ranks; every metric gives one value a query.

Relevance is binary throughout: an item was taken or it was not. The functions of ranks take what
`ranks_of_positives` gives, so that scores are compared once and every metric and cutoff is then arithmetic.
Metrics of whole lists (coverage, novelty, diversity, exposure) are in `list_metrics`, those of single judgements
(AUC of clicks, log loss, RMSE) in `judgements`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from multimodal_rec.errors import ConfigError

Ranks = NDArray[np.float64]
"""(query, positive): 1-based ranks of each query's positives, ascending, padded on the right with inf."""

_LONG_ROW = 10_000
_FEW = 20
"""Items from which, and positives up to which, comparing a row with each positive beats sorting it (measured)."""


class Standings(NamedTuple):
    """Where positives stand, one entry a positive, queries in order: all that ranks and metrics are made of."""

    query: NDArray[np.int64]
    """(positive,): row of the scores, ascending."""
    above: NDArray[np.int64]
    """(positive,): items that score higher, positive or not."""
    tied: NDArray[np.int64]
    """(positive,): items that score the same, itself included."""


def standings(
    scores: NDArray[np.floating], positives: Sequence[ArrayLike], *, num_candidates: ArrayLike | None = None
) -> Standings:
    """How many items score above, and how many like, each positive; arguments as of `ranks_of_positives`.

    Raises `ConfigError` where a score is NaN, or where shapes disagree.
    """
    if scores.ndim != 2 or len(positives) != scores.shape[0]:
        raise ConfigError(
            f"scores of shape {scores.shape} do not go with positives of {len(positives)} queries. "
            "Expected scores of shape (query, item) and one list of item indices a query."
        )
    # The maximum of a row that holds a NaN is NaN: no (query, item) of flags is needed to find one.
    broken = np.isnan(scores.max(axis=1)).sum() if scores.size else 0
    if broken:
        raise ConfigError(
            f"{broken} queries have a score that is NaN. Expected numbers, or -inf for an item that may not be ranked."
        )
    rows = [np.asarray(items, dtype=np.int64) for items in positives]
    counts = np.array([row.size for row in rows], dtype=np.int64)
    query = np.repeat(np.arange(len(rows)), counts)
    above, tied = np.empty(query.size, dtype=np.int64), np.empty(query.size, dtype=np.int64)
    end = 0
    for row, items in enumerate(rows):
        if not items.size:
            continue
        if items.min() < 0 or items.max() >= scores.shape[1]:
            raise ConfigError(f"positives name item {items.max()}; the scores have items 0 to {scores.shape[1] - 1}.")
        part = slice(end, end + items.size)
        above[part], tied[part] = _above_and_tied(scores[row], scores[row, items])
        end += items.size
        if num_candidates is not None:
            # What is -inf but no candidate is not there to tie with.
            last = np.flatnonzero(scores[row, items] == -np.inf) + part.start
            tied[last] = np.asarray(num_candidates)[row] - above[last]
    return Standings(query, above, tied)


def _above_and_tied(row: NDArray[np.floating], thresholds: NDArray[np.floating]) -> tuple[ArrayLike, ArrayLike]:
    if row.size >= _LONG_ROW and thresholds.size <= _FEW:
        above = [np.count_nonzero(row > threshold) for threshold in thresholds]
        return above, [np.count_nonzero(row == threshold) for threshold in thresholds]
    ordered = np.sort(row)
    first, last = (np.searchsorted(ordered, thresholds, side) for side in ("left", "right"))
    return row.size - last, last - first


def places(standing: Standings) -> NDArray[np.int64]:
    """Rank (positive,) of each positive, 1 the best, whole and distinct within a query; ties as `ranks_of_positives`.

    Positives of one query with one score take that tie's places in the order in which they are given.
    """
    order, start, size = _ties(standing)
    turn = np.arange(order.size) - start + 1
    rank = np.empty(order.size, dtype=np.int64)
    # In whole numbers: -(-a // b) is the ceiling.
    rank[order] = standing.above[order] - (-turn * (standing.tied[order] + 1) // (size + 1))
    return rank


def _ties(standing: Standings) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    # Positives sorted by query and score; of each its tie group's first place in that order, and the group's size.
    # Positives of one query with one number of items above them are the positives of one tie group.
    order = np.lexsort((standing.above, standing.query))
    is_first = np.ones(order.size, dtype=bool)
    is_first[1:] = (np.diff(standing.query[order]) != 0) | (np.diff(standing.above[order]) != 0)
    group = np.cumsum(is_first) - 1
    return order, np.flatnonzero(is_first)[group], np.bincount(group)[group]


def padded_ranks(standing: Standings, num_queries: int) -> Ranks:
    """Ranks (query, positive) of `num_queries` queries, ascending and padded with inf."""
    rank = places(standing)
    counts = np.bincount(standing.query, minlength=num_queries)
    ranks = np.full((num_queries, int(counts.max(initial=0))), np.inf)
    order = np.lexsort((rank, standing.query))
    query = standing.query[order]
    ranks[query, np.arange(query.size) - np.repeat(np.cumsum(counts) - counts, counts)] = rank[order]
    return ranks


def ranks_of_positives(
    scores: NDArray[np.floating], positives: Sequence[ArrayLike], *, num_candidates: ArrayLike | None = None
) -> Ranks:
    """Ranks (query, positive) of each query's positives: 1 is the best, padded on the right with inf.

    `scores`: (query, item), higher is better; -inf marks items that may not be ranked (already known, or filtered
    out), and is a tie of its own at the end. `positives`: for each query the distinct item indices that were taken.
    `num_candidates`: (query,), how many items of each row could be ranked, so that a positive with -inf ties with
    those candidates only that have -inf too; None where every item of a row is a candidate.

    Ties: of g items with one score, p of them positive, the positives take the expected places of a random order,
    rounded up: the j-th stands ceil(j (g + 1) / (p + 1)) into the group. Equal scores thus get no luck from the order
    of the items, ranks stay whole and distinct, and a scorer that cannot tell any item from another is not rewarded.

    Raises `ConfigError` where a score is NaN, or where shapes disagree.
    """
    return padded_ranks(standings(scores, positives, num_candidates=num_candidates), len(positives))


def ndcg(ranks: Ranks, k: int) -> NDArray[np.float64]:
    """Normalised discounted cumulative gain at `k`, (query,), in [0, 1]; NaN for a query without positives.

    DCG = Σ 1 / log2(rank + 1) over positives of rank at most k; the ideal is that of min(k, number of positives)
    positives at the top. Source: Järvelin and Kekäläinen (2002) with binary gain, the definition that most
    recommender libraries share.
    """
    _check_cutoff(k)
    gain = np.where(ranks <= k, 1 / np.log2(ranks + 1), 0.0).sum(axis=1)
    ideal = np.concatenate(([np.nan], np.cumsum(1 / np.log2(np.arange(2, k + 2)))))
    return gain / ideal[np.minimum(_num_positives(ranks), k)]


def recall(ranks: Ranks, k: int) -> NDArray[np.float64]:
    """Share of a query's positives among its first `k`, (query,), in [0, 1]; NaN for a query without positives."""
    _check_cutoff(k)
    num_positives = _num_positives(ranks)
    return (ranks <= k).sum(axis=1) / np.where(num_positives == 0, np.nan, num_positives)


def precision(ranks: Ranks, k: int) -> NDArray[np.float64]:
    """Share of a query's first `k` that are positives, (query,), in [0, 1]; NaN for a query without positives.

    The denominator is k even where fewer items could be ranked.
    """
    _check_cutoff(k)
    return np.where(_num_positives(ranks) == 0, np.nan, (ranks <= k).sum(axis=1) / k)


def f1(ranks: Ranks, k: int) -> NDArray[np.float64]:
    """Harmonic mean of `precision` and `recall` at `k`, (query,), in [0, 1]; NaN for a query without positives.

    2 · hits / (k + number of positives), which is 0 where nothing was hit.
    """
    _check_cutoff(k)
    num_positives = _num_positives(ranks)
    return np.where(num_positives == 0, np.nan, 2 * (ranks <= k).sum(axis=1) / (k + num_positives))


def hit_rate(ranks: Ranks, k: int) -> NDArray[np.float64]:
    """1.0 where any positive is among a query's first `k`, else 0.0, (query,); NaN for a query without positives."""
    _check_cutoff(k)
    return np.where(_num_positives(ranks) == 0, np.nan, (ranks <= k).any(axis=1))


def average_precision(ranks: Ranks, k: int) -> NDArray[np.float64]:
    """Mean over the positives of the precision down to each, (query,), in [0, 1]; its mean over queries is MAP.

    Σ j / rank of the j-th best positive, over those of rank at most `k`, divided by min(number of positives, k): the
    most that `k` places can hold, so that a perfect list has 1. (Others divide by all positives, or by the hits.)
    NaN for a query without positives.
    """
    _check_cutoff(k)
    num_positives = _num_positives(ranks)
    reached = np.where(ranks <= k, np.arange(1, ranks.shape[1] + 1) / ranks, 0.0).sum(axis=1)
    return reached / np.where(num_positives == 0, np.nan, np.minimum(num_positives, k))


def reciprocal_rank(ranks: Ranks, k: int | None = None) -> NDArray[np.float64]:
    """1 / rank of a query's best positive, (query,), in [0, 1]; its mean is MRR. NaN for a query without positives.

    0 where the best positive stands below `k`; None ranks to the end.
    """
    if k is not None:
        _check_cutoff(k)
    best = ranks.min(axis=1, initial=np.inf)
    value = np.where(np.isfinite(best), 1 / best, np.nan)
    return value if k is None else np.where(np.isfinite(best) & (best > k), 0.0, value)


def auc_of_standings(standing: Standings, num_candidates: ArrayLike) -> NDArray[np.float64]:
    """Chance that a query's positive scores above a negative candidate, (query,), in [0, 1]; a tie counts half.

    `num_candidates`: (query,), items that were ranked, positives included. It reads standings and not ranks, because
    ranks are whole: rounding a tie's places would give a scorer that cannot tell items apart less than .5. NaN where
    a query has no positive, or nothing else.
    """
    candidates = np.asarray(num_candidates, dtype=np.int64)
    order, start, size = _ties(standing)
    query = standing.query[order]
    num_positives = np.bincount(query, minlength=candidates.size)
    # In that order, the positives above one are those of its query before its tie group.
    positives_above = start - (np.cumsum(num_positives) - num_positives)[query]
    lost = (standing.above[order] - positives_above) + (standing.tied[order] - size) / 2
    pairs = num_positives * (candidates - num_positives)
    share = np.bincount(query, weights=lost, minlength=candidates.size) / np.where(pairs > 0, pairs, 1)
    return np.where(pairs > 0, 1 - share, np.nan)


_CUT: Mapping[str, Callable[[Ranks, int], NDArray[np.float64]]] = {
    "ndcg": ndcg,
    "recall": recall,
    "precision": precision,
    "f1": f1,
    "hit": hit_rate,
    "map": average_precision,
    "mrr": reciprocal_rank,
}


def metric_named(name: str) -> Callable[[Ranks], NDArray[np.float64]]:
    """The metric of a name such as 'ndcg@10' or 'mrr', as a function of ranks.

    Before the @: ndcg, recall, precision, f1, hit, map or mrr; behind it any cutoff. 'mrr' alone ranks to the end.
    Raises `ConfigError` for any other name.
    """
    family, at, cutoff = name.partition("@")
    if name == "mrr":
        return reciprocal_rank
    if family in _CUT and at and cutoff.isdecimal() and int(cutoff) >= 1:
        metric, k = _CUT[family], int(cutoff)
        return lambda ranks: metric(ranks, k)
    raise ConfigError(
        f"metric '{name}' is unknown. Expected mrr, auc, or one of {', '.join(_CUT)} with a cutoff, such as ndcg@10."
    )


def _num_positives(ranks: Ranks) -> NDArray[np.int64]:
    return np.isfinite(ranks).sum(axis=1)


def _check_cutoff(k: int) -> None:
    if k < 1:
        raise ConfigError(f"k is {k}. Expected at least 1: a list of no items cannot be judged.")
