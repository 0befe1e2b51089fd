"""Rules of a business: at most so many of a kind, and some that must be there."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from multimodal_rec.reranking.candidates import Candidates, Shelf
from multimodal_rec.reranking.step import Group, Step, check_attribute, check_whole, values_of


@dataclass(frozen=True)
class Cap(Step):
    """At most so many items of any one value of an attribute; the best stay, the others are left out.

    An item with several values counts for each. One without the attribute is never left out. A list may be shorter
    than k where the pool holds no others.
    """

    attribute: str
    at_most: int = 2

    def __post_init__(self) -> None:
        check_whole(self.at_most, "Cap.at_most")

    def apply(self, candidates: Candidates, k: int) -> Candidates:  # noqa: ARG002 (the whole list)
        """The candidates that are not too many, in their order."""
        shelf, counts = candidates.shelf, Counter[object]()
        check_attribute(shelf, self.attribute, "Cap.attribute")
        kept: list[int] = []
        for place, row in enumerate(candidates.rows):
            values = values_of(shelf.attributes[int(row)], self.attribute)
            if all(counts[value] < self.at_most for value in values):
                counts.update(values)
                kept.append(place)
        return candidates.take(kept)


@dataclass(frozen=True)
class MustHave(Step):
    """At least so many items of a group among those shown, as far as there are any.

    Those that are missing take the last places of others, the best of them first.
    """

    group: Group
    at_least: int = 1

    def __post_init__(self) -> None:
        check_whole(self.at_least, "MustHave.at_least")

    def apply(self, candidates: Candidates, k: int) -> Candidates:
        """The k to be shown first, then the others."""
        member = self.group.mask(candidates.shelf)[candidates.rows]
        shown, rest = np.arange(min(k, len(candidates))), np.arange(min(k, len(candidates)), len(candidates))
        missing = min(self.at_least, k) - int(member[shown].sum())
        entering = rest[member[rest]][: max(missing, 0)]
        leaving = shown[~member[shown]][::-1][: len(entering)]
        return candidates.first([*np.setdiff1d(shown, leaving).tolist(), *entering.tolist()])

    def wanted(self, shelf: Shelf) -> np.ndarray:
        """The group: what the pool lacks cannot enter the list."""
        return self.group.mask(shelf)
