"""timm's networks without their classifier, from its registry or a folder, never from the network."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from huggingface_hub import try_to_load_from_cache
from timm.data.config import resolve_data_config
from torch import nn


class TimmNet(NamedTuple):
    """A network that gives (picture, dim), and how its pictures are prepared."""

    net: nn.Module
    dim: int
    data: dict[str, Any]
    """timm's data configuration: input_size, interpolation, mean, std, crop_pct, crop_mode."""


def load_timm(name: str, *, pretrained: bool, in_chans: int = 3, input_size: tuple[int, int] | None = None) -> TimmNet:
    """A timm network by name (`resnet10t`, `vit_tiny_patch16_224.augreg_in21k`) or from a folder.

    A folder holds timm's `config.json` and, for `pretrained=True`, `model.safetensors`. `input_size`: height and
    width, None for the network's own. Raises `ValueError` for an unknown name, with the nearest ones, and `OSError`
    where pretrained weights are asked for and are not on this machine.
    """
    folder = Path(name)
    kwargs: dict[str, Any] = {"num_classes": 0, "in_chans": in_chans}
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise OSError(f"folder '{name}' has no config.json. Expected timm's config.json and model.safetensors.")
        if pretrained and not any(file.suffix in (".safetensors", ".bin", ".pth") for file in folder.iterdir()):
            raise OSError(f"folder '{name}' has no weights. Expected model.safetensors beside config.json.")
        source, architecture = f"local-dir:{name}", json.loads((folder / "config.json").read_text())["architecture"]
    else:
        source, architecture = name, name
        base = name.partition(".")[0]
        if not timm.is_model(base):
            near = difflib.get_close_matches(base, timm.list_models(), n=3)
            hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else "timm.list_models() lists them."
            raise ValueError(f"timm has no network '{name}', and there is no such folder. {hint}")
        _check_tag(name)
        if pretrained:
            kwargs["pretrained_cfg_overlay"] = {"file": _cached_weights(name)}
    known = timm.get_pretrained_cfg(architecture, allow_unregistered=True)
    if input_size is not None and known is not None and known.fixed_input_size:
        # A ViT's position table belongs to a size; convolutional nets take any, and refuse the argument.
        kwargs["img_size"] = input_size
    net: Any = timm.create_model(source, pretrained=pretrained, **kwargs)
    # Channels last in memory: convolutions on a CPU take a third less time, and tensor cores want it too.
    net = net.to(memory_format=torch.channels_last)
    data = resolve_data_config({}, model=net)
    if input_size is not None:
        data["input_size"] = (in_chans, *input_size)
    # Some nets widen once more between their last stage and the classifier; timm says so under this name.
    dim: Any = getattr(net, "head_hidden_size", None) or net.num_features
    return TimmNet(net, int(dim), data)


def _check_tag(name: str) -> None:
    base, dot, tag = name.partition(".")
    tags = [each.partition(".")[2] for each in timm.list_pretrained(f"{base}.*")] if dot else []
    if dot and tag not in tags:
        near = difflib.get_close_matches(tag, tags, n=3) or tags[:5]
        expected = f"Expected {' or '.join(map(repr, near))} after the dot." if near else "It has no tags."
        raise ValueError(f"timm's '{base}' has no weights with the tag '{tag}'. {expected}")


def _cached_weights(name: str) -> str:
    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if config is None or not config.has_weights:
        raise OSError(f"timm has no pretrained weights for '{name}'. Take pretrained=False, or a name with weights.")
    if config.hf_hub_id:
        for filename in filter(None, (config.hf_hub_filename, "model.safetensors", "pytorch_model.bin")):
            path = try_to_load_from_cache(config.hf_hub_id, filename)
            if isinstance(path, str):
                return path
    raise OSError(
        f"the pretrained weights of timm's '{name}' are not on this machine, and nothing is downloaded. Fetch them "
        f"with 'hf download {config.hf_hub_id} config.json model.safetensors --local-dir FOLDER' where there is a "
        f"network and give 'timm:FOLDER', or take pretrained=False for random weights."
    )
