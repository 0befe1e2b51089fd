"""Media decoded in processes are what they are decoded here, and a decoder that dies takes one item with it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from multimodal_rec.builders import build_tower
from multimodal_rec.config import TowerConfig
from multimodal_rec.content import ItemContent
from multimodal_rec.decoding import DecodingWorkers, Reader, decode_here
from multimodal_rec.schema import Schema
from tests.towers.tiny import picture
from towers import Tower
from towers.backbone import Backbone

SCHEMA = Schema("pictures", kind="product", text=("title",), image=("cover",))


@final
class Fragile(Backbone):
    """Ends the process that shows it a picture which is red all over."""

    modality = "image"
    dim = 4

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(3, 4)

    def prepare(self, value: Any, max_windows: int) -> dict[str, Tensor]:
        colour = value[0].getpixel((0, 0))
        if colour == (255, 0, 0):
            os._exit(11)
        return {"pixels": torch.tensor([colour], dtype=torch.float32)}

    def forward(self, windows: dict[str, Tensor]) -> Tensor:
        return self.net(windows["pixels"])

    def describe(self) -> Mapping[str, Any]:
        return {}


def _content(place: Path, count: int, red: tuple[int, ...] = ()) -> ItemContent:
    paths = []
    for item in range(count):
        image = picture(item)
        if item in red:
            image.paste((255, 0, 0), (0, 0, *image.size))
        image.save(place / f"{item}.png")
        paths.append([str(place / f"{item}.png")])
    (place / "1.png").write_bytes(b"no picture")
    items = pd.DataFrame({"item_id": [f"i{item}" for item in range(count)], "title": None})
    return ItemContent(items.assign(cover=pd.Series(paths, dtype=object)), SCHEMA)


def test_a_reader_prepares_what_its_tower_prepares(bert: Path) -> None:
    for config, value in (
        (TowerConfig("timm:test_efficientnet_gn", pretrained=False, image_size_px=32), picture(1)),
        (TowerConfig(f"hf:{bert}"), "a slow piano in the rain"),
    ):
        tower = build_tower(config, seed=0)
        reader = Reader.of(tower)
        assert not list(reader.backbone.parameters())
        assert list(tower.backbone.parameters())
        expected = tower.prepare_one(value)
        for name, tensor in reader.backbone.prepare(value, reader.max_windows).items():
            assert torch.equal(tensor, expected[name])


def test_processes_decode_what_is_decoded_here(tmp_path: Path) -> None:
    content = _content(tmp_path, 20)
    tower = Tower(Fragile(), 2)
    here = list(decode_here(content, range(20), "image", Reader.of(tower)))
    with DecodingWorkers({"image": tower}, 1) as workers:
        found = list(workers.decode(content, range(20), "image"))
    assert [(each.row, each.reason) for each in found] == [(each.row, each.reason) for each in here]
    assert "cannot be read" in str(found[1].reason)
    for expected, got in zip(here, found, strict=True):
        assert (expected.prepared is None) == (got.prepared is None) == (got.row == 1)
        if expected.prepared is not None and got.prepared is not None:
            assert torch.equal(got.prepared["pixels"], expected.prepared["pixels"])


@pytest.mark.slow
def test_a_decoder_that_dies_takes_one_item_with_it(tmp_path: Path) -> None:
    content = _content(tmp_path, 40, red=(20,))
    with DecodingWorkers({"image": Tower(Fragile(), 2)}, 1) as workers:
        found = list(workers.decode(content, range(40), "image"))
    assert [each.row for each in found] == list(range(40))
    assert [each.row for each in found if each.prepared is None] == [1, 20]
    assert "brought the decoder down" in str(found[20].reason)
