"""Variety by a determinantal point process: items that are liked and together span much."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from multimodal_rec.errors import ConfigError
from multimodal_rec.reranking.candidates import Candidates
from multimodal_rec.reranking.step import Step

_SPENT = 1e-6
"""A squared distance from what is chosen, of 1, below which an item adds nothing that is not rounding."""


@dataclass(frozen=True)
class DPP(Step):
    """Greedily the items that make

        θ Σ_i relevance(i) + (1 - θ) log det S      S = cosines of the chosen items' embeddings

    largest, the most probable set of a determinantal point process; θ = 1 - diversity. Each item adds θ times its
    relevance and (1 - θ) times the logarithm of its squared distance from the span of those before it, which is kept
    by one row of a Cholesky factor at a time: O(k · pool) products of embeddings. Once nothing new is left, the others
    follow in their order. Source: Chen, Zhang and Zhou (arXiv:1709.05135), algorithm 1.
    """

    diversity: float = 0.3

    def __post_init__(self) -> None:
        if not 0 <= self.diversity < 1:
            raise ConfigError(f"DPP.diversity is {self.diversity}. Expected at least 0 and below 1.")

    def apply(self, candidates: Candidates, k: int) -> Candidates:
        """The k chosen first, in the order in which they were; then the others."""
        if not len(candidates) or self.diversity == 0:
            return candidates
        embeddings = candidates.embeddings.astype(np.float64)
        relevance = (1 - self.diversity) * candidates.relevance
        distance = (embeddings**2).sum(axis=1)
        factor = np.zeros((min(k, len(candidates)), len(candidates)))
        left = np.ones(len(candidates), dtype=bool)
        chosen: list[int] = []
        for place in range(len(factor)):
            usable = left & (distance > _SPENT)
            if not usable.any():
                break
            gain = relevance + self.diversity * np.log(np.where(usable, distance, 1.0))
            best = int(np.argmax(np.where(usable, gain, -np.inf)))
            chosen.append(best)
            left[best] = False
            along = embeddings @ embeddings[best] - factor[:place].T @ factor[:place, best]
            factor[place] = along / np.sqrt(distance[best])
            distance = distance - factor[place] ** 2
        return candidates.first(chosen)
