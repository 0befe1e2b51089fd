"""Sparse graphs over items and people, and embeddings carried along their edges."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import numpy as np
import torch
from scipy import sparse
from scipy.linalg import cho_factor, cho_solve
from torch import Tensor

_ITEMS_AT_ONCE = 1024
"""Rows of the likeness between items that are held densely in one step."""
_REGULARISATION, _CONTENT_WEIGHT = 300.0, 30.0
"""EASE's λ, and how many people who took two items and nothing else it is worth that their content is the same."""


class Edges(NamedTuple):
    """A weighted graph from one kind of node to another, float32, and the same seen from the other end."""

    forward: sparse.csr_array
    """(to, from)."""
    backward: sparse.csr_array
    """(from, to), its transpose."""

    @classmethod
    def of(cls, weights: sparse.csr_array) -> Edges:
        """The edges of a matrix (to, from)."""
        forward = sparse.csr_array(weights.astype(np.float32))
        return cls(forward, sparse.csr_array(forward.T))

    def reversed(self) -> Edges:
        """The same edges walked the other way."""
        return Edges(self.backward, self.forward)


def carry(edges: Edges, embeddings: Tensor) -> Tensor:
    """Embeddings (to, dim): for each node the sum of its neighbours' (from, dim), times the edges' weights."""
    return cast(Tensor, _Carry.apply(edges, embeddings))


class _Carry(torch.autograd.Function):
    # SciPy's product: as fast as torch's on one core, the same bits every time, and not in beta.
    @staticmethod
    def forward(ctx: Any, edges: Edges, embeddings: Tensor) -> Tensor:
        ctx.edges = edges
        return _product(edges.forward, embeddings.detach())

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[None, Tensor]:
        return None, _product(ctx.edges.backward, grad_outputs[0])


def _product(weights: sparse.csr_array, embeddings: Tensor) -> Tensor:
    return torch.from_numpy(weights @ embeddings.float().cpu().numpy()).to(embeddings.device)


def who_took_what(took: sparse.csr_array) -> Edges:
    """From items to people, 1 / √(degree · degree). `took`: (person, item), above 0 where they did."""
    person = 1 / np.sqrt(np.maximum(np.asarray(took.sum(axis=1)), 1))
    item = 1 / np.sqrt(np.maximum(np.asarray(took.sum(axis=0)), 1))
    return Edges.of(sparse.csr_array(sparse.diags_array(person) @ took @ sparse.diags_array(item)))


def nearest(content: np.ndarray, candidates: np.ndarray, k: int) -> sparse.csr_array:
    """Weights (item, neighbour), 1 / number of neighbours: the `k` candidates that point most nearly the same way.

    `content`: float (item, dim), rows of length 1, or 0 where an item has none: it neither has neighbours nor is one,
    as nothing is its own. `candidates`: bool (item,).
    """
    column = np.flatnonzero(candidates & content.any(axis=1))
    k = min(k, len(column))
    rows, columns = [], []
    for start in range(0, len(content) if k else 0, _ITEMS_AT_ONCE):
        near = content[start : start + _ITEMS_AT_ONCE] @ content[column].T
        near[column == np.arange(start, start + len(near))[:, None]] = -np.inf
        near[~content[start : start + _ITEMS_AT_ONCE].any(axis=1)] = -np.inf
        place = np.argpartition(-near, k - 1, axis=1)[:, :k]
        row, rank = np.nonzero(np.take_along_axis(near, place, axis=1) > -np.inf)
        rows.append(row + start)
        columns.append(column[place[row, rank]])
    row = np.concatenate([np.empty(0, dtype=np.int64), *rows])
    count = np.bincount(row, minlength=len(content))
    pairs = (1 / count[row], (row, np.concatenate([np.empty(0, dtype=np.int64), *columns])))
    return sparse.csr_array(sparse.coo_array(pairs, shape=(len(content), len(content))))


def predictors(took: sparse.csr_array, content: np.ndarray, k: int) -> sparse.csr_array:
    """Weights (item, predictor) that sum to 1 or are none: for each item the `k` others that foretell it best.

    They are the largest weights above 0 of a linear map from histories to what else was taken, content foretold beside
    it, in closed form and dense in items: time grows with their cube, memory with their square. `took`: (person, item)
    of 0 and 1; `content`: (item, dim), rows of length 1 or 0. What nobody took foretells nothing. Source: EASE
    (arXiv:1905.03375), with the content's rows under the people's.
    """
    gram = (took.T @ took).toarray().astype(np.float64)
    gram += _CONTENT_WEIGHT * (content @ content.T)
    gram[np.diag_indices_from(gram)] += _REGULARISATION
    inverse = cho_solve(cho_factor(gram, overwrite_a=True), np.eye(len(gram)), overwrite_b=True)
    weights = np.maximum(-inverse / np.diag(inverse), 0).T
    weights[:, np.asarray(took.sum(axis=0)) == 0] = 0
    np.fill_diagonal(weights, 0)
    k = min(k, len(weights))
    if k == 0:
        return sparse.csr_array(weights.shape)
    place = np.argpartition(-weights, k - 1, axis=1)[:, :k]
    kept = np.take_along_axis(weights, place, axis=1)
    kept /= np.where(kept.any(axis=1), kept.sum(axis=1), 1)[:, None]
    row, rank = np.nonzero(kept)
    return sparse.csr_array(sparse.coo_array((kept[row, rank], (row, place[row, rank])), shape=weights.shape))
