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
from multimodal_rec.displacement import Displacement, first
from multimodal_rec.scorer import Scorer
from multimodal_rec.validation import Kind, Validator

ResultT = TypeVar("ResultT")
FEWEST = 20
"""People who must have taken something of a kind in the validation part before it may set that kind's weights."""
LOSS = 0.015
"""Share of their NDCG@10 that known items may be expected to lose to new ones ranked among them."""
_KINDS: dict[int, Kind] = {NEW: "new", TAKEN: "known"}
_SPREADS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
"""Spreads of new items' scores that are tried, in those of known ones."""
_HEIGHT = 32.0
"""How far above or below the mean of known items new ones are tried, in standard deviations."""


def balance(blend: Blend, validator: Validator, place: Callable[[], None]) -> None:
    """Set weights and height to those that rank the validation part best.

    Each kind's weights by its own ranking, the other kind out of sight: in one ranking the kind with more to be found
    would set both. Then one scale and one height place new items among known ones, as high as known ones are expected
    to lose no more than `LOSS` by it. A kind of which validation says too little has the other's weights, and no place.
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
        found, _ = weigh(partial(ranking.ndcg, alone=kind), start, row=kind)
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
    displacement = Displacement(known.ranked(weights, TAKEN), ndcg=known.ndcg(weights, alone=TAKEN))
    heads, lie = first(known.ranked(weights, NEW)), known.lie
    ratio = known.ratio(weights)

    def bearable(height: float, scale: float) -> bool:
        return displacement.kept(_moved(heads, lie, _Place(scale, height))) >= 1 - LOSS

    # Below everything else nothing is lost and nothing found.
    best, found = 0.0, _Place(ratio, -_HEIGHT)
    for share in _SPREADS:
        scale = share * ratio
        place = _Place(scale, _highest(partial(bearable, scale=scale), _HEIGHT))
        if not bearable(place.height, scale):
            continue
        gained = sum(ranking.people * ranking.ndcg(weights, place=place) for ranking in (new, known))
        if gained > best:
            best, found = gained, place
    return found


def _moved(scores: np.ndarray, lie: Lie, place: _Place) -> np.ndarray:
    """Scores (person, item) of new items, where they stand among known ones."""
    new, known, spread = (each.numpy() for each in lie)
    return (scores - new) * place.scale + known + place.height * spread


def _highest(holds: Callable[[float], bool], limit: float) -> float:
    """The largest number within ± `limit`, to a 2048th of it, at which `holds` is still true; -`limit` without."""
    low, high = -limit, limit
    if holds(high):
        return high
    for _ in range(12):
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
        self._hidden: list[np.ndarray] = []
        self._lies: list[Lie] = []

        def record(_: Scorer, people: Sequence[str], contexts: np.ndarray) -> np.ndarray:
            own = [
                _alone(blend, column, partial(scorer.rank, people, contexts)) for column, scorer in enumerate(scorers)
            ]
            self._parts.append(own)
            hidden = np.zeros(own[0].shape, dtype=bool)
            history = self._scorer.people.histories(people, whole=True)
            row, event = np.nonzero(history.present.cpu().numpy())
            hidden[row, history.item_index.cpu().numpy()[row, event]] = True
            self._hidden.append(hidden)
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

    @property
    def lie(self) -> Lie:
        """How the scores of all these people lie."""
        return Lie(*(torch.cat(each) for each in zip(*self._lies, strict=True)))

    def ranked(self, weights: Tensor, kind: int) -> np.ndarray:
        """Scores (person, item) of the items of one kind, -inf of what a person has taken."""
        batches = zip(self._parts, self._hidden, strict=True)
        scores = [np.where(hidden, -np.inf, self._blended(parts, weights)) for parts, hidden in batches]
        return np.concatenate(scores)[:, self._taken == (kind == TAKEN)]

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
                scores = np.where(self._taken, scores, _moved(scores, self._lies[batch], place))
            return scores if alone is None else np.where(self._taken == (alone == TAKEN), scores, -np.inf)

        return self._validator.ndcg_of(blended, self._scorer, kind=self._kind)

    def _blended(self, parts: Sequence[np.ndarray], weights: Tensor) -> np.ndarray:
        by_item = weights.cpu().numpy()[self._taken.astype(int)]
        total = np.zeros_like(parts[0])
        for part, weight in zip(parts, by_item.T, strict=True):
            if weight.any():
                total += part * weight
        return total
