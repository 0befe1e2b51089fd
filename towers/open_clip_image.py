"""Pictures through open_clip's encoders."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, final

import open_clip
import torch
from huggingface_hub import try_to_load_from_cache
from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict
from torch import Tensor, nn

from towers.backbone import Backbone
from towers.windows import pictures_of


@final
class OpenClipImage(Backbone):
    """The picture half of one of open_clip's models; a row equals its `encode_image`, not normalised.

    `name`: `ARCH/TAG` (`ViT-B-32/openai`), with the tag's own activation, mean and standard deviation, or
    `ARCH/PATH` with a weight file; for `pretrained=False` also `ARCH` alone. `image_size_px`: side of the square
    input, None for the architecture's own. Raises `ValueError` for an unknown architecture or tag, with the nearest
    ones, and `OSError` where the weights are not on this machine.
    """

    modality = "image"

    def __init__(self, name: str, *, pretrained: bool = True, image_size_px: int | None = None) -> None:
        super().__init__()
        architecture, _, tag = name.partition("/")
        known = open_clip.list_models()
        if architecture not in known:
            near = difflib.get_close_matches(architecture, known, n=3)
            hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else "open_clip.list_models() lists them."
            raise ValueError(f"open_clip has no architecture '{architecture}'. {hint}")
        declared: dict[str, Any] = dict(open_clip.get_pretrained_cfg(architecture, tag)) if tag else {}
        weights = _weights(architecture, tag, declared) if pretrained else None
        with _quiet_root_logger():
            model: Any = open_clip.create_model(
                architecture,
                # A path, never the tag: open_clip would go to the network, and warn about the activation that
                # the next line sets right.
                pretrained=weights,
                force_quick_gelu=bool(declared.get("quick_gelu", False)),
                force_image_size=image_size_px,
                pretrained_text=False,
            )
        self.net: nn.Module = model.visual
        self.quick_gelu = bool(
            declared.get("quick_gelu", False) or (open_clip.get_model_config(architecture) or {}).get("quick_gelu")
        )
        size = getattr(self.net, "image_size", image_size_px or 224)
        self._preprocessing = merge_preprocess_dict(asdict(PreprocessCfg()), {**declared, "size": size})
        self._transform: Any = image_transform_v2(PreprocessCfg(**self._preprocessing), is_train=False)
        side = size if isinstance(size, int) else size[0]
        self.eval()
        with torch.no_grad():
            self.dim = int(self.net(torch.zeros(1, 3, side, side)).shape[-1])

    def prepare(self, value: Any, max_windows: int) -> dict[str, Tensor]:
        """Pictures of one item as float32 (window, 3, height, width)."""
        pictures = pictures_of(value, max_windows=max_windows)
        return {"pixels": torch.stack([self._transform(picture) for picture in pictures])}

    def forward(self, windows: dict[str, Tensor]) -> Tensor:
        """One row a picture: (picture, dim)."""
        return self.net(windows["pixels"])

    def describe(self) -> Mapping[str, Any]:
        """Architecture, activation, and preprocessing."""
        return {
            "class": type(self).__name__,
            "net": type(self.net).__name__,
            "quick_gelu": self.quick_gelu,
            "preprocessing": self._preprocessing,
        }


def _weights(architecture: str, tag: str, declared: dict[str, Any]) -> str:
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
    for candidate in (filename, "open_clip_model.safetensors", "open_clip_pytorch_model.bin"):
        path = try_to_load_from_cache(repository, candidate) if repository and candidate else None
        if isinstance(path, str):
            return path
    raise OSError(
        f"the weights of open_clip's '{architecture}/{tag}' are not on this machine, and nothing is downloaded. "
        f"Fetch them with 'hf download {repository or declared.get('url')} open_clip_model.safetensors' where there "
        f"is a network, give 'open_clip:{architecture}/PATH', or take pretrained=False for random weights."
    )


@contextmanager
def _quiet_root_logger() -> Iterator[None]:
    """open_clip tells the root logger that random weights are random, which would install a handler there."""
    root, handler, level = logging.getLogger(), logging.NullHandler(), logging.root.manager.disable
    root.addHandler(handler)
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(level)
        root.removeHandler(handler)
