"""Several embeddings and what is present in, one embedding or one score out. Knows nothing of towers."""

from fusion.attention import AttentionFusion
from fusion.concatenation import ConcatenationFusion
from fusion.gating import GatedFusion
from fusion.kinds import FUSIONS, FusionKind, ItemFusion, build_fusion
from fusion.mean import MeanFusion
from fusion.scoring import ContextScore, FusedScore

__all__ = [
    "FUSIONS",
    "AttentionFusion",
    "ConcatenationFusion",
    "ContextScore",
    "FusedScore",
    "FusionKind",
    "GatedFusion",
    "ItemFusion",
    "MeanFusion",
    "build_fusion",
]
