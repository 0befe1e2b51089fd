"""Pictures through timm's networks."""

from __future__ import annotations

from typing import Any, final

from timm.data.transforms_factory import create_transform

from towers.pictures import PictureBackbone
from towers.timm_net import load_timm


@final
class TimmImage(PictureBackbone):
    """One of timm's networks without its classifier; a row equals its pooled features.

    `name` as in `towers.timm_net.load_timm`. `image_size_px`: side of the square input, None for the network's own.
    """

    def __init__(self, name: str, *, pretrained: bool = True, image_size_px: int | None = None) -> None:
        size = None if image_size_px is None else (image_size_px, image_size_px)
        loaded = load_timm(name, pretrained=pretrained, input_size=size)
        transform: Any = create_transform(**loaded.data, is_training=False)
        super().__init__(loaded.net, loaded.dim, transform=transform, preprocessing=loaded.data)
