"""The picture backbones give what their libraries give."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import open_clip
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.data.config import resolve_data_config
from timm.data.transforms_factory import create_transform

from tests.towers.tiny import picture, write_clip_config
from towers import Tower, open_clip_image, timm_net
from towers.image import TimmImage
from towers.open_clip_image import OpenClipImage


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, open_clip.CLIP]:
    """Weights of a tiny CLIP on disk, and the model itself."""
    folder = tmp_path_factory.mktemp("clip")
    open_clip.add_model_config(write_clip_config(folder, "tiny-clip-2"))
    torch.manual_seed(3)
    model = open_clip.create_model("tiny-clip-2").eval()
    save_file(model.state_dict(), folder / "weights.safetensors")
    return folder / "weights.safetensors", model


def _pixels(transform: object, count: int) -> torch.Tensor:
    return torch.stack([transform(picture(index)) for index in range(count)])  # pyright: ignore[reportCallIssue]


def test_open_clip_equals_encode_image(clip: tuple[Path, open_clip.CLIP]) -> None:
    path, model = clip
    transform = open_clip.image_transform(32, is_train=False)
    with torch.inference_mode():
        expected = model.encode_image(_pixels(transform, 3)).numpy()
    backbone = OpenClipImage(f"tiny-clip-2/{path}")
    assert backbone.dim == 24
    got = Tower(backbone, 8).encode([picture(index) for index in range(3)], project=False)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_open_clip_tag_brings_its_activation_and_means(
    clip: tuple[Path, open_clip.CLIP], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = clip
    tag = {"hf_hub": "somebody/tiny/", "quick_gelu": True, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda arch, name: tag if name == "quick" else {})
    with pytest.raises(OSError, match=r"'tiny-clip-2/quick' are not on this machine.*hf download somebody/tiny"):
        OpenClipImage("tiny-clip-2/quick")
    monkeypatch.setattr(open_clip_image, "try_to_load_from_cache", lambda repo, name: str(path))
    quick, plain = OpenClipImage("tiny-clip-2/quick"), OpenClipImage(f"tiny-clip-2/{path}")
    assert any(type(module).__name__ == "QuickGELU" for module in quick.net.modules())
    assert not any(type(module).__name__ == "QuickGELU" for module in plain.net.modules())
    assert quick.fingerprint() != plain.fingerprint()
    white = picture(0).point(lambda _: 255)
    assert quick.prepare(white, 1)["pixels"].max() == pytest.approx(1.0)


@pytest.mark.usefixtures("clip")
def test_open_clip_names_the_nearest_and_leaves_logging_alone() -> None:
    with pytest.raises(ValueError, match=r"no architecture 'ViT-B-33', and .* Did you mean 'ViT-B-32'"):
        OpenClipImage("ViT-B-33/openai")
    with pytest.raises(ValueError, match=r"no pretrained tag 'openay'.*such as 'openai'"):
        OpenClipImage("ViT-B-32/openay")
    with pytest.raises(ValueError, match=r"no pretrained tag ''.*pretrained=False"):
        OpenClipImage("ViT-B-32")
    handlers = list(logging.getLogger().handlers)
    OpenClipImage("tiny-clip-2", pretrained=False, image_size_px=16)
    assert logging.getLogger().handlers == handlers
    assert logging.root.manager.disable == 0


@pytest.mark.parametrize(("name", "size"), [("test_vit", 32), ("test_byobnet", 64), ("test_byobnet", None)])
def test_timm_equals_its_forward(name: str, size: int | None) -> None:
    torch.manual_seed(0)
    backbone = TimmImage(name, pretrained=False, image_size_px=size)
    extra = {"img_size": size} if name == "test_vit" else {}
    net = timm.create_model(name, num_classes=0, **extra).eval()
    net.load_state_dict(backbone.net.state_dict())
    data = resolve_data_config({}, model=net)
    if size is not None:
        data["input_size"] = (3, size, size)
    with torch.inference_mode():
        expected = net(_pixels(create_transform(**data), 3)).numpy()
    got = Tower(backbone, 8).encode([picture(index) for index in range(3)], project=False)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    pair = Tower(backbone, 8).encode([[picture(0), picture(1)]], project=False)
    np.testing.assert_allclose(pair[0], expected[:2].mean(0), atol=1e-5)


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "resnet10t"])
def test_timm_dim_is_what_the_net_gives(name: str) -> None:
    backbone = TimmImage(name, pretrained=False, image_size_px=32)
    assert backbone(backbone.prepare(picture(0), 1)).shape == (1, backbone.dim)


def test_timm_folder_is_as_good_as_a_name(tmp_path: Path) -> None:
    torch.manual_seed(1)
    net = timm.create_model("test_byobnet", num_classes=10)
    net.pretrained_cfg = {**net.pretrained_cfg, "input_size": (3, 64, 64)}
    timm.models.save_for_hf(net, str(tmp_path), safe_serialization=True)
    weights = tmp_path / "model.safetensors"
    kept = weights.read_bytes()
    for file in tmp_path.iterdir():
        if file.name != "config.json":
            file.unlink()
    with pytest.raises(OSError, match=r"has no weights. Expected model\.safetensors"):
        TimmImage(str(tmp_path))
    weights.write_bytes(kept)
    backbone = TimmImage(str(tmp_path))
    assert torch.equal(backbone.net.state_dict()["stem.conv.weight"], net.state_dict()["stem.conv.weight"])
    assert backbone.prepare(picture(0), 1)["pixels"].shape == (1, 3, 64, 64)


def test_timm_takes_weights_from_the_cache_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"timm has no network 'resnet10q'.*Did you mean .*'resnet10t'"):
        TimmImage("resnet10q")
    monkeypatch.setattr(timm_net, "try_to_load_from_cache", lambda repo, name: None)
    with pytest.raises(OSError, match=r"weights of timm's 'test_byobnet' are not on this machine.*hf download"):
        TimmImage("test_byobnet")
    net = timm.create_model("test_byobnet")
    save_file(net.state_dict(), tmp_path / "model.safetensors")
    monkeypatch.setattr(timm_net, "try_to_load_from_cache", lambda repo, name: str(tmp_path / "model.safetensors"))
    backbone = TimmImage("test_byobnet")
    assert torch.equal(backbone.net.state_dict()["stem.conv.weight"], net.state_dict()["stem.conv.weight"])


def _clip_of_texts(folder: Path, name: str) -> tuple[Path, open_clip.CLIP]:
    """A tiny CLIP with its own tokenizer's vocabulary, in a folder as open_clip keeps them."""
    config = json.loads(write_clip_config(folder, name).read_text())
    config["text_cfg"]["vocab_size"] = 49408
    (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / f"{name}.json")
    torch.manual_seed(3)
    model = open_clip.create_model(name).eval()
    kept = folder / "kept"
    kept.mkdir()
    save_file(model.state_dict(), kept / "open_clip_model.safetensors")
    (kept / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    return kept, model


def test_a_wish_in_the_space_of_the_pictures_equals_encode_text(tmp_path: Path) -> None:
    folder, model = _clip_of_texts(tmp_path, "tiny-clip-texts")
    texts = ["a warm wool jumper", "slow piano, and far more words than eight tokens can hold"]
    with torch.inference_mode():
        expected = model.encode_text(open_clip.SimpleTokenizer(context_length=8)(texts))
    backbone = OpenClipImage(str(folder))
    before, names = backbone.fingerprint(), set(backbone.state_dict())
    assert backbone.reads_wishes
    np.testing.assert_allclose(backbone.encode_query(texts).numpy(), expected.numpy(), atol=1e-5)
    assert backbone.fingerprint() == before
    assert set(backbone.state_dict()) == names
    loaded = OpenClipImage(str(folder), pretrained=False)
    assert not OpenClipImage(str(folder), pretrained=False).reads_wishes
    loaded.load_state_dict(backbone.state_dict())
    assert loaded.reads_wishes


def test_pictures_that_were_trained_on_have_no_text_half(tmp_path: Path) -> None:
    folder, _ = _clip_of_texts(tmp_path, "tiny-clip-tuned")
    backbone = OpenClipImage(str(folder))
    with torch.no_grad():
        next(parameter for name, parameter in backbone.net.named_parameters() if "conv1" in name).add_(0.1)
    assert not backbone.reads_wishes
    with pytest.raises(ValueError, match=r"no text half of .* fits these pictures\. Expected a frozen, pretrained"):
        backbone.encode_query(["a wish"])
