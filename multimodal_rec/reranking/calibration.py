"""Lists whose mix of genres is that of what the person took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from multimodal_rec.reranking.candidates import Candidates
from multimodal_rec.reranking.step import Step, check_attribute, check_share, values_of

_SMOOTHING = 0.01
"""What of p is mixed into q, which keeps the divergence finite."""


@dataclass(frozen=True)
class Calibrated(Step):
    """Greedily the items that make

        (1 - strength) · Σ relevance - strength · k · KL(p ‖ q̃)

    largest: p is how an attribute's values are spread over what the person took, q over the list, each item sharing
    itself out equally among its values, and q̃ = .99 q + .01 p. The divergence counts k times, as there are k items
    in the other sum. Who took nothing with the attribute keeps the list as it is. Source: Steck, "Calibrated
    recommendations" (RecSys 2018), equations 1 to 6, all events weighing the same.
    """

    attribute: str
    strength: float = 0.5

    def __post_init__(self) -> None:
        check_share(self.strength, "Calibrated.strength")

    def apply(self, candidates: Candidates, k: int) -> Candidates:
        """The k chosen first, in the order in which they were; then the others."""
        shelf = candidates.shelf
        check_attribute(shelf, self.attribute, "Calibrated.attribute")
        taken = [shelf.attributes[int(row)] for row in candidates.taken]
        rows = [shelf.attributes[int(row)] for row in candidates.rows]
        of_taken, of_list = spread_of(taken, rows, self.attribute)
        wished = of_taken.sum(axis=0)
        if not len(candidates) or self.strength == 0 or wished.sum() == 0:
            return candidates
        wished = wished / wished.sum()
        relevance = (1 - self.strength) * candidates.relevance
        total, left = np.zeros_like(wished), np.ones(len(candidates), dtype=bool)
        chosen: list[int] = []
        for _ in range(min(k, len(candidates))):
            gain = relevance - self.strength * k * divergence(wished, total + of_list)
            best = int(np.argmax(np.where(left, gain, -np.inf)))
            chosen.append(best)
            left[best] = False
            total = total + of_list[best]
        return candidates.first(chosen)


def spread_of(
    taken: Sequence[Mapping[str, object]], rows: Sequence[Mapping[str, object]], attribute: str
) -> tuple[np.ndarray, np.ndarray]:
    """How each item shares itself out among the attribute's values, (item, value), for both; rows sum to 1 or 0."""
    codes = {value: code for code, value in enumerate(dict.fromkeys(v for r in taken for v in values_of(r, attribute)))}
    # What the person never took lies in one more column: it takes room in a list, and that is all that counts of it.
    spreads = []
    for items in (taken, rows):
        spread = np.zeros((len(items), len(codes) + 1))
        for place, row in enumerate(items):
            values = values_of(row, attribute)
            for value in values:
                spread[place, codes.get(value, len(codes))] += 1 / len(values)
        spreads.append(spread)
    return spreads[0], spreads[1]


def divergence(wished: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """KL(p ‖ q̃) in nats, (list,), of `wished` p (value,) and what lists hold, `counts` (list, value)."""
    total = counts.sum(axis=1, keepdims=True)
    share = counts / np.where(total > 0, total, 1)
    known = wished > 0
    smoothed = (1 - _SMOOTHING) * share[:, known] + _SMOOTHING * wished[known]
    return (wished[known] * np.log(wished[known] / smoothed)).sum(axis=1)
