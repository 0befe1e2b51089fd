"""Recommenders to measure a model against: one contract for all, and validation chooses the settings of all."""

from multimodal_rec.baselines.baseline import Baseline, Log
from multimodal_rec.baselines.bpr import BPR, PairwiseBaseline
from multimodal_rec.baselines.closed_form import EASE, EASEWithContent, Ridge
from multimodal_rec.baselines.lightgcn import LightGCN
from multimodal_rec.baselines.neighbours import ContentKNN, ItemKNN, Popularity
from multimodal_rec.baselines.propagation import GraphPropagation
from multimodal_rec.baselines.sequence import SASRec
from multimodal_rec.baselines.trained import Schedule, TrainedBaseline
from multimodal_rec.baselines.tuning import Tuned, tuned

__all__ = [
    "BPR",
    "EASE",
    "Baseline",
    "ContentKNN",
    "EASEWithContent",
    "GraphPropagation",
    "ItemKNN",
    "LightGCN",
    "Log",
    "PairwiseBaseline",
    "Popularity",
    "Ridge",
    "SASRec",
    "Schedule",
    "TrainedBaseline",
    "Tuned",
    "tuned",
]
