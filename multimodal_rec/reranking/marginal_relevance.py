"""Variety by marginal relevance: each item is liked, and unlike those before it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from multimodal_rec.reranking.candidates import Candidates
from multimodal_rec.reranking.step import Step, check_share


@dataclass(frozen=True)
class MMR(Step):
    """Greedily the item with the largest

        (1 - diversity) · relevance(i) - diversity · max over the items before of cos(i, j)

    by item embeddings; relevance is in standard deviations of the pool's scores. 0 leaves the order as it is, 1 looks
    at nothing but difference. Also known as maximal marginal relevance. Source: Carbonell and Goldstein, "The use of
    MMR, diversity-based reranking for reordering documents and producing summaries" (SIGIR 1998).
    """

    diversity: float = 0.3

    def __post_init__(self) -> None:
        check_share(self.diversity, "MMR.diversity")

    def apply(self, candidates: Candidates, k: int) -> Candidates:
        """The k chosen first, in the order in which they were; then the others."""
        if not len(candidates) or self.diversity == 0:
            return candidates
        embeddings, relevance = candidates.embeddings, (1 - self.diversity) * candidates.relevance
        # Nothing stands before the first: the most relevant one opens, whatever the strength.
        chosen = [int(np.argmax(relevance))] if self.diversity < 1 else [0]
        closest = embeddings @ embeddings[chosen[0]]
        for _ in range(min(k, len(candidates)) - 1):
            gain = relevance - self.diversity * closest
            gain[chosen] = -np.inf
            best = int(np.argmax(gain))
            chosen.append(best)
            closest = np.maximum(closest, embeddings @ embeddings[best])
        return candidates.first(chosen)
