"""Configuration → modules, here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor

from multimodal_rec.collaborative.blend import Blend
from multimodal_rec.collaborative.details import AttributeDetails
from multimodal_rec.collaborative.expectation import Expectation
from multimodal_rec.collaborative.graph_score import GraphScore
from multimodal_rec.collaborative.item_item import ItemItemScore
from multimodal_rec.collaborative.score import CollaborativeScore
from multimodal_rec.collaborative.sequence import SequenceEncoder
from multimodal_rec.collaborative.sequence_score import SequenceScore
from multimodal_rec.collaborative.settings import GraphConfig, SequenceConfig
from multimodal_rec.config import MODALITIES, RecommenderConfig, TowerConfig
from multimodal_rec.errors import ConfigError
from multimodal_rec.model import ModelShape, RecommenderModel
from multimodal_rec.profiles import ProfileTower
from multimodal_rec.vocabulary import Vocabulary
from towers import (
    MODALITY_OF_PREFIX,
    Backbone,
    BackboneOptions,
    Tower,
    VectorStatistics,
    apply_tuning,
    build_backbone,
    recompute_blocks,
    split_name,
)


def build_tower(
    config: TowerConfig,
    *,
    modality: str | None = None,
    embedding_dim: int = 64,
    shared: Tower | None = None,
    seed: int | None = None,
    load_weights: bool = True,
    vectors: VectorStatistics | None = None,
) -> Tower:
    """One tower: its backbone loaded and tuned, its projection fresh, in training mode.

    `modality`: None takes what the backbone's prefix reads; `video` puts a tower of frames over an image backbone.
    `shared`: the image tower whose backbone `frames:image` uses; its tuning rules then. `seed`: of fresh weights,
    without touching the global random state; None draws from the global one. `load_weights=False` reads no weight
    file although the configuration says pretrained, for a saved state that is loaded next. `vectors`: how the vectors
    lie that a tower of vectors reads.
    Raises `ConfigError` for what cannot work together or is not on this machine.
    """
    try:
        with torch.random.fork_rng(devices=[]) if seed is not None else nullcontext():
            if seed is not None:
                torch.manual_seed(seed)
            if split_name(config.backbone)[0] == "vectors":
                return _build_for_vectors(config, modality, embedding_dim, vectors)
            return _build(config, modality, embedding_dim, shared, load_weights)
    except ConfigError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        what = "tower" if modality is None else f"{modality} tower"
        raise ConfigError(f"the {what} '{config.backbone}' cannot be built: {error}") from error


def build_model(
    config: RecommenderConfig, vocabulary: Vocabulary, *, seed: int = 0, load_weights: bool = True
) -> RecommenderModel:
    """The whole model, its towers in the order of `MODALITIES`. `load_weights` as in `build_tower`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        towers: dict[str, Tower] = {}
        for modality in (name for name in MODALITIES if name in config.towers):
            towers[modality] = build_tower(
                config.towers[modality],
                modality=modality,
                embedding_dim=config.embedding_dim,
                shared=towers.get("image"),
                load_weights=load_weights,
                vectors=vocabulary.vectors.get(modality),
            )
        profile = _profile_tower(config.profile, seed=seed, load_weights=load_weights)
        shape = ModelShape(
            embedding_dim=config.embedding_dim,
            attribute_width=max(1, vocabulary.attributes.width),
            behaviour_width=config.behaviour_rank + 1,
            context_width=max(1, vocabulary.context.width),
            person_width=max(1, vocabulary.people.width) + (0 if profile is None else profile.width),
            event_weights=vocabulary.event_weights,
            fusion=config.fusion,
            texts_apart="text" in config.towers and config.towers["text"].columns_apart,
        )
        return RecommenderModel(towers, shape, profile=profile, dropout=config.dropout, temperature=config.temperature)


def _profile_tower(config: TowerConfig | None, *, seed: int, load_weights: bool) -> ProfileTower | None:
    if config is None:
        return None
    # A projection that is never asked, the smallest there is. The seed is its own, so that all other weights start as
    # they would without profiles.
    return ProfileTower(build_tower(config, modality="text", embedding_dim=1, seed=seed, load_weights=load_weights))


def build_blend(
    config: RecommenderConfig,
    vocabulary: Vocabulary,
    blocks: Sequence[str],
    weights: Mapping[str, Tensor],
    *,
    fused_dim: int,
) -> Blend:
    """The blend that these weights are the state of; `blocks`: the kinds of content that its expectation reads;
    `fused_dim`: as of the model."""
    scores: dict[str, CollaborativeScore] = {}
    for name, settings in config.collaborative.items():
        own = {key.removeprefix(f"scores.{name}."): value for key, value in weights.items()}
        if isinstance(settings, SequenceConfig):
            sizes = {"num_kinds": len(own["kind.weight"]), "person_width": len(own["person"])}
            scores[name] = SequenceScore(SequenceEncoder.of(settings), num_items=0, **sizes)
        elif isinstance(settings, GraphConfig):
            scores[name] = GraphScore(0, settings.dim, temperature=settings.temperature, taking=own["taking"])
        else:
            scores[name] = ItemItemScore(0, len(own["speaks"]), rank=settings.rank)
    details = AttributeDetails(vocabulary.attributes.columns)
    widths = {block: len(weights[f"content.weight_{place}"]) for place, block in enumerate(blocks)}
    width = sum(score.width for score in scores.values())
    expectation = Expectation(widths, width, rank=len(weights["content.up"]), details=details)
    blend = Blend(scores, expectation, fused_dim=fused_dim)
    blend.load_state_dict(dict(weights))
    return blend


def _build_for_vectors(
    config: TowerConfig, modality: str | None, embedding_dim: int, vectors: VectorStatistics | None
) -> Tower:
    if modality is None:
        raise ConfigError(
            f"the vectors of '{config.backbone}' may stand for any modality. Say for which, such as modality='audio'."
        )
    backbone = build_backbone(config.backbone, BackboneOptions(modality=modality, vectors=vectors))
    apply_tuning(
        backbone, config.tuning, adapter=config.adapter, rank=config.adapter_rank, top_layers=config.top_layers
    )
    return Tower(backbone, embedding_dim, modality=modality)


def _build(
    config: TowerConfig, modality: str | None, embedding_dim: int, shared: Tower | None, load_weights: bool
) -> Tower:
    prefix, rest = split_name(config.backbone)
    reads = MODALITY_OF_PREFIX[prefix]
    modality = reads if modality is None else modality
    if modality != reads and not (modality == "video" and reads == "image"):
        fitting = " or ".join(f"'{name}:'" for name, read in MODALITY_OF_PREFIX.items() if read == modality)
        raise ConfigError(
            f"backbone '{config.backbone}' reads {reads}, and the tower is for {modality}. "
            f"Expected a backbone that starts with {fitting or 'another prefix'}."
        )
    if prefix == "frames" and rest == "image":
        if shared is None or shared.columns:
            why = "there is no image tower" if shared is None else "that tower reads vectors, no pictures"
            raise ConfigError(
                f"'frames:image' shares the image tower's backbone, and {why}. Add one, or name the video tower's own "
                "backbone, such as 'timm:resnet10t'."
            )
        return Tower(shared, embedding_dim, modality="video", max_windows=config.max_windows, frames=config.frames)
    # Random weights cannot be read again, and those of a saved model come from its own file.
    reload = partial(_tuned_backbone, config) if config.pretrained and load_weights else None
    return Tower(
        _tuned_backbone(config, load_weights=load_weights),
        embedding_dim,
        modality=modality,
        max_windows=config.max_windows,
        frames=config.frames,
        reload=reload,
    )


def _tuned_backbone(config: TowerConfig, *, load_weights: bool = True) -> Backbone:
    backbone = build_backbone(
        config.backbone,
        BackboneOptions(
            pretrained=config.pretrained and load_weights,
            pooling=config.pooling,
            prefix=config.prefix,
            image_size_px=config.image_size_px,
            clip_seconds=config.clip_seconds,
            max_tokens=config.max_tokens,
        ),
    )
    apply_tuning(
        backbone, config.tuning, adapter=config.adapter, rank=config.adapter_rank, top_layers=config.top_layers
    )
    if config.gradient_checkpointing:
        recompute_blocks(backbone.net)
    if config.compile:
        backbone.compile()
    return backbone
