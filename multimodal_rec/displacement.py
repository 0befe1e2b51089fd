"""What known items are expected to lose to new ones that are ranked among them."""

from __future__ import annotations

from typing import final

import numpy as np

_TOP = 10
_WORTH = 1 / np.log2(np.arange(2, _TOP + 2))
_HALVINGS = 20


@final
class Displacement:
    """The NDCG@10 to expect of known items, where everybody looks for one of them.

    Which one is not taken from what was found: a handful of people, those whose film happened to lie in the tenth
    place, would decide. The chance of each known item is instead a softmax of the person's scores, as sharp as to give
    the NDCG that was measured. Chosen on half of MovieLens' people at a bound of 1%, what the other half lost had a
    deviation of .5% in place of 1.1% (docs/log.md).
    """

    def __init__(self, known: np.ndarray, *, ndcg: float) -> None:
        """`known`: scores (person, item) of known items, -inf of those that are not ranked; `ndcg`: mean NDCG@10 that
        was measured of them, one item sought by each person."""
        least, most = -12.0, 12.0
        for _ in range(_HALVINGS):
            middle = (least + most) / 2
            chances = _chances(known, 2.0**middle)
            least, most = (middle, most) if (chances @ _WORTH).mean() < ndcg else (least, middle)
        self._scores, self._chances = first(known), _chances(known, 2.0**least)

    def kept(self, new: np.ndarray) -> float:
        """Share of it that is left where new items of these scores, (person, item), are ranked among the known ones."""
        scores = np.concatenate([self._scores, new], axis=1)
        chances = np.concatenate([self._chances, np.zeros_like(new)], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :_TOP]
        left = np.take_along_axis(chances, order, axis=1) @ _WORTH
        return float(left.sum() / (self._chances @ _WORTH).sum())


def first(scores: np.ndarray) -> np.ndarray:
    """The ten highest of each row, highest first; -inf where there are fewer."""
    if scores.shape[1] < _TOP:
        scores = np.pad(scores, ((0, 0), (0, _TOP - scores.shape[1])), constant_values=-np.inf)
    return -np.sort(np.partition(-scores, _TOP - 1, axis=1)[:, :_TOP], axis=1)


def _chances(scores: np.ndarray, sharpness: float) -> np.ndarray:
    """The chance of each of the ten items of the highest scores, (person, 10)."""
    highest = scores.max(axis=1, keepdims=True)
    # Who has been through everything looks for nothing.
    highest = np.where(np.isfinite(highest), highest, 0.0)
    total = np.exp((scores - highest) * sharpness).sum(axis=1, keepdims=True)
    return np.exp((first(scores) - highest) * sharpness) / np.maximum(total, 1e-30)
