"""A catalogue small enough to train on in a second, of real files, and a recommender for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from multimodal_rec.builders import build_model
from multimodal_rec.catalogue import Catalogue
from multimodal_rec.collaborative.settings import GraphConfig, ItemItemConfig, SequenceConfig
from multimodal_rec.config import RecommenderConfig, TowerConfig, TrainingConfig
from multimodal_rec.feature_cache import FeatureCache
from multimodal_rec.model import RecommenderModel
from multimodal_rec.preparation import training_data
from multimodal_rec.schema import Schema
from multimodal_rec.steps import TrainingData
from multimodal_rec.vocabulary import Vocabulary
from tests.towers.tiny import picture

NUM_ITEMS, NUM_USERS = 14, 12

SCHEMA = Schema(
    "tiny",
    kind="music",
    text=("title",),
    image=("cover",),
    attributes={"genre": "category", "price": "number"},
    context={"hour": "cyclic:24", "device": "category"},
    user_attributes={"age": "number"},
    events={"like": 1.0, "dislike": -1.0},
)

TITLES = ("a slow piano in the rain", "the loud drum", "slow rain", "loud piano", "a drum in the rain", "rain . rain")

CPU = TrainingConfig(device="cpu", epochs=3, batch_size=32, items_per_step=8, progress=False)

COLLABORATIVE = {
    "sequence": SequenceConfig(dim=8, epochs=2, window=6, events_a_step=64),
    "graph": GraphConfig(dim=8, epochs=2, every=1, num_neighbours=2),
    "item_item": ItemItemConfig(rank=4, strength=5.0),
}
"""Every collaborative score, as small as it goes."""


def write_catalogue(folder: Path) -> Catalogue:
    """14 items (i0 without a picture, i1 without a text) and 12 people who like even items or odd ones, by the hour."""
    media = folder / "media"
    media.mkdir(parents=True, exist_ok=True)
    for item in range(NUM_ITEMS):
        picture(item, size=(32, 32)).save(media / f"{item}.png")
    items = pd.DataFrame(
        {
            "item_id": [f"i{item}" for item in range(NUM_ITEMS)],
            "title": [None if item == 1 else f"{TITLES[item % 6]} {'slow ' * (item % 3)}" for item in range(NUM_ITEMS)],
            "cover": [None if item == 0 else f"{item}.png" for item in range(NUM_ITEMS)],
            "genre": [("jazz", "rock")[item % 2] for item in range(NUM_ITEMS)],
            "price": [float(item) for item in range(NUM_ITEMS)],
        }
    )
    random = np.random.default_rng(0)
    rows: list[dict[str, object]] = []
    for user in range(NUM_USERS):
        night = random.random(7) < 0.5
        taken = random.permutation(NUM_ITEMS)[:7]
        for place, item in enumerate(taken):
            likes = (item % 2 == user % 2) != night[place]
            rows.append(
                {
                    "user_id": f"u{user}",
                    "item_id": f"i{item}",
                    "timestamp": 1_700_000_000 + 90_000 * place + user,
                    "event": "like" if likes else "dislike",
                    "value": float(random.integers(1, 6)),
                    "hour": 23 if night[place] else 9,
                    "device": ("tv", "phone")[place % 2],
                }
            )
    users = pd.DataFrame({"user_id": [f"u{u}" for u in range(NUM_USERS)], "age": [20.0 + u for u in range(NUM_USERS)]})
    return Catalogue.from_frames(items, pd.DataFrame(rows), users, schema=SCHEMA, media=media)


def without_interactions(catalogue: Catalogue) -> Catalogue:
    """The same items before anybody did anything."""
    return Catalogue.from_frames(catalogue.items, schema=catalogue.schema)


def tiny_config(bert: Path, *, tuning: str = "frozen", **settings: object) -> RecommenderConfig:
    """Text through a tiny BERT tuned as told, pictures through a tiny convolutional net from scratch."""
    towers = {
        "text": TowerConfig(f"hf:{bert}", tuning=tuning, adapter_rank=2, max_tokens=16),
        "image": TowerConfig(
            "timm:test_efficientnet_gn", tuning="full", pretrained=False, image_size_px=32, max_windows=1
        ),
    }
    return replace(RecommenderConfig(towers, embedding_dim=8, behaviour_rank=4), **settings)


def ready_to_train(
    catalogue: Catalogue, config: RecommenderConfig, training: TrainingConfig = CPU
) -> tuple[RecommenderModel, TrainingData]:
    """A fresh model and the catalogue as tensors, as `Recommender.fit` makes them."""
    vocabulary = Vocabulary.fit(catalogue, config)
    model = build_model(config, vocabulary, seed=training.seed)
    data = training_data(catalogue, vocabulary, model, config=config, training=training, cache=FeatureCache())
    return model, data
