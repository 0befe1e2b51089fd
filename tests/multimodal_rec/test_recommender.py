"""The verbs: what goes in, what comes out, and what is said where something is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from fusion.scoring import ContextScore
from multimodal_rec.catalogue import Catalogue
from multimodal_rec.config import RecommenderConfig, TowerConfig
from multimodal_rec.errors import (
    CatalogueError,
    ConfigError,
    ContextError,
    ItemError,
    NotFittedError,
    StoreError,
    UnknownIdError,
)
from multimodal_rec.people import Person
from multimodal_rec.recommender import Recommender
from multimodal_rec.retrieval import Query
from tests.multimodal_rec.tiny import CPU, NUM_ITEMS, SCHEMA, tiny_config, without_interactions, write_catalogue

IDS = [f"i{item}" for item in range(NUM_ITEMS)]
USERS = [f"u{user}" for user in range(12)]
NIGHT, MORNING = {"hour": 23, "device": "tv"}, {"hour": 9, "device": "phone"}


@pytest.fixture(scope="module")
def plain(bert: Path, catalogue: Catalogue) -> Iterator[Recommender]:
    """A model that reads no context."""
    config = tiny_config(bert, context=False)
    recommender = Recommender(config).fit(catalogue, training=replace(CPU, epochs=1))
    yield recommender
    recommender.close()


@pytest.fixture(scope="module")
def unlogged(bert: Path, catalogue: Catalogue) -> Iterator[Recommender]:
    """A model of a catalogue in which nobody did anything."""
    recommender = Recommender(tiny_config(bert)).fit(without_interactions(catalogue), training=CPU)
    yield recommender
    recommender.close()


class TestScore:
    def test_a_row_a_person_and_a_column_an_item(self, fitted: Recommender) -> None:
        scores = fitted.score(["u3", "u1"], ["i4", "i0", "i9"])
        assert scores.dtype == np.float32
        assert scores.shape == (2, 3)
        assert np.isfinite(scores).all()
        for row, person in enumerate(["u3", "u1"]):
            for column, item in enumerate(["i4", "i0", "i9"]):
                alone = fitted.score([person], [item])[0, 0]
                assert scores[row, column] == pytest.approx(float(alone), abs=1e-5)

    def test_people_and_items_differ(self, fitted: Recommender) -> None:
        scores = fitted.score(USERS, IDS)
        assert (scores.std(axis=0) > 1e-4).all()
        assert (scores.std(axis=1) > 1e-4).all()

    def test_context_is_one_for_all_or_one_each(self, fitted: Recommender) -> None:
        night, morning = (fitted.score(["u0", "u1"], IDS, context=context) for context in (NIGHT, MORNING))
        assert not np.allclose(night, morning, atol=1e-3)
        mixed = fitted.score(["u0", "u1"], IDS, context=[NIGHT, MORNING])
        np.testing.assert_allclose(mixed, np.stack([night[0], morning[1]]), atol=1e-5)
        unknown = fitted.score(["u0"], IDS, context=[None])
        np.testing.assert_array_equal(unknown, fitted.score(["u0"], IDS))

    def test_a_model_without_context_refuses_one(self, plain: Recommender) -> None:
        with pytest.raises(ContextError, match="'hour' was never declared: this model was trained without context"):
            plain.score(["u0"], IDS, context=NIGHT)
        assert np.isfinite(plain.score(["u0"], IDS)).all()

    def test_an_undeclared_context_column_is_named(self, fitted: Recommender) -> None:
        for call in (fitted.score, lambda people, items, context: fitted.recommend(people, context=context)):
            with pytest.raises(ContextError, match=r"'hours' was never declared.*Did you mean 'hour'"):
                call(["u0"], IDS, context={"hours": 3})
        with pytest.raises(ContextError, match=r"context 'hour' is 25 in row 0. Expected a number of at least 0 and"):
            fitted.score(["u0"], IDS, context={"hour": 25})

    def test_unknown_ids_are_named(self, fitted: Recommender) -> None:
        with pytest.raises(UnknownIdError, match=r"item 'i99' is not embedded \(1 of 2 asked for are not\)"):
            fitted.score(["u0"], ["i0", "i99"])
        with pytest.raises(UnknownIdError, match="user 'nobody' is unknown"):
            fitted.score(["u0", "nobody"], ["i0"])

    def test_unknown_ids_may_be_skipped_and_nothing_else_is_lost(self, fitted: Recommender) -> None:
        scores = fitted.score(["u0", "nobody", "u1"], ["i0", "i99", "i2"], on_unknown="skip")
        assert np.isneginf(scores).tolist() == [[False, True, False], [True] * 3, [False, True, False]]
        np.testing.assert_allclose(scores[[0, 2]][:, [0, 2]], fitted.score(["u0", "u1"], ["i0", "i2"]), atol=1e-5)

    def test_strangers_are_scored_cold(self, fitted: Recommender) -> None:
        scores = fitted.score(["nobody", Person(), Person(["i99"])], IDS, on_unknown="cold")
        assert np.isfinite(scores).all()
        np.testing.assert_allclose(scores, scores[[0, 0, 0]], atol=1e-6)

    def test_nobody_or_nothing_asked(self, fitted: Recommender) -> None:
        assert fitted.score([], IDS).shape == (0, NUM_ITEMS)
        assert fitted.score(["u0"], []).shape == (1, 0)
        assert fitted.recommend([]).ids == []


class TestRecommend:
    def test_the_best_of_the_scores_without_what_was_taken(self, fitted: Recommender, catalogue: Catalogue) -> None:
        scores = fitted.score(USERS, IDS, context=NIGHT)
        found = fitted.recommend(USERS, k=4, context=NIGHT)
        for row, user in enumerate(USERS):
            log = catalogue.interactions
            taken = set(log["item_id"][log["user_id"] == user])
            open_ = [i for i in np.argsort(-scores[row]) if IDS[i] not in taken][:4]
            np.testing.assert_allclose(found.scores[row], scores[row, open_], atol=1e-5)
            assert found.ids[row] == [IDS[i] for i in open_]

    def test_short_rows_are_padded(self, fitted: Recommender) -> None:
        found = fitted.recommend(["u0"], k=10)
        assert found.ids[0][7:] == [None] * 3
        assert None not in found.ids[0][:7]
        assert np.isneginf(found.scores[0, 7:]).all()

    def test_context_changes_the_order(self, fitted: Recommender) -> None:
        night, morning = (fitted.recommend(USERS, k=7, context=context).ids for context in (NIGHT, MORNING))
        assert night != morning
        assert [sorted(map(str, row)) for row in night] == [sorted(map(str, row)) for row in morning]

    def test_a_query_filters(self, fitted: Recommender) -> None:
        everything = fitted.recommend(["u0"], k=NUM_ITEMS, query=Query(exclude_seen=False)).ids[0]
        assert sorted(map(str, everything)) == sorted(IDS)
        few = fitted.recommend(["u0"], k=3, query=Query(exclude_seen=False, candidates=("i3", "i5", "i0")))
        assert few.ids[0] == [item_id for item_id in everything if item_id in ("i3", "i5", "i0")]
        jazz = fitted.recommend(["u0"], k=NUM_ITEMS, query=Query(exclude_seen=False, where={"genre": "jazz"})).ids[0]
        assert jazz == [i for i in everything if i is not None and int(i[1:]) % 2 == 0] + [None] * 7
        without = fitted.recommend(["u0"], k=NUM_ITEMS, query=Query(exclude_seen=False, exclude=("i3",))).ids[0]
        assert without == [item_id for item_id in everything if item_id != "i3"] + [None]
        with pytest.raises(UnknownIdError, match="'i99'"):
            fitted.recommend(["u0"], query=Query(candidates=("i99",)))

    def test_somebody_never_seen_before_is_known_by_a_history(self, fitted: Recommender) -> None:
        found = fitted.recommend([Person(["i2", "i4"]), Person(["i3", "i5"])], k=NUM_ITEMS)
        assert not {"i2", "i4"} & set(found.ids[0])
        assert found.ids[0] != found.ids[1]
        alone = fitted.recommend([Person(["i3", "i5"])], k=NUM_ITEMS)
        assert alone.ids[0] == found.ids[1]

    def test_a_person_like_a_known_one_gets_the_same(self, unlogged: Recommender, own: Recommender) -> None:
        """A log without kinds, values and contexts says of a person what `Person` says."""
        own.store.append_interactions(
            pd.DataFrame({"user_id": "new", "item_id": ["i2", "i4", "i6"], "timestamp": [10, 10, 10]})
        )
        own._scorer = None
        stored = own.score(["new"], IDS)
        np.testing.assert_allclose(stored, own.score([Person(["i2", "i4", "i6"])], IDS), atol=1e-5)

    def test_a_person_without_history_is_the_callers_choice(self, fitted: Recommender) -> None:
        with pytest.raises(
            UnknownIdError, match=r"person 1 has no history, no attributes and no profile.*on_unknown='cold'"
        ):
            fitted.recommend(["u0", Person()])
        skipped = fitted.recommend(["u0", Person(), "nobody"], k=3, on_unknown="skip")
        assert skipped.ids[1:] == [[None] * 3] * 2
        assert skipped.ids[0] == fitted.recommend(["u0"], k=3).ids[0]
        cold = fitted.recommend([Person(), "nobody"], k=3, on_unknown="cold")
        assert cold.ids[0] == cold.ids[1]
        assert None not in cold.ids[0]

    def test_similar_items_leave_the_item_out(self, fitted: Recommender) -> None:
        found = fitted.similar_items(["i3", "i0"], k=NUM_ITEMS)
        assert "i3" not in found.ids[0]
        assert found.ids[0][-1] is None
        assert (np.abs(found.scores[:, :-1]) <= 1 + 1e-5).all()
        table = fitted.store.read_items(model=None)
        unit = table.embeddings / np.linalg.norm(table.embeddings, axis=1, keepdims=True)
        own = unit[table.ids.index("i3")]
        best = max((i for i in IDS if i != "i3"), key=lambda i: float(unit[table.ids.index(i)] @ own))
        assert found.ids[0][0] == best
        with pytest.raises(UnknownIdError, match="item 'i99' is not embedded"):
            fitted.similar_items(["i99"])


class TestFit:
    def test_what_comes_up_first_in_validation_is_known_afterwards(
        self, bert: Path, catalogue: Catalogue, tmp_path: Path
    ) -> None:
        """An item and a person that only the validation part has are ranked, asked for and listed like others."""
        train, valid, _ = catalogue.split("time", valid=0.2, test=0.2)
        late = train.items.iloc[[3]].assign(item_id="late")
        (tmp_path / "broken.png").write_bytes(b"no picture")
        broken = late.assign(item_id="broken", cover=pd.Series([[str(tmp_path / "broken.png")]], index=late.index))
        event = valid.interactions.iloc[[-1]].assign(user_id="newcomer", item_id="late", event="like")
        assert valid.users is not None
        users = pd.concat([valid.users, pd.DataFrame({"user_id": ["newcomer"], "age": [64.0]})], ignore_index=True)
        log = pd.concat([valid.interactions, event], ignore_index=True)
        valid = replace(valid, items=pd.concat([valid.items, late], ignore_index=True), interactions=log, users=users)
        recommender = Recommender(tiny_config(bert)).fit(train, valid=valid, training=replace(CPU, epochs=1))
        assert "late" in recommender.recommend(["u0"], k=NUM_ITEMS + 1).ids[0]
        assert "late" not in recommender.recommend(["newcomer"], k=NUM_ITEMS + 1).ids[0]
        assert set(recommender.store.read_users()["user_id"]) >= {"newcomer", "u0"}
        alone = recommender.score(["u0"], late.assign(item_id="alone"))
        np.testing.assert_allclose(recommender.score(["u0"], ["late"]), alone, atol=1e-3)
        worse = replace(valid, items=pd.concat([valid.items, broken], ignore_index=True))
        with pytest.raises(ItemError, match="broken"):
            Recommender(tiny_config(bert)).fit(train, valid=worse, training=replace(CPU, epochs=1))
        other = Recommender(tiny_config(bert))
        other.fit(train, valid=worse, training=replace(CPU, epochs=1), on_error="quarantine")
        assert list(other.set_aside) == ["broken"]
        assert "late" in other.recommend(["u0"], k=NUM_ITEMS + 1).ids[0]
        for each in (recommender, other):
            each.close()

    def test_verbs_before_fit_say_so(self, bert: Path, catalogue: Catalogue, tmp_path: Path) -> None:
        recommender = Recommender(tiny_config(bert))
        for call in (
            lambda: recommender.recommend(["u0"]),
            lambda: recommender.embed(catalogue.items),
            lambda: recommender.save(tmp_path),
            lambda: recommender.towers,
        ):
            with pytest.raises(NotFittedError, match=r"not trained. Call fit\(...\) first, or Recommender.load"):
                call()
        with pytest.raises(NotFittedError, match=r"holds no saved recommender: 'config.json' is missing"):
            Recommender.load(tmp_path)

    def test_towers_are_there_to_be_used_alone(self, fitted: Recommender) -> None:
        assert list(fitted.towers) == ["text", "image"]
        assert fitted.towers["text"].encode(["slow rain"]).shape == (1, 8)

    def test_a_tower_without_a_column_is_refused(self, bert: Path, catalogue: Catalogue) -> None:
        config = tiny_config(bert)
        towers = {**config.towers, "audio": TowerConfig("spectrogram:test_vit", pretrained=False)}
        with pytest.raises(CatalogueError, match=r"a tower for 'audio', and the catalogue declares no such column"):
            Recommender(replace(config, towers=towers)).fit(catalogue)

    def test_a_tower_without_weights_is_refused(self, catalogue: Catalogue) -> None:
        config = RecommenderConfig({"text": TowerConfig("hf:/no/such/folder")})
        with pytest.raises(ConfigError, match="the text tower 'hf:/no/such/folder' cannot be built"):
            Recommender(config).fit(catalogue)

    def test_media_that_cannot_be_read_are_all_listed_before_anything_is_trained(
        self, bert: Path, tmp_path: Path
    ) -> None:
        catalogue = write_catalogue(tmp_path)
        (tmp_path / "media" / "3.png").unlink()
        (tmp_path / "media" / "4.png").write_bytes(b"no picture")
        recommender = Recommender(tiny_config(bert))
        with pytest.raises(ItemError, match="2 of 14 items have media that cannot be read, and nothing was") as raised:
            recommender.fit(catalogue, training=CPU)
        assert "3.png' does not exist" in raised.value.reasons["i3"]
        assert "4.png' cannot be read" in raised.value.reasons["i4"]
        assert recommender.epochs == []

    def test_an_item_that_nothing_is_known_of_is_refused_before_training(
        self, bert: Path, catalogue: Catalogue
    ) -> None:
        config = tiny_config(bert, attributes=False, behaviour=False)
        config = replace(config, towers={"text": config.towers["text"]})
        with pytest.raises(ItemError, match=r"1 of 14 items have nothing that this model reads.*\('text'\)") as raised:
            Recommender(config).fit(catalogue, training=CPU)
        assert list(raised.value.reasons) == ["i1"]

    def test_an_empty_catalogue_is_refused(self, catalogue: Catalogue) -> None:
        with pytest.raises(CatalogueError, match="catalogue 'tiny' has no items"):
            Catalogue.from_frames(catalogue.items.iloc[:0], schema=SCHEMA)

    def test_a_catalogue_without_interactions_serves_whoever_brings_a_history(self, unlogged: Recommender) -> None:
        found = unlogged.recommend([Person(["i2"]), Person(["i5", "i7"])], k=3)
        assert None not in found.ids[0]
        assert np.isfinite(found.scores).all()
        assert "i2" not in found.ids[0]
        assert None not in unlogged.recommend(["u0"], k=3, on_unknown="cold").ids[0]
        with pytest.raises(UnknownIdError, match="user 'u0' is unknown"):
            unlogged.recommend(["u0"])
        assert not unlogged.store.read_items(model=None).present[:, -1].any()

    def test_a_model_without_towers(self, catalogue: Catalogue) -> None:
        config = RecommenderConfig({}, embedding_dim=8, behaviour_rank=4)
        recommender = Recommender(config).fit(catalogue, training=replace(CPU, epochs=1))
        assert recommender.store.read_items(model=None).present[:, 0].all()
        assert recommender.embed(catalogue.items).unchanged == NUM_ITEMS
        assert np.isfinite(recommender.score(USERS, IDS)).all()
        recommender.close()

    def test_fitting_again_leaves_no_old_row_beside_the_new(self, bert: Path, catalogue: Catalogue) -> None:
        recommender = Recommender(tiny_config(bert)).fit(catalogue, training=replace(CPU, epochs=1))
        before = recommender.score(USERS, IDS)
        recommender.fit(catalogue, training=replace(CPU, epochs=1, seed=1))
        assert recommender.store.num_items == NUM_ITEMS
        assert recommender.store.stale(recommender._fitted().job.fingerprint) == []
        assert len(recommender.store.read_interactions()) == len(catalogue.interactions)
        assert not np.allclose(recommender.score(USERS, IDS), before, atol=1e-3)
        recommender.close()


class TestEvaluate:
    def test_one_value_a_person(self, bert: Path, catalogue: Catalogue) -> None:
        first, valid, test = catalogue.split("share", valid=0.2, test=0.4)
        recommender = Recommender(tiny_config(bert)).fit(first, valid=valid, training=CPU)
        # So short a training leaves the attention of the ranking nearly even, and both scores with one order.
        ranking = recommender._fitted().model.ranking
        assert isinstance(ranking, ContextScore)
        torch.nn.init.normal_(ranking.key, std=2.0, generator=torch.Generator().manual_seed(0))
        found = recommender.evaluate(test)
        liked = test.interactions[test.event_weights > 0]
        assert sorted(found.per_user.index) == sorted(set(liked["user_id"]))
        assert ((found.per_user >= 0) & (found.per_user <= 1)).all(axis=None)
        for other in ({"score": "retrieval"}, {"without": ["image"]}, {"without": ["context"]}):
            assert not recommender.evaluate(test, **other).per_user.equals(found.per_user)
        among = recommender.evaluate(test, candidates=set(liked["item_id"]))
        assert among.means()["ndcg@10"] >= found.means()["ndcg@10"]
        with pytest.raises(ConfigError, match=r"the model has no part 'sound'. Expected one of text, image"):
            recommender.evaluate(test, without=["sound"])
        recommender.close()

    def test_ranking_agrees_with_score(self, fitted: Recommender, catalogue: Catalogue) -> None:
        scorer = fitted._ready()
        contexts = fitted._contexts(NIGHT, len(USERS))
        ranked = scorer.rank(USERS, contexts)
        np.testing.assert_allclose(
            ranked[:, [scorer.item_rows[i] for i in IDS]], fitted.score(USERS, IDS, context=NIGHT), atol=1e-5
        )

    def test_what_has_nothing_left_to_show_comes_last(self, fitted: Recommender) -> None:
        scorer = fitted._ready()
        scores = scorer.rank(["u0"], fitted._contexts(None, 1), without=["text", "attributes", "behaviour"])[0]
        assert scorer.ids[int(scores.argmin())] == "i0"  # which has no picture
        assert np.isfinite(scores).all()


class TestSaveAndLoad:
    def test_equal_scores_and_recommendations(self, fitted: Recommender, own: Recommender) -> None:
        np.testing.assert_array_equal(own.score(USERS, IDS, context=NIGHT), fitted.score(USERS, IDS, context=NIGHT))
        one, other = (recommender.recommend(USERS, k=5, context=MORNING) for recommender in (own, fitted))
        assert one.ids == other.ids
        np.testing.assert_array_equal(one.scores, other.scores)
        assert own.explain("u1", "i3") == fitted.explain("u1", "i3")
        assert own.config == fitted.config
        person = Person(["i2", "i3"], attributes={"age": 30})
        np.testing.assert_array_equal(own.score([person], IDS), fitted.score([person], IDS))

    def test_a_folder_holds_json_safetensors_and_a_store(self, saved: Path) -> None:
        assert sorted(path.name for path in saved.iterdir()) == ["config.json", "model.safetensors", "store"]
        assert json.loads((saved / "config.json").read_text())["format"] == 3

    @pytest.mark.parametrize("found", [1, 2, "two", None])
    def test_another_format_is_refused(self, saved: Path, tmp_path: Path, found: object) -> None:
        about = json.loads((saved / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps({**about, "format": found}))
        with pytest.raises(NotFittedError, match=rf"in format {found}\. This release reads format 3 .*Fit again"):
            Recommender.load(tmp_path)

    @pytest.mark.parametrize("content", ["{", "[]", '{"name": "another\'s"}'])
    def test_another_programs_folder_is_refused(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(NotFittedError, match=r"holds no saved recommender: 'config.json' describes none"):
            Recommender.load(tmp_path)

    def test_a_loaded_model_embeds_to_the_same_rows(self, own: Recommender, catalogue: Catalogue) -> None:
        before = own.store.read_items(model=None)
        own.store.delete_items(IDS)
        assert own.embed(catalogue.items).embedded == NUM_ITEMS
        after = own.store.read_items(model=None)
        np.testing.assert_allclose(after.tokens, before.tokens, atol=4e-3)
        np.testing.assert_array_equal(after.present, before.present)

    def test_a_store_closed_and_opened_again_gives_the_same_bits(
        self, bert: Path, catalogue: Catalogue, tmp_path: Path
    ) -> None:
        recommender = Recommender(tiny_config(bert), store=tmp_path / "store").fit(
            catalogue, training=replace(CPU, epochs=1)
        )
        scores = recommender.score(USERS, IDS, context=NIGHT)
        recommended = recommender.recommend(USERS, k=5)
        recommender.save(tmp_path / "model")
        recommender.close()
        assert not (tmp_path / "model" / "store").exists()
        for _ in range(2):
            opened = Recommender.load(tmp_path / "model", store=tmp_path / "store", device="cpu")
            np.testing.assert_array_equal(opened.score(USERS, IDS, context=NIGHT), scores)
            assert opened.recommend(USERS, k=5).ids == recommended.ids
            assert opened.embed(catalogue.items).unchanged == NUM_ITEMS
            opened.close()
        with pytest.raises(StoreError, match="this store is closed"):
            opened.embed(catalogue.items)

    def test_loading_into_a_new_store_brings_the_rows_along(
        self, fitted: Recommender, saved: Path, tmp_path: Path
    ) -> None:
        for _ in range(2):
            loaded = Recommender.load(saved, store=tmp_path / "new", device="cpu")
            np.testing.assert_array_equal(loaded.score(USERS, IDS), fitted.score(USERS, IDS))
            loaded.close()

    def test_saving_again_replaces_what_was_saved(self, own: Recommender, catalogue: Catalogue, tmp_path: Path) -> None:
        own.save(tmp_path)
        own.store.delete_items(["i3"])
        own._scorer = None
        own.save(tmp_path)
        again = Recommender.load(tmp_path, device="cpu")
        assert again.store.num_items == NUM_ITEMS - 1
        np.testing.assert_array_equal(again.score(USERS, ["i2"]), own.score(USERS, ["i2"]))
        again.close()

    def test_a_store_without_rows_of_this_model_says_so(self, plain: Recommender, own: Recommender) -> None:
        own.store.delete_items(IDS)
        own._scorer = None
        for query in (None, Query(shortlist=10), Query(shortlist=10, by="retrieval")):
            with pytest.raises(StoreError, match=r"the store holds no items of this model.*Embed them with embed\(it"):
                own.recommend(["u0"], on_unknown="cold", query=query)

    def test_rows_of_another_model_are_never_scored(
        self, saved: Path, bert: Path, catalogue: Catalogue, tmp_path: Path
    ) -> None:
        Recommender.load(saved, store=tmp_path / "store", device="cpu").close()
        other = Recommender(tiny_config(bert), store=tmp_path / "other").fit(
            catalogue, training=replace(CPU, epochs=1, seed=3)
        )
        other.save(tmp_path / "model")
        other.close()
        wrong = Recommender.load(tmp_path / "model", store=tmp_path / "store", device="cpu")
        with pytest.raises(StoreError, match="the store holds no items of this model"):
            wrong.recommend(["u0"])
        with pytest.raises(
            UnknownIdError, match=r"item 'i0' is stale: another model embedded it.*\(14 of 14 .*14 of them stale"
        ):
            wrong.score(["u0"], IDS)
        assert wrong.embed(catalogue.items).embedded == NUM_ITEMS
        assert np.isfinite(wrong.score(["u0"], IDS)).all()
        wrong.close()
