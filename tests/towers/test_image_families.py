"""Each family of picture networks, prepared and run as its own library does it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from tests.towers.tiny import picture, write_clip_config
from towers import Backbone
from towers.image import TimmImage
from towers.open_clip_image import OpenClipImage
from towers.timm_net import load_timm

# The smallest real names of each family, at the smallest size that each takes; 0 leaves the size alone.
TIMM_FAMILIES = {
    "vit_tiny_patch16_224": 32,
    "deit_tiny_patch16_224": 32,
    "deit_tiny_distilled_patch16_224": 32,
    "convnext_atto": 64,
    "swin_tiny_patch4_window7_224": 64,
    "efficientnet_b0": 64,
    "resnet10t": 64,
    "mobilenetv3_small_050": 64,
    "test_vit": 0,
    "test_efficientnet": 0,
}

TINY_TEXT = {"context_length": 8, "vocab_size": 16, "width": 16, "heads": 2, "layers": 1}

CLIP_FAMILIES: Mapping[str, Mapping[str, Any]] = {
    "tiny-resnet": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None, "head_width": 32},
    "tiny-siglip": {
        "image_size": 160,
        "timm_model_name": "test_vit3",
        "timm_model_pretrained": False,
        "timm_pool": "map",
        "timm_proj": "none",
    },
    "tiny-convnext": {
        "image_size": 64,
        "timm_model_name": "test_convnext",
        "timm_model_pretrained": False,
        "timm_pool": "",
        "timm_proj": "linear",
    },
    "tiny-coca": {
        "image_size": 32,
        "layers": 2,
        "width": 64,
        "head_width": 32,
        "patch_size": 8,
        "attentional_pool": True,
        "attn_pooler_heads": 4,
        "output_tokens": True,
    },
}


def pictures() -> list[Image.Image]:
    """Lying, standing, and square; bigger and smaller than what the networks take."""
    return [picture(0, (300, 200)), picture(1, (40, 90)), picture(2, (16, 16))]


def by_hand(image: Image.Image, data: Mapping[str, Any]) -> torch.Tensor:
    """Resize, crop and normalise as a timm configuration says, without timm or torchvision."""
    height, width = data["input_size"][1:]
    resample = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}[data["interpolation"]]
    short = int(np.floor(height / data["crop_pct"]))
    scale = short / min(image.size)
    size = [short if side == min(image.size) else int(short * side / min(image.size)) for side in image.size]
    assert scale > 0
    image = image.resize((size[0], size[1]), resample)
    left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
    values = np.asarray(image.crop((left, top, left + width, top + height)), dtype=np.float32) / 255
    values = (values - np.array(data["mean"], np.float32)) / np.array(data["std"], np.float32)
    return torch.from_numpy(values.transpose(2, 0, 1))


def check_everything_is_used(backbone: Backbone) -> None:
    """Every parameter but those declared unused gets a gradient."""
    backbone.requires_grad_(True)
    backbone(backbone.prepare(picture(0), 1)).square().sum().backward()
    without = {name for name, value in backbone.named_parameters() if value.grad is None}
    assert without == set(backbone.unused)


@pytest.mark.parametrize("name", TIMM_FAMILIES)
def test_timm_family_equals_the_library(name: str) -> None:
    torch.manual_seed(0)
    size = TIMM_FAMILIES[name] or None
    backbone = TimmImage(name, pretrained=False, image_size_px=size)
    config = timm.get_pretrained_cfg(name)
    assert config is not None
    own = (3, size, size) if size else config.input_size
    data = {**config.to_dict(), "input_size": own}
    assert config.crop_mode == "center"
    expected_pixels = torch.stack([by_hand(image, data) for image in pictures()])
    prepared = torch.cat([backbone.prepare(image, 1)["pixels"] for image in pictures()])
    torch.testing.assert_close(prepared, expected_pixels, atol=1e-5, rtol=0)
    extra = {"img_size": size} if size and config.fixed_input_size else {}
    net = timm.create_model(name, num_classes=0, **extra).eval()
    net.load_state_dict(backbone.net.state_dict())
    with torch.inference_mode():
        rows, expected = backbone({"pixels": prepared}), net(prepared)
    assert rows.shape == (3, backbone.dim)
    torch.testing.assert_close(rows, expected, atol=1e-5, rtol=0)
    check_everything_is_used(backbone)


def _architecture(folder: Path, name: str) -> Path:
    embed_dim = {"tiny-siglip": 96}.get(name, 32)
    config: dict[str, Any] = {"embed_dim": embed_dim, "vision_cfg": CLIP_FAMILIES[name], "text_cfg": TINY_TEXT}
    if name in ("tiny-siglip", "tiny-coca"):
        config["custom_text"] = True
    if name == "tiny-coca":
        config["text_cfg"] = {**TINY_TEXT, "width": 32, "embed_cls": True, "output_tokens": True}
        config["multimodal_cfg"] = {**TINY_TEXT, "width": 32, "attn_pooler_heads": 2}
    path = folder / f"{name}.json"
    path.write_text(json.dumps(config))
    return path


@pytest.mark.parametrize("name", CLIP_FAMILIES)
def test_open_clip_family_equals_encode_image(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    open_clip.add_model_config(_architecture(tmp_path, name))
    logging.disable(logging.WARNING)
    try:
        model, _, transform = open_clip.create_model_and_transforms(name)
    finally:
        logging.disable(logging.NOTSET)
    model.eval()
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    backbone = OpenClipImage(f"{name}/{tmp_path / 'weights.safetensors'}")
    pixels = torch.stack([transform(image) for image in pictures()])  # pyright: ignore[reportCallIssue]
    prepared = torch.cat([backbone.prepare(image, 1)["pixels"] for image in pictures()])
    torch.testing.assert_close(prepared, pixels, atol=1e-6, rtol=0)
    with torch.inference_mode():
        # CoCa scales its rows to length one unless it is told not to.
        expected, rows = model.encode_image(pixels, normalize=False), backbone({"pixels": prepared})
    assert rows.shape == (3, backbone.dim)
    torch.testing.assert_close(rows, expected, atol=1e-5, rtol=0)
    check_everything_is_used(backbone)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ViT-S-32-alt", "RN50", "ViT-B-16-SigLIP"])
def test_open_clip_real_names_equal_encode_image(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    small = {"text_cfg": TINY_TEXT} if "SigLIP" in name else {}
    logging.disable(logging.WARNING)
    try:
        model = open_clip.create_model(name, **small).eval()
    finally:
        logging.disable(logging.NOTSET)
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    backbone = OpenClipImage(f"{name}/{tmp_path / 'weights.safetensors'}")
    pixels = backbone.prepare(pictures(), 3)["pixels"]
    with torch.inference_mode():
        torch.testing.assert_close(backbone({"pixels": pixels}), model.encode_image(pixels), atol=1e-5, rtol=0)


def test_a_weight_file_is_prepared_as_all_tags_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A CLIP's means and crop would be wrong for each of SigLIP's weights.
    open_clip.add_model_config(_architecture(tmp_path, "tiny-siglip"))
    tags = {"one": dict(open_clip.get_pretrained_cfg("ViT-B-16-SigLIP", "webli"))}
    tags["two"] = {**tags["one"], "interpolation": "bilinear"}
    monkeypatch.setattr(open_clip, "list_pretrained_tags_by_model", lambda name: list(tags))
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda name, tag: tags.get(tag, {}))
    backbone = OpenClipImage("tiny-siglip", pretrained=False, image_size_px=64)
    image = picture(0, (300, 200))
    expected = np.asarray(image.resize((64, 64), Image.Resampling.BICUBIC), dtype=np.float32) / 127.5 - 1
    pixels = backbone.prepare(image, 1)["pixels"][0].numpy()
    np.testing.assert_allclose(pixels, expected.transpose(2, 0, 1), atol=1e-5)


def test_text_halves_are_neither_built_nor_fetched(tmp_path: Path) -> None:
    # open_clip would ask the network for this text half, even for random weights.
    config = json.loads(write_clip_config(tmp_path, "tiny-roberta").read_text())
    config["text_cfg"] = {"hf_model_name": "nobody/no-such-model", "hf_tokenizer_name": "nobody/no-such-model"}
    (tmp_path / "tiny-roberta.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "tiny-roberta.json")
    backbone = OpenClipImage("tiny-roberta", pretrained=False)
    assert backbone(backbone.prepare(picture(0), 1)).shape == (1, 24)


@pytest.mark.parametrize("weights", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_open_clip_folder_is_as_good_as_a_name(weights: str, tmp_path: Path) -> None:
    torch.manual_seed(2)
    architecture = json.loads(write_clip_config(tmp_path, "tiny-clip-folder").read_text())
    config = {
        "model_cfg": {**architecture, "quick_gelu": True},
        "preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "resize_mode": "longest", "fill_color": 9},
    }
    with pytest.raises(
        OSError, match=r"has no open_clip_config\.json\. Expected open_clip_config\.json and open_clip_m"
    ):
        OpenClipImage(str(tmp_path))
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(OSError, match=r"has no weights\. Expected .* in it\. Or take pretrained=False"):
        OpenClipImage(str(tmp_path))
    logging.disable(logging.WARNING)
    try:
        model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    finally:
        logging.disable(logging.NOTSET)
    model.eval()
    path = tmp_path / weights
    save_file(model.state_dict(), path) if path.suffix == ".safetensors" else torch.save(model.state_dict(), path)
    backbone = OpenClipImage(str(tmp_path))
    assert backbone.quick_gelu
    pixels = torch.stack([transform(image) for image in pictures()])  # pyright: ignore[reportCallIssue]
    torch.testing.assert_close(backbone.prepare(pictures(), 3)["pixels"], pixels)
    with torch.inference_mode():
        torch.testing.assert_close(backbone({"pixels": pixels}), model.encode_image(pixels), atol=1e-5, rtol=0)
    (tmp_path / "open_clip_config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"is no configuration of open_clip \('model_cfg'\)"):
        OpenClipImage(str(tmp_path))


def test_open_clip_positions_follow_the_size_and_other_weights_are_refused(tmp_path: Path) -> None:
    torch.manual_seed(4)
    open_clip.add_model_config(write_clip_config(tmp_path, "tiny-clip-3"))
    open_clip.add_model_config(_architecture(tmp_path, "tiny-resnet"))
    own = OpenClipImage("tiny-clip-3", pretrained=False)
    path = tmp_path / "weights.safetensors"
    save_file({f"visual.{name}": value for name, value in own.net.state_dict().items()}, path)
    smaller = OpenClipImage(f"tiny-clip-3/{path}", image_size_px=16)
    assert smaller.net.state_dict()["positional_embedding"].shape == (1 + 4, 64)
    assert torch.equal(smaller.net.state_dict()["proj"], own.net.state_dict()["proj"])
    with pytest.raises(
        OSError, match=r"do not fit 'tiny-resnet/.*Expected a file that open_clip saved of this architecture"
    ):
        OpenClipImage(f"tiny-resnet/{path}")


def test_a_trunk_takes_another_size_after_its_weights(tmp_path: Path) -> None:
    torch.manual_seed(5)
    open_clip.add_model_config(_architecture(tmp_path, "tiny-siglip"))
    own = OpenClipImage("tiny-siglip", pretrained=False)
    path = tmp_path / "weights.safetensors"
    save_file({f"visual.{name}": value for name, value in own.net.state_dict().items()}, path)
    smaller = OpenClipImage(f"tiny-siglip/{path}", image_size_px=64)
    pixels = smaller.prepare(picture(0), 1)["pixels"]
    assert pixels.shape == (1, 3, 64, 64)
    assert smaller({"pixels": pixels}).shape == (1, own.dim)


@pytest.mark.parametrize("size", [(1, 1), (1, 30_000), (30_000, 1), (3, 5000)])
@pytest.mark.parametrize("kind", ["timm", "open_clip"])
def test_points_and_strips_stay_small(
    kind: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    open_clip.add_model_config(write_clip_config(tmp_path, "tiny-clip-strip"))
    backbone = (
        TimmImage("test_vit", pretrained=False, image_size_px=32)
        if kind == "timm"
        else OpenClipImage("tiny-clip-strip", pretrained=False)
    )
    largest = 0
    resize = Image.Image.resize

    def watched(self: Image.Image, to: tuple[int, int], *args: Any, **kwargs: Any) -> Image.Image:
        nonlocal largest
        largest = max(largest, to[0] * to[1])
        return resize(self, to, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "resize", watched)
    pixels = backbone.prepare(Image.new("RGB", size, (255, 0, 0)), 1)["pixels"]
    assert pixels.shape == (1, 3, 32, 32)
    assert torch.isfinite(pixels).all()
    assert (pixels.flatten(2).std(dim=2) < 1e-5).all()
    assert 0 < largest <= 16 * 64 * 64


def test_of_a_strip_the_middle_is_read() -> None:
    strip = Image.new("RGB", (400, 4))
    strip.paste((255, 255, 255), (150, 0, 250, 4))
    backbone = TimmImage("test_vit", pretrained=False, image_size_px=32)
    assert backbone.prepare(strip, 1)["pixels"].min() == pytest.approx(1.0)


def test_unknown_tags_list_the_nearest() -> None:
    with pytest.raises(
        ValueError, match=r"'vit_tiny_patch16_224' has no weights with the tag 'augreg_in2k'.*'augreg_in21k'"
    ):
        load_timm("vit_tiny_patch16_224.augreg_in2k", pretrained=False)
    with pytest.raises(ValueError, match=r"no weights with the tag 'x'\. Expected 'r160_in1k' after the dot"):
        load_timm("test_vit.x", pretrained=True)
    with pytest.raises(ValueError, match=r"no architecture '', and there is no such folder"):
        OpenClipImage("/no/such/folder")


def test_pictures_are_a_tuple_where_the_network_says_so() -> None:
    class Two(nn.Module):
        def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return pixels.mean(dim=(2, 3)), pixels

    backbone = TimmImage("test_efficientnet", pretrained=False, image_size_px=32)
    backbone.net = Two()
    assert backbone(backbone.prepare(picture(0), 1)).shape == (1, 3)


def test_no_code_from_a_model_folder_is_ever_run() -> None:
    root = Path(__file__).parents[2]
    for package in ("towers", "multimodal_rec", "fusion"):
        for file in (root / package).rglob("*.py"):
            assert "trust_remote_code=True" not in file.read_text(encoding="utf-8"), file
