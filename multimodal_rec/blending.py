"""Collaborative scores of a training catalogue, trained beside the model and blended with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor

from multimodal_rec.balance import balance
from multimodal_rec.collaborative.blend import Blend
from multimodal_rec.collaborative.content_map import ContentMap
from multimodal_rec.collaborative.details import DETAILS, AttributeDetails
from multimodal_rec.collaborative.expectation import Expectation, described
from multimodal_rec.collaborative.fitting import Fitted
from multimodal_rec.collaborative.graph_fitting import fit_graph
from multimodal_rec.collaborative.item_item import HALF_KNOWN, ItemItemScore
from multimodal_rec.collaborative.landmarks import Landmarks
from multimodal_rec.collaborative.score import CollaborativeScore, ContentBlock, Log
from multimodal_rec.collaborative.sequence_fitting import fit_sequence
from multimodal_rec.collaborative.settings import (
    CollaborativeConfig,
    CollaborativeSettings,
    GraphConfig,
    SequenceConfig,
    TasteConfig,
)
from multimodal_rec.collaborative.taste_fitting import fit_taste
from multimodal_rec.fields import FieldEncoder
from multimodal_rec.model import ItemFeatures, RecommenderModel
from multimodal_rec.placing import place
from multimodal_rec.scorer import Scorer
from multimodal_rec.steps import TrainingData
from multimodal_rec.validation import Validator

OnEpoch = Callable[[int, float, float | None], None]
"""Told an epoch, its mean loss, and what validation said, if it was asked."""


class Choice(NamedTuple):
    """What validation chose, for a second fit on more data."""

    epochs: Mapping[str, int]
    """Score → passes over the log."""
    weights: Tensor
    """As of `Blend.weights`."""
    height: float | None
    """As of `Placement.height`; None where new items have no place."""


def blend_in(
    model: RecommenderModel,
    data: TrainingData,
    settings: Mapping[str, CollaborativeSettings],
    *,
    attributes: FieldEncoder,
    validator: Validator | None = None,
    choice: Choice | None = None,
    bar: Progress,
) -> Choice:
    """What was chosen; gives `model` a blend with a score for each of the `settings`, trained on `data`.

    `attributes`: what encoded those of the items. `validator` says when each learned score has learned enough, and
    how much each counts; without one all epochs are run and all count alike. `choice`: taken as it is instead. `bar`:
    shows the epochs.
    """
    details = AttributeDetails.of(attributes, data.items.attributes)
    log = log_of(data, model, details)
    scores: dict[str, CollaborativeScore] = {}
    epochs: dict[str, int] = {}
    learned: list[Fitted] = []
    for name, config in settings.items():
        validate = None
        if choice is None and validator is not None and validator.people_of("known"):
            validate = _alone(validator)
        after = None if choice is None else choice.epochs[name]
        fitted = _fit(log, config, model, validate=validate, told=_told(bar, name, config), after=after)
        scores[name], epochs[name] = fitted.score, fitted.epochs
        learned.append(fitted)
    taken = data.behaviour.present
    content = {name: block for name, block in log.content.items() if name != DETAILS}
    landmarks = {name: Landmarks.of(block, taken) for name, block in content.items() if (taken & block.present).any()}
    content = described(content, details, landmarks)
    maps = [_map(each, content, log, taken) for each in learned]
    expectation = Expectation.of(maps, content, details=details, landmarks=landmarks)
    blend = Blend(scores, expectation, fused_dim=model.fused_dim).to(model.log_temperature.device)
    model.blend = blend

    @torch.inference_mode()
    def place_items() -> None:
        device = blend.weights.device
        place(model, model.scored(data.items.to(device), blend.learned.to(device)))

    if choice is not None:
        blend.weights.copy_(choice.weights)
        if choice.height is not None:
            blend.placement.height.fill_(choice.height)
            place_items()
        return choice
    if validator is not None:
        balance(blend, validator, place_items)
    return Choice(epochs, blend.weights.clone(), float(blend.placement.height) if blend.placement.learned else None)


def _map(fitted: Fitted, content: Mapping[str, ContentBlock], log: Log, taken: np.ndarray) -> ContentMap:
    score = fitted.score
    if fitted.content is not None:
        return fitted.content.beside({name: block.features.shape[1] for name, block in content.items()})
    alone = score.popularity_columns if isinstance(score, ItemItemScore) else ()
    # What few people took has vectors that are mostly chance. By the count itself the many-times taken would be all
    # that speaks: of powers 0 to 1, the root ranked new items best.
    trust = np.sqrt(np.asarray(log.took().sum(axis=0)) + HALF_KNOWN)
    return ContentMap.fit(content, score.vectors.cpu().numpy(), taken, trust=trust, alone=alone)


def log_of(data: TrainingData, model: RecommenderModel, details: AttributeDetails) -> Log:
    """The log and the content of a training catalogue, as collaborative scores read them."""
    return Log(
        events=data.events,
        weights=data.weights,
        num_people=len(data.people),
        num_items=len(data.behaviour.present),
        ordered=data.histories.ordered,
        people=data.people.numpy(),
        content=content_of(data.items, model, details),
    )


def content_of(items: ItemFeatures, model: RecommenderModel, details: AttributeDetails) -> dict[str, ContentBlock]:
    """Each modality's features, one row an item, the attributes and their details."""
    blocks: dict[str, ContentBlock] = {}
    for name, found in items.modalities.items():
        blocks[name] = ContentBlock(model.content_features(name, found).numpy(), found.present.any(dim=1).numpy())
    blocks["attributes"] = ContentBlock(items.attributes.numpy(), items.attributes_present.numpy())
    of_attributes = details(items.attributes).numpy()
    blocks[DETAILS] = ContentBlock(of_attributes, of_attributes.any(axis=1))
    return blocks


def _fit(
    log: Log,
    config: CollaborativeSettings,
    model: RecommenderModel,
    *,
    validate: Callable[[CollaborativeScore], float] | None,
    told: OnEpoch,
    after: int | None,
) -> Fitted:
    if isinstance(config, SequenceConfig):
        return fit_sequence(log, config, validate=validate, on_epoch=told, stop_after=after)
    if isinstance(config, GraphConfig):
        return fit_graph(log, config, validate=validate, on_epoch=told, stop_after=after)
    if isinstance(config, TasteConfig):
        return fit_taste(log, config, validate=validate, on_epoch=told, stop_after=after)
    score = ItemItemScore.fit(log, config, event_weights=model.shape.event_weights)
    return Fitted(score, 0, None)


def _told(bar: Progress, name: str, config: CollaborativeSettings) -> OnEpoch:
    task = bar.add_task(name, total=config.epochs if isinstance(config, CollaborativeConfig) else 1, note="")

    def told(epoch: int, loss: float, value: float | None) -> None:
        measured = "" if value is None else f"  valid {value:.4f}"
        bar.update(task, completed=epoch, note=f"loss {loss:.3f}{measured}")

    return told


def _alone(validator: Validator) -> Callable[[CollaborativeScore], float]:
    scorer = validator.scorer()

    @torch.inference_mode()
    def validate(score: CollaborativeScore) -> float:
        vectors = torch.zeros(len(scorer.ids), score.width)
        vectors[: len(score.vectors)] = score.vectors
        items = score.items(vectors)

        def score_people(scorer: Scorer, people: Sequence[str], contexts: np.ndarray) -> np.ndarray:
            history = scorer.people.histories(people, whole=True)
            sides = score.people(history, vectors, scorer.people.features(people))
            return (score.turned(sides, torch.from_numpy(contexts)) @ items.T).numpy()

        return validator.ndcg_of(score_people, scorer)

    return validate
