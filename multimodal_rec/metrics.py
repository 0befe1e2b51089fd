"""How good rankings are, as pure functions of ranks or scores; every ranking metric gives one value a query.

Relevance is binary throughout: an item was taken or it was not. The functions of ranks take what
`ranks_of_positives` gives, so that scores are compared once and every metric and cutoff is then arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from multimodal_rec.errors import ConfigError

Ranks = NDArray[np.float64]
"""(query, positive): 1-based ranks of each query's positives, ascending, padded on the right with inf."""

_PAIRS_AT_ONCE = 256
"""Positives whose whole row of scores is compared in one step; bounds the memory by this many rows."""


def ranks_of_positives(scores: NDArray[np.floating], positives: Sequence[ArrayLike]) -> Ranks:
    """Ranks (query, positive) of each query's positives: 1 is the best, padded on the right with inf.

    `scores`: (query, item), higher is better; -inf marks items that may not be ranked (already known, or filtered
    out), and is a tie of its own at the end. `positives`: for each query the distinct item indices that were taken.

    Ties: of g items with one score, p of them positive, the positives take the expected places of a random order,
    rounded up: the j-th stands ceil(j (g + 1) / (p + 1)) into the group. Equal scores thus get no luck from the order
    of the items, ranks stay whole and distinct, and a scorer that cannot tell any item from another is not rewarded.

    Raises `ConfigError` where a score is NaN, or where shapes disagree.
    """
    if scores.ndim != 2 or len(positives) != scores.shape[0]:
        raise ConfigError(
            f"scores of shape {scores.shape} do not go with positives of {len(positives)} queries. "
            "Expected scores of shape (query, item) and one list of item indices a query."
        )
    if np.isnan(scores).any():
        raise ConfigError(
            f"{int(np.isnan(scores).any(axis=1).sum())} queries have a score that is NaN. "
            "Expected numbers, or -inf for an item that may not be ranked."
        )
    rows = [np.asarray(items, dtype=np.int64) for items in positives]
    counts = np.array([row.size for row in rows], dtype=np.int64)
    ranks = np.full((len(rows), int(counts.max(initial=0))), np.inf)
    if ranks.size == 0:
        return ranks
    query, item = np.repeat(np.arange(len(rows)), counts), np.concatenate(rows)
    if item.min() < 0 or item.max() >= scores.shape[1]:
        raise ConfigError(f"positives name item {item.max()}; the scores have items 0 to {scores.shape[1] - 1}.")
    threshold = scores[query, item]
    above, tied = np.empty(item.size, dtype=np.int64), np.empty(item.size, dtype=np.int64)
    for start in range(0, item.size, _PAIRS_AT_ONCE):
        pairs = slice(start, start + _PAIRS_AT_ONCE)
        compared = scores[query[pairs]]
        above[pairs] = (compared > threshold[pairs, None]).sum(axis=1)
        tied[pairs] = (compared == threshold[pairs, None]).sum(axis=1)

    # Positives of one query with one number of items above them are the positives of one tie group.
    order = np.lexsort((above, query))
    query, above, tied = query[order], above[order], tied[order]
    starts = np.concatenate(([True], (np.diff(query) != 0) | (np.diff(above) != 0)))
    group = np.cumsum(starts) - 1
    group_size = np.bincount(group)
    place = np.arange(group.size) - np.flatnonzero(starts)[group] + 1
    # In whole numbers: -(-a // b) is the ceiling.
    flat = above - (-place * (tied + 1) // (group_size[group] + 1))
    column = np.arange(query.size) - np.repeat(np.cumsum(counts) - counts, counts)
    ranks[query, column] = flat
    return ranks


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


def hit_rate(ranks: Ranks, k: int) -> NDArray[np.float64]:
    """1.0 where any positive is among a query's first `k`, else 0.0, (query,); NaN for a query without positives."""
    _check_cutoff(k)
    return np.where(_num_positives(ranks) == 0, np.nan, (ranks <= k).any(axis=1))


def reciprocal_rank(ranks: Ranks) -> NDArray[np.float64]:
    """1 / rank of a query's best positive, (query,), in (0, 1]; its mean is MRR. NaN for a query without positives."""
    best = ranks.min(axis=1, initial=np.inf)
    return np.where(np.isfinite(best), 1 / best, np.nan)


def auc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Chance that a positive scores above a negative, a tie counting half; in [0, 1], .5 is no better than a coin.

    `scores` and `labels`: (pair,), labels bool or 0 and 1. Also known as the Mann-Whitney U statistic over the number
    of pairs. NaN where either class is absent, for then nothing can be compared.

    Raises `ConfigError` where shapes disagree, a label is neither 0 nor 1, or a score is NaN.
    """
    score, label = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if score.shape != label.shape or score.ndim != 1:
        raise ConfigError(f"scores of shape {score.shape} and labels of shape {label.shape}. Expected two of (pair,).")
    if not np.isin(label, (0, 1)).all():
        raise ConfigError("labels hold something other than 0 and 1. Turn events or ratings into liked or not first.")
    if np.isnan(score).any():
        raise ConfigError(f"{int(np.isnan(score).sum())} of {score.size} scores are NaN. Drop those pairs and say so.")
    positive = label.astype(bool)
    num_positive, num_negative = int(positive.sum()), int((~positive).sum())
    if num_positive == 0 or num_negative == 0:
        return float("nan")
    rank_sum = rankdata(score)[positive].sum()
    return float((rank_sum - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative))


def _num_positives(ranks: Ranks) -> NDArray[np.int64]:
    return np.isfinite(ranks).sum(axis=1)


def _check_cutoff(k: int) -> None:
    if k < 1:
        raise ConfigError(f"k is {k}. Expected at least 1: a list of no items cannot be judged.")
