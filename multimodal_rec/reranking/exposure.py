"""A share of what people look at, for those who would not get it otherwise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from multimodal_rec.reranking.candidates import Candidates, Shelf
from multimodal_rec.reranking.step import Group, Step, check_share


@dataclass(frozen=True)
class ExposureFloor(Step):
    """At least a share of a list's exposure for a group of items, such as a creator's, or new ones.

    A place j is looked at 1 / log2(1 + j) as often as the first. A place goes to the group's best remaining item once
    a whole place's exposure is owed to it, or once the places after this one could no longer make up for it; else to
    the best item of all. So the group's items stand as high as they can be afforded, not all at the end, and the floor
    holds wherever the pool has items enough. Source: exposure as in Singh and Joachims (arXiv:1802.07281).
    """

    group: Group
    share: float = 0.2

    def __post_init__(self) -> None:
        check_share(self.share, "ExposureFloor.share")

    def apply(self, candidates: Candidates, k: int) -> Candidates:
        """The k to be shown first, then the others."""
        member = self.group.mask(candidates.shelf)[candidates.rows]
        length = min(k, len(candidates))
        weights = position_weights(length)
        promised, looked, given = self.share * weights.sum(), 0.0, 0.0
        members, everyone = np.flatnonzero(member).tolist(), list(range(len(candidates)))
        chosen: list[int] = []
        for place, weight in enumerate(weights):
            looked += weight
            owed = self.share * looked - given >= weight
            last_chance = given + weights[place + 1 :].sum() < promised - 1e-12
            best = members[0] if members and (owed or last_chance) else everyone[0]
            chosen.append(best)
            everyone.remove(best)
            if member[best]:
                members.remove(best)
                given += weight
        return candidates.first(chosen)

    def wanted(self, shelf: Shelf) -> np.ndarray:
        """The group: a floor is no floor where the pool holds none of it."""
        return self.group.mask(shelf)


def position_weights(length: int) -> np.ndarray:
    """How often each place is looked at, (place,), against the first."""
    return 1 / np.log2(np.arange(2, length + 2))
