"""Items of which little is known are tried, so that something becomes known."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np

from multimodal_rec.errors import ConfigError
from multimodal_rec.reranking.candidates import Candidates, Shelf
from multimodal_rec.reranking.step import Step


@dataclass(frozen=True)
class Explore(Step):
    """Orders a list by score and by what is not known of it.

    `rule="thompson"`: a draw from N(score, (strength · u)²) an item; `rule="ucb"`: score + strength · u, as LinUCB
    does. u is the standard deviation of the item's score under a Bayesian linear model of the log, over items'
    embeddings with an intercept an item (`content_uncertainty`): 1 and more where nobody took an item, near 0 where
    many did. Scores count in standard deviations of the pool's. `seed`: change it, once an hour or a day, for other
    draws; the same seed and person give the same list. Source: Thompson sampling as in Agrawal and Goyal
    (arXiv:1209.3352), LinUCB as in Li et al. (arXiv:1003.0146).
    """

    strength: float = 0.3
    rule: Literal["thompson", "ucb"] = "thompson"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.strength < 0:
            raise ConfigError(f"Explore.strength is {self.strength}. Expected 0 or more.")
        if self.rule not in ("thompson", "ucb"):
            raise ConfigError(f"Explore.rule is '{self.rule}'. Expected 'thompson' or 'ucb'.")

    def apply(self, candidates: Candidates, k: int) -> Candidates:  # noqa: ARG002 (the whole list)
        """All candidates in a new order."""
        unknown = self.strength * candidates.shelf.uncertainty[candidates.rows]
        if self.rule == "thompson":
            drawn = np.random.default_rng([self.seed, zlib.crc32(candidates.person.encode())])
            # One draw an item of the catalogue's order, so that the pool's length changes no item's draw.
            unknown = unknown * drawn.standard_normal(len(candidates.shelf.ids))[candidates.rows]
        return candidates.take(np.argsort(-(candidates.relevance + unknown), kind="stable"))

    def wanted(self, shelf: Shelf) -> np.ndarray:
        """The twentieth of the items of which least is known."""
        return shelf.little_known
