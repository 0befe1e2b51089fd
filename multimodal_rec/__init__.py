"""Context-aware recommendations from a catalogue's text, pictures, sound and video, and from what people did.

Everything a user needs is importable from here; submodules are where it lives.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multimodal_rec.builders import build_tower
    from multimodal_rec.catalogue import Catalogue
    from multimodal_rec.config import RecommenderConfig, TowerConfig, TrainingConfig
    from multimodal_rec.costs import TowerCost, tower_costs
    from multimodal_rec.defaults import default_config
    from multimodal_rec.errors import (
        CatalogueError,
        ConfigError,
        ContextError,
        ItemError,
        MediaError,
        MultimodalRecError,
        NotFittedError,
        SplitError,
        StoreError,
        UnknownIdError,
    )
    from multimodal_rec.evaluation import Evaluation
    from multimodal_rec.explanation import Explanation
    from multimodal_rec.people import Person
    from multimodal_rec.recommender import Recommendations, Recommender
    from multimodal_rec.retrieval import Query
    from multimodal_rec.samples import write_sample
    from multimodal_rec.schema import Schema

__all__ = [
    "Catalogue",
    "CatalogueError",
    "ConfigError",
    "ContextError",
    "Evaluation",
    "Explanation",
    "ItemError",
    "MediaError",
    "MultimodalRecError",
    "NotFittedError",
    "Person",
    "Query",
    "Recommendations",
    "Recommender",
    "RecommenderConfig",
    "Schema",
    "SplitError",
    "StoreError",
    "TowerConfig",
    "TowerCost",
    "TrainingConfig",
    "UnknownIdError",
    "build_tower",
    "default_config",
    "tower_costs",
    "write_sample",
]

_HOMES = {
    "Catalogue": "catalogue",
    "Evaluation": "evaluation",
    "Explanation": "explanation",
    "Person": "people",
    "Query": "retrieval",
    "Recommendations": "recommender",
    "Recommender": "recommender",
    "RecommenderConfig": "config",
    "Schema": "schema",
    "TowerConfig": "config",
    "TowerCost": "costs",
    "TrainingConfig": "config",
    "build_tower": "builders",
    "default_config": "defaults",
    "tower_costs": "costs",
    "write_sample": "samples",
}


def __getattr__(name: str) -> Any:
    # Loaded when first asked for: `multimodal-rec --help` should not wait for torch.
    if name not in __all__:
        raise AttributeError(f"module 'multimodal_rec' has no attribute '{name}'")
    return getattr(import_module(f"multimodal_rec.{_HOMES.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
