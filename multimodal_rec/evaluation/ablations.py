"""A configuration and a split with one part alone, taken away, or made meaningless."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from multimodal_rec.config import MODALITIES, RecommenderConfig, TowerConfig
from multimodal_rec.evaluation.tampering import part_columns, shuffled, shuffled_context, with_noise
from multimodal_rec.schema import Schema
from multimodal_rec.splits import Split

FULL = "everything"
"""The configuration as it was given."""
IDS_ONLY = "ids only"
"""Behaviour and nothing else."""

Setting = tuple[Split, RecommenderConfig]


class Variant(NamedTuple):
    """One way of training."""

    name: str
    part: str
    """Which part it is about; '' for the whole."""
    make: Callable[[int], Setting]
    """Seed → what to train on, and what to train."""


def variants(split: Split, config: RecommenderConfig) -> list[Variant]:
    """Every way of training this configuration on this split: as it is, then part by part."""
    schema = split.test.schema
    ids = replace(config, towers={}, attributes=False, behaviour=True, context=False)
    found = [
        Variant(FULL, "", lambda _: (split, config)),
        Variant(IDS_ONLY, "content", lambda _: (split, ids)),
    ]
    for part in own_parts(config, schema):
        if part not in ("behaviour", "context"):  # of these the first alone is what 'ids only' is
            alone = only_part(config, part)
            found.append(Variant(f"only {part}", part, lambda _, alone=alone: (split, alone)))
        rest = without_part(config, part)
        if rest is not None:
            found.append(Variant(f"without {part}", part, lambda _, rest=rest: (split, rest)))
        if part == "context":
            found.append(Variant(f"{part} shuffled", part, lambda seed: (shuffled_context(split, seed=seed), config)))
        elif part_columns(schema, part):
            found.append(
                Variant(f"{part} shuffled", part, lambda seed, part=part: (shuffled(split, part, seed=seed), config))
            )
        if part in config.towers:
            found.append(Variant(f"{part} noise", part, lambda seed, part=part: _noise(split, config, part, seed)))
    return found


def own_parts(config: RecommenderConfig, schema: Schema) -> list[str]:
    """The parts that a model of this configuration reads of this catalogue, 'context' last."""
    there = {
        "attributes": config.attributes and bool(schema.attributes),
        "behaviour": config.behaviour,
        "context": config.context and bool(schema.context),
    }
    return [*(name for name in MODALITIES if name in config.towers), *(name for name in there if there[name])]


def without_part(config: RecommenderConfig, part: str) -> RecommenderConfig | None:
    """The configuration that does not know of one part; None where nothing would be left of an item."""
    towers = _other_towers(config, part) if part in config.towers else config.towers
    attributes, behaviour, context = (
        getattr(config, name) and name != part for name in ("attributes", "behaviour", "context")
    )
    if not towers and not attributes and not behaviour:
        return None
    return replace(config, towers=towers, attributes=attributes, behaviour=behaviour, context=context)


def only_part(config: RecommenderConfig, part: str) -> RecommenderConfig:
    """The configuration that knows of one part of an item and nothing else."""
    towers = {part: config.towers[part]} if part in config.towers else {}
    if part == "video" and towers[part].backbone == "frames:image":
        towers = {part: _own_frames(config)}
    return replace(config, towers=towers, attributes=part == "attributes", behaviour=False, context=False)


def _other_towers(config: RecommenderConfig, part: str) -> dict[str, TowerConfig]:
    towers = {name: tower for name, tower in config.towers.items() if name != part}
    if part == "image" and "video" in towers and towers["video"].backbone == "frames:image":
        towers["video"] = _own_frames(config)
    return towers


def _own_frames(config: RecommenderConfig) -> TowerConfig:
    # Frames that went through the image tower's backbone have the same net to themselves.
    return replace(config.towers["image"], max_windows=config.towers["video"].max_windows)


def _noise(split: Split, config: RecommenderConfig, part: str, seed: int) -> Setting:
    noisy, column = with_noise(split, part, seed=seed)
    return noisy, replace(config, towers={**_other_towers(config, part), part: TowerConfig(f"vectors:{column}")})
