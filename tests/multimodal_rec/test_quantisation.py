"""A quantised recommender: near the float one, a model of its own in the store, kept and read back as it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from multimodal_rec.catalogue import Catalogue
from multimodal_rec.config import RecommenderConfig, TowerConfig
from multimodal_rec.errors import ConfigError, UnknownIdError
from multimodal_rec.recommender import Recommender
from tests.multimodal_rec.tiny import CPU
from towers.int8 import Int8Linear

CONTEXT = {"hour": 23, "device": "tv"}
PEOPLE = ["u0", "u1", "u5"]


@pytest.fixture(scope="module")
def quantised(saved: Path, catalogue: Catalogue) -> Iterator[Recommender]:
    recommender = Recommender.load(saved, device="cpu").quantised()
    recommender.embed(catalogue.items)
    yield recommender
    recommender.close()


def scores(recommender: Recommender, catalogue: Catalogue) -> np.ndarray:
    return recommender.score(PEOPLE, catalogue.items["item_id"].tolist(), context=CONTEXT)


def test_scores_are_near_and_the_float_model_stays(
    fitted: Recommender, quantised: Recommender, catalogue: Catalogue
) -> None:
    expected, given = scores(fitted, catalogue), scores(quantised, catalogue)
    assert not (expected == given).all()
    assert np.abs(expected - given).max() < 0.02 * np.ptp(expected)
    assert not any(isinstance(module, Int8Linear) for tower in fitted.towers.values() for module in tower.modules())
    assert any(isinstance(module, Int8Linear) for module in quantised.towers["text"].modules())


def test_rows_of_both_models_stay_apart(own: Recommender, catalogue: Catalogue) -> None:
    quantised = own.quantised()
    with pytest.raises(UnknownIdError, match=r"stale: another model embedded it.*Embed them first"):
        quantised.score(["u0"], ["i3"])
    before = own.score(PEOPLE, ["i3", "i4"])
    report = quantised.embed(catalogue.items)
    assert report.embedded == len(catalogue.items)
    assert quantised.embed(catalogue.items).unchanged == own.embed(catalogue.items).unchanged == len(catalogue.items)
    assert (own.score(PEOPLE, ["i3", "i4"]) == before).all()
    new = catalogue.items.head(2).assign(item_id=["n0", "n1"])
    assert np.abs(own.score(PEOPLE, new) - quantised.score(PEOPLE, new)).max() < 0.02 * np.ptp(before)


def test_saved_and_loaded_it_is_the_same_model(quantised: Recommender, catalogue: Catalogue, tmp_path: Path) -> None:
    again = Recommender.load(quantised.save(tmp_path / "model"), device="cpu")
    assert (scores(again, catalogue) == scores(quantised, catalogue)).all()
    assert again.embed(catalogue.items).embedded == 0
    # New items, through weights that were read: the same numbers again.
    new = catalogue.items.tail(2).assign(item_id=["n0", "n1"])
    assert (again.score(PEOPLE, new) == quantised.score(PEOPLE, new)).all()
    again.close()


def test_quantised_twice_is_refused(quantised: Recommender) -> None:
    with pytest.raises(ConfigError, match=r"no tower has a linear layer.*text: BertModel.*not quantised yet"):
        quantised.quantised()


def test_a_net_of_convolutions_is_refused_by_name(catalogue: Catalogue) -> None:
    tower = TowerConfig("timm:test_byobnet", pretrained=False, image_size_px=64, max_windows=1)
    config = RecommenderConfig({"image": tower}, embedding_dim=8, behaviour_rank=4)
    recommender = Recommender(config).fit(catalogue, training=CPU)
    with pytest.raises(ConfigError, match=r"no tower has a linear layer.*image: ByobNet.*Expected a transformer"):
        recommender.quantised()
    recommender.close()
