"""Steps after the ranking: what a list is for besides what somebody likes best."""

from multimodal_rec.reranking.calibration import Calibrated
from multimodal_rec.reranking.candidates import Candidates, Shelf
from multimodal_rec.reranking.determinantal import DPP
from multimodal_rec.reranking.duplicates import Deduplicate
from multimodal_rec.reranking.exploration import Explore
from multimodal_rec.reranking.exposure import ExposureFloor
from multimodal_rec.reranking.marginal_relevance import MMR
from multimodal_rec.reranking.rules import Cap, MustHave
from multimodal_rec.reranking.step import Group, Step

__all__ = [
    "DPP",
    "MMR",
    "Calibrated",
    "Candidates",
    "Cap",
    "Deduplicate",
    "Explore",
    "ExposureFloor",
    "Group",
    "MustHave",
    "Shelf",
    "Step",
]
