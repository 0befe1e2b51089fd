"""Media decoded in processes are what they are decoded here, and a decoder that dies takes one item with it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import pandas as pd
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

    def prepare(self, value: Any, max_windows: int) -> dict[str, Tensor]:  # noqa: ARG002 - one picture an item
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


def test_processes_decode_what_is_decoded_here_and_outlive_a_crash(tmp_path: Path) -> None:
    content = _content(tmp_path, 40, red=(20,))
    tower = Tower(Fragile(), 2)
    rows = [row for row in range(40) if row != 20]
    here = {found.row: found for found in decode_here(content, rows, "image", Reader.of(tower))}
    with DecodingWorkers({"image": tower}, 1) as workers:
        found = list(workers.decode(content, range(40), "image"))
    assert [each.row for each in found] == list(range(40))
    assert found[20].prepared is None
    assert "brought the decoder down" in str(found[20].reason)
    for row in rows:
        assert found[row].reason == here[row].reason
        expected, got = here[row].prepared, found[row].prepared
        assert (expected is None) == (got is None) == (row == 1)
        if expected is not None and got is not None:
            assert torch.equal(got["pixels"], expected["pixels"])
