"""What people did since is known at once: histories, statistics, newcomers; whole, or not at all."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from multimodal_rec.catalogue import Catalogue
from multimodal_rec.errors import CatalogueError, NotFittedError
from multimodal_rec.fine_tuning import FineTune
from multimodal_rec.recommender import Recommender
from multimodal_rec.rows import ItemTable
from multimodal_rec.store import ItemStore
from tests.multimodal_rec.tiny import CPU, NUM_ITEMS, tiny_config, without_interactions

IDS = [f"i{item}" for item in range(NUM_ITEMS)]
LATER = 1_710_000_000


def events(*rows: tuple[str, str], event: str = "like", start: int = LATER) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["user_id", "item_id"])
    return frame.assign(timestamp=np.arange(start, start + len(frame)), event=event, hour=9.0, device="tv", value=4.0)


def state(recommender: Recommender) -> ItemTable:
    return recommender.store.read_items(model=recommender._fitted().job.fingerprint)


def same(one: ItemTable, other: ItemTable) -> bool:
    names = ("tokens", "present", "embeddings", "content", "vectors")
    return one.ids == other.ids and all(np.array_equal(getattr(one, n), getattr(other, n)) for n in names)


@pytest.fixture
def new_item(catalogue: Catalogue) -> pd.DataFrame:
    items = catalogue.items.iloc[[3]].copy()
    items["item_id"] = "new"
    return items


class TestHistories:
    def test_new_events_speak_and_are_not_recommended_again(self, own: Recommender, catalogue: Catalogue) -> None:
        log = catalogue.interactions
        item = next(i for i in IDS if i not in set(log["item_id"][log["user_id"] == "u0"]))
        before = own.score(["u0", "u1"], IDS)
        assert item in own.recommend(["u0"], k=NUM_ITEMS).ids[0]
        report = own.update(events(("u0", item)))
        assert (report.new_events, report.known_events, report.new_people) == (1, 0, 0)
        assert item not in own.recommend(["u0"], k=NUM_ITEMS).ids[0]
        after = own.score(["u0", "u1"], IDS)
        assert not np.allclose(before[0], after[0], atol=1e-4)

    def test_scores_are_those_of_a_recommender_that_always_had_the_events(self, own: Recommender) -> None:
        own.update(events(("u0", "i3"), ("u5", "i6")))
        reloaded = own._fitted().scorer(own.store.read_interactions())
        contexts = own._contexts(None, 2)
        np.testing.assert_array_equal(own._ready().rank(["u0", "u5"], contexts), reloaded.rank(["u0", "u5"], contexts))

    def test_new_people_are_known_at_once_with_what_they_say(self, own: Recommender) -> None:
        users = pd.DataFrame({"user_id": ["newcomer"], "age": [64.0]})
        report = own.update(events(("newcomer", "i2"), ("newcomer", "i4")), users=users)
        assert report.new_people == 1
        assert np.isfinite(own.score(["newcomer"], IDS)).all()
        assert float(own._ready().people.features(["newcomer"])[0].abs().sum()) > 0

    def test_events_older_than_the_log_take_their_place_in_time(self, own: Recommender) -> None:
        last = own._ready().people.histories(["u0"], whole=True).item_index[0, -1]
        own.update(events(("u0", "i11"), start=1_000_000_000))
        history = own._ready().people.histories(["u0"], whole=True)
        assert int(history.item_index[0, -1]) == int(last)
        assert own._ready().ids[int(history.item_index[0, 0])] == "i11"

    def test_the_same_events_again_change_nothing(self, own: Recommender) -> None:
        batch = events(("u0", "i3"), ("u7", "i6"))
        own.update(batch)
        table, scores = state(own), own.score(["u0", "u7"], IDS)
        report = own.update(batch)
        assert (report.new_events, report.known_events, report.items) == (0, 2, 0)
        assert same(state(own), table)
        np.testing.assert_array_equal(own.score(["u0", "u7"], IDS), scores)

    def test_no_events_are_no_mistake(self, own: Recommender) -> None:
        table = state(own)
        assert own.update(events()).new_events == 0
        assert same(state(own), table)


class TestStatistics:
    def test_only_what_was_taken_is_computed_again_and_no_tower_runs(
        self, own: Recommender, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = state(own)
        for tower in own.towers.values():
            monkeypatch.setattr(tower, "forward", None)
            monkeypatch.setattr(tower, "features", None)
        report = own.update(
            pd.concat([events(("u0", "i3"), ("u1", "i3"), ("u2", "i6")), events(("u3", "i9"), event="dislike")])
        )
        after = state(own)
        assert (report.items, report.first_taken) == (2, 0)
        changed = (before.embeddings != after.embeddings).any(axis=1)
        assert [before.ids[row] for row in np.flatnonzero(changed)] == ["i3", "i6"]
        np.testing.assert_array_equal(before.tokens[:, :-1], after.tokens[:, :-1])

    def test_factors_move_and_popularity_of_what_training_knew_stays(self, own: Recommender) -> None:
        trained = own._fitted()
        own.update(events(*((f"n{number}", "i3") for number in range(9)), *((f"n{n}", "i5") for n in range(9))))
        width = trained.model.shape.behaviour_width
        old, new = trained.behaviour["i3"][:width], own._fitted().updated["i3"][:width]
        assert new[-1] == old[-1]
        assert not np.allclose(new[:-1], old[:-1], atol=1e-3)
        assert own._fitted().scale is trained.scale

    def test_an_item_that_few_took_yet_keeps_to_its_content(self, own: Recommender, new_item: pd.DataFrame) -> None:
        own.embed(new_item)
        least = own._fitted().folding.least_popularity
        scale = own._fitted().scale
        needed = int(np.ceil(np.expm1(least * scale.std + scale.mean)))
        assert needed > 1
        few = events(*((f"n{number}", "new") for number in range(needed - 1)))
        assert own.update(few).items == 0
        row = state(own).position["new"]
        assert not bool(state(own).present[row, -1])
        assert own.update(events(("u0", "new"))).first_taken == 1
        assert bool(state(own).present[row, -1])

    def test_one_batch_or_two_give_the_same_items(self, saved_blend: Path) -> None:
        first, second = (
            events(("u0", "i3"), ("n1", "i5")),
            events(("u1", "i3"), ("n1", "i5"), ("u4", "i7"), start=LATER + 90),
        )
        tables: list[ItemTable] = []
        for batches in ([first, second], [pd.concat([first, second])]):
            recommender = Recommender.load(saved_blend, device="cpu")
            for batch in batches:
                recommender.update(batch)
            tables.append(state(recommender))
            recommender.close()
        np.testing.assert_allclose(tables[0].tokens, tables[1].tokens, atol=5e-2)
        np.testing.assert_array_equal(tables[0].present, tables[1].present)

    def test_an_item_taken_for_the_first_time_keeps_what_its_content_lets_expect(
        self, own_blend: Recommender, new_item: pd.DataFrame
    ) -> None:
        own_blend.embed(new_item)
        scorer = own_blend._ready()
        row = scorer.item_rows["new"]
        expected = scorer._vectors[row].numpy().copy()
        assert not bool(scorer.taken[row])
        report = own_blend.update(events(*((f"u{number}", "new") for number in range(6))))
        assert (report.items, report.first_taken) == (1, 1)
        after = state(own_blend)
        row = after.position["new"]
        assert bool(after.present[row, -1])
        blend = own_blend._fitted().model.blend
        assert blend is not None
        (column,) = blend.popularity_columns
        others = [c for c in range(len(expected)) if c != column]
        # What content says anyway is not stored a second time.
        kept = blend.beside_content(torch.from_numpy(expected)).numpy()
        np.testing.assert_allclose(after.vectors[row, others], kept[others], atol=2e-3)
        np.testing.assert_allclose(own_blend._ready()._vectors[row, others], expected[others], atol=2e-2)
        assert after.vectors[row, column] == pytest.approx(max(expected[column], np.log1p(6 / 5)), abs=2e-3)
        assert np.isfinite(own_blend.score(["u0"], ["new"])).all()

    def test_items_that_are_not_embedded_yet_are_kept_for_when_they_are(
        self, own: Recommender, new_item: pd.DataFrame
    ) -> None:
        report = own.update(events(("u0", "new"), ("u1", "i3")))
        assert report.not_embedded == ("new",)
        assert report.items == 1
        assert np.isfinite(own.score(["u0"], IDS)).all()
        own.embed(new_item)
        assert own._ready().item_rows["new"] in own._ready().people.seen("u0")
        # Statistics know it from the next update on.
        assert own.update(events(*((f"u{number}", "new") for number in range(1, 7)))).first_taken == 1

    def test_a_model_that_never_saw_anybody_take_anything_keeps_histories_alone(
        self, bert: Path, catalogue: Catalogue
    ) -> None:
        recommender = Recommender(tiny_config(bert)).fit(
            without_interactions(catalogue), training=replace(CPU, epochs=1)
        )
        report = recommender.update(events(("u0", "i3")))
        assert (report.new_events, report.new_people, report.items) == (1, 1, 0)
        assert "i3" not in recommender.recommend(["u0"], k=NUM_ITEMS).ids[0]
        recommender.close()


class TestWhole:
    def test_a_call_cut_off_between_the_commits_is_made_good_by_the_next(
        self, saved: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        batch = events(("u0", "i3"), ("u1", "i6"))
        whole, cut = (Recommender.load(saved, device="cpu") for _ in range(2))
        whole.update(batch)
        old = cut.score(["u0"], IDS)
        with monkeypatch.context() as patch:
            patch.setattr(ItemStore, "write_items", _cut_off)
            with pytest.raises(KeyboardInterrupt):
                cut.update(batch)
        np.testing.assert_array_equal(cut.score(["u0"], IDS), old)
        report = cut.update(batch)
        assert (report.new_events, report.items) == (0, 2)
        assert same(state(cut), state(whole))
        np.testing.assert_array_equal(cut.score(["u0"], IDS), whole.score(["u0"], IDS))
        whole.close()
        cut.close()

    def test_another_process_that_never_saved_is_taken_up(
        self, saved: Path, tmp_path: Path, new_item: pd.DataFrame
    ) -> None:
        """The model folder is as training left it, the store as an update left it."""
        first = Recommender.load(saved, store=tmp_path / "store", device="cpu")
        first.embed(new_item)
        first.update(events(("u0", "i3"), *((f"u{number}", "new") for number in range(6))))
        table, scores = state(first), first.score(["u0"], IDS)
        first.close()
        second = Recommender.load(saved, store=tmp_path / "store", device="cpu")
        np.testing.assert_array_equal(second.score(["u0"], IDS), scores)
        changed = new_item.assign(price=7.0)
        assert second.embed(changed).embedded == 1
        row = state(second).position["new"]
        assert bool(state(second).present[row, -1])
        np.testing.assert_array_equal(state(second).tokens[row, -1], table.tokens[row, -1])
        second.close()

    def test_saved_and_loaded_it_is_the_same(
        self, own_blend: Recommender, tmp_path: Path, new_item: pd.DataFrame
    ) -> None:
        own_blend.embed(new_item)
        batch = events(("u0", "i3"), *((f"u{number}", "new") for number in range(6)))
        own_blend.update(batch)
        loaded = Recommender.load(own_blend.save(tmp_path / "model"), device="cpu")
        np.testing.assert_array_equal(
            loaded.score(["u0", "u1"], [*IDS, "new"]), own_blend.score(["u0", "u1"], [*IDS, "new"])
        )
        trained, again = own_blend._fitted(), loaded._fitted()
        assert again.num_folded == trained.num_folded == loaded.store.num_interactions
        assert again.updated.keys() == trained.updated.keys()
        for item_id, features in trained.updated.items():
            np.testing.assert_allclose(again.updated[item_id], features, atol=2e-3)
        assert "new" in again.updated
        assert loaded.update(batch).items == 0
        loaded.close()

    def test_whoever_asks_meanwhile_sees_the_old_state_or_the_new(self, own: Recommender) -> None:
        contexts, seen, done = own._contexts(None, 1), list[bytes](), threading.Event()

        def ask() -> None:
            while not done.is_set():
                seen.append(own._ready().rank(["u0"], contexts).tobytes())

        thread = threading.Thread(target=ask)
        states = [own._ready().rank(["u0"], contexts).tobytes()]
        thread.start()
        try:
            for step in range(4):
                own.update(events(("u0", f"i{step}"), ("u1", f"i{step + 5}"), start=LATER + 10 * step))
                states.append(own._ready().rank(["u0"], contexts).tobytes())
        finally:
            done.set()
            thread.join()
        places = [states.index(each) for each in seen]
        assert len(set(states)) == 5
        assert places == sorted(places)

    def test_updates_at_once_are_all_there(self, own: Recommender) -> None:
        batches = [events((f"n{number}", f"i{number}"), ("u0", f"i{number + 4}")) for number in range(4)]
        count = own.store.num_interactions
        threads = [threading.Thread(target=own.update, args=[batch]) for batch in batches]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert own.store.num_interactions == count + 8
        assert own._fitted().num_folded == count + 8
        assert set(own._fitted().updated) >= {f"i{number}" for number in range(8)} & own._fitted().behaviour.keys()

    def test_two_recommenders_on_one_store_end_in_one_state(self, saved: Path, tmp_path: Path) -> None:
        first, second = (Recommender.load(saved, store=tmp_path / "store", device="cpu") for _ in range(2))
        both = [
            threading.Thread(target=r.update, args=[batch])
            for r, batch in ((first, events(("u0", "i3"), ("u1", "i5"))), (second, events(("u2", "i3"), ("u3", "i7"))))
        ]
        for thread in both:
            thread.start()
        for thread in both:
            thread.join()
        alone = Recommender.load(saved, device="cpu")
        alone.update(events(("u0", "i3"), ("u1", "i5")))
        alone.update(events(("u2", "i3"), ("u3", "i7")))
        place = state(first).position["i3"]
        np.testing.assert_allclose(state(first).tokens[place], state(alone).tokens[place], atol=1e-2)
        for recommender in (first, second, alone):
            recommender.close()


@pytest.mark.parametrize("fine_tune", [None, FineTune(epochs=1, held_back=0)])
def test_an_index_that_is_of_the_items_as_they_were_is_told(
    saved: Path, catalogue: Catalogue, tmp_path: Path, fine_tune: FineTune | None
) -> None:
    recommender = Recommender.load(saved, store=tmp_path / "store", device="cpu")
    recommender.embed(catalogue.items)
    new = events(("u0", "i3"), ("u5", "i6"))
    assert not recommender.update(new).index_outdated, "there is none"
    recommender.build_index()
    unchanged = recommender.update(new)
    assert not unchanged.index_outdated
    assert "index" not in str(unchanged)
    told = recommender.update(events(("u1", "i3"), start=LATER + 9), fine_tune=fine_tune)
    assert told.index_outdated
    assert "build it anew with recommender.build_index()" in str(told)
    recommender.close()


class TestRefusals:
    def test_every_defect_is_named_and_nothing_is_added(self, own: Recommender) -> None:
        count = own.store.num_interactions
        bad = events(("u0", "i3"), ("u1", "i4")).assign(hour=[25.0, 3.0], event=["like", "shrug"])
        with pytest.raises(CatalogueError, match=r"the interactions have 2 problems, and none was added:") as caught:
            own.update(bad)
        assert [problem.column for problem in caught.value.problems] == ["hour", "event"]
        assert own.store.num_interactions == count
        with pytest.raises(CatalogueError, match=r"item_id.*column is missing"):
            own.update(bad.drop(columns="item_id"))

    def test_events_without_a_place_in_the_order_are_refused(self, own: Recommender) -> None:
        with pytest.raises(CatalogueError, match="have no 'timestamp', by which those that are stored are ordered"):
            own.update(events(("u0", "i3")).drop(columns="timestamp"))

    def test_contexts_that_are_not_known_may_be_left_out(self, own: Recommender) -> None:
        own.update(events(("u0", "i3")).drop(columns=["hour", "device", "value"]))
        assert np.isfinite(own.score(["u0"], IDS)).all()

    def test_ids_are_read_as_a_catalogue_reads_them(self, own: Recommender) -> None:
        report = own.update(events(("u0", "i3")).assign(user_id=[7]))
        assert report.new_people == 1
        assert np.isfinite(own.score(["7"], IDS)).all()

    def test_it_must_be_trained(self, bert: Path) -> None:
        with pytest.raises(NotFittedError, match="not trained"):
            Recommender(tiny_config(bert)).update(events(("u0", "i3")))


def _cut_off(*_: object) -> None:
    raise KeyboardInterrupt
