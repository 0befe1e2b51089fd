"""Several embeddings and what is present in, one embedding or one score out. Knows nothing of towers."""

from fusion.attention import AttentionFusion
from fusion.scoring import ContextScore

__all__ = ["AttentionFusion", "ContextScore"]
