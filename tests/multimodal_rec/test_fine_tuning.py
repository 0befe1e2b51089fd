"""A short training on what is new and some of what is old: what it changes, what it leaves, and what it tells of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from multimodal_rec.catalogue import Catalogue
from multimodal_rec.collaborative.blend import Blend
from multimodal_rec.collaborative.expectation import Expectation
from multimodal_rec.collaborative.item_item import ItemItemScore
from multimodal_rec.collaborative.score import Log
from multimodal_rec.collaborative.settings import ItemItemConfig
from multimodal_rec.errors import ConfigError
from multimodal_rec.fine_tuning import FineTune
from multimodal_rec.history import Events
from multimodal_rec.recommender import Recommender
from multimodal_rec.refitting import Pace, refitted
from multimodal_rec.store import ItemStore
from tests.multimodal_rec.tiny import COLLABORATIVE, CPU, NUM_ITEMS, tiny_config, write_catalogue

IDS = [f"i{item}" for item in range(NUM_ITEMS)]
SHORT = FineTune(epochs=1, batch_size=32, held_back=4)


def turned(num_people: int = 12) -> pd.DataFrame:
    """New people who take i0, i1 and then i2, whatever the old ones took."""
    rows = [
        {"user_id": f"n{person}", "item_id": f"i{item}", "timestamp": 1_710_000_000 + 100 * item + person}
        for person in range(num_people)
        for item in range(3)
    ]
    return pd.DataFrame(rows).assign(event="like", hour=9.0, device="tv")


def test_what_was_told_is_likelier_than_an_update_alone_makes_it(saved: Path) -> None:
    likelihood: list[float] = []
    for how in (None, FineTune(epochs=4, learning_rate=1e-2, replay=0.0, batch_size=16, held_back=0)):
        recommender = Recommender.load(saved, device="cpu")
        recommender.update(turned(), fine_tune=how)
        people = [f"n{person}" for person in range(12)]
        scores = recommender.score(people, IDS, context={"hour": 9, "device": "tv"})
        likelihood.append(float((scores[:, :3] - np.logaddexp.reduce(scores, axis=1, keepdims=True)).mean()))
        recommender.close()
    assert likelihood[1] > likelihood[0] + 0.01


def test_towers_stay_and_items_are_those_of_the_new_model(own_blend: Recommender) -> None:
    old = own_blend._fitted()
    before = own_blend.store.read_items(model=old.job.fingerprint)
    weights = {name: tensor.clone() for name, tensor in old.model.state_dict().items()}
    report = own_blend.update(turned(), fine_tune=SHORT)
    new = own_blend._fitted()
    assert new.job.fingerprint != old.job.fingerprint
    assert own_blend.store.stale(new.job.fingerprint) == []
    after = own_blend.store.read_items(model=new.job.fingerprint)
    np.testing.assert_array_equal(after.tokens[:, :-1], before.tokens[:, :-1])
    np.testing.assert_array_equal(after.content, before.content)
    assert not np.array_equal(after.embeddings, before.embeddings)
    for name, tower in new.model.towers.items():
        assert tower is old.model.towers[name]
    for name, tensor in old.model.state_dict().items():
        torch.testing.assert_close(tensor, weights[name], rtol=0, atol=0)
    assert not torch.equal(new.model.query.offset.weight, old.model.query.offset.weight)
    assert new.num_fitted == new.num_folded == own_blend.store.num_interactions
    assert report.fine_tune is not None
    assert (report.fine_tune.new_events, report.fine_tune.held_back) == (36, 4)


def test_an_embed_afterwards_runs_no_tower_and_changes_nothing(bert: Path, tmp_path: Path) -> None:
    catalogue = write_catalogue(tmp_path)
    recommender = Recommender(tiny_config(bert, collaborative=COLLABORATIVE)).fit(
        catalogue, training=replace(CPU, epochs=1)
    )
    recommender.update(turned(), fine_tune=SHORT)
    scores = recommender.score(["u0", "n0"], IDS)
    assert recommender.embed(catalogue.items).embedded == 0
    np.testing.assert_array_equal(recommender.score(["u0", "n0"], IDS), scores)
    changed = catalogue.items.assign(price=[*catalogue.items["price"][:-1], 3.0])
    assert recommender.embed(changed).embedded == 1
    np.testing.assert_allclose(recommender.score(["n0"], ["i3"]), scores[1:, [3]], atol=1e-5)
    recommender.close()


def test_half_of_what_is_told_is_old_unless_said_otherwise(saved: Path) -> None:
    for replay, expected in ((0.5, 36), (0.25, 12)):
        recommender = Recommender.load(saved, device="cpu")
        report = recommender.update(turned(), fine_tune=replace(SHORT, replay=replay)).fine_tune
        assert report is not None
        assert (report.new_events, report.replayed) == (36, expected)
        recommender.close()


def test_what_is_forgotten_of_the_old_is_measured(saved: Path) -> None:
    drops: list[float] = []
    for rate in (1e-6, 5e-2):
        recommender = Recommender.load(saved, device="cpu")
        how = FineTune(epochs=8, learning_rate=rate, batch_size=32, held_back=12, replay=0.0)
        report = recommender.update(turned(), fine_tune=how).fine_tune
        assert report is not None
        assert report.ndcg_before is not None
        assert report.ndcg_after is not None
        assert "NDCG@10 of 12 old ones held back" in str(report)
        drops.append(report.ndcg_after - report.ndcg_before)
        recommender.close()
    assert drops[1] < drops[0] - 0.02


def test_none_is_held_back_where_none_is_wanted(own: Recommender) -> None:
    report = own.update(turned(), fine_tune=replace(SHORT, held_back=0)).fine_tune
    assert report is not None
    assert (report.held_back, report.ndcg_before, report.ndcg_after) == (0, None, None)


def test_collaborative_scores_learn_the_new_and_weights_stay(own_blend: Recommender) -> None:
    old = own_blend._fitted().model.blend
    assert old is not None
    history = ["i0", "i1"]
    sides: list[np.ndarray] = []
    for how in (None, replace(SHORT, epochs=6, learning_rate=1e-2)):
        own_blend.update(turned(60), fine_tune=how)
        scorer, blend = own_blend._ready(), own_blend._fitted().model.blend
        assert blend is not None
        torch.testing.assert_close(blend.weights, old.weights)
        parts = torch.from_numpy(scorer.table.vectors).split([s.width for s in blend._scores()], dim=1)
        rows = [scorer.item_rows[item_id] for item_id in history]
        place = list(blend.scores).index("item_item")
        item_item, vectors = blend._scores()[place], parts[place]
        weights = (vectors[rows][:, : item_item.rank].sum(dim=0) @ item_item.items(vectors).T).numpy()
        sides.append(weights - weights.mean())
    row = own_blend._ready().item_rows["i2"]
    # Sixty people who took i0 and i1 took i2 next.
    assert sides[1][row] / sides[1].std() > sides[0][row] / sides[0].std()


def test_item_item_factors_come_back_in_the_axes_in_which_items_are_stored() -> None:
    random = np.random.default_rng(0)
    user, item = random.integers(0, 60, 700), (random.random(700) ** 2 * 20).astype(np.int64)
    nothing = np.zeros(700)
    events = Events(user, item, nothing.astype(np.int64), nothing, np.zeros((700, 1), np.float32), nothing)
    log = Log(events, np.ones(700, np.float32), 60, 20, False, np.zeros((60, 1), np.float32), {})
    config = ItemItemConfig(rank=3)
    score = ItemItemScore.fit(log, config, event_weights=[1.0])
    turn, _ = np.linalg.qr(random.standard_normal((3, 3)))
    stored = score.vectors.numpy().copy()
    stored[:, :3], stored[:, 3:6] = stored[:, :3] @ turn, stored[:, 3:6] @ turn
    blend = Blend({"item_item": score}, Expectation({}, score.width))
    pace = Pace(1, 0.1, 0)
    found = refitted(blend, log, stored.astype(np.float32), settings={"item_item": config}, pace=pace)
    np.testing.assert_allclose(found.vectors, stored, atol=1e-4)
    assert len(score.vectors) == 20


def test_a_fine_tune_that_fails_leaves_what_was_there(own_blend: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    own_blend.update(turned())
    scores, fingerprint = own_blend.score(["u0", "n0"], IDS), own_blend._fitted().job.fingerprint
    with monkeypatch.context() as patch:
        patch.setattr(ItemStore, "write_items", _fail)
        with pytest.raises(OSError, match="full"):
            own_blend.update(turned(), fine_tune=SHORT)
    assert own_blend._fitted().job.fingerprint == fingerprint
    np.testing.assert_array_equal(own_blend.score(["u0", "n0"], IDS), scores)
    own_blend._scorer = None
    np.testing.assert_array_equal(own_blend.score(["u0", "n0"], IDS), scores)


def test_a_process_that_ends_before_it_saves_leaves_the_old_model_whole(saved_blend: Path, tmp_path: Path) -> None:
    first = Recommender.load(saved_blend, store=tmp_path / "store", device="cpu")
    first.update(turned())
    scores = first.score(["u0", "n0"], IDS)
    report = first.update(turned(), fine_tune=SHORT).fine_tune
    assert report is not None
    assert not np.array_equal(first.score(["u0", "n0"], IDS), scores)
    first.close()
    second = Recommender.load(saved_blend, store=tmp_path / "store", device="cpu")
    assert second._fitted().job.fingerprint == report.former
    np.testing.assert_array_equal(second.score(["u0", "n0"], IDS), scores)
    second.close()


def test_it_is_the_same_each_time_and_after_saving(own_blend: Recommender, saved_blend: Path, tmp_path: Path) -> None:
    again = Recommender.load(saved_blend, device="cpu")
    for recommender in (own_blend, again):
        recommender.update(turned(), fine_tune=SHORT)
    scores = own_blend.score(["u0", "n0"], IDS)
    np.testing.assert_array_equal(again.score(["u0", "n0"], IDS), scores)
    loaded = Recommender.load(own_blend.save(tmp_path / "model"), device="cpu")
    np.testing.assert_array_equal(loaded.score(["u0", "n0"], IDS), scores)
    # And it goes on from there.
    assert loaded.update(turned(14)).new_events == 6
    loaded.close()
    again.close()


def test_nothing_new_and_nothing_to_tell(own: Recommender, catalogue: Catalogue) -> None:
    report = own.update(catalogue.interactions, fine_tune=SHORT).fine_tune
    assert report is not None
    assert (report.new_events, report.replayed) == (0, 0)
    assert np.isfinite(own.score(["u0"], IDS)).all()


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"replay 1\.0 and held_back 200. Expected a share from 0 to below 1"):
        FineTune(replay=1.0)
    with pytest.raises(ConfigError, match="FineTune has epochs 0"):
        FineTune(epochs=0)


def _fail(*_: object) -> None:
    raise OSError("the disk is full")
