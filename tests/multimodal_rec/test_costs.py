from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn

from multimodal_rec.builders import build_tower
from multimodal_rec.catalogue import Catalogue
from multimodal_rec.config import RecommenderConfig, TowerConfig
from multimodal_rec.content import ItemContent
from multimodal_rec.costs import StepMemory, TowerCost, catalogue_seconds, step_memory, tower_costs
from multimodal_rec.errors import ConfigError
from multimodal_rec.schema import Schema
from multimodal_rec.trial_batch import trial_batch
from tests.towers.tiny import picture, write_bert

ADAPTERS = ("lora", "dora", "adalora", "bottleneck", "side")

COST = TowerCost(
    modality="text",
    backbone="hf:x",
    tuning="full",
    device="cpu",
    precision="fp32",
    batch_size=4,
    parameters=1000,
    trainable=250,
    memory=StepMemory(weights=4000, gradients=1000, optimiser=2000, activations=800),
    seconds_per_step=0.5,
    embedding_items_per_second=20.0,
    reading_items_per_second=100.0,
    cached=False,
    backbone_bytes=3000,
)


@pytest.fixture(scope="module")
def architecture(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A BERT without a weight file."""
    return f"hf:{write_bert(tmp_path_factory.mktemp('costs') / 'bert', weights=False)}"


def cost_of(tower: TowerConfig, *, batch_size: int = 2, modality: str = "text", **settings: Any) -> TowerCost:
    config = RecommenderConfig({modality: tower}, embedding_dim=16)
    (cost,) = tower_costs(config, batch_size=batch_size, device="cpu", **settings)
    return cost


def test_a_frozen_towers_step_from_the_cache_to_the_byte(architecture: str) -> None:
    cost = cost_of(TowerConfig(architecture, max_tokens=32, max_windows=1), batch_size=8)
    learn = 2 * 32 + (32 * 16 + 16)
    assert cost.trainable == learn
    assert cost.cached
    # LayerNorm keeps its input and two statistics a row, the projection its input, the loss the rows.
    activations = 4 * 8 * (32 + 1 + 1 + 32 + 16)
    # AdamW: two moments of each weight, one step count of each of four tensors.
    assert cost.memory == StepMemory(4 * learn, 4 * learn, 8 * learn + 4 * 4, activations)
    assert cost.parameters * 4 <= cost.backbone_bytes + cost.memory.weights


def test_a_backbone_of_random_weights_stays_in_memory_while_training(architecture: str) -> None:
    kept = cost_of(TowerConfig(architecture, pretrained=False))
    freed = cost_of(TowerConfig(architecture))
    assert kept.memory.weights == freed.memory.weights + freed.backbone_bytes


@pytest.fixture(scope="module")
def extremes(architecture: str) -> tuple[TowerCost, TowerCost]:
    """The same tower frozen and in full."""
    tower = TowerConfig(architecture, max_tokens=32, max_windows=1)
    return cost_of(tower), cost_of(replace(tower, tuning="full"))


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_every_adapter_lies_between_frozen_and_full(
    architecture: str, adapter: Any, extremes: tuple[TowerCost, TowerCost]
) -> None:
    frozen, full = extremes
    tower = TowerConfig(architecture, tuning="adapter", adapter=adapter, adapter_rank=2, max_tokens=32, max_windows=1)
    adapted = cost_of(tower)
    assert (frozen.tuning, adapted.tuning, full.tuning) == ("frozen", adapter, "full")
    assert frozen.trainable < adapted.trainable < full.trainable
    assert frozen.memory.total < adapted.memory.total < full.memory.total
    assert adapted.cached == (adapter == "side")
    assert full.trainable_share == 1.0
    assert not full.cached
    assert full.memory.gradients == 4 * full.parameters
    built = build_tower(tower, embedding_dim=16, load_weights=False)
    assert adapted.parameters == sum(value.numel() for value in built.parameters())
    assert adapted.trainable == sum(value.numel() for value in built.parameters() if value.requires_grad)


def test_activations_grow_with_the_batch_and_shrink_with_checkpointing(architecture: str) -> None:
    tower = TowerConfig(architecture, tuning="full", max_tokens=32)
    two, four = cost_of(tower, batch_size=2), cost_of(tower, batch_size=4)
    assert two.memory[:3] == four.memory[:3]
    assert two.memory.activations * 1.9 < four.memory.activations < two.memory.activations * 2.1
    checkpointed = cost_of(replace(tower, gradient_checkpointing=True), batch_size=2)
    assert checkpointed.memory.activations < 0.3 * two.memory.activations


def test_half_precision_keeps_smaller_activations(architecture: str) -> None:
    tower = TowerConfig(architecture, tuning="full", max_tokens=32)
    full, half = cost_of(tower), cost_of(tower, precision="bf16")
    assert (full.precision, half.precision) == ("fp32", "bf16")
    assert half.memory.weights == full.memory.weights
    assert half.memory.activations < full.memory.activations


def test_a_video_over_the_image_towers_backbone_counts_it_once() -> None:
    net = TowerConfig("timm:test_vit", tuning="full", pretrained=False, image_size_px=160)
    towers = {"video": TowerConfig("frames:image", max_windows=2), "image": net}
    image, video = tower_costs(RecommenderConfig(towers, embedding_dim=16), batch_size=2, device="cpu")
    assert (image.modality, video.modality) == ("image", "video")
    assert video.parameters < image.parameters
    assert video.memory.weights == 4 * video.parameters
    assert video.backbone_bytes == image.backbone_bytes
    # Its two frames go through the backbone in every step.
    assert video.memory.activations > 1.5 * image.memory.activations


def test_sound_is_made_up_for_all_windows() -> None:
    tower = TowerConfig("spectrogram:test_vit", pretrained=False, clip_seconds=0.5, max_windows=3)
    trial = trial_batch(build_tower(tower), tower, None, 2)
    assert trial.batch.counts.tolist() == [3, 3]


def test_a_measurement_leaves_random_numbers_and_the_configuration_alone(architecture: str) -> None:
    before = torch.get_rng_state()
    tower = TowerConfig(architecture, tuning="full", max_tokens=32)
    first, again = cost_of(tower), cost_of(tower)
    assert torch.equal(torch.get_rng_state(), before)
    assert (first.memory, first.parameters) == (again.memory, again.parameters)
    for value in (first.seconds_per_step, first.items_per_second, first.embedding_items_per_second):
        assert value > 0


def test_the_batch_is_of_the_catalogues_own_items(tmp_path: Path) -> None:
    for name, size in (("small", 8), ("large", 24)):
        picture(size, size=(size, size)).save(tmp_path / f"{name}.png")
    (tmp_path / "broken.png").write_bytes(b"no picture at all")
    items = pd.DataFrame(
        {
            "item_id": [f"i{index}" for index in range(5)],
            "cover": [None, ["small.png"], ["broken.png"], ["large.png", "small.png"], None],
            "title": "a slow drum",
        }
    )
    schema = Schema("tiny", kind="music", text=("title",), image=("cover",))
    catalogue = Catalogue.from_frames(items, schema=schema, media=tmp_path)
    config = TowerConfig("timm:test_vit", pretrained=False, image_size_px=160)
    tower = build_tower(config, seed=0)
    content = ItemContent(catalogue.items, catalogue.schema)
    trial = trial_batch(tower, config, content, 4)
    # Two items can be read; they are repeated. One of them has two pictures.
    assert sorted(trial.batch.counts.tolist()) == [1, 1, 2, 2]
    pixels = tower.prepare([[picture(8, size=(8, 8))]]).windows["pixels"][0]
    assert any(torch.equal(window, pixels) for window in trial.batch.windows["pixels"])
    assert trial.reading_items_per_second > 0
    config = TowerConfig("spectrogram:test_vit", pretrained=False, max_windows=2)
    assert trial_batch(build_tower(config), config, content, 3).batch.counts.tolist() == [2, 2, 2]


def test_totals_scale_what_grows_with_the_batch_and_nothing_else() -> None:
    frozen = replace(COST, modality="image", memory=StepMemory(100, 10, 20, 8), cached=True, seconds_per_step=0.1)
    assert step_memory([COST, frozen]) == StepMemory(4100, 1010, 2020, 808)
    assert step_memory([COST, frozen], items_per_step=16) == StepMemory(4100, 1010, 2020, 4 * 808)
    assert step_memory([COST]).total == 7800
    assert COST.items_per_second == 8
    assert COST.trainable_share == 1 / 4
    seconds = catalogue_seconds([COST, frozen], {"text": 80, "image": 40})
    assert seconds.once == pytest.approx(80 / 100 + 80 / 20 + 40 / 100 + 40 / 20)
    assert seconds.epoch == pytest.approx(80 / 8 + 40 / 40)
    assert catalogue_seconds([COST], {}) == (0, 0)


def test_what_cannot_be_measured_is_refused(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="has no towers, so there is nothing to measure"):
        tower_costs(RecommenderConfig())
    with pytest.raises(ConfigError, match=r"batch_size is 0\. Expected at least 1"):
        cost_of(TowerConfig(architecture), batch_size=0)
    with pytest.raises(ConfigError, match="device 'cdua' is unknown"):
        tower_costs(RecommenderConfig({"text": TowerConfig(architecture)}), device="cdua")
    with pytest.raises(ConfigError, match=r"the text tower 'hf:nowhere' cannot be built"):
        cost_of(TowerConfig("hf:nowhere"))
    if not torch.accelerator.is_available():
        with pytest.raises(ConfigError, match="torch finds no such accelerator on this machine"):
            tower_costs(RecommenderConfig({"text": TowerConfig(architecture)}), device="cuda")

    def too_much(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(nn.utils, "clip_grad_norm_", too_much)
    with pytest.raises(ConfigError, match=r"2 items of the text tower .* do not fit .* Take a smaller batch"):
        cost_of(TowerConfig(architecture, tuning="full"))
