"""What people did → features of items: co-consumption factors and popularity, without the person's own say."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import svds


class ItemBehaviour(NamedTuple):
    """Behaviour features of the items of a log."""

    features: np.ndarray
    """Float32 (item, rank + 1): factors of co-consumption, then standardised log popularity; 0 where absent."""
    folds: np.ndarray
    """Float32 (fold, item, rank + 1): the same, computed without the people of each fold."""
    fold_of_user: np.ndarray
    """Int64 (user,): whose fold is whose."""
    present: np.ndarray
    """Bool (item,): whether anybody took the item."""


def item_behaviour(
    user_index: np.ndarray,
    item_index: np.ndarray,
    *,
    num_users: int,
    num_items: int,
    rank: int,
    num_folds: int,
    seed: int,
) -> ItemBehaviour:
    """Behaviour features from pairs of who (int64, event) took what (int64, event).

    Factors are the right singular vectors of the degree-normalised person-item matrix, scaled by their singular
    values and without the first, which is popularity. A person's own events sit in the factors of the items that
    the person took; a model trained on those would trust them too far. So each fold of people gets factors computed
    without them, turned (orthogonal Procrustes) onto those of everybody, and trains on these.
    """
    fold_of_user = np.random.default_rng(seed).permutation(num_users) % num_folds
    pairs = np.unique(np.stack([user_index, item_index]), axis=1)
    counts = sparse.csr_array((np.ones(pairs.shape[1]), (pairs[0], pairs[1])), shape=(num_users, num_items))
    everybody = _factors(counts, rank)
    folds: list[np.ndarray] = []
    for fold in range(num_folds):
        others = counts[np.flatnonzero(fold_of_user != fold)]
        factors = _factors(others, rank)
        left, _, right = np.linalg.svd(factors.T @ everybody)
        folds.append(np.concatenate([factors @ (left @ right), _popularity(others)], axis=1))
    present = counts.sum(axis=0) > 0
    features = np.concatenate([everybody, _popularity(counts)], axis=1)
    return ItemBehaviour(
        (features * present[:, None]).astype(np.float32),
        (np.stack(folds) * present[:, None]).astype(np.float32),
        fold_of_user,
        present,
    )


def _factors(counts: sparse.csr_array, rank: int) -> np.ndarray:
    users = np.maximum(counts.sum(axis=1), 1) ** -0.5
    items = np.maximum(counts.sum(axis=0), 1) ** -0.5
    scaled = sparse.diags_array(users) @ counts @ sparse.diags_array(items)
    smaller, num_items = min(len(users), len(items)), len(items)
    factors = np.zeros((num_items, rank))
    wanted = min(rank + 1, smaller - 1)
    if wanted < 2 or counts.nnz == 0:
        return factors
    start = np.random.default_rng(0).standard_normal(smaller)
    svd: Any = svds  # SciPy's own annotation knows only True and False for what it documents as "vh".
    _, values, right = svd(scaled, k=wanted, v0=start, return_singular_vectors="vh")
    order = np.argsort(-values)
    values, right = values[order], right[order]
    kept = right[1:].T * (values[1:] / max(float(values[0]), 1e-12))
    factors[:, : kept.shape[1]] = kept * num_items**0.5
    return factors


def _popularity(counts: sparse.csr_array) -> np.ndarray:
    logs = np.log1p(counts.sum(axis=0))
    taken = logs > 0
    if not taken.any():
        return np.zeros((len(logs), 1))
    return (np.where(taken, logs - logs[taken].mean(), 0.0) / max(logs[taken].std(), 1e-6))[:, None]
