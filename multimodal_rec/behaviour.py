"""What people did → features of items: co-consumption factors and popularity, without the person's own say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import svds


class BehaviourScale(NamedTuple):
    """What the features of a log were made to, for whoever computes an item's again when more was done."""

    to_people: np.ndarray
    """Float64 (rank, rank): a person's factors are the normalised sum of their items' factors times this."""
    mean: float
    """Mean logarithm of one plus how many took an item, over those that somebody took."""
    std: float
    """Standard deviation of the same."""

    def to_dict(self) -> dict[str, Any]:
        """These numbers as plain JSON values."""
        return {"to_people": self.to_people.tolist(), "mean": self.mean, "std": self.std}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The scale that `to_dict` described."""
        return cls(np.array(values["to_people"], dtype=np.float64), float(values["mean"]), float(values["std"]))


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
    scale: BehaviourScale


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
    counts = _counts(user_index, item_index, (num_users, num_items))
    everybody, eigenvalues = _factors(counts, rank)
    folds: list[np.ndarray] = []
    for fold in range(num_folds):
        others = counts[np.flatnonzero(fold_of_user != fold)]
        factors, _ = _factors(others, rank)
        folds.append(np.concatenate([factors @ turn_onto(factors, everybody), _popularity(others)], axis=1))
    present = counts.sum(axis=0) > 0
    features = np.concatenate([everybody, _popularity(counts)], axis=1)
    return ItemBehaviour(
        (features * present[:, None]).astype(np.float32),
        (np.stack(folds) * present[:, None]).astype(np.float32),
        fold_of_user,
        present,
        BehaviourScale(np.diag(np.where(eigenvalues > 1e-9, 1 / np.maximum(eigenvalues, 1e-9), 0.0)), *_size(counts)),
    )


def folded_in(
    user_index: np.ndarray, item_index: np.ndarray, *, num_users: int, known: np.ndarray, scale: BehaviourScale
) -> np.ndarray:
    """Float32 (item, rank + 1): the behaviour features of items after more was done, in the axes of `known`.

    `user_index`, `item_index`: int64 (event,), all that was taken up to now; `known`: float (item, rank + 1), the
    features that `item_behaviour` gave of an earlier log, 0 for items that it had not; `scale`: of the same log. Each
    person's factors are what they took of known items, each item's what its people are. Of the log that was
    decomposed this gives back its factors; popularity is standardised by that log's mean and deviation, so that a
    number means what it meant. Source: folding-in (Berry, Dumais and O'Brien, SIAM Review 37, 1995).
    """
    counts = _counts(user_index, item_index, (num_users, len(known)))
    scaled = _normalised(counts)
    people = (scaled @ known[:, :-1].astype(np.float64)) @ scale.to_people
    popularity = (np.log1p(counts.sum(axis=0)) - scale.mean) / scale.std
    return np.concatenate([scaled.T @ people, popularity[:, None]], axis=1).astype(np.float32)


def turn_onto(factors: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The orthogonal (rank, rank) that brings factors (item, rank) nearest to others of the same items (Procrustes)."""
    left, _, right = np.linalg.svd(factors.T @ others)
    return left @ right


def _counts(user_index: np.ndarray, item_index: np.ndarray, shape: tuple[int, int]) -> sparse.csr_array:
    pairs = np.unique(np.stack([user_index, item_index]), axis=1)
    return sparse.csr_array((np.ones(pairs.shape[1]), (pairs[0], pairs[1])), shape=shape)


def _normalised(counts: sparse.csr_array) -> sparse.csr_array:
    users = np.maximum(counts.sum(axis=1), 1) ** -0.5
    items = np.maximum(counts.sum(axis=0), 1) ** -0.5
    return sparse.csr_array(sparse.diags_array(users) @ counts @ sparse.diags_array(items))


def _factors(counts: sparse.csr_array, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Factors (item, rank) and the squared singular values (rank,) that belong to them; 0 where there are no more."""
    scaled = _normalised(counts)
    num_items = scaled.sum(axis=0).size
    smaller = min(scaled.sum(axis=1).size, num_items)
    factors, eigenvalues = np.zeros((num_items, rank)), np.zeros(rank)
    wanted = min(rank + 1, smaller - 1)
    if wanted < 2 or counts.nnz == 0:
        return factors, eigenvalues
    start = np.random.default_rng(0).standard_normal(smaller)
    svd: Any = svds  # SciPy's own annotation knows only True and False for what it documents as "vh".
    _, values, right = svd(scaled, k=wanted, v0=start, return_singular_vectors="vh")
    order = np.argsort(-values)
    values, right = values[order], right[order]
    kept = right[1:].T * (values[1:] / max(float(values[0]), 1e-12))
    factors[:, : kept.shape[1]] = kept * num_items**0.5
    eigenvalues[: kept.shape[1]] = values[1:] ** 2
    return factors, eigenvalues


def _popularity(counts: sparse.csr_array) -> np.ndarray:
    logs = np.log1p(counts.sum(axis=0))
    mean, std = _size(counts)
    return (np.where(logs > 0, logs - mean, 0.0) / std)[:, None]


def _size(counts: sparse.csr_array) -> tuple[float, float]:
    logs = np.log1p(counts.sum(axis=0))
    taken = logs[logs > 0]
    return (float(taken.mean()), max(float(taken.std()), 1e-6)) if len(taken) else (0.0, 1.0)
