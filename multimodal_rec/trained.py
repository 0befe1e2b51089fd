"""A trained model with all that it was trained with, in memory and in a folder."""

from __future__ import annotations

import json
import shutil
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file

from multimodal_rec.behaviour import BehaviourScale
from multimodal_rec.builders import build_blend, build_model
from multimodal_rec.config import RecommenderConfig
from multimodal_rec.embedding import EmbeddingJob
from multimodal_rec.errors import NotFittedError
from multimodal_rec.feature_cache import FeatureCache
from multimodal_rec.folding import Folding
from multimodal_rec.model import RecommenderModel
from multimodal_rec.object_storage import cache_folder
from multimodal_rec.rows import Layout
from multimodal_rec.schema import Schema
from multimodal_rec.scorer import Scorer
from multimodal_rec.staleness import check_served
from multimodal_rec.store import ItemStore
from multimodal_rec.vocabulary import Vocabulary

_FORMAT = 3
"""Of what `write` leaves in a folder: raised whenever an older release could not read it, or this one an older's."""


@dataclass(frozen=True, eq=False)
class Trained:
    """What `fit` leaves behind."""

    config: RecommenderConfig
    model: RecommenderModel
    vocabulary: Vocabulary
    schema: Schema
    _: KW_ONLY
    behaviour: dict[str, np.ndarray]
    """Item id → behaviour features and what the item is to the collaborative scores, for those that somebody took, as
    training left them."""
    scale: BehaviourScale
    """Of these features."""
    store: ItemStore
    cache: FeatureCache
    num_workers: int = 0
    num_fitted: int = 0
    """Interactions in the store that were trained on: its first ones."""
    num_folded: int = 0
    """Interactions in the store that are in the items' behaviour: its first ones, at least those trained on."""
    updated: dict[str, np.ndarray] = field(default_factory=dict)
    """As `behaviour`, of the items that somebody took since."""
    int8: bool = False
    """Whether the towers' backbones hold int8 weights."""

    @cached_property
    def job(self) -> EmbeddingJob:
        """The job that embeds items with this model."""
        return EmbeddingJob(
            model=self.model,
            vocabulary=self.vocabulary,
            schema=self.schema,
            behaviour={**self.behaviour, **self.updated},
            cache=self.cache,
            num_workers=self.num_workers,
        )

    @property
    def folding(self) -> Folding:
        """How the items' behaviour goes on from what training left."""
        return Folding(
            model=self.model,
            vocabulary=self.vocabulary,
            behaviour=self.behaviour,
            scale=self.scale,
            num_fitted=self.num_fitted,
        )

    def scorer(self, log: pd.DataFrame) -> Scorer:
        """Scores over this model's rows of the store, with the people of `log`, interactions as it keeps them."""
        return Scorer.of_store(self.job, self.store, log=log, length=self.config.history_length)

    def write(self, folder: Path, *, with_store: bool) -> None:
        """Configuration, vocabulary and weights as JSON and safetensors; `with_store` adds a copy of the store."""
        folder.mkdir(parents=True, exist_ok=True)
        about = {
            "format": _FORMAT,
            "config": self.config.to_dict(),
            "schema": self.schema.to_toml(),
            "vocabulary": self.vocabulary.to_dict(),
            "behaviour_items": list(self.behaviour),
            "content_blocks": [] if self.model.blend is None else list(self.model.blend.content.block_widths),
            "behaviour_scale": self.scale.to_dict(),
            "num_fitted": self.num_fitted,
            "num_folded": self.num_folded,
            "num_known": self.store.num_interactions,
            "int8": self.int8,
        }
        (folder / "config.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
        for name in self.model.towers:
            self.model.tower(name).wake_backbone()
        if self.model.profile is not None:
            self.model.profile.tower.wake_backbone()
        weights = {name: tensor.contiguous().cpu() for name, tensor in self.model.state_dict().items()}
        width = self.model.shape.behaviour_width + self.model.vector_width
        features = np.array(list(self.behaviour.values()), dtype=np.float32).reshape(-1, width)
        save_file({**weights, "behaviour_features": torch.from_numpy(features)}, folder / "model.safetensors")
        if with_store:
            # What an earlier `write` left there would be found instead of what is in memory now.
            shutil.rmtree(folder / "store", ignore_errors=True)
            with ItemStore.open(folder / "store", self.store.layout) as kept:
                self.store.copy_into(kept)

    @classmethod
    def read(cls, folder: Path, *, store: str | Path | None, device: str, release: str | None = None) -> Trained:
        """What `write` left in a folder, with the store at `store` (None: in memory), filled where it was empty.

        `release`: the store as it was published, to be read. Raises `NotFittedError` where the folder holds nothing of
        the kind, or in another format.
        """
        about = _about(folder)
        config = RecommenderConfig.from_dict(about["config"])
        vocabulary = Vocabulary.from_dict(about["vocabulary"])
        model = build_model(config, vocabulary, load_weights=False)
        if about["int8"]:
            model.use_int8()
        weights = load_file(folder / "model.safetensors")
        features = weights.pop("behaviour_features").numpy()
        if about["content_blocks"]:
            under = {name: tensor for name, tensor in weights.items() if name.startswith("blend.")}
            blended = {name.removeprefix("blend."): tensor for name, tensor in under.items()}
            blocks, fused_dim = about["content_blocks"], model.fused_dim
            model.blend = build_blend(config, vocabulary, blocks, blended, fused_dim=fused_dim)
        model.load_state_dict(weights)
        layout = store_layout(model)
        wanted = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        trained = cls(
            config,
            model.to(wanted).eval(),
            vocabulary,
            Schema.from_toml(about["schema"], source=str(folder / "config.json")),
            behaviour=dict(zip(about["behaviour_items"], features, strict=True)),
            scale=BehaviourScale.from_dict(about["behaviour_scale"]),
            store=ItemStore.open(store, layout, release=release),
            cache=FeatureCache(cache_folder(store)),
            num_fitted=about["num_fitted"],
            num_folded=about["num_folded"],
            int8=about["int8"],
        )
        if release is not None:
            check_served(trained.store, model=trained.job.fingerprint)
        elif (folder / "store").exists() and trained.store.num_items == 0:
            with ItemStore.open(folder / "store", layout) as kept:
                kept.copy_into(trained.store)
        # What is read of a release is never written again.
        return trained if release is not None else trained._caught_up(about["num_known"])

    def _caught_up(self, num_known: int) -> Trained:
        """With the behaviour of what was done since training, `num_known` interactions being there when it was saved.

        Where the store has more by now, somebody updated it and did not save: an item that is embedded again must not
        fall back behind that.
        """
        num_folded = self.num_folded if self.store.num_interactions <= num_known else None
        if num_folded == self.num_fitted:
            return self
        log = self.store.read_interactions().iloc[:num_folded]
        table = self.store.read_items(model=self.job.fingerprint)
        return replace(self, updated=self.folding.updated(log, table))


def _about(folder: Path) -> dict[str, Any]:
    """What a folder says of itself. Raises `NotFittedError` where it is none that this release reads."""
    try:
        about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        found = about["format"]
    except FileNotFoundError:
        raise NotFittedError(
            f"'{folder}' holds no saved recommender: 'config.json' is missing. Expected a folder that `save` wrote."
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise NotFittedError(
            f"'{folder}' holds no saved recommender: 'config.json' describes none ({error!r}). Expected a folder that "
            "`save` wrote. Save it again, or correct the path."
        ) from error
    if found != _FORMAT:
        raise NotFittedError(
            f"'{folder}' holds a recommender in format {found}. This release reads format {_FORMAT} and no other. Fit "
            "again and save, or load it with the release that saved it."
        )
    return about


def store_layout(model: RecommenderModel) -> Layout:
    """The layout of the store that holds a model's items."""
    blend = model.blend
    return Layout(
        tuple(model.towers),
        model.shape.embedding_dim,
        content_rank=0 if blend is None else blend.content.rank,
        vector_width=model.vector_width,
        score_dim=0 if blend is None else blend.dim,
    )
