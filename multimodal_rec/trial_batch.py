"""The batch that a tower is tried on: some of a catalogue's items, or made-up ones of the usual size."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from multimodal_rec.config import TowerConfig
from multimodal_rec.content import Content, ItemContent
from multimodal_rec.errors import ConfigError, MediaError
from towers import Frames, Sound, Tower, TowerBatch, VectorStatistics

_TEXT = "a slow piano in the rain while people walk home through the old town and nobody says anything"
_NUM_WORDS = 64
_PICTURE_PX = 224
_NUM_FRAMES = 4
_SAMPLE_RATE_HZ = 16_000
_VECTOR_DIM = 512


class TrialBatch(NamedTuple):
    """A batch, and what it took to make it ready."""

    batch: TowerBatch
    reading_items_per_second: float
    """From files, or for made-up items from memory, to tensors."""

    def to(self, device: torch.device) -> TrialBatch:
        """The same on another device."""
        return self._replace(batch=self.batch.to(device))


def trial_batch(tower: Tower, config: TowerConfig, items: ItemContent | None, size: int) -> TrialBatch:
    """A CPU batch of `size` items for `tower`, always the same for the same items.

    Items are drawn at random from those that have the modality and can be read, and repeated where they are fewer
    than `size`. Where there are none: texts of 64 words, pictures of 224 px, sound that fills all windows, videos of
    four frames, vectors of `trial_vectors`.
    """
    prepared: list[dict[str, Tensor]] = []
    start = time.perf_counter()
    # In a random order: the first rows of a catalogue are often of one kind.
    order = () if items is None else np.random.default_rng(0).permutation(len(items)).tolist()
    for row in order:
        if len(prepared) == size:
            break
        try:
            value = None if items is None else items.load(row, tower.modality)
            if value is not None:
                prepared.append(tower.prepare_one(value))
        except (MediaError, TypeError, ValueError, RuntimeError):
            # What cannot be read is for training to report; here it only costs nothing.
            continue
    if not prepared:
        random = np.random.default_rng(0)
        values = [_usual(tower, config, random) for _ in range(size)]
        start = time.perf_counter()
        prepared = [tower.prepare_one(value) for value in values]
    rate = len(prepared) / (time.perf_counter() - start)
    return TrialBatch(tower.collate([prepared[place % len(prepared)] for place in range(size)]), rate)


def trial_vectors(modality: str, items: ItemContent | None) -> VectorStatistics:
    """How the vectors of these items lie; those of made-up vectors of 512 numbers where there are no items.

    Raises `ConfigError` where no item has one.
    """
    if items is None:
        return VectorStatistics.fit({"vectors": np.random.default_rng(0).standard_normal((64, _VECTOR_DIM))})
    cells = [items.vectors(row, modality) for row in range(len(items))]
    try:
        return VectorStatistics.fit({f"{place}": column for place, column in enumerate(zip(*cells, strict=True))})
    except ValueError as error:
        raise ConfigError(f"the {modality} tower cannot be measured: {error}") from error


def _usual(tower: Tower, config: TowerConfig, random: np.random.Generator) -> Content:
    modality = tower.modality
    if tower.columns:
        return [random.standard_normal(tower.backbone_dim).astype(np.float32)]
    if modality == "text":
        return " ".join(random.choice(_TEXT.split(), _NUM_WORDS))
    if modality == "audio":
        length = round(config.clip_seconds * config.max_windows * _SAMPLE_RATE_HZ)
        return Sound(random.uniform(-0.5, 0.5, (1, length)).astype(np.float32), _SAMPLE_RATE_HZ)
    if modality == "image":
        return [_noise(random)]
    count = min(_NUM_FRAMES, config.max_windows)
    return Frames(tuple(_noise(random) for _ in range(count)), tuple(float(second) for second in range(count)))


def _noise(random: np.random.Generator) -> Image.Image:
    return Image.fromarray(random.integers(0, 256, (_PICTURE_PX, _PICTURE_PX, 3), dtype=np.uint8))
