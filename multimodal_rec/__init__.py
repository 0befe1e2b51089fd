"""Context-aware recommendations from a catalogue's text, pictures, sound and video, and from what people did.

Everything a user needs is importable from here; submodules are where it lives.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multimodal_rec.builders import build_tower
    from multimodal_rec.catalogue import Catalogue
    from multimodal_rec.collaborative.settings import GraphConfig, ItemItemConfig, SequenceConfig, TasteConfig
    from multimodal_rec.config import RecommenderConfig, TowerConfig, TrainingConfig
    from multimodal_rec.costs import TowerCost, tower_costs
    from multimodal_rec.defaults import default_config
    from multimodal_rec.ensemble import Ensemble
    from multimodal_rec.ensemble_explanation import EnsembleExplanation
    from multimodal_rec.errors import (
        CatalogueError,
        ConfigError,
        ContextError,
        EngineError,
        ItemError,
        LeakError,
        MediaError,
        MultimodalRecError,
        NotFittedError,
        OnnxError,
        SplitError,
        StoreError,
        UnknownIdError,
    )
    from multimodal_rec.evaluation import Evaluation, evaluate_ranking
    from multimodal_rec.evaluation.audit import Audit, audit_parts
    from multimodal_rec.evaluation.experiment import analyse_experiment
    from multimodal_rec.evaluation.judgements import evaluate_judgements
    from multimodal_rec.evaluation.protocol import RankingTask
    from multimodal_rec.evaluation.sample_size import people_for_mean, people_for_rate
    from multimodal_rec.evaluation.segments import popularity_labels
    from multimodal_rec.evaluation.significance import compare_runs, paired_difference
    from multimodal_rec.explanation import Explanation
    from multimodal_rec.fine_tuning import FineTune
    from multimodal_rec.mmrec import read_mmrec
    from multimodal_rec.onnx_export import OnnxReport
    from multimodal_rec.onnx_scorer import OnnxScorer
    from multimodal_rec.people import Person
    from multimodal_rec.ray_engine import RayEngine
    from multimodal_rec.recommendations import Recommendations
    from multimodal_rec.recommender import Recommender
    from multimodal_rec.reranking.calibration import Calibrated
    from multimodal_rec.reranking.determinantal import DPP
    from multimodal_rec.reranking.duplicates import Deduplicate
    from multimodal_rec.reranking.exploration import Explore
    from multimodal_rec.reranking.exposure import ExposureFloor
    from multimodal_rec.reranking.marginal_relevance import MMR
    from multimodal_rec.reranking.rules import Cap, MustHave
    from multimodal_rec.reranking.step import Group
    from multimodal_rec.retrieval import Query
    from multimodal_rec.samples import write_sample
    from multimodal_rec.schema import Schema
    from multimodal_rec.updating import UpdateReport

__all__ = [
    "DPP",
    "MMR",
    "Audit",
    "Calibrated",
    "Cap",
    "Catalogue",
    "CatalogueError",
    "ConfigError",
    "ContextError",
    "Deduplicate",
    "EngineError",
    "Ensemble",
    "EnsembleExplanation",
    "Evaluation",
    "Explanation",
    "Explore",
    "ExposureFloor",
    "FineTune",
    "GraphConfig",
    "Group",
    "ItemError",
    "ItemItemConfig",
    "LeakError",
    "MediaError",
    "MultimodalRecError",
    "MustHave",
    "NotFittedError",
    "OnnxError",
    "OnnxReport",
    "OnnxScorer",
    "Person",
    "Query",
    "RankingTask",
    "RayEngine",
    "Recommendations",
    "Recommender",
    "RecommenderConfig",
    "Schema",
    "SequenceConfig",
    "SplitError",
    "StoreError",
    "TasteConfig",
    "TowerConfig",
    "TowerCost",
    "TrainingConfig",
    "UnknownIdError",
    "UpdateReport",
    "analyse_experiment",
    "audit_parts",
    "build_tower",
    "compare_runs",
    "default_config",
    "evaluate_judgements",
    "evaluate_ranking",
    "paired_difference",
    "people_for_mean",
    "people_for_rate",
    "popularity_labels",
    "read_mmrec",
    "tower_costs",
    "write_sample",
]

_HOMES = {
    "Audit": "evaluation.audit",
    "Calibrated": "reranking.calibration",
    "Cap": "reranking.rules",
    "Catalogue": "catalogue",
    "DPP": "reranking.determinantal",
    "Deduplicate": "reranking.duplicates",
    "Ensemble": "ensemble",
    "EnsembleExplanation": "ensemble_explanation",
    "Evaluation": "evaluation",
    "Explanation": "explanation",
    "Explore": "reranking.exploration",
    "ExposureFloor": "reranking.exposure",
    "FineTune": "fine_tuning",
    "GraphConfig": "collaborative.settings",
    "Group": "reranking.step",
    "ItemItemConfig": "collaborative.settings",
    "MMR": "reranking.marginal_relevance",
    "MustHave": "reranking.rules",
    "OnnxReport": "onnx_export",
    "OnnxScorer": "onnx_scorer",
    "Person": "people",
    "Query": "retrieval",
    "RankingTask": "evaluation.protocol",
    "RayEngine": "ray_engine",
    "Recommendations": "recommendations",
    "Recommender": "recommender",
    "RecommenderConfig": "config",
    "Schema": "schema",
    "SequenceConfig": "collaborative.settings",
    "TasteConfig": "collaborative.settings",
    "TowerConfig": "config",
    "TowerCost": "costs",
    "TrainingConfig": "config",
    "UpdateReport": "updating",
    "analyse_experiment": "evaluation.experiment",
    "audit_parts": "evaluation.audit",
    "build_tower": "builders",
    "compare_runs": "evaluation.significance",
    "default_config": "defaults",
    "evaluate_judgements": "evaluation.judgements",
    "evaluate_ranking": "evaluation",
    "paired_difference": "evaluation.significance",
    "people_for_mean": "evaluation.sample_size",
    "people_for_rate": "evaluation.sample_size",
    "popularity_labels": "evaluation.segments",
    "read_mmrec": "mmrec",
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
