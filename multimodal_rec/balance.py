"""What validation makes of a blend: weights for each kind of item, and how new items stand beside known ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import numpy as np
from torch import Tensor

from multimodal_rec.collaborative.blend import NEW, TAKEN, Blend
from multimodal_rec.collaborative.weighing import weigh
from multimodal_rec.scorer import Scorer
from multimodal_rec.validation import Kind, Validator

ScoredT = TypeVar("ScoredT")
FEWEST = 20
"""People who must have taken something of a kind in the validation part before it may set that kind's weights."""
LOSS = 0.01
"""Share of their NDCG@10 that known items may lose to new ones ranked among them; at test it comes out larger."""
_KINDS: dict[int, Kind] = {NEW: "new", TAKEN: "known"}
_SCALES = (0.5, 1.0, 2.0, 4.0, 8.0)
_STEPS_BACK = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)


def balance(blend: Blend, validator: Validator) -> None:
    """Set weights and offset to those that rank the validation part best.

    Each kind's weights by its own ranking, the other kind out of sight: in one ranking the kind with more to be found
    would set both. Then one scale and one offset place new items among known ones, as high as gains most while known
    ones keep all but `LOSS`. A kind of which validation says too little has the other's weights.
    """
    start = blend.weights.clone()
    asked = [kind for kind in (NEW, TAKEN) if validator.people_of(_KINDS[kind]) >= FEWEST]
    if not asked:
        return
    rankings = {kind: _Rankings(blend, validator, _KINDS[kind]) for kind in asked}
    weights = start.clone()
    for kind, ranking in rankings.items():
        found, _ = weigh(partial(ranking.ndcg, alone=kind), start, rows=[kind])
        weights[kind] = found[kind]
    if len(asked) == 1:
        weights[:] = weights[asked[0]]
        blend.weights.copy_(weights)
        return
    scale, offset = _placed(rankings[NEW], rankings[TAKEN], weights)
    weights[NEW] *= scale
    blend.weights.copy_(weights)
    blend.offset.fill_(offset)


def _placed(new: _Rankings, known: _Rankings, weights: Tensor) -> tuple[float, float]:
    """The scale of new items' scores and what is added to them."""
    spread = known.spread(weights)
    least = (1 - LOSS) * known.ndcg(weights, alone=TAKEN)
    # Below everything else nothing is lost and nothing found.
    best, found = 0.0, (1.0, -8 * spread)
    for scale in _SCALES:
        scaled = weights.clone()
        scaled[NEW] *= scale
        highest = _highest(lambda offset, scaled=scaled: known.ndcg(scaled, offset=offset) >= least, 8 * spread)
        for step in _STEPS_BACK:
            offset = highest - step * spread
            kept = known.ndcg(scaled, offset=offset)
            gained = new.people * new.ndcg(scaled, offset=offset) + known.people * kept
            if kept >= least and gained > best:
                best, found = gained, (scale, offset)
    return found


def _highest(holds: Callable[[float], bool], limit: float) -> float:
    """The largest number within ± `limit`, to a 256th of it, at which `holds` is still true."""
    low, high = -limit, limit
    if holds(high):
        return high
    for _ in range(9):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


class _Rankings:
    """What each of a blend's scores gives every item, for the people who took something of one kind."""

    def __init__(self, blend: Blend, validator: Validator, kind: Kind) -> None:
        self.people = validator.people_of(kind)
        self._validator = validator
        self._kind: Kind = kind
        kept = blend.weights.clone()

        def alone(column: int, score: Callable[[], ScoredT]) -> ScoredT:
            blend.weights.zero_()
            blend.weights[:, column] = 1
            return score()

        scorers = [alone(column, validator.scorer) for column in range(kept.shape[1])]
        self._scorer = scorers[0]
        self._taken = self._scorer.taken.cpu().numpy()
        self._parts: list[list[np.ndarray]] = []

        def record(_: Scorer, people: Sequence[str], contexts: np.ndarray) -> np.ndarray:
            own = [alone(column, partial(scorer.rank, people, contexts)) for column, scorer in enumerate(scorers)]
            self._parts.append(own)
            return own[0]

        validator.ndcg_of(record, self._scorer, kind=kind)
        blend.weights.copy_(kept)

    def ndcg(self, weights: Tensor, *, offset: float = 0.0, alone: int | None = None) -> float:
        """NDCG@10 of this kind under these weights; `alone`: only items of that kind are ranked."""
        batches = iter(self._parts)

        def blended(*_: object) -> np.ndarray:
            # Asked in the order in which the parts were recorded.
            scores = self._blended(next(batches), weights) + np.where(self._taken, 0, offset)
            return scores if alone is None else np.where(self._taken == (alone == TAKEN), scores, -np.inf)

        return self._validator.ndcg_of(blended, self._scorer, kind=self._kind)

    def spread(self, weights: Tensor) -> float:
        """Standard deviation of a person's scores of known items, the mean over people."""
        known = [self._blended(parts, weights)[:, self._taken].std(axis=1) for parts in self._parts]
        return float(np.concatenate(known).mean())

    def _blended(self, parts: Sequence[np.ndarray], weights: Tensor) -> np.ndarray:
        by_item = weights.cpu().numpy()[self._taken.astype(int)]
        return np.sum([part * by_item[:, column] for column, part in enumerate(parts)], axis=0)
