"""How little is known of each item's score, from what was taken so far."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_BLOCK = 8192


def content_uncertainty(
    embeddings: np.ndarray, counts: np.ndarray, *, own: float = 1.0, prior: float = 1.0
) -> np.ndarray:
    """Standard deviation of each item's score under a Bayesian linear model of it, float64 (item,).

        s_i = ⟨x_i, θ⟩ + b_i    θ ~ N(0, prior² I)    b_i ~ N(0, own²)    an event of i tells s_i with noise N(0, 1)

    What others with a like embedding taught of θ is known of an item also; what is its own, b_i, only its own events
    tell. With n_i events and b_i integrated out, in closed form:

        A = I / prior² + Σ_i n_i / (1 + n_i own²) x_i x_iᵀ
        Var(s_i) = (1 + n_i own²)⁻² x_iᵀ A⁻¹ x_i + own² / (1 + n_i own²)

    so that an item that nobody took has own² and what its direction leaves open. `embeddings`: (item, dim), which
    are divided by their length; `counts`: (item,), at least 0. Source: LinUCB's ridge
    (arXiv:1003.0146), with an intercept an item.
    """
    events = counts.astype(np.float64)
    left = 1 / (1 + events * own**2)
    precision = np.eye(embeddings.shape[1]) / prior**2
    for part, x in _unit_blocks(embeddings):
        precision += (x * (events * left)[part, None]).T @ x
    lower = np.linalg.cholesky(precision)
    variance = own**2 * left
    for part, x in _unit_blocks(embeddings):
        variance[part] += left[part] ** 2 * (np.linalg.solve(lower, x.T) ** 2).sum(axis=0)
    return np.sqrt(variance)


def _unit_blocks(embeddings: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Some embeddings at a time in float64, each divided by its length: all at once would be memory for nothing."""
    for start in range(0, len(embeddings), _BLOCK):
        part = slice(start, start + _BLOCK)
        block = embeddings[part].astype(np.float64)
        length = np.linalg.norm(block, axis=1, keepdims=True)
        yield part, block / np.where(length > 0, length, 1)
