"""What the lists that people get are like, whether or not they are right: coverage, novelty, diversity, exposure.

A list is a row of item indices, best first, padded on the right with -1; it holds no item twice. These are pure
functions of lists; those that a single list has (novelty, diversity) give one value a list.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from multimodal_rec.errors import ConfigError

Lists = NDArray[np.int32]
"""(query, depth): item indices, best first, padded on the right with -1."""

_LISTS_AT_ONCE = 1024
"""Lists whose items' content is held in one step; bounds the memory."""


def top_lists(scores: NDArray[np.floating], depth: int) -> Lists:
    """The `depth` best items of each query, int32 (query, depth), best first; -1 where fewer could be ranked.

    `scores`: (query, item), without NaN; -inf is never listed. Items with one score stand in the order of their
    columns: a list must hold some of them, and this choice is repeatable.
    """
    if depth < 1:
        raise ConfigError(f"depth is {depth}. Expected at least 1: a list of no items cannot be judged.")
    num_queries, num_items = scores.shape
    lists = np.full((num_queries, depth), -1, dtype=np.int32)
    length = min(depth, num_items)
    if length == 0:
        return lists
    for query, row in enumerate(scores):
        # Values are partitioned several times faster than indices; the few that reach the last place are then found.
        last = np.partition(row, num_items - length)[num_items - length]
        better = np.flatnonzero(row > last)
        items = np.concatenate((better, np.flatnonzero(row == last)[: length - better.size]))
        items = items[row[items] > -np.inf]
        lists[query, : items.size] = items[np.argsort(-row[items], kind="stable")]
    return lists


def coverage(lists: Lists, num_items: int) -> float:
    """Share of the `num_items` of the catalogue that are in anybody's list, in [0, 1].

    It grows with the number of lists: compare it between scorers on the same queries only.
    """
    return np.unique(lists[lists >= 0]).size / num_items


def gini(lists: Lists, num_items: int) -> float:
    """Inequality of exposure, in [0, 1): 0 where all `num_items` are in equally many lists, near 1 where few have all.

    Gini coefficient of the number of lists that an item is in; items in none count. NaN where all lists are empty.
    """
    counts = np.sort(np.bincount(lists[lists >= 0], minlength=1))
    counts = counts[counts > 0]
    if not counts.size:
        return float("nan")
    # Of all n counts in ascending order, Σ (2i - n - 1) x_i / (n Σ x); items in no list come first and add nothing.
    place = np.arange(num_items - counts.size + 1, num_items + 1)
    return float(((2 * place - num_items - 1) * counts).sum() / (num_items * counts.sum()))


def novelty(lists: Lists, num_takers: ArrayLike, num_people: int) -> NDArray[np.float64]:
    """Mean self-information of a list's items in bits, (query,), at least 0: -log2 of the share who took an item.

    `num_takers`: (item,), distinct people who are known to have taken each; of `num_people`. An item that nobody took
    counts as if one person had, the most novel that these people can show; without that it would be infinite. NaN
    for an empty list. Source: Zhou et al., "Solving the apparent diversity-accuracy dilemma" (2010).
    """
    share = np.maximum(np.asarray(num_takers, dtype=np.float64), 1) / max(num_people, 1)
    listed = lists >= 0
    bits = np.where(listed, -np.log2(share)[np.maximum(lists, 0)], 0.0).sum(axis=1)
    length = listed.sum(axis=1)
    return np.where(length > 0, bits / np.maximum(length, 1), np.nan)


def intra_list_diversity(lists: Lists, content: NDArray[np.floating]) -> NDArray[np.float64]:
    """Mean of 1 - cosine over all pairs of a list's items, (query,), in [0, 2]; 0 is one thing over and over.

    `content`: (item, dim), any length; rows of zeros have no content and are left out of their lists. NaN where fewer
    than two items with content are left. Source: Ziegler et al., "Improving recommendation lists through topic
    diversification" (2005), as a mean of distances.
    """
    diversity = np.empty(len(lists))
    for start in range(0, len(lists), _LISTS_AT_ONCE):
        batch = lists[start : start + _LISTS_AT_ONCE]
        # float64: in a list of equals, 1 - cosine is a difference of nearly equal numbers.
        unit = content[np.maximum(batch, 0)].astype(np.float64)
        length = np.linalg.norm(unit, axis=2, keepdims=True)
        there = (length[:, :, 0] > 0) & (batch >= 0)
        unit = np.where(there[:, :, None], unit / np.where(length > 0, length, 1), 0.0)
        count = there.sum(axis=1)
        # |Σ u|² is the sum of the cosines of all ordered pairs, each item with itself (1) included.
        cosines = (unit.sum(axis=1) ** 2).sum(axis=1) - count
        pairs = count * (count - 1)
        diversity[start : start + len(batch)] = np.where(pairs > 0, 1 - cosines / np.maximum(pairs, 1), np.nan)
    return diversity
