"""What an approximate search misses: the exact answer, made block by block, and the share of it that was found."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

# Scores of one block, float32 (query, item), in bytes.
_BLOCK_BYTES = 64 * 2**20
# Items whose neighbours are compared.
_SAMPLED = 500


def exact_rows(embeddings: np.ndarray, queries: np.ndarray, k: int, *, allowed: np.ndarray | None = None) -> np.ndarray:
    """The k rows of the highest inner products a query, int64 (query, k), in no order; k at most what is allowed.

    `embeddings`: float32 (item, dim); `queries`: float32 (query, dim); `allowed`: bool (item,), None = all.
    """
    rows = np.arange(len(embeddings)) if allowed is None else np.flatnonzero(allowed)
    k = min(k, len(rows))
    found = np.zeros((len(queries), k), dtype=np.int64)
    for part in _blocks(len(queries), len(embeddings)):
        scores = queries[part] @ embeddings.T
        chosen = scores if allowed is None else scores[:, rows]
        found[part] = rows[np.argpartition(-chosen, k - 1, axis=1)[:, :k]] if k else 0
    return found


def recall(found: np.ndarray, truth: np.ndarray) -> float:
    """The share of the true rows that were found, 0 to 1: int (query, any) against int (query, k).

    1 where there is nothing to find.
    """
    hits = sum(len(np.intersect1d(ours, exact)) for ours, exact in zip(found, truth, strict=True))
    return hits / truth.size if truth.size else 1.0


def mixed_queries(embeddings: np.ndarray, count: int, *, seed: int) -> np.ndarray:
    """Queries to try an index with where nobody is known, float32 (count, dim): each asks for two items at once.

    An item's own embedding as the query would be too kind: all that it looks for lies in one place.
    """
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, len(embeddings), size=(2, count))
    share = rng.uniform(0.5, 1.0, size=(count, 1)).astype(np.float32)
    return share * embeddings[first] + (1 - share) * embeddings[second]


def neighbour_recall(embeddings: np.ndarray, others: np.ndarray, k: int) -> float:
    """The share of an item's k nearest by cosine in one space that are its k nearest in another, 0 to 1.

    `embeddings`: float32 (item, dim), which say what is right; `others`: float32 (item, any). Over at most 500 items.
    """
    asked = np.linspace(0, len(embeddings) - 1, num=min(_SAMPLED, len(embeddings))).astype(np.int64)
    first, second = (_nearest(_unit(space), asked, min(k, len(embeddings) - 1)) for space in (embeddings, others))
    return recall(second, first)


def _nearest(unit: np.ndarray, asked: np.ndarray, k: int) -> np.ndarray:
    found = np.zeros((len(asked), k), dtype=np.int64)
    for part in _blocks(len(asked), len(unit)) if k else ():
        scores = unit[asked[part]] @ unit.T
        scores[np.arange(len(scores)), asked[part]] = -np.inf
        found[part] = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    return found


def _unit(embeddings: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return np.divide(embeddings, norms, out=np.zeros_like(embeddings), where=norms > 0)


def _blocks(num_queries: int, num_items: int) -> Iterator[slice]:
    size = max(1, _BLOCK_BYTES // (4 * max(1, num_items)))
    for start in range(0, num_queries, size):
        yield slice(start, start + size)
