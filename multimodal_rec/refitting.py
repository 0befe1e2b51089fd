"""Collaborative scores brought up to date with a longer log, in the axes in which items are stored."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple, cast

import numpy as np
import torch

from multimodal_rec.behaviour import turn_onto
from multimodal_rec.collaborative.blend import Blend
from multimodal_rec.collaborative.fitting import fit
from multimodal_rec.collaborative.item_item import ItemItemScore
from multimodal_rec.collaborative.score import CollaborativeScore, Log
from multimodal_rec.collaborative.sequence_fitting import SequenceLearner
from multimodal_rec.collaborative.sequence_score import SequenceScore
from multimodal_rec.collaborative.settings import CollaborativeSettings, ItemItemConfig, SequenceConfig


class Pace(NamedTuple):
    """How long and how fast a score learns on."""

    epochs: int
    share: float
    """Of the rate that it was trained with."""
    seed: int


class Refitted(NamedTuple):
    """Scores of a longer log."""

    blend: Blend
    vectors: np.ndarray
    """Float32 (item, width)."""


def refitted(
    blend: Blend, log: Log, vectors: np.ndarray, *, settings: Mapping[str, CollaborativeSettings], pace: Pace
) -> Refitted:
    """The scores after a longer log; `blend` stays as it was, and the weights of scores are its own.

    `log`: all of it, with the stored items' content; `vectors`: float32 (item, width), what the items are now. The
    sequence score is trained on from what it knows, every item starting from its vector. Item-item weights are solved
    for anew, and their factors turned onto those that items are stored in, so that what content lets expect of new
    items keeps its meaning. Graph and taste score stay as they are: what they learned is gone but for what came of it,
    and a taste is inferred from the whole history anyway.
    """
    made = copy.deepcopy(blend).cpu()
    vectors = vectors.copy()
    start = 0
    for name, score in made.scores.items():
        width = cast(CollaborativeScore, score).width
        part = slice(start, start + width)
        config = settings[name]
        if isinstance(score, SequenceScore) and isinstance(config, SequenceConfig):
            made.scores[name], vectors[:, part] = _trained_on(score, log, vectors[:, part], config, pace)
        if isinstance(score, ItemItemScore) and isinstance(config, ItemItemConfig):
            made.scores[name], vectors[:, part] = _solved_anew(score, log, vectors[:, part], config)
        start += width
    made.forget()
    return Refitted(made.to(blend.weights.device), vectors)


def _trained_on(
    score: SequenceScore, log: Log, vectors: np.ndarray, config: SequenceConfig, pace: Pace
) -> tuple[SequenceScore, np.ndarray]:
    slower = replace(config, epochs=pace.epochs, learning_rate=config.learning_rate * pace.share, seed=pace.seed)

    def build() -> SequenceLearner:
        # Content is in the vectors already.
        learner = SequenceLearner(log._replace(content={}), slower)
        learner.score = copy.deepcopy(score).requires_grad_(True)
        learner.score.vectors = torch.zeros(vectors.shape)
        with torch.no_grad():
            learner.side.item.copy_(torch.from_numpy(vectors))
        return learner

    found = fit(build, slower).score
    if not isinstance(found, SequenceScore):
        raise TypeError(f"a sequence score became a {type(found).__name__}")
    learned = found.vectors.numpy()
    return found, np.where(learned.any(axis=1, keepdims=True), learned, vectors)


def _solved_anew(
    score: ItemItemScore, log: Log, vectors: np.ndarray, config: ItemItemConfig
) -> tuple[ItemItemScore, np.ndarray]:
    found = ItemItemScore.fit(log, config, event_weights=score.speaks.tolist())
    solved, rank = found.vectors.numpy().copy(), score.rank
    sides = (slice(0, rank), slice(rank, 2 * rank))
    both = vectors.any(axis=1) & solved.any(axis=1)
    new, old = (np.concatenate([each[both][:, side] for side in sides]) for each in (solved, vectors))
    turn = turn_onto(new.astype(np.float64), old.astype(np.float64))
    for side in sides:
        solved[:, side] = solved[:, side] @ turn
    return found, np.where(solved.any(axis=1, keepdims=True), solved, vectors)
