"""The kinds of fusion by name."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

from fusion.attention import AttentionFusion
from fusion.concatenation import ConcatenationFusion
from fusion.gating import GatedFusion
from fusion.mean import MeanFusion
from fusion.scoring import ContextScore, FusedScore

FusionKind = Literal["attention", "concatenation", "gating", "mean"]

FUSIONS: tuple[str, ...] = get_args(FusionKind)
"""The names that `build_fusion` takes."""

ItemFusion: TypeAlias = AttentionFusion | ConcatenationFusion | GatedFusion | MeanFusion
"""Parts in, an item's embedding out: (item, part, dim) and bool (item, part) → (item, part · dim)."""


def build_fusion(kind: FusionKind, embedding_dim: int, num_parts: int) -> tuple[ItemFusion, ContextScore | FusedScore]:
    """A fresh fusion for item embeddings, and the context-aware score of the same kind.

    For `attention` that is `ContextScore`; for the others the inner product with a second fusion, so that both scores
    of every kind learn weights of their own. All kinds start as the mean of the present parts, whatever the seed.
    Raises `ValueError` for an unknown `kind`.
    """
    match kind:
        case "attention":
            return AttentionFusion(embedding_dim, num_parts), ContextScore(embedding_dim, num_parts)
        case "concatenation":
            fusion = ConcatenationFusion
        case "gating":
            fusion = GatedFusion
        case "mean":
            fusion = MeanFusion
        case _:
            raise ValueError(f"fusion '{kind}' is unknown. Expected one of {', '.join(map(repr, FUSIONS))}.")
    return fusion(embedding_dim, num_parts), FusedScore(fusion(embedding_dim, num_parts))
