"""A configuration and a training catalogue → a trained model, with what is blended with it."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from multimodal_rec.behaviour import BehaviourScale
from multimodal_rec.blending import Choice, blend_in
from multimodal_rec.builders import build_model
from multimodal_rec.catalogue import Catalogue
from multimodal_rec.config import RecommenderConfig, TrainingConfig
from multimodal_rec.errors import CatalogueError
from multimodal_rec.feature_cache import FeatureCache
from multimodal_rec.features import PreparedMemory
from multimodal_rec.model import RecommenderModel
from multimodal_rec.preparation import training_data
from multimodal_rec.training import Epoch, progress_bar, read_gates, train
from multimodal_rec.validation import Validator
from multimodal_rec.vocabulary import Vocabulary


class FittedModel(NamedTuple):
    """What one training leaves."""

    model: RecommenderModel
    vocabulary: Vocabulary
    epochs: list[Epoch]
    choice: Choice | None
    """What validation chose of the collaborative scores; None without such."""
    behaviour: dict[str, np.ndarray]
    """Item id → behaviour features and what the item is to the collaborative scores, for those that somebody took."""
    scale: BehaviourScale
    """Of these features."""
    prepared: PreparedMemory | None
    """What was made ready of the items' media."""


def fit_model(
    config: RecommenderConfig,
    part: Catalogue,
    valid: Catalogue | None,
    *,
    training: TrainingConfig,
    cache: FeatureCache,
    choice: Choice | None = None,
) -> FittedModel:
    """A model trained on `part`, its epochs and blend chosen on `valid`; `choice`: of the blend, taken as it is."""
    vocabulary = Vocabulary.fit(part, config)
    model = build_model(config, vocabulary, seed=training.seed)
    data = training_data(part, vocabulary, model, config=config, training=training, cache=cache)

    def validator(*, late: bool) -> Validator | None:
        if valid is None or valid.interactions.empty:
            return None
        length = config.history_length
        made = Validator(model, vocabulary, data, (part, valid), length=length, cache=cache, late=late)
        return made if made.usable else None

    judge = validator(late=False)
    read_gates(model, data)
    epochs = train(model, data, config=config, training=training, validate=None if judge is None else judge.ndcg)
    features = data.behaviour.features
    if config.collaborative and len(data.weights):
        settings = {name: replace(each, seed=training.seed) for name, each in config.collaborative.items()}
        with progress_bar(training) as bar:
            choice = blend_in(
                model,
                data,
                settings,
                attributes=vocabulary.attributes,
                validator=validator(late=True),
                choice=choice,
                bar=bar,
            )
    if model.blend is not None:
        features = np.concatenate([features, model.blend.learned.cpu().numpy()], axis=1)
        model.blend.forget()
    shown = data.items.behaviour_present.tolist()
    behaviour = {item_id: features[row] for row, item_id in enumerate(part.item_ids) if shown[row]}
    return FittedModel(model, vocabulary, epochs, choice, behaviour, data.behaviour.scale, data.content.prepared)


def check_catalogue(part: Catalogue, config: RecommenderConfig) -> None:
    """None where a catalogue has what a configuration reads. Raises `CatalogueError` for what it lacks."""
    missing = [modality for modality in config.towers if modality not in part.schema.modalities]
    if missing:
        raise CatalogueError(
            f"the configuration has a tower for '{missing[0]}', and the catalogue declares no such column. It has "
            f"{', '.join(part.schema.modalities)}. Drop the tower, or name the column under [columns]."
        )
    log = part.interactions
    if len(log) and "sequence" in config.collaborative and "timestamp" not in log and "position" not in log:
        raise CatalogueError(
            "the configuration blends in a sequence score, and interactions have no order. Expected a column "
            "'timestamp' or 'position'. Add it, or take 'graph' in place of 'sequence'."
        )
    if config.rating_weight > 0 and ("value" not in log or bool(log["value"].isna().all())):
        raise CatalogueError(
            f"rating_weight is {config.rating_weight}, and no interaction has a value to predict. Expected a "
            "column 'value' with ratings or watched shares. Add it, or leave rating_weight at 0."
        )
