"""One of each: items that are nearly the same by their embeddings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from multimodal_rec.errors import ConfigError
from multimodal_rec.reranking.candidates import Candidates
from multimodal_rec.reranking.step import Step


@dataclass(frozen=True)
class Deduplicate(Step):
    """Leaves out every item whose embedding has a cosine above `cosine` with one that stands before it and stays."""

    cosine: float = 0.98

    def __post_init__(self) -> None:
        if not -1 <= self.cosine <= 1:
            raise ConfigError(f"Deduplicate.cosine is {self.cosine}. Expected a cosine, from -1 to 1.")

    def apply(self, candidates: Candidates, k: int) -> Candidates:  # noqa: ARG002 (the whole list)
        """The candidates that are not nearly another, in their order."""
        near = candidates.embeddings @ candidates.embeddings.T > self.cosine
        dropped = np.zeros(len(candidates), dtype=bool)
        for place in range(len(candidates)):
            if not dropped[place]:
                dropped[place + 1 :] |= near[place, place + 1 :]
        return candidates.take(np.flatnonzero(~dropped))
