"""What backbones of pictures have in common: how an item's pictures are made ready, and how they are run."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Mapping
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from towers.backbone import Backbone
from towers.windows import pictures_of


class PictureBackbone(Backbone, ABC):
    """A library's network over pictures, prepared as the library prepares them. Subclasses are final.

    `net` gives (picture, dim), or a tuple that begins with it. `transform`: the library's own, from an RGB picture to
    float32 (3, height, width). `preprocessing`: what the transform was made of, as JSON values.
    """

    modality = "image"

    def __init__(
        self,
        net: nn.Module,
        dim: int,
        *,
        transform: Callable[[Image.Image], Tensor],
        preprocessing: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.net: nn.Module = net
        self.dim = dim
        self.preprocessing = dict(preprocessing)
        self._transform = transform
        self.eval()

    def prepare(self, value: Any, max_windows: int) -> dict[str, Tensor]:
        """Pictures of one item as float32 (window, 3, height, width)."""
        pictures = pictures_of(value, max_windows=max_windows)
        return {"pixels": torch.stack([self._transform(picture) for picture in pictures])}

    def forward(self, windows: dict[str, Tensor]) -> Tensor:
        """One row a picture: (picture, dim)."""
        rows = self.net(windows["pixels"])
        # CoCa's picture half also gives its tokens.
        return rows[0] if isinstance(rows, tuple) else rows

    def describe(self) -> Mapping[str, Any]:
        """Architecture, and preprocessing."""
        return {
            "class": type(self).__name__,
            "net": type(self.net).__name__,
            "preprocessing": self.preprocessing,
        }
