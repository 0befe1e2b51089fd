"""A new model's items are embedded beside the old one's, and a service moves from one to the other and back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from multimodal_rec.catalogue import Catalogue
from multimodal_rec.errors import StoreError, UnknownIdError
from multimodal_rec.recommender import Recommender
from tests.multimodal_rec.tiny import CPU, NUM_ITEMS, tiny_config

IDS = [f"i{item}" for item in range(NUM_ITEMS)]
USERS = ["u0", "u1", "u2"]


@pytest.fixture(scope="module")
def wider(bert: Path, catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with other towers, trained otherwise, of another embedding_dim: its rows have another layout."""
    config = tiny_config(bert, embedding_dim=12)
    recommender = Recommender(config).fit(catalogue, training=replace(CPU, epochs=1, seed=7))
    path = recommender.save(tmp_path_factory.mktemp("wider") / "model")
    recommender.close()
    return path


@pytest.fixture(scope="module")
def sibling(bert: Path, catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same configuration as `fitted`, trained with another seed."""
    recommender = Recommender(tiny_config(bert)).fit(catalogue, training=replace(CPU, epochs=1, seed=5))
    path = recommender.save(tmp_path_factory.mktemp("sibling") / "model")
    recommender.close()
    return path


@pytest.fixture
def store(saved: Path, tmp_path: Path) -> Path:
    """A store with the old model's items, published as 'old', which 'live' stands for."""
    old = Recommender.load(saved, store=tmp_path / "store", device="cpu")
    assert old.publish("old", alias="live") == "old"
    old.close()
    return tmp_path / "store"


def load(model: Path, store: Path, release: str | None = "live") -> Recommender:
    return Recommender.load(model, store=store, device="cpu", release=release)


@pytest.mark.parametrize("upgrade", ["sibling", "wider"])
def test_old_and_new_side_by_side_switch_and_roll_back(
    upgrade: str, saved: Path, store: Path, catalogue: Catalogue, request: pytest.FixtureRequest
) -> None:
    new_model: Path = request.getfixturevalue(upgrade)
    service = load(saved, store)
    before = service.score(USERS, IDS)

    # The new model's rows are written while the old service answers, a half of them first.
    new = load(new_model, store, release=None)
    assert new.stale() == sorted(IDS)
    assert new.embed(catalogue.items.iloc[:7]).embedded == 7
    with pytest.raises(UnknownIdError, match=r"item 'i9' is stale: another model embedded it.*1 of them stale"):
        new.score(USERS, ["i3", "i9"])
    assert set(np.ravel(new.recommend(USERS, k=NUM_ITEMS).ids)) <= {*IDS[:7], None}
    with pytest.raises(StoreError, match=r"7 items are stale.*'i10', 'i11', 'i12', 'i13', 'i7' \.\.\..*partial=True"):
        new.publish("new")
    np.testing.assert_array_equal(service.score(USERS, IDS), before)
    np.testing.assert_array_equal(load(saved, store).score(USERS, IDS), before)
    assert new.embed(catalogue.items).embedded == 7
    after = new.score(USERS, IDS)
    assert not np.allclose(after, before, atol=1e-3)
    assert new.store.models[new._fitted().job.fingerprint] == NUM_ITEMS

    # A model that was not released cannot be served as if it were.
    with pytest.raises(StoreError, match=r"release 'old' holds no item of this model"):
        load(new_model, store)
    new.publish("new", alias="live")
    np.testing.assert_array_equal(load(new_model, store).score(USERS, IDS), after)
    with pytest.raises(StoreError, match=r"release 'new' holds no item of this model"):
        load(saved, store)
    np.testing.assert_array_equal(service.score(USERS, IDS), before)  # whoever opened 'live' before reads on

    assert new.store.rollback("live") == "old"
    np.testing.assert_array_equal(load(saved, store).score(USERS, IDS), before)
    new.store.rollback("live")
    np.testing.assert_array_equal(load(new_model, store).score(USERS, IDS), after)
    new.close()
    service.close()


def test_what_arrives_during_an_upgrade_is_embedded_by_both(
    saved: Path, sibling: Path, store: Path, catalogue: Catalogue
) -> None:
    old, new = load(saved, store, release=None), load(sibling, store, release=None)
    new.embed(catalogue.items)
    arrived = catalogue.items.iloc[[2]].assign(item_id="late")
    for recommender in (old, new):
        assert recommender.embed(arrived).embedded == 1
        assert recommender.stale() == []
        assert np.isfinite(recommender.score(USERS, ["late"])).all()
    # Neither took the other's rows for its own.
    assert old.embed(catalogue.items).unchanged == new.embed(catalogue.items).unchanged == NUM_ITEMS
    service = load(saved, store)
    with pytest.raises(UnknownIdError, match="'late'"):
        service.score(USERS, ["late"])
    for recommender in (old, new, service):
        recommender.close()


def test_a_service_on_a_release_reads_and_does_not_write(saved: Path, store: Path, catalogue: Catalogue) -> None:
    service = load(saved, store)
    changed = catalogue.items.assign(title="another title")
    with pytest.raises(StoreError, match="opened at a release, which stays as it is"):
        service.embed(changed)
    with pytest.raises(StoreError, match="opened at a release"):
        service.delete(["i3"])
    service.close()


def test_a_deleted_item_is_gone_from_now_on_and_stays_in_what_was_published(saved: Path, store: Path) -> None:
    recommender = load(saved, store, release=None)
    assert recommender.score(USERS, ["i3"]).shape == (3, 1)
    recommender.delete(["i3", "nobody"])
    with pytest.raises(UnknownIdError, match=r"item 'i3' is not embedded \(1 of 1 asked for are not\)"):
        recommender.score(USERS, ["i3"])
    assert "i3" not in recommender.recommend(USERS, k=NUM_ITEMS).ids[0]
    # Who took it stays known, and so does what the release holds.
    assert "i3" in pd.unique(recommender.store.read_interactions()["item_id"])
    assert load(saved, store).score(USERS, ["i3"]).shape == (3, 1)
    recommender.close()


def test_nothing_of_a_model_that_embedded_nothing_is_published(wider: Path, store: Path) -> None:
    new = load(wider, store, release=None)
    with pytest.raises(StoreError, match=r"the store holds no item of this model.*It holds 14 of model '"):
        new.publish("new", partial=True)
    new.close()
