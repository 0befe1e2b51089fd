"""Weights from each item to each other, in closed form: solved for, cut down to factors, chosen and calibrated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from scipy import sparse
from scipy.linalg import get_lapack_funcs
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp
from sklearn.utils.extmath import randomized_svd

from multimodal_rec.collaborative.few_rows import FewRows
from multimodal_rec.errors import ConfigError

DENSE_ITEMS = 12_000
"""Up to so many items weights are solved for densely: a few matrices of their square, and time with their cube."""

DENSE_ROWS = 16_000
"""Where items are more: up to so many people and features weights are solved for by those, in half the precision."""

TUNED_ITEMS = 8_000
"""Up to so many items several settings are compared, each at the cost of one more solution."""

CONTENT_WEIGHTS = (10.0, 30.0)
DAMPINGS = (0.0, 0.25, 0.5, 0.75)
ASKED_PEOPLE = 1_000


class Setting(NamedTuple):
    """What item-item weights are solved for with."""

    strength: float
    """λ: how strongly weights are held back."""
    content_weight: float
    """How many people's having taken both it counts that two items are just alike."""


class HeldOut(NamedTuple):
    """A log without a part of it, and that part."""

    rest: sparse.csr_array
    """Float64 (person, item) of 0 and 1: all people's, less what was taken out."""
    people: np.ndarray
    """Int64: rows of whoever is asked about."""
    person: np.ndarray
    """Int64 (event,): place in `people` of each event that was taken out."""
    item: np.ndarray
    """Int64 (event,)."""

    @classmethod
    def of(cls, taken: sparse.csr_array, generator: np.random.Generator) -> Self | None:
        """A tenth, at least one, of what people with five or more took, 1,000 people at most; None without such.

        `taken`: (person, item) of 0 and 1.
        """
        people = np.flatnonzero(np.diff(taken.indptr) >= 5)
        people = np.sort(generator.permutation(people)[:ASKED_PEOPLE])
        if len(people) == 0:
            return None
        spans = [(taken.indptr[person], taken.indptr[person + 1]) for person in people]
        lost = [start + generator.permutation(end - start)[: max(1, (end - start) // 10)] for start, end in spans]
        rows = np.concatenate(lost)
        rest = taken.copy()
        rest.data[rows] = 0.0
        rest.eliminate_zeros()
        person = np.repeat(np.arange(len(people)), [len(each) for each in lost])
        return cls(rest, people, person, taken.indices[rows].astype(np.int64))

    def histories(self) -> sparse.csr_array:
        """What is left to whoever is asked about, (asked person, item)."""
        return sparse.csr_array(self.rest[self.people])


def chosen(
    held_out: HeldOut | None, likeness: Sequence[np.ndarray], *, strength: float, content_weight: float = 0.0
) -> Setting:
    """The setting that finds most of what was held out; where there is nothing to ask, or too many items, as told.

    Compared are `strength` and a third of it, then content beside the better. Not more: what is drawn from the midst
    of histories is easier to find than what comes after them, and would have weights held back too strongly
    (MovieLens: λ 300 where 100 finds more of what came next). `likeness`: blocks (item, width) of unit rows.
    """
    if held_out is None or _num_items(held_out.rest) > TUNED_ITEMS:
        return Setting(strength, content_weight)
    best = Setting(strength, 0.0)
    found = _found(held_out, likeness, best)
    for weight in (0.0, *(CONTENT_WEIGHTS if likeness else ())):
        setting = Setting(strength / 3 if weight == 0 else best.strength, weight)
        gain = _found(held_out, likeness, setting)
        if gain > found:
            best, found = setting, gain
    return best


def factors(
    taken: sparse.csr_array, likeness: Sequence[np.ndarray], setting: Setting, *, rank: int
) -> tuple[np.ndarray, np.ndarray]:
    """The side of histories and that of items, float64 (item, factor), at most `rank` factors.

    Their product is EASE's B as far as the strongest right singular vectors V of all people's scores XB reach, B V Vᵀ,
    which loses least of XB: B = I − P / diag(P), P = (XᵀX + w FFᵀ + λI)⁻¹. (lastfm-2k, 128 factors: recall@20 .4252 on
    validation, .4163 by B's own singular values, .4184 by all of B.) Where items are too many to be solved
    for, and people and features too, it is D^-½ U Uᵀ D^½ instead, D how many took each item and U the strongest
    factors of the log over the roots of its sums; content is not read then. Sources: Steck (arXiv:1905.03375),
    equation 8; Shen et al. (arXiv:2108.07567), the ideal low-pass filter.
    """
    rank = min(rank, _num_items(taken))
    if _num_items(taken) <= DENSE_ITEMS:
        return _projected(taken, _Dense(_weights(taken, likeness, setting)), rank)
    features = _features(likeness, setting)
    if _fewer_rows(taken, features):
        # The rounds are most of the time there, and the factors beside those that are kept lie far behind.
        return _projected(taken, FewRows(taken, features, setting.strength), rank, num_rounds=4)
    people = np.sqrt(np.maximum(np.asarray(taken.sum(axis=1)), 1.0))
    items = np.sqrt(np.maximum(np.asarray(taken.sum(axis=0)), 1.0))
    normalised = sparse.csr_array(sparse.diags_array(1 / people) @ taken @ sparse.diags_array(1 / items))
    _, _, right = randomized_svd(normalised, rank, n_oversamples=16, random_state=0)
    return right.T / items[:, None], right.T * items[:, None]


def calibrated(held_out: HeldOut, history_side: np.ndarray, item_side: np.ndarray) -> tuple[float, float]:
    """Scale and damping: scale · score / (items taken) ** damping makes what was held out likeliest.

    Under a softmax over all that a person has not taken.
    """
    histories = held_out.histories()
    is_taken = histories.toarray() > 0
    scores = ((histories @ history_side) @ item_side.T).astype(np.float32)
    num_taken = np.maximum(is_taken.sum(axis=1, keepdims=True), 1).astype(np.float32)
    scores[is_taken] = -np.inf
    best, scale, damping = np.inf, 1.0, 0.0
    for power in DAMPINGS:
        damped = scores / num_taken**power

        def loss(log_scale: float, damped: np.ndarray = damped) -> float:
            logits = damped * np.float32(np.exp(log_scale))
            total = np.asarray(logsumexp(logits, axis=1))
            return float(np.mean(total[held_out.person] - logits[held_out.person, held_out.item]))

        tried: Any = minimize_scalar(loss, bounds=(-3.0, 8.0), method="bounded", options={"xatol": 0.05, "maxiter": 15})
        if tried.fun < best:
            best, scale, damping = float(tried.fun), float(np.exp(tried.x)), power
    return scale, damping


def _num_items(taken: sparse.csr_array) -> int:
    return int(taken.sum(axis=0).size)


class _Dense(NamedTuple):
    """Weights that are written out."""

    weights: np.ndarray

    def times(self, columns: np.ndarray) -> np.ndarray:
        return self.weights @ columns

    def transposed_times(self, columns: np.ndarray) -> np.ndarray:
        return self.weights.T @ columns


def _projected(
    taken: sparse.csr_array, weights: _Dense | FewRows, rank: int, *, num_rounds: int = 8
) -> tuple[np.ndarray, np.ndarray]:
    """B V / √s and V √s of the strongest singular values s and vectors V of XB, by iterating on a subspace."""
    num_items = _num_items(taken)
    subspace = np.random.default_rng(0).standard_normal((num_items, min(rank + 32, num_items)))
    for _ in range(num_rounds):
        subspace = np.linalg.qr(weights.transposed_times(taken.T @ (taken @ weights.times(subspace))))[0]
    mapped = weights.times(subspace)
    triangle = np.linalg.qr(taken @ mapped, mode="r")
    _, values, axes = np.linalg.svd(triangle, full_matrices=False)
    keep = values[:rank] > 1e-9 * max(float(values[0]), 1e-30)
    roots, axes = np.sqrt(values[:rank][keep]), axes[:rank][keep].T
    return mapped @ axes / roots, subspace @ axes * roots


def _found(held_out: HeldOut, likeness: Sequence[np.ndarray], setting: Setting) -> float:
    """Mean gain 1 / log2(1 + rank) of what was held out, 0 from rank 21 on."""
    histories = held_out.histories()
    scores = (histories @ _weights(held_out.rest, likeness, setting)).astype(np.float32)
    scores[histories.toarray() > 0] = -np.inf
    there = scores[held_out.person, held_out.item]
    above = np.array([(scores[person] > own).sum() for person, own in zip(held_out.person, there, strict=True)])
    return float(np.mean(np.where(above < 20, 1 / np.log2(above + 2), 0.0)))


def _weights(taken: sparse.csr_array, likeness: Sequence[np.ndarray], setting: Setting) -> np.ndarray:
    """Float64 (from item, to item): ridge of each item from all others."""
    gram = (taken.T @ taken).toarray()
    if setting.content_weight > 0:
        for features in likeness:
            gram += setting.content_weight * (features @ features.T)
    return ridge_weights(gram, setting.strength)


def _fewer_rows(taken: sparse.csr_array, features: np.ndarray | None) -> bool:
    return FewRows.num_rows(taken, features) <= min(DENSE_ROWS, _num_items(taken))


def _features(likeness: Sequence[np.ndarray], setting: Setting) -> np.ndarray | None:
    """All blocks side by side, (item, feature), as heavy as the setting says; None where they count nothing."""
    return np.hstack(likeness) * setting.content_weight**0.5 if likeness and setting.content_weight > 0 else None


def weights_of(taken: sparse.csr_array, strength: float, *, features: np.ndarray | None = None) -> np.ndarray:
    """EASE's weights B written out, float32 (from item, to item), solved for by items or rows, whichever are fewer.

    `taken`: (person, item) of 0 and 1; `features`: (item, feature), scaled, which stand as further rows under the log;
    `strength`: λ. Raises `ConfigError` where λ is too small.
    """
    if _num_items(taken) > DENSE_ITEMS and _fewer_rows(taken, features):
        return FewRows(taken, features, strength).dense()
    gram = (taken.T @ taken).toarray().astype(np.float64)
    if features is not None:
        gram += features @ features.T
    return ridge_weights(gram, strength).astype(np.float32)


def ridge_weights(gram: np.ndarray, strength: float) -> np.ndarray:
    """Float (from item, to item): column j predicts item j from all others by ridge, -P / diag(P), P = (G + λI)⁻¹.

    `gram`: G, (item, item), overwritten; `strength`: λ. The diagonal is 0. Raises `ConfigError` where λ is too small
    for G to be inverted. Source: Steck (arXiv:1905.03375), equation 8.
    """
    gram[np.diag_indices_from(gram)] += strength
    # By Cholesky: half the arithmetic of a general inverse, in place. It fills one triangle.
    factorise, invert = get_lapack_funcs(("potrf", "potri"), (gram,))
    factor, failed = factorise(gram.T, lower=1, overwrite_a=1)
    inverse, failed_too = invert(factor, lower=1, overwrite_c=1)
    if failed or failed_too:
        raise ConfigError(f"λ = {strength} is too small for these interactions. Raise it.")
    weights = np.tril(inverse)
    weights += np.tril(inverse, -1).T
    weights /= -np.diag(weights).copy()
    np.fill_diagonal(weights, 0.0)
    return weights
