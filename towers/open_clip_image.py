"""Pictures through open_clip's encoders."""

from __future__ import annotations

import difflib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, NamedTuple, final

import open_clip
import torch
from huggingface_hub import try_to_load_from_cache
from open_clip.convert import convert_state_dict
from open_clip.factory import load_state_dict
from open_clip.model import _build_vision_tower, resize_pos_embed
from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict
from torch import Tensor, nn

from towers.backbone import load_fitting
from towers.clip_text import ClipText
from towers.pictures import PictureBackbone

_WEIGHT_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


@final
class OpenClipImage(PictureBackbone):
    """The picture half of one of open_clip's models; a row equals its `encode_image`, not normalised.

    `name`: `ARCH/TAG` (`ViT-B-32/openai`), with the tag's own activation, mean and standard deviation; `ARCH/PATH`
    with a weight file, prepared as all of the architecture's tags agree; for `pretrained=False` also `ARCH` alone; or
    a folder with open_clip_config.json and open_clip_model.safetensors or open_clip_pytorch_model.bin.
    `image_size_px`: side of the square input, None for the architecture's own. Raises `ValueError` for an unknown
    architecture or tag, with the nearest ones, and `OSError` where the weights are not on this machine or are of
    another architecture.
    """

    def __init__(self, name: str, *, pretrained: bool = True, image_size_px: int | None = None) -> None:
        source = _source(name, pretrained)
        vision: Any = dict(source.architecture["vision_cfg"])
        # On one of timm's trunks the size is changed after its weights are loaded: they hold the own size's positions.
        on_timm = "timm_model_name" in vision
        if image_size_px is not None and not on_timm:
            vision["image_size"] = image_size_px
        if on_timm:
            vision["timm_model_pretrained"] = False  # Else timm would go to the network.
        dim = int(source.architecture["embed_dim"])
        with _quiet_root_logger():
            # Only the half that is needed: the text half of some models is fetched from the network by itself.
            net: Any = _build_vision_tower(dim, vision, quick_gelu=source.quick_gelu)
            if source.weights is not None:
                _load(net, source.weights, name)
            if image_size_px is not None and on_timm:
                net.set_input_size(image_size_px)
        size = getattr(net, "image_size", image_size_px or 224)
        preprocessing = merge_preprocess_dict(asdict(PreprocessCfg()), {**source.preprocessing, "size": size})
        transform: Any = image_transform_v2(PreprocessCfg(**preprocessing), is_train=False)
        super().__init__(net, dim, transform=transform, preprocessing=preprocessing)
        self.quick_gelu = source.quick_gelu
        self._name = name
        # None before anybody asked, False where there is none that fits.
        self._text: ClipText | Literal[False] | None = None

    @property
    def reads_wishes(self) -> bool:
        """Whether the model's text half is on this machine and lies in the space of these pictures.

        It does not where the picture half has random weights, was trained on, or stands beside an adapter.
        """
        if self._text is None:
            self._text = self._text_half() or False
        return self._text is not False

    def encode_query(self, texts: Sequence[str]) -> Tensor:
        """(text, dim), comparable by cosine with pictures' rows. Raises `ValueError` where `reads_wishes` is False."""
        if not self.reads_wishes or not self._text:
            raise ValueError(
                f"no text half of '{self._name}' fits these pictures. Expected a frozen, pretrained open_clip model "
                "with its weight file on this machine. Take a text tower in its place."
            )
        return self._text(texts, next(self.net.parameters()).device)

    def _text_half(self) -> ClipText | None:
        try:
            source = _source(self._name, True)
            if source.weights is None:
                return None
            loaded: Any = load_state_dict(source.weights)
            state: dict[str, Tensor] = dict(loaded)
            if not _same_pictures(self.net, state):
                return None
            return ClipText(source.architecture, state, quick_gelu=source.quick_gelu)
        except (OSError, ValueError, KeyError):
            return None

    def describe(self) -> Mapping[str, Any]:
        """Architecture, activation, and preprocessing."""
        return {**super().describe(), "quick_gelu": self.quick_gelu}


class _Source(NamedTuple):
    architecture: Mapping[str, Any]
    """open_clip's `model_cfg`."""
    preprocessing: Mapping[str, Any]
    quick_gelu: bool
    weights: str | None


def _source(name: str, pretrained: bool) -> _Source:
    return _from_folder(Path(name), pretrained) if Path(name).is_dir() else _from_library(name, pretrained)


def _same_pictures(net: nn.Module, state: Mapping[str, Tensor]) -> bool:
    """Whether a network is the picture half of these weights, positions apart, which depend on the pictures' size."""
    own = {name: each for name, each in net.state_dict().items() if "pos" not in name}
    kept = {name: state.get(f"visual.{name}") for name in own}
    return all(
        each is not None and each.shape == own[name].shape and torch.equal(each.to(own[name]), own[name])
        for name, each in kept.items()
    )


def _from_folder(folder: Path, pretrained: bool) -> _Source:
    path = folder / "open_clip_config.json"
    expected = f"Expected open_clip_config.json and {' or '.join(_WEIGHT_FILES)} in it."
    if not path.is_file():
        raise OSError(f"folder '{folder}' has no open_clip_config.json. {expected}")
    try:
        declared = json.loads(path.read_text(encoding="utf-8"))
        architecture = declared["model_cfg"]
        if not {"embed_dim", "vision_cfg"} <= set(architecture):
            raise KeyError("embed_dim and vision_cfg")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"'{path}' is no configuration of open_clip ({error}). Expected model_cfg in it.") from error
    found = [folder / name for name in _WEIGHT_FILES if (folder / name).is_file()]
    if pretrained and not found:
        raise OSError(f"folder '{folder}' has no weights. {expected} Or take pretrained=False for random weights.")
    weights = str(found[0]) if pretrained else None
    gelu = bool(architecture.get("quick_gelu", False))
    return _Source(architecture, declared.get("preprocess_cfg") or {}, gelu, weights)


def _from_library(name: str, pretrained: bool) -> _Source:
    architecture, _, tag = name.partition("/")
    known = open_clip.list_models()
    if architecture not in known:
        near = difflib.get_close_matches(architecture, known, n=3)
        hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else "open_clip.list_models() lists them."
        raise ValueError(f"open_clip has no architecture '{architecture}', and there is no such folder. {hint}")
    config: dict[str, Any] = open_clip.get_model_config(architecture) or {}
    declared: dict[str, Any] = dict(open_clip.get_pretrained_cfg(architecture, tag)) if tag else {}
    weights = _weights(architecture, tag, declared) if pretrained else None
    gelu = bool(declared.get("quick_gelu", False) or config.get("quick_gelu", False))
    return _Source(config, declared or _agreed(architecture), gelu, weights)


def _agreed(architecture: str) -> dict[str, Any]:
    """What all tags of an architecture declare alike: SigLIP's mean, for one, where only a weight file is given."""
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    found = [dict(open_clip.get_pretrained_cfg(architecture, tag)) for tag in tags]
    keys = ("mean", "std", "interpolation", "resize_mode")
    return {key: found[0][key] for key in keys if found and all(each.get(key) == found[0].get(key) for each in found)}


def _weights(architecture: str, tag: str, declared: Mapping[str, Any]) -> str:
    """Path of the weight file of a tag, or the path that was given in its place."""
    if tag and Path(tag).is_file():
        return tag
    if not declared:
        tags = open_clip.list_pretrained_tags_by_model(architecture)
        near = difflib.get_close_matches(tag, tags, n=3) or tags[:5]
        raise ValueError(
            f"open_clip's '{architecture}' has no pretrained tag '{tag}', and there is no such file. Expected "
            f"'open_clip:{architecture}/TAG', such as {' or '.join(map(repr, near)) or 'a path to a weight file'}; "
            f"or take pretrained=False for random weights."
        )
    repository, _, filename = str(declared.get("hf_hub", "")).rpartition("/")
    for candidate in (filename, *_WEIGHT_FILES):
        path = try_to_load_from_cache(repository, candidate) if repository and candidate else None
        if isinstance(path, str):
            return path
    raise OSError(
        f"the weights of open_clip's '{architecture}/{tag}' are not on this machine, and nothing is downloaded. "
        f"Fetch them with 'hf download {repository or declared.get('url')} open_clip_model.safetensors' where there "
        f"is a network, give 'open_clip:{architecture}/PATH', or take pretrained=False for random weights."
    )


def _load(net: nn.Module, path: str, name: str) -> None:
    """Load a whole model's weights into its picture half, positions scaled to its size as open_clip does."""
    whole = nn.Module()
    whole.visual = net
    converted: Any = convert_state_dict(whole, load_state_dict(path))  # pyright: ignore[reportArgumentType]
    state: dict[str, Any] = dict(converted)
    resize_pos_embed(state, whole)
    own = {key.removeprefix("visual."): value for key, value in state.items() if key.startswith("visual.")}
    expected = "a file that open_clip saved of this architecture, at its own image size where that cannot be changed."
    load_fitting(net, own, file=path, name=f"'{name}'", expected=expected)


@contextmanager
def _quiet_root_logger() -> Iterator[None]:
    """open_clip tells the root logger what it does, which would install a handler there."""
    root, handler, level = logging.getLogger(), logging.NullHandler(), logging.root.manager.disable
    root.addHandler(handler)
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(level)
        root.removeHandler(handler)
