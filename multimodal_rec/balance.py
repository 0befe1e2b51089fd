"""What validation makes of a blend: weights for each kind of item, and how new items stand beside known ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from multimodal_rec.collaborative.blend import Blend
from multimodal_rec.collaborative.placement import NEW, TAKEN, Lie, Placement
from multimodal_rec.collaborative.weighing import weigh
from multimodal_rec.scorer import Scorer
from multimodal_rec.validation import Kind, Validator

ResultT = TypeVar("ResultT")
FEWEST = 20
"""People who must have taken something of a kind in the validation part before it may set that kind's weights."""
LOSS = 0.01
"""Share of their NDCG@10 that known items may lose to new ones ranked among them; at test it comes out larger."""
_KINDS: dict[int, Kind] = {NEW: "new", TAKEN: "known"}
_SPREADS = (1 / 8, 1 / 4, 1 / 2, 1.0)
"""Spreads of new items' scores that are tried, in those of known ones."""
_HEIGHT = 8.0
"""How far above or below the mean of known items new ones are tried, in standard deviations."""
_STEPS_BACK = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)


def balance(blend: Blend, validator: Validator, place: Callable[[], None]) -> None:
    """Set weights and height to those that rank the validation part best.

    Each kind's weights by its own ranking, the other kind out of sight: in one ranking the kind with more to be found
    would set both. Then one scale and one height place new items among known ones, as high as gains most while known
    ones keep all but `LOSS`. A kind of which validation says too little has the other's weights, and no place.
    `place`: tells the placement how items lie under the weights that the blend has by then.
    """
    start = blend.weights.clone()
    asked = [kind for kind in (NEW, TAKEN) if validator.people_of(_KINDS[kind]) >= FEWEST]
    if not asked:
        return
    scorers = [_alone(blend, column, validator.scorer) for column in range(start.shape[1])]
    rankings = {kind: _Rankings(blend, validator, scorers, _KINDS[kind]) for kind in asked}
    weights = start.clone()
    for kind, ranking in rankings.items():
        found, _ = weigh(partial(ranking.ndcg, alone=kind), start, rows=[kind])
        weights[kind] = found[kind]
    if len(asked) == 1:
        weights[:] = weights[asked[0]]
        blend.weights.copy_(weights)
        return
    blend.weights.copy_(weights)
    place()
    for ranking in rankings.values():
        ranking.read(blend.placement)
    scale, height = _placed(rankings[NEW], rankings[TAKEN], weights)
    blend.weights[NEW] *= scale
    blend.placement.height.fill_(height)
    place()


class _Place(NamedTuple):
    """Where new items stand."""

    scale: float
    """What their scores are multiplied by."""
    height: float
    """As of `Placement.height`."""


def _placed(new: _Rankings, known: _Rankings, weights: Tensor) -> _Place:
    """The place at which most is gained of both kinds together."""
    least = (1 - LOSS) * known.ndcg(weights, alone=TAKEN)
    spread = known.ratio(weights)
    # Below everything else nothing is lost and nothing found.
    best, found = 0.0, _Place(spread, -_HEIGHT)
    for share in _SPREADS:
        scale = share * spread
        highest = _highest(lambda height, s=scale: known.ndcg(weights, place=_Place(s, height)) >= least, _HEIGHT)
        for step in _STEPS_BACK:
            place = _Place(scale, highest - step)
            kept = known.ndcg(weights, place=place)
            gained = new.people * new.ndcg(weights, place=place) + known.people * kept
            if kept >= least and gained > best:
                best, found = gained, place
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


def _alone(blend: Blend, column: int, score: Callable[[], ResultT]) -> ResultT:
    """What `score` gives while one score of the blend alone counts; the weights stay so."""
    blend.weights.zero_()
    blend.weights[:, column] = 1
    return score()


class _Rankings:
    """What each of a blend's scores gives every item, for the people who took something of one kind."""

    def __init__(self, blend: Blend, validator: Validator, scorers: Sequence[Scorer], kind: Kind) -> None:
        """`scorers`: one a score, made while that score alone counted. Leaves `blend` with other weights."""
        self.people = validator.people_of(kind)
        self._validator = validator
        self._kind: Kind = kind
        self._scorer = scorers[0]
        self._taken = self._scorer.taken.cpu().numpy()
        self._parts: list[list[np.ndarray]] = []
        self._asked: list[np.ndarray] = []
        self._lies: list[Lie] = []

        def record(_: Scorer, people: Sequence[str], contexts: np.ndarray) -> np.ndarray:
            own = [
                _alone(blend, column, partial(scorer.rank, people, contexts)) for column, scorer in enumerate(scorers)
            ]
            self._parts.append(own)
            self._asked.append(self._scorer.search_queries(people, contexts)[:, :-1])
            return own[0]

        validator.ndcg_of(record, self._scorer, kind=kind)

    @torch.inference_mode()
    def read(self, placement: Placement) -> None:
        """None; how the scores of these people lie, under the weights that the placement was told."""
        self._lies = []
        for asked in self._asked:
            lie = placement.lie(torch.from_numpy(asked).to(placement.centre.device))
            self._lies.append(Lie(*(each.cpu().unsqueeze(1) for each in lie)))

    def ratio(self, weights: Tensor) -> float:
        """How much further apart a person's scores of known items lie than those of new ones, the mean over people."""
        scores = [self._blended(parts, weights) for parts in self._parts]
        known, new = (
            float(np.concatenate([each[:, kind].std(axis=1) for each in scores]).mean())
            for kind in (self._taken, ~self._taken)
        )
        return known / new if known > 0 and new > 0 else 1.0

    def ndcg(self, weights: Tensor, *, place: _Place | None = None, alone: int | None = None) -> float:
        """NDCG@10 of this kind under these weights; `alone`: only items of that kind are ranked."""
        batches = iter(range(len(self._parts)))

        def blended(*_: object) -> np.ndarray:
            # Asked in the order in which the parts were recorded.
            batch = next(batches)
            scores = self._blended(self._parts[batch], weights)
            if place is not None:
                new, known, spread = (each.numpy() for each in self._lies[batch])
                moved = (scores - new) * place.scale + known + place.height * spread
                scores = np.where(self._taken, scores, moved)
            return scores if alone is None else np.where(self._taken == (alone == TAKEN), scores, -np.inf)

        return self._validator.ndcg_of(blended, self._scorer, kind=self._kind)

    def _blended(self, parts: Sequence[np.ndarray], weights: Tensor) -> np.ndarray:
        by_item = weights.cpu().numpy()[self._taken.astype(int)]
        return np.sum([part * by_item[:, column] for column, part in enumerate(parts)], axis=0)
