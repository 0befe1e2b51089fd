"""What failed is listed with its reason, read again only when that makes sense, and costs no other item."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from multimodal_rec.recommender import Recommender
from tests.multimodal_rec.tiny import NUM_ITEMS
from tests.towers.tiny import picture


def _broken(place: Path) -> pd.DataFrame:
    (place / "broken.png").write_bytes(b"no picture")
    return pd.DataFrame(
        {
            "item_id": ["bad", "fine"],
            "title": ["slow rain", "loud drum"],
            "cover": pd.Series([[str(place / "broken.png")], []], dtype=object),
            "genre": "jazz",
            "price": 1.0,
        }
    )


def test_what_failed_is_read_again_when_it_changes_or_on_request(
    own: Recommender, tmp_path: Path, decoded: Counter[str]
) -> None:
    items = _broken(tmp_path)
    first = own.embed(items, on_error="quarantine")
    assert (first.embedded, list(first.failed)) == (1, ["bad"])
    at = own.store.failures()["at"].tolist()
    decoded.clear()
    second = own.embed(items, on_error="quarantine")
    assert (second.embedded, second.unchanged, second.failed) == (0, 1, first.failed)
    assert not decoded
    assert own.store.failures()["at"].tolist() == at
    third = own.embed(items, on_error="quarantine", retry_failed=True)
    assert third.failed == first.failed
    assert decoded["image"] == 1
    assert own.store.failures()["at"].tolist() > at
    picture(3, size=(32, 32)).save(tmp_path / "broken.png")
    assert own.embed(items).embedded == 1
    assert own.store.failures().empty


def test_a_file_that_is_not_there_is_looked_for_every_time(own: Recommender, tmp_path: Path) -> None:
    items = _broken(tmp_path)
    (tmp_path / "broken.png").unlink()
    assert "No such file" in own.embed(items, on_error="quarantine").failed["bad"]
    picture(3, size=(32, 32)).save(tmp_path / "broken.png")
    assert own.embed(items).embedded == 1


def test_numbers_that_cannot_be_kept_cost_their_own_item(own: Recommender, tmp_path: Path) -> None:
    """A picture that the network answers with NaN."""
    items = _broken(tmp_path)
    picture(3, size=(32, 32)).save(tmp_path / "broken.png")
    tower = own.towers["image"]

    def spoilt(_module: object, _inputs: object, rows: torch.Tensor) -> torch.Tensor:
        return torch.full_like(rows, float("nan"))

    hook = tower.backbone.register_forward_hook(spoilt)
    report = own.embed(items, on_error="quarantine")
    hook.remove()
    assert report.embedded == 1
    assert "image: its embedding is NaN, infinite or beyond" in report.failed["bad"]
    assert own.store.num_items == NUM_ITEMS + 1
    assert np.isfinite(own.store.read_items(model=None).tokens).all()
