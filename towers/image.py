"""Pictures through timm's networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import torch
from timm.data.transforms_factory import create_transform
from torch import Tensor, nn

from towers.backbone import Backbone
from towers.timm_net import load_timm
from towers.windows import pictures_of


@final
class TimmImage(Backbone):
    """One of timm's networks without its classifier; a row equals its pooled features.

    `name` as in `towers.timm_net.load_timm`. `image_size_px`: side of the square input, None for the network's own.
    """

    modality = "image"

    def __init__(self, name: str, *, pretrained: bool = True, image_size_px: int | None = None) -> None:
        super().__init__()
        size = None if image_size_px is None else (image_size_px, image_size_px)
        loaded = load_timm(name, pretrained=pretrained, input_size=size)
        self.net: nn.Module = loaded.net
        self.dim = loaded.dim
        self._preprocessing = loaded.data
        self._transform: Any = create_transform(**loaded.data, is_training=False)
        self.eval()

    def prepare(self, value: Any, max_windows: int) -> dict[str, Tensor]:
        """Pictures of one item as float32 (window, 3, height, width)."""
        pictures = pictures_of(value, max_windows=max_windows)
        return {"pixels": torch.stack([self._transform(picture) for picture in pictures])}

    def forward(self, windows: dict[str, Tensor]) -> Tensor:
        """One row a picture: (picture, dim)."""
        return self.net(windows["pixels"])

    def describe(self) -> Mapping[str, Any]:
        """Architecture, and preprocessing."""
        return {
            "class": type(self).__name__,
            "net": type(self.net).__name__,
            "preprocessing": self._preprocessing,
        }
