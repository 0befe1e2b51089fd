"""What an item's content lets one expect of the numbers that a log would have taught about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self, final

import numpy as np
import torch
from scipy.linalg import cho_factor, cho_solve
from torch import Tensor, nn

from multimodal_rec.collaborative.score import ContentBlock
from multimodal_rec.errors import ConfigError

WEIGHED_ITEMS = 800
"""Items on which the blocks are weighed: seconds, where all of a large catalogue would take hours."""

WEIGHED_OUTPUTS = 16
"""Principal directions of a group on which blocks are weighed: what content can tell at all is in the first few."""

CAUTION = 2.0
"""Noise is taken to be so many times what the likelihood says: it errs towards believing content (see docs/log.md)."""


class _Weighed(NamedTuple):
    blocks: np.ndarray
    """Float64 (block,): prior variance that each brings."""
    noise: float


class _Prepared(NamedTuple):
    centre: np.ndarray
    """Float64 (block width,): mean over the known items that have the block."""
    scale: float
    """What a row is multiplied by, so that rows have a mean square of 1 over all known items."""
    features: np.ndarray
    """Float64 (known item, block width): centred and scaled, 0 where absent."""


@final
class ContentMap(nn.Module):
    """A linear map from blocks of content to an item's numbers, a sum over the blocks that the item has.

    item's numbers = `offset` + Σ over the blocks b that it has of `block(b, features)`. Ridge regression from the
    items that the log knows: Gaussian priors whose variances, one a block, and the noise are those of the largest
    marginal likelihood, noise times `CAUTION` and over each item's trust. Source: MacKay, Bayesian interpolation
    (Neural Computation 4, 1992).
    """

    offset: Tensor
    """Buffer (width,): the numbers of an item without any content."""

    def __init__(self, widths: Mapping[str, int], width: int) -> None:
        super().__init__()
        self.names, self.width = tuple(widths), width
        self.register_buffer("offset", torch.zeros(width))
        for place, name in enumerate(self.names):
            self.register_buffer(f"weight_{place}", torch.zeros(widths[name], width))
            self.register_buffer(f"bias_{place}", torch.zeros(width))

    @classmethod
    def fit(
        cls,
        content: Mapping[str, ContentBlock],
        vectors: np.ndarray,
        known: np.ndarray,
        *,
        trust: np.ndarray | None = None,
        alone: Sequence[int] = (),
        seed: int = 0,
    ) -> Self:
        """The map that the known items teach.

        `vectors`: float (item, width); `known`: bool (item,), which of them the log taught; `trust`: above 0, float
        (item,), how much each item's vectors are to be believed beside the others': the inverse of its noise; all alike
        where None. `alone`: columns, such as popularity, for each of which blocks are weighed apart. Without known
        items it gives 0 everywhere.
        Raises `ConfigError` where content, vectors or trust have not a row an item, or are not finite.
        """
        _check(content, vectors, known, alone)
        trust = np.ones(len(vectors)) if trust is None else trust
        if trust.shape != known.shape or not (np.isfinite(trust[known]).all() and (trust[known] > 0).all()):
            raise ConfigError(f"trust is {trust.shape}. Expected a number above 0 for each of {len(known)} items.")
        learned = cls({name: block.features.shape[1] for name, block in content.items()}, vectors.shape[1])
        rows = np.flatnonzero(known)
        if len(rows) == 0:
            return learned
        targets = vectors[rows].astype(np.float64)
        # Of geometric mean 1, so that the noise which is found is that of a middling item.
        trusted = np.exp(np.log(trust[rows]) - np.log(trust[rows]).mean())
        offset = np.average(targets, axis=0, weights=trusted)
        learned.offset.copy_(torch.from_numpy(offset))
        blocks = [_prepared(block, rows) for block in content.values()]
        sample = np.sort(np.random.default_rng(seed).permutation(len(rows))[:WEIGHED_ITEMS])
        kernels = [block.features[sample] @ block.features[sample].T for block in blocks]
        rest = sorted(set(range(vectors.shape[1])) - set(alone))
        for columns in [[column] for column in alone] + ([rest] if rest else []):
            centred = targets[:, columns] - offset[columns]
            if not blocks or not centred.any():
                continue
            weighed = _weighed(np.stack(kernels), _strongest(centred)[sample])
            learned._take(columns, blocks, _ridge(blocks, weighed, centred, trusted))
        return learned

    def block(self, name: str, features: Tensor) -> Tensor:
        """What a block adds to the numbers of items that have it, (item, width), from features (item, block width).

        Raises `KeyError` for a block that the map was not taught.
        """
        if name not in self.names:
            raise KeyError(f"block '{name}' is unknown. Expected one of {', '.join(map(repr, self.names))}.")
        place = self.names.index(name)
        return features @ getattr(self, f"weight_{place}") + getattr(self, f"bias_{place}")

    def set_block(self, name: str, weight: Tensor, bias: Tensor, *, first: int) -> None:
        """None; what a block adds to the numbers from column `first` on: features times `weight` (block width, column)
        and `bias` (column,)."""
        place, columns = self.names.index(name), slice(first, first + len(bias))
        getattr(self, f"weight_{place}")[:, columns] = weight
        getattr(self, f"bias_{place}")[columns] = bias

    def beside(self, widths: Mapping[str, int]) -> Self:
        """The same map among other blocks of these widths, its own among them, that say nothing."""
        made = type(self)(widths, self.width)
        made.offset.copy_(self.offset)
        for place, name in enumerate(self.names):
            made.set_block(name, getattr(self, f"weight_{place}"), getattr(self, f"bias_{place}"), first=0)
        return made

    def _take(self, columns: Sequence[int], blocks: Sequence[_Prepared], weights: np.ndarray) -> None:
        """None; takes over weights (feature, column) of prepared features as weights of what the features were."""
        bounds = np.cumsum([block.features.shape[1] for block in blocks])[:-1]
        for place, (block, part) in enumerate(zip(blocks, np.split(weights, bounds), strict=True)):
            scaled = part * block.scale
            getattr(self, f"weight_{place}")[:, columns] = torch.from_numpy(scaled.astype(np.float32))
            getattr(self, f"bias_{place}")[columns] = torch.from_numpy(-(block.centre @ scaled).astype(np.float32))


def _check(content: Mapping[str, ContentBlock], vectors: np.ndarray, known: np.ndarray, alone: Sequence[int]) -> None:
    if vectors.ndim != 2 or known.shape != (len(vectors),):
        raise ConfigError(f"vectors are {vectors.shape}, known {known.shape}. Expected (item, width) and (item,).")
    if len(set(alone)) != len(alone) or any(not 0 <= column < vectors.shape[1] for column in alone):
        raise ConfigError(f"alone is {tuple(alone)}. Expected columns from 0 to {vectors.shape[1] - 1}, each once.")
    for name, block in content.items():
        if block.features.ndim != 2 or len(block.features) != len(vectors) or len(block.present) != len(vectors):
            raise ConfigError(
                f"content '{name}' is {block.features.shape}. Expected ({len(vectors)}, width): a row an item."
            )
        if not np.isfinite(block.features[block.present]).all():
            raise ConfigError(f"content '{name}' holds NaN or infinity. Mark such items as not present.")
    if not np.isfinite(vectors[known]).all():
        raise ConfigError("vectors hold NaN or infinity. Leave such items out of known.")


def _prepared(block: ContentBlock, rows: np.ndarray) -> _Prepared:
    present = block.present[rows][:, None]
    features = np.where(present, block.features[rows].astype(np.float64), 0.0)
    centre = features.sum(axis=0) / max(present.sum(), 1)
    features = np.where(present, features - centre, 0.0)
    mean_square = (features**2).sum() / len(rows)
    scale = 1 / np.sqrt(mean_square) if mean_square > 1e-12 else 0.0
    return _Prepared(centre, scale, features * scale)


def _strongest(centred: np.ndarray) -> np.ndarray:
    """(item, direction): the strongest principal directions, as strong as they are."""
    if centred.shape[1] <= WEIGHED_OUTPUTS:
        return centred
    _, axes = np.linalg.eigh(centred.T @ centred)
    return centred @ axes[:, -WEIGHED_OUTPUTS:]


def _weighed(kernels: np.ndarray, targets: np.ndarray, *, steps: int = 40, rate: float = 0.25) -> _Weighed:
    """The variances and the noise of the largest marginal likelihood, by Adam over their logarithms.

    `kernels`: (block, item, item), `targets`: (item, output). The steps are few on purpose: all start small and
    alike, and stopping early keeps a block from being believed alone.
    """
    num_blocks, num_items, _ = kernels.shape
    flat = kernels.reshape(num_blocks, -1)
    targets = targets - targets.mean(axis=0)
    targets = targets / max(float(targets.std()), 1e-12)
    logs = np.full(num_blocks + 1, -3.0)
    logs[-1] = -0.5
    mean, square = np.zeros_like(logs), np.zeros_like(logs)
    identity = np.eye(num_items)
    for step in range(1, steps + 1):
        variances = np.exp(logs)
        covariance = (variances[:-1] @ flat).reshape(num_items, num_items)
        covariance[np.diag_indices_from(covariance)] += variances[-1]
        inverse = cho_solve(cho_factor(covariance, lower=True), identity)
        solved = inverse @ targets
        slack = inverse - solved @ solved.T / targets.shape[1]
        gradient = 0.5 * np.append(flat @ slack.ravel(), np.trace(slack)) * variances
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        logs -= rate * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
    found = np.exp(logs)
    return _Weighed(found[:-1], float(found[-1]))


def _ridge(blocks: Sequence[_Prepared], weighed: _Weighed, targets: np.ndarray, trusted: np.ndarray) -> np.ndarray:
    """Weights (feature, output) of all blocks' prepared features, through whichever system is smaller."""
    roots = np.concatenate(
        [np.full(block.features.shape[1], root) for block, root in zip(blocks, np.sqrt(weighed.blocks), strict=True)]
    )
    precision = np.sqrt(trusted)[:, None]
    features = np.hstack([block.features for block in blocks]) * roots * precision
    targets = targets * precision
    noise = weighed.noise * CAUTION
    if features.shape[1] > len(features):
        gram = features @ features.T
        gram[np.diag_indices_from(gram)] += noise
        weights = features.T @ cho_solve(cho_factor(gram, lower=True), targets)
    else:
        gram = features.T @ features
        gram[np.diag_indices_from(gram)] += noise
        weights = cho_solve(cho_factor(gram, lower=True), features.T @ targets)
    return roots[:, None] * weights
