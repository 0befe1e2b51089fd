"""Depth, refusals and artefacts of tuning, where one network is enough to show them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tests.towers.tiny import picture, write_bert
from towers import Backbone, Tower, apply_tuning
from towers.image import TimmImage
from towers.layers import block_names, depth_of
from towers.text import HuggingFaceText


def _vit() -> Backbone:
    torch.manual_seed(0)
    return TimmImage("test_vit", pretrained=False, image_size_px=32)


def _adapted(adapter: str, rank: int = 4) -> Tower:
    backbone = _vit()
    apply_tuning(backbone, "adapter", adapter=adapter, rank=rank)
    return Tower(backbone, 8)


@pytest.mark.parametrize(
    ("name", "first", "last", "stem", "after"),
    [
        ("test_vit", "blocks.0", "blocks.5", "patch_embed.proj.weight", "norm.weight"),
        ("test_convnext", "stages.0", "stages.3", "stem.0.weight", "head.norm.weight"),
        ("test_efficientnet", "blocks.0", "blocks.4", "conv_stem.weight", "conv_head.weight"),
        ("test_resnet", "layer1", "layer4", "conv1.0.weight", None),
        ("swin_tiny_patch4_window7_224", "layers.0", "layers.3", "patch_embed.proj.weight", "norm.weight"),
    ],
)
def test_depth_is_counted_from_the_input(name: str, first: str, last: str, stem: str, after: str | None) -> None:
    net = timm.create_model(name, num_classes=0)
    blocks = block_names(net)
    assert (blocks[0], blocks[-1]) == (first, last)
    names = dict(net.named_parameters())
    assert stem in names
    assert depth_of(stem, blocks) == 0
    if after is not None:
        assert after in names
        assert depth_of(after, blocks) == len(blocks) + 1
    inside = {depth_of(each, blocks) for each in names}
    assert inside >= set(range(len(blocks) + 1))


def test_a_network_of_unknown_depth_says_so() -> None:
    with pytest.raises(ValueError, match=r"the blocks of Sequential are not known.*without top_layers and layer_decay"):
        block_names(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))


def test_the_last_blocks_learn_and_what_follows_them() -> None:
    backbone = _vit()
    apply_tuning(backbone, "full", top_layers=2)
    learning = {name for name, value in backbone.net.named_parameters() if value.requires_grad}
    count = len(block_names(backbone.net))
    tops = (f"blocks.{count - 1}.", f"blocks.{count - 2}.", "norm.", "fc_norm.")
    assert learning == {name for name, _ in backbone.net.named_parameters() if name.startswith(tops)}
    with pytest.raises(ValueError, match=rf"top_layers=99, and VisionTransformer has {count} blocks"):
        apply_tuning(_vit(), "full", top_layers=99)
    with pytest.raises(ValueError, match=r"top_layers=1 with tuning='frozen'"):
        apply_tuning(_vit(), "frozen", top_layers=1)


def test_one_tuning_a_backbone() -> None:
    backbone = _vit()
    apply_tuning(backbone, "adapter")
    with pytest.raises(ValueError, match=r"has tuning='adapter' already.*Build another"):
        apply_tuning(backbone, "full")
    with pytest.raises(ValueError, match=r"adapter 'prefix' is unknown\. Expected one of 'lora', 'dora'"):
        apply_tuning(_vit(), "adapter", adapter="prefix")


def test_attention_over_tokens_needs_the_tokens(tmp_path: Path) -> None:
    path = str(write_bert(tmp_path, weights=False))
    for refused in ({"tuning": "frozen"}, {"tuning": "adapter", "adapter": "side"}):
        with pytest.raises(ValueError, match=r"pooling='attention' learns over every token"):
            apply_tuning(HuggingFaceText(path, pretrained=False, pooling="attention"), **refused)
    torch.manual_seed(0)
    backbone = HuggingFaceText(path, pretrained=False, pooling="attention")
    apply_tuning(backbone, "adapter", adapter="bottleneck", rank=2)
    tower = Tower(backbone, 8)
    assert any(value is backbone.token_pooling.query for value in tower.backbone_parameters())
    with torch.no_grad():
        backbone.token_pooling.query.normal_()
    expected = tower.encode(["slow rain", "a loud drum in the rain"], project=False)
    tower.save_adapter(tmp_path / "adapter")
    torch.manual_seed(0)
    again = HuggingFaceText(path, pretrained=False, pooling="attention")
    apply_tuning(again, "adapter", adapter="bottleneck", rank=2)
    arrived = Tower(again, 8).load_adapter(tmp_path / "adapter")
    assert (arrived.encode(["slow rain", "a loud drum in the rain"], project=False) == expected).all()


def test_an_adapter_is_small_and_says_whose_it_is(tmp_path: Path) -> None:
    tower = _adapted("lora")
    tower.save_adapter(tmp_path)
    card = json.loads((tmp_path / "adapter.json").read_text())
    assert card == {"format": 1, "adapter": "lora", "rank": 4, "modality": "image", "base": _vit().fingerprint()}
    held = load_file(tmp_path / "adapter.safetensors")
    assert sum(value.numel() for value in held.values()) == sum(v.numel() for v in tower.backbone_parameters())


def test_adapters_that_do_not_fit_are_refused_by_what_is_wrong(tmp_path: Path) -> None:
    plain = Tower(_vit(), 8)
    with pytest.raises(ValueError, match=r"tuning='frozen' has no adapter to save"):
        plain.save_adapter(tmp_path)
    with pytest.raises(ValueError, match=r"tuning='frozen' cannot be merged: it has no adapter"):
        plain.merge_adapter()
    with pytest.raises(OSError, match=r"'adapter.json' is missing\. Expected a folder that save_adapter wrote"):
        plain.load_adapter(tmp_path)
    _adapted("lora").save_adapter(tmp_path)
    with pytest.raises(ValueError, match=r"is 'lora' of rank 4, and this tower has adapter 'dora' of rank 4"):
        _adapted("dora").load_adapter(tmp_path)
    with pytest.raises(ValueError, match=r"is 'lora' of rank 4, and this tower has adapter 'lora' of rank 2"):
        _adapted("lora", rank=2).load_adapter(tmp_path)
    full = _vit()
    apply_tuning(full, "full")
    with pytest.raises(ValueError, match=r"and this tower has tuning 'full'"):
        Tower(full, 8).load_adapter(tmp_path)
    weights = load_file(tmp_path / "adapter.safetensors")
    save_file(dict(list(weights.items())[1:]), tmp_path / "adapter.safetensors")
    expected = plain.encode([picture(1)])
    with pytest.raises(ValueError, match=r"are not those of the adapter 'lora' of rank 4"):
        plain.load_adapter(tmp_path)
    assert (plain.encode([picture(1)]) == expected).all()
    card = json.loads((tmp_path / "adapter.json").read_text())
    (tmp_path / "adapter.json").write_text(json.dumps(card | {"format": 9}))
    with pytest.raises(ValueError, match=r"has format 9\. Expected 1"):
        plain.load_adapter(tmp_path)
