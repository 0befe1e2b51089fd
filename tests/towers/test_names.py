"""Names lead to backbones, and wrong ones to the nearest right one."""

from __future__ import annotations

import pytest
import torch

from towers import BackboneOptions, apply_tuning, build_backbone, split_name
from towers.image import TimmImage
from towers.spectrogram import SpectrogramSound
from towers.tuning import adapter_targets

RANDOM = BackboneOptions(pretrained=False, image_size_px=32, clip_seconds=0.5)


def test_prefixes_lead_to_their_backbones() -> None:
    assert isinstance(build_backbone("timm:test_vit", RANDOM), TimmImage)
    assert isinstance(build_backbone("frames:timm:test_vit", RANDOM), TimmImage)
    assert isinstance(build_backbone("spectrogram:test_byobnet", RANDOM), SpectrogramSound)
    assert split_name("hf:a:b/c") == ("hf", "a:b/c")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tim:resnet10t", "Did you mean 'timm:'"),
        ("resnet10t", "has no known prefix. Expected one of 'hf:'"),
        ("hf:", "nothing after its prefix"),
        ("timm:resnet10", "Did you mean .*'resnet10t'"),
        ("frames:image", "stands for the tower of 'image'"),
        ("frames:hf:bert", "Expected an image tower to share"),
    ],
)
def test_wrong_names_name_the_right_ones(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_backbone(name, RANDOM)


def test_tuning_is_checked_and_adapters_go_where_they_learn() -> None:
    backbone = build_backbone("timm:test_vit", RANDOM)
    with pytest.raises(ValueError, match=r"tuning 'lora' is unknown. Expected one of 'frozen'"):
        apply_tuning(backbone, "lora")
    assert adapter_targets(backbone) == ("qkv",)
    apply_tuning(backbone, "adapter", rank=2)
    names = {name for name, value in backbone.named_parameters() if value.requires_grad}
    assert names
    assert all("lora_" in name for name in names)
    assert all(min(value.shape) == 2 for value in backbone.parameters() if value.requires_grad)
    torch.manual_seed(0)
    conv = build_backbone("timm:test_byobnet", RANDOM)
    with pytest.raises(ValueError, match="for other networks choose adapter='side', tuning='frozen'"):
        apply_tuning(conv, "adapter")
