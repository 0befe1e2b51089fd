"""A training catalogue → tensors."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from multimodal_rec.behaviour import item_behaviour
from multimodal_rec.catalogue import Catalogue
from multimodal_rec.config import RecommenderConfig, TrainingConfig
from multimodal_rec.errors import ItemError
from multimodal_rec.feature_cache import FeatureCache
from multimodal_rec.features import ContentFeatures, PreparedMemory
from multimodal_rec.history import Histories
from multimodal_rec.model import ItemFeatures, RecommenderModel
from multimodal_rec.people import person_features
from multimodal_rec.profiles import ProfileReader
from multimodal_rec.steps import TrainingData
from multimodal_rec.vocabulary import Vocabulary


def training_data(
    part: Catalogue,
    vocabulary: Vocabulary,
    model: RecommenderModel,
    *,
    config: RecommenderConfig,
    training: TrainingConfig,
    cache: FeatureCache,
) -> TrainingData:
    """All items of `part` read once, its log as arrays. Raises `ItemError` naming the items that cannot be read."""
    towers = {name: model.tower(name) for name in model.towers}
    content = ContentFeatures(
        towers,
        model.content_of(part.items, part.schema),
        cache=cache,
        num_workers=training.num_workers,
        prepared=PreparedMemory(),
    )
    rows = range(part.num_items)
    modalities = {name: content.features(rows, name) for name in towers}
    for tower in towers.values():
        # From here on everything that a kept backbone could say is known.
        tower.release_backbone()
    if content.reasons:
        raise ItemError(
            f"{len(content.reasons)} of {part.num_items} items have media that cannot be read, and nothing was "
            "trained. Expected whole files. Mend or remove them (`Catalogue.read(..., on_error='quarantine')`).",
            {part.item_ids[row]: reason for row, reason in content.reasons.items()},
        )
    user_ids = list(dict.fromkeys(part.interactions["user_id"]))
    events, weights = vocabulary.encode_events(
        part.interactions,
        {user_id: row for row, user_id in enumerate(user_ids)},
        {item_id: row for row, item_id in enumerate(part.item_ids)},
    )
    taken = weights > 0
    behaviour = item_behaviour(
        events.user_index[taken],
        events.item_index[taken],
        num_users=len(user_ids),
        num_items=part.num_items,
        rank=config.behaviour_rank,
        num_folds=5,
        seed=training.seed,
    )
    attributes, known = vocabulary.item_attributes(part.items)
    shown = behaviour.present if config.behaviour else np.zeros_like(behaviour.present)
    here = np.stack([known, shown, *(found.present.any(dim=1).numpy() for found in modalities.values())])
    if not here.any(axis=0).all():
        read = ", ".join(map(repr, towers)) or "none"
        raise ItemError(
            f"{int((~here.any(axis=0)).sum())} of {part.num_items} items have nothing that this model reads, and "
            f"nothing was trained. Expected one of its modalities ({read}), a known attribute, or somebody who "
            "took it, where the configuration reads those. Add one, or leave them out.",
            {part.item_ids[row]: "has nothing to be known by" for row in np.flatnonzero(~here.any(axis=0))},
        )
    log = part.interactions
    return TrainingData(
        items=ItemFeatures(
            modalities,
            torch.from_numpy(attributes),
            torch.from_numpy(known),
            torch.from_numpy(behaviour.features),
            torch.from_numpy(shown),
        ),
        content=content,
        behaviour=behaviour,
        events=events,
        weights=weights,
        histories=Histories(events, length=config.history_length, ordered="timestamp" in log or "position" in log),
        people=_people_features(vocabulary, part, user_ids, ProfileReader(model.profile, cache)),
        trained=tuple(name for name, tower in towers.items() if not tower.keeps_backbone),
    )


def _people_features(
    vocabulary: Vocabulary, part: Catalogue, user_ids: list[str], profiles: ProfileReader
) -> torch.Tensor:
    users = pd.DataFrame(index=pd.Index([], name="user_id")) if part.users is None else part.users.set_index("user_id")
    own = users.reindex(user_ids).reset_index(drop=True)
    # Those who did nothing yet are read besides: validation may ask about them.
    profiles.prepare(vocabulary.profiles(own), vocabulary.profiles(users))
    return person_features(own, vocabulary, profiles)
