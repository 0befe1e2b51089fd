"""Backbone features: read once, in order, and nothing lost to one bad file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from multimodal_rec.builders import build_tower
from multimodal_rec.catalogue import Catalogue
from multimodal_rec.config import TowerConfig
from multimodal_rec.content import ItemContent
from multimodal_rec.feature_cache import FeatureCache
from multimodal_rec.features import ContentFeatures, PreparedMemory
from tests.multimodal_rec.tiny import NUM_ITEMS, write_catalogue
from towers import Tower


@pytest.fixture
def towers(bert: Path) -> dict[str, Tower]:
    net = TowerConfig("timm:test_efficientnet_gn", tuning="full", pretrained=False, image_size_px=32)
    return {"text": build_tower(TowerConfig(f"hf:{bert}"), seed=0), "image": build_tower(net, seed=0)}


def _features(towers: dict[str, Tower], catalogue: Catalogue, cache: FeatureCache | None = None) -> ContentFeatures:
    content = ItemContent(catalogue.items, catalogue.schema)
    kept = FeatureCache() if cache is None else cache
    return ContentFeatures(towers, content, cache=kept, batch_size=4, prepared=PreparedMemory())


def test_features_are_the_towers_own_in_order_with_zeros_where_absent(
    towers: dict[str, Tower], catalogue: Catalogue
) -> None:
    rows = [5, 1, 0, 3]
    for name, absent in (("text", 1), ("image", 0)):
        tower = towers[name]
        features = _features(towers, catalogue).features(rows, name)
        content = ItemContent(catalogue.items, catalogue.schema)
        assert features.windows.dtype == torch.float32
        for place, row in enumerate(rows):
            if row == absent:
                assert not features.present[place].any()
                assert not features.windows[place].any()
                continue
            expected = tower.encode([content.load(row, name)], project=False)[0]
            # The cache of a frozen backbone is float16.
            np.testing.assert_allclose(features.windows[place, 0], expected, atol=2e-3, rtol=2e-3)
            assert features.present[place].tolist() == [True]


def test_a_frozen_backbone_runs_once_and_a_later_run_gives_the_same_bits(
    towers: dict[str, Tower], catalogue: Catalogue, decoded: Counter[str], tmp_path: Path
) -> None:
    first = _features(towers, catalogue, FeatureCache(tmp_path)).features(range(NUM_ITEMS), "text")
    # Several items have the same title: it is read once.
    assert decoded["text"] == catalogue.items["title"].dropna().str.strip().nunique() < NUM_ITEMS - 1
    again = _features(towers, catalogue, FeatureCache(tmp_path)).features(range(NUM_ITEMS), "text")
    assert decoded["text"] == catalogue.items["title"].dropna().str.strip().nunique()
    assert torch.equal(first.windows, again.windows)
    assert torch.equal(first.present, again.present)


def test_a_backbone_that_learns_is_never_cached_but_its_input_is_kept(
    towers: dict[str, Tower], catalogue: Catalogue, decoded: Counter[str], tmp_path: Path
) -> None:
    features = _features(towers, catalogue, FeatureCache(tmp_path))
    before = features.features([2, 3], "image")
    with torch.no_grad():
        next(towers["image"].backbone.parameters()).add_(0.1)
    after = features.features([2, 3], "image")
    assert not torch.equal(before.windows, after.windows)
    assert decoded["image"] == 2
    assert not list(tmp_path.iterdir())


def test_no_room_means_decoding_again(towers: dict[str, Tower], catalogue: Catalogue, decoded: Counter[str]) -> None:
    content = ItemContent(catalogue.items, catalogue.schema)
    for prepared in (None, PreparedMemory(room_mb=0)):
        decoded.clear()
        features = ContentFeatures(towers, content, cache=FeatureCache(), prepared=prepared)
        for _ in range(2):
            features.features([2], "image")
        assert decoded["image"] == 2


def test_fresh_features_carry_gradients_and_say_whose_they_are(towers: dict[str, Tower], catalogue: Catalogue) -> None:
    features = _features(towers, catalogue)
    places, fresh = features.fresh([4, 0, 6], "image", "cpu")
    assert places == [0, 2]
    fresh.windows.sum().backward()
    assert next(towers["image"].backbone.parameters()).grad is not None
    places, fresh = features.fresh([0], "image", "cpu")
    assert places == []
    assert fresh.windows.shape == (0, 1, towers["image"].backbone_dim)


def test_reading_leaves_the_modes_as_they_were(towers: dict[str, Tower], catalogue: Catalogue) -> None:
    towers["image"].train()
    _features(towers, catalogue).features([2], "image")
    assert towers["image"].backbone.training
    towers["image"].eval()
    _features(towers, catalogue).features([2], "image")
    assert not any(module.training for module in towers["image"].modules())


def test_a_bad_file_is_a_reason_and_loses_nothing_else(towers: dict[str, Tower], tmp_path: Path) -> None:
    catalogue = write_catalogue(tmp_path)
    (tmp_path / "media" / "3.png").unlink()
    (tmp_path / "media" / "4.png").write_bytes(b"no picture")
    whole = _features(towers, catalogue)
    found = whole.features(range(NUM_ITEMS), "image")
    assert sorted(whole.reasons) == [3, 4]
    assert "image: media file" in whole.reasons[3]
    assert "3.png' does not exist" in whole.reasons[3]
    assert "4.png' cannot be read" in whole.reasons[4]
    assert found.present[:, 0].tolist() == [row not in (0, 3, 4) for row in range(NUM_ITEMS)]


def test_a_missing_file_of_a_frozen_tower_is_a_reason_too(bert: Path, tmp_path: Path) -> None:
    catalogue = write_catalogue(tmp_path)
    (tmp_path / "media" / "3.png").unlink()
    net = TowerConfig("timm:test_efficientnet_gn", pretrained=False, image_size_px=32)
    features = _features({"image": build_tower(net)}, catalogue)
    assert features.features([2, 3], "image").present.flatten().tolist() == [True, False]
    assert "3.png' cannot be read" in features.reasons[3]


@pytest.mark.slow
def test_worker_processes_decode_the_same(towers: dict[str, Tower], catalogue: Catalogue) -> None:
    content = ItemContent(catalogue.items, catalogue.schema)
    settings = {"cache": FeatureCache(), "batch_size": 4}
    here = ContentFeatures(towers, content, **settings).features(range(NUM_ITEMS), "image")
    there = ContentFeatures(towers, content, num_workers=1, **settings).features(range(NUM_ITEMS), "image")
    assert torch.equal(here.windows, there.windows)
    assert torch.equal(here.present, there.present)
