"""Configurations become towers, and those that cannot say why."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from multimodal_rec.builders import build_tower
from multimodal_rec.config import TowerConfig
from multimodal_rec.errors import ConfigError
from tests.towers.tiny import film, picture, tone

VIT = TowerConfig("timm:test_vit", pretrained=False, tuning="full", image_size_px=32, max_windows=2)


def test_modality_comes_from_the_prefix() -> None:
    assert build_tower(VIT).modality == "image"
    assert build_tower(VIT, modality="video").modality == "video"
    tower = build_tower(TowerConfig("hf:all-MiniLM-L6-v2"), embedding_dim=16)
    assert (tower.modality, tower.tuning, tower.backbone_dim, tower.embedding_dim) == ("text", "frozen", 384, 16)
    sound = build_tower(TowerConfig("spectrogram:test_byobnet", pretrained=False, tuning="full", clip_seconds=0.5))
    assert sound.modality == "audio"
    assert sound.encode([tone(440, 0.5)]).shape == (1, 64)


def test_settings_reach_the_tower() -> None:
    tower = build_tower(VIT)
    batch = tower.prepare([[picture(index) for index in range(5)]])
    assert batch.counts.tolist() == [2]
    assert batch.windows["pixels"].shape == (2, 3, 32, 32)
    text = build_tower(TowerConfig("hf:all-MiniLM-L6-v2", tuning="adapter", adapter_rank=2, max_tokens=7))
    assert text.prepare(["rain " * 50]).windows["input_ids"].shape == (4, 7)
    assert sum(value.numel() for value in text.backbone_parameters()) == 6 * 2 * 2 * (384 * 2)


def test_seed_fixes_the_weights_and_leaves_the_global_state() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, again, other = build_tower(VIT, seed=1), build_tower(VIT, seed=1), build_tower(VIT, seed=2)
    assert torch.equal(torch.rand(1), expected)
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()


def test_frames_share_the_image_tower() -> None:
    image = build_tower(VIT, seed=0)
    video = build_tower(TowerConfig("frames:image", max_windows=5), shared=image, embedding_dim=8)
    assert video.backbone is image.backbone
    assert (video.modality, video.tuning) == ("video", "full")
    assert video.prepare([film(0, 9)]).counts.tolist() == [5]
    with pytest.raises(ConfigError, match=r"there is no image tower. Add one, or name"):
        build_tower(TowerConfig("frames:image"))


def test_saved_state_needs_no_pretrained_weights() -> None:
    config = TowerConfig("hf:all-MiniLM-L6-v2")
    trained, empty = build_tower(config), build_tower(config, load_weights=False)
    assert trained.fingerprint() != empty.fingerprint()
    empty.load_state_dict(trained.state_dict())
    assert trained.fingerprint() == empty.fingerprint()
    np.testing.assert_array_equal(trained.encode(["rain"]), empty.encode(["rain"]))


@pytest.mark.parametrize(
    ("backbone", "modality", "message"),
    [
        ("timm:resnet10q", None, "cannot be built: timm has no network 'resnet10q'.*Did you mean"),
        ("hf:/no/such", "text", "the text tower 'hf:/no/such' cannot be built: no Transformers model"),
        ("vit:x", None, "no known prefix"),
        ("hf:all-MiniLM-L6-v2", "image", "reads text, and the tower is for image. Expected .*'open_clip:' or 'timm:'"),
        ("frames:hf:x", "video", "Expected an image tower to share"),
        ("open_clip:ViT-B-32/openai", None, "not on this machine, and nothing is downloaded"),
    ],
)
def test_what_cannot_be_built_says_why(backbone: str, modality: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_tower(TowerConfig(backbone), modality=modality)


def test_adapters_on_conv_nets_are_refused() -> None:
    config = TowerConfig("timm:test_byobnet", tuning="adapter", image_size_px=32)
    with pytest.raises(
        ConfigError, match=r"adapter='lora' needs attention or feed-forward layers, and ByobNet has none"
    ):
        build_tower(config, load_weights=False)
