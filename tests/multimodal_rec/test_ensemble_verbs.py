"""What an ensemble finds, explains and learns beside its rankings: known answers from its members' own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from multimodal_rec.catalogue import Catalogue
from multimodal_rec.ensemble import Ensemble
from multimodal_rec.errors import CatalogueError, ConfigError, ContextError, ItemError, StoreError, UnknownIdError
from multimodal_rec.fine_tuning import FineTune
from multimodal_rec.people import OnUnknown, Person
from multimodal_rec.recommender import Recommender
from multimodal_rec.reranking import MMR, Cap
from multimodal_rec.retrieval import Query
from multimodal_rec.search import blended, standardised
from tests.multimodal_rec.tiny import CPU, NUM_ITEMS, tiny_config

IDS = [f"i{item}" for item in range(NUM_ITEMS)]
MARGIN = pd.Series({item_id: float(place) for place, item_id in enumerate(IDS[:-1])})
NIGHT = {"hour": 23, "device": "tv"}
WISHES = ["slow piano in the rain", "a loud drum"]
USERS = ["u0", "u1"]
LATER = 1_710_000_000


@pytest.fixture(scope="module")
def saved_second(bert: Path, catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that reads no context."""
    recommender = Recommender(tiny_config(bert, context=False))
    recommender.fit(catalogue, training=replace(CPU, epochs=1, seed=1))
    folder = recommender.save(tmp_path_factory.mktemp("second") / "model")
    recommender.close()
    return folder


@pytest.fixture
def own_second(saved_second: Path) -> Iterator[Recommender]:
    recommender = Recommender.load(saved_second, device="cpu")
    yield recommender
    recommender.close()


@pytest.fixture(scope="module")
def second(saved_second: Path) -> Iterator[Recommender]:
    """It has not embedded i3."""
    recommender = Recommender.load(saved_second, device="cpu")
    recommender.delete(["i3"])
    yield recommender
    recommender.close()


@pytest.fixture(scope="module")
def pictures(bert: Path, catalogue: Catalogue) -> Iterator[Recommender]:
    """A model that reads no text, and has not embedded i0, which has no picture."""
    with_picture = catalogue.items.loc[catalogue.items["item_id"] != "i0"]
    log = catalogue.interactions.loc[catalogue.interactions["item_id"] != "i0"]
    config = tiny_config(bert)
    config = replace(config, towers={"image": config.towers["image"]})
    part = Catalogue.from_frames(with_picture, log, catalogue.users, schema=catalogue.schema)
    recommender = Recommender(config).fit(part, training=replace(CPU, epochs=1))
    yield recommender
    recommender.close()


def events(*rows: tuple[str, str]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["user_id", "item_id"])
    times = np.arange(LATER, LATER + len(frame))
    return frame.assign(timestamp=times, event="like", hour=9.0, device="tv", value=4.0)


class TestSimilarItems:
    def test_one_member_finds_what_it_finds_alone(self, fitted: Recommender) -> None:
        found, own = Ensemble({"only": fitted}).similar_items(IDS, k=5), fitted.similar_items(IDS, k=5)
        assert found.ids == own.ids
        np.testing.assert_allclose(found.scores, own.scores, atol=1e-5)

    def test_a_cosine_is_the_mean_over_those_that_have_both(self, fitted: Recommender, second: Recommender) -> None:
        found = Ensemble({"a": fitted, "b": second, "margin": MARGIN}).similar_items(["i3", "i4"], k=NUM_ITEMS)
        each = [dict(zip(*row, strict=True)) for row in _rows(found.ids, found.scores)]
        a, b = (_cosines(recommender) for recommender in (fitted, second))
        assert None in each[0]
        assert "i3" not in each[0]
        assert each[0]["i5"] == pytest.approx(a["i3", "i5"], abs=1e-5)
        assert each[1]["i3"] == pytest.approx(a["i4", "i3"], abs=1e-5)
        assert each[1]["i5"] == pytest.approx((a["i4", "i5"] + b["i4", "i5"]) / 2, abs=1e-5)

    def test_items_that_no_member_has_both_of_are_not_compared(self, own: Recommender, own_second: Recommender) -> None:
        own.delete(["i3"])
        own_second.delete([item_id for item_id in IDS if item_id not in ("i3", "i4")])
        found = Ensemble({"a": own, "b": own_second}).similar_items(["i3"], k=2)
        assert found.ids == [["i4", None]]

    def test_what_is_refused(self, fitted: Recommender) -> None:
        ensemble = Ensemble({"a": fitted})
        with pytest.raises(UnknownIdError, match=r"item 'i99' is embedded by no member \(1 of 2"):
            ensemble.similar_items(["i1", "i99"])
        with pytest.raises(ConfigError, match=r"items is 'i1'\. Expected a list of item ids"):
            ensemble.similar_items("i1")
        with pytest.raises(ConfigError, match="k is 0"):
            ensemble.similar_items(["i1"], k=0)


class TestSearch:
    @pytest.mark.parametrize("user", [None, "u0", Person(["i1"])])
    @pytest.mark.parametrize("context", [None, NIGHT])
    def test_one_member_finds_what_it_finds_alone(
        self, fitted: Recommender, user: str | Person | None, context: dict[str, object] | None
    ) -> None:
        query = Query(never={"genre": "folk"}, steps=(MMR(0.5), Cap("genre", 3)), pool=9)
        for asked in (None, query):
            own = fitted.search(WISHES, k=5, user=user, context=context, query=asked, taste=0.4)
            found = Ensemble({"only": fitted}).search(WISHES, k=5, user=user, context=context, query=asked, taste=0.4)
            assert found.ids == own.ids
            np.testing.assert_allclose(found.scores, own.scores, atol=1e-4)
            assert found.reasons == own.reasons

    def test_a_match_is_the_mean_over_those_that_have_the_item(self, fitted: Recommender, second: Recommender) -> None:
        ensemble = Ensemble({"a": fitted, "b": second, "margin": MARGIN}, weights={"margin": 0.2})
        ids = ensemble._now().ids
        a = pd.DataFrame(fitted._searcher()[1].match(WISHES), columns=fitted._ready().ids)
        b = pd.DataFrame(second._searcher()[1].match(WISHES), columns=second._ready().ids)
        mean = ((a + b) / 2).assign(i3=a["i3"])[ids].to_numpy()
        expected = standardised(mean)
        everything = Query(exclude_seen=False)
        _same_scores(ensemble.search(WISHES, k=NUM_ITEMS), expected, ids)
        taste = ensemble.score(["u0"], ids, context=NIGHT)
        found = ensemble.search(WISHES, k=NUM_ITEMS, user="u0", context=NIGHT, query=everything, taste=0.6)
        _same_scores(found, blended(expected, taste, 0.6), ids)

    def test_a_member_that_reads_no_text_is_passed_over(self, fitted: Recommender, pictures: Recommender) -> None:
        found = Ensemble({"pictures": pictures, "a": fitted}).search(WISHES, k=5)
        assert found.ids == fitted.search(WISHES, k=5).ids
        with pytest.raises(ConfigError, match=r"no member reads text \(recommenders: pictures\)"):
            Ensemble({"pictures": pictures, "margin": MARGIN}).search("rain")

    def test_an_item_that_no_reader_of_text_has_is_a_usual_one(self, own: Recommender, pictures: Recommender) -> None:
        own.delete(["i5"])
        found = Ensemble({"a": own, "pictures": pictures}).search("rain", k=NUM_ITEMS)
        assert found.scores[0][found.ids[0].index("i5")] == 0

    @pytest.mark.parametrize("on_unknown", ["skip", "cold"])
    def test_somebody_unknown(self, fitted: Recommender, on_unknown: OnUnknown) -> None:
        own = fitted.search(WISHES, k=3, user="nobody", on_unknown=on_unknown)
        found = Ensemble({"only": fitted}).search(WISHES, k=3, user="nobody", on_unknown=on_unknown)
        assert (found.ids, found.reasons) == (own.ids, own.reasons)

    def test_what_is_refused(self, fitted: Recommender) -> None:
        ensemble = Ensemble({"a": fitted})
        with pytest.raises(UnknownIdError, match="user 'nobody' is unknown"):
            ensemble.search("rain", user="nobody")
        with pytest.raises(ConfigError, match=r"taste is 1\.5"):
            ensemble.search("rain", taste=1.5)
        with pytest.raises(ConfigError, match="wish 0 is ' '"):
            ensemble.search(" ")
        with pytest.raises(ConfigError, match=r"Query\.shortlist is 5: an ensemble has no index"):
            ensemble.search("rain", query=Query(shortlist=5))
        with pytest.raises(ContextError, match="context column 'mood' is read by no member"):
            ensemble.search("rain", context={"mood": "sad"})


class TestRawItems:
    def test_one_member_answers_as_it_does_alone(self, fitted: Recommender, catalogue: Catalogue) -> None:
        """One is new and one stands in place of a stored one that u0 has taken."""
        raw = catalogue.items.iloc[[5, 3]].assign(item_id=["new", _taken(catalogue)], title="slow rain", genre="jazz")
        ensemble, context = Ensemble({"only": fitted}), NIGHT
        own, found = fitted.score(USERS, raw, context=context), ensemble.score(USERS, raw, context=context)
        slope, offset = np.polyfit(fitted.score(USERS, IDS).ravel(), ensemble.score(USERS, IDS).ravel(), 1)
        np.testing.assert_allclose(found, slope * own + offset, atol=1e-4)
        steps = (MMR(0.5), Cap("genre", 3))
        for query in (None, Query(where={"genre": "jazz"}), Query(exclude_seen=False, steps=steps, pool=9)):
            theirs = fitted.recommend(USERS, k=6, context=context, query=query, new_items=raw)
            assert ensemble.recommend(USERS, k=6, context=context, query=query, new_items=raw).ids == theirs.ids
        assert ensemble.similar_items(raw, k=4).ids == fitted.similar_items(raw, k=4).ids
        assert "new" not in ensemble.recommend(USERS, k=NUM_ITEMS).ids[0]

    def test_a_blend_of_raw_items_is_that_after_embedding(
        self, own: Recommender, own_second: Recommender, catalogue: Catalogue
    ) -> None:
        raw = catalogue.items.iloc[[5]].assign(item_id="new")
        ensemble = Ensemble(
            {"a": own, "b": own_second, "margin": pd.Series({**MARGIN, "new": 40.0})}, weights={"margin": 0.3}
        )
        scores = ensemble.score(USERS, raw, context=NIGHT)
        ranked = ensemble.recommend(USERS, k=NUM_ITEMS, context=NIGHT, new_items=raw)
        assert "new" in ranked.ids[0]
        own.embed(raw)
        own_second.embed(raw)
        np.testing.assert_allclose(scores, ensemble.score(USERS, ["new"], context=NIGHT), atol=1e-4)
        assert ranked.ids == ensemble.recommend(USERS, k=NUM_ITEMS, context=NIGHT).ids

    def test_a_member_that_cannot_read_an_item_is_named(self, fitted: Recommender, pictures: Recommender) -> None:
        raw = pd.DataFrame({"item_id": ["new"], "title": ["slow rain"]})
        with pytest.raises(ItemError, match="cannot be embedded") as refused:
            Ensemble({"a": fitted, "pictures": pictures}).score(USERS, raw)
        assert refused.value.__notes__[0].startswith("So says member 'pictures'")


class TestExplain:
    @pytest.mark.parametrize("person", ["u1", Person(["i2", "i5"])])
    @pytest.mark.parametrize("item", ["i0", "i3", "i13"])
    def test_members_sum_to_the_distance_from_the_mean_item(
        self, fitted: Recommender, second: Recommender, person: str | Person, item: str
    ) -> None:
        ensemble = Ensemble({"a": fitted, "b": second, "margin": MARGIN}, weights={"a": 2.0, "margin": -0.5})
        found = ensemble.explain(person, item, context=NIGHT)
        assert found.item_id == item
        assert found.score == pytest.approx(float(ensemble.score([person], [item], context=NIGHT)[0, 0]), abs=1e-4)
        assert list(found.contributions) == ["a", "b", "margin"]
        assert sum(found.contributions.values()) == pytest.approx(found.score - found.neutral, abs=1e-6)
        for name, parts in found.table.items():
            assert sum(parts.values()) == pytest.approx(found.contributions[name], abs=1e-6)
        number = MARGIN.get(item, MARGIN.mean())
        assert found.contributions["margin"] == pytest.approx(-0.5 * (number - MARGIN.mean()) / MARGIN.std(ddof=0))
        assert found.numbers == ({} if item == "i13" else {"margin": number})
        assert found.weights == {"a": 2.0, "b": 1.0, "margin": -0.5}
        if item == "i3":
            assert (found.contributions["b"], found.table["b"]) == (0, {})
            assert list(found.members) == ["a"]

    def test_each_recommender_s_own_explanation_stands_beside(self, fitted: Recommender, second: Recommender) -> None:
        ensemble = Ensemble({"a": fitted, "b": second})
        found = ensemble.explain("u1", ["i4", "i3"], context=NIGHT)
        assert [each.members["a"] for each in found] == fitted.explain("u1", ["i4", "i3"], context=NIGHT)
        assert found[0].members["b"] == second.explain("u1", "i4")
        a = fitted.explain("u1", "i4", context=NIGHT)
        only = Ensemble({"a": fitted})
        slope = np.diff(only.score(["u1"], ["i2", "i4"]))[0, 0] / np.diff(fitted.score(["u1"], ["i2", "i4"]))[0, 0]
        for part, value in found[0].table["a"].items():
            assert value == pytest.approx(slope * a.contributions[part], abs=1e-4)

    def test_the_reason_is_the_deciding_member_s(self, fitted: Recommender) -> None:
        dear = Ensemble({"a": fitted, "margin": MARGIN}, weights={"margin": 50.0}).explain("u1", "i12")
        assert (dear.deciding(), dear.because()) == ("margin", "its margin of 12")
        alone = Ensemble({"a": fitted}).explain("u1", IDS)
        own = fitted.explain("u1", IDS)
        assert {each.because() for each in alone if each.deciding() is None} <= {
            "nothing about it speaks for it more than about others"
        }
        assert any(each.deciding() == "a" for each in alone)
        for each, theirs in zip(alone, own, strict=True):
            if each.deciding() == "a":
                assert each.because({"i2": "Two"}) == theirs.because({"i2": "Two"})
        against = Ensemble({"a": fitted}, weights={"a": -1.0}).explain("u1", IDS)
        said = {each.because() for each in against if each.deciding() == "a"}
        assert said == {"'a', which counts against an item, expects less of it than of others"}

    def test_somebody_whom_one_member_does_not_know(self, own: Recommender, second: Recommender) -> None:
        own.update(events(("newcomer", "i2"), ("newcomer", "i4")))
        ensemble = Ensemble({"a": own, "b": second})
        found = ensemble.explain("newcomer", "i6", context=NIGHT)
        assert found.score == pytest.approx(float(ensemble.score(["newcomer"], ["i6"], context=NIGHT)[0, 0]), abs=1e-4)
        assert found.members["b"].sources["history"] == pytest.approx(0, abs=1e-6)

    def test_what_is_refused(self, fitted: Recommender) -> None:
        ensemble = Ensemble({"a": fitted})
        with pytest.raises(UnknownIdError, match="user 'nobody' is unknown"):
            ensemble.explain("nobody", "i1")
        with pytest.raises(UnknownIdError, match="item 'i99' is embedded by no member"):
            ensemble.explain("u1", ["i99"])
        with pytest.raises(ContextError, match="context column 'mood' is read by no member"):
            ensemble.explain("u1", "i1", context={"mood": "sad"})


class TestUpdate:
    def test_every_recommender_is_told_and_nobody_twice(self, own: Recommender, own_second: Recommender) -> None:
        ensemble = Ensemble({"a": own, "b": own_second, "margin": MARGIN})
        new = events(("u0", "i9"), ("newcomer", "i2"), ("newcomer", "i4"))
        with pytest.raises(UnknownIdError):
            ensemble.recommend(["newcomer"])
        users = pd.DataFrame({"user_id": ["newcomer"], "age": [64.0]})
        reports = ensemble.update(new, users=users)
        assert {name: (each.new_events, each.new_people) for name, each in reports.items()} == {
            "a": (3, 1),
            "b": (3, 1),
        }
        for recommender in (own, own_second):
            assert "i2" not in recommender.recommend(["newcomer"], k=NUM_ITEMS).ids[0]
        scores = ensemble.score(["newcomer", "u0"], IDS)
        assert {"i2", "i4"}.isdisjoint(map(str, ensemble.recommend(["newcomer"], k=NUM_ITEMS).ids[0]))
        again = ensemble.update(new)
        assert [(each.new_events, each.known_events) for each in again.values()] == [(0, 3), (0, 3)]
        np.testing.assert_allclose(ensemble.score(["newcomer", "u0"], IDS), scores, atol=1e-5)

    def test_what_one_member_finds_wrong_is_told_to_none(self, own: Recommender, own_second: Recommender) -> None:
        counts = [each.store.num_interactions for each in (own, own_second)]
        with pytest.raises(CatalogueError, match="none was added"):
            Ensemble({"a": own, "b": own_second}).update(events(("u0", "i9")).assign(timestamp="soon"))
        assert [each.store.num_interactions for each in (own, own_second)] == counts

    def test_a_member_that_fails_is_named_and_told_by_the_next_call(
        self, own: Recommender, own_second: Recommender, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ensemble, new = Ensemble({"a": own, "b": own_second}), events(("u0", "i9"))

        def full(*_: object) -> int:
            raise StoreError("no space is left")

        with monkeypatch.context() as broken:
            broken.setattr(own_second.store, "append_interactions", full)
            with pytest.raises(StoreError, match="no space is left") as failed:
                ensemble.update(new)
        (note,) = failed.value.__notes__
        assert note.startswith("Member 'b' failed; told before it: 'a'. Call update again")
        assert {name: each.new_events for name, each in ensemble.update(new).items()} == {"a": 0, "b": 1}
        for each in (own, own_second):
            assert "i9" not in each.recommend(["u0"], k=NUM_ITEMS).ids[0]

    def test_events_change_scores_and_not_the_scale(self, own: Recommender) -> None:
        ensemble = Ensemble({"only": own})
        before = ensemble.score(["u0", "u1"], IDS), own.score(["u0", "u1"], IDS)
        ensemble.update(events(("u0", "i9"), ("u0", "i2")))
        after = ensemble.score(["u0", "u1"], IDS), own.score(["u0", "u1"], IDS)
        slope, offset = np.polyfit(before[1].ravel(), before[0].ravel(), 1)
        assert not np.allclose(before[0], after[0], atol=1e-4)
        np.testing.assert_allclose(after[0], slope * after[1] + offset, atol=1e-4)

    def test_a_fine_tune_takes_a_new_scale(self, own: Recommender) -> None:
        ensemble = Ensemble({"only": own})
        ensemble.score(USERS, IDS)
        new = events(("u0", "i9"), ("u1", "i2"))
        (report,) = ensemble.update(new, fine_tune=FineTune(epochs=1, batch_size=4, held_back=0)).values()
        assert report.fine_tune is not None
        np.testing.assert_allclose(ensemble.score(USERS, IDS), Ensemble({"only": own}).score(USERS, IDS), atol=1e-5)

    def test_whoever_asks_meanwhile_is_answered_from_one_state(
        self, own: Recommender, own_second: Recommender, catalogue: Catalogue
    ) -> None:
        """Items come and go in one member while others ask: every list is whole, and of items that were there."""
        ensemble, extra = Ensemble({"a": own, "b": own_second}), catalogue.items.iloc[[5]].assign(item_id="a new one")
        done = threading.Event()

        def ask() -> int:
            count = 0
            while not done.is_set() or count < 5:
                found = ensemble.recommend(USERS, k=NUM_ITEMS + 1, query=Query(exclude_seen=False))
                assert all(len(set(row) - {None, "a new one"}) == NUM_ITEMS for row in found.ids)
                assert ensemble.search("rain", k=3, user="u0").ids[0][2] is not None
                count += 1
            return count

        with ThreadPoolExecutor(3) as callers:
            asking = [callers.submit(ask) for _ in range(3)]
            try:
                for _ in range(3):
                    own.embed(extra)
                    ensemble.update(events(("u0", "i9")))
                    own.delete(["a new one"])
            finally:
                done.set()
            assert all(each.result() >= 5 for each in asking)


def _taken(catalogue: Catalogue) -> str:
    log = catalogue.interactions
    return str(log.loc[log["user_id"] == "u0", "item_id"].iloc[0])


def _rows(ids: list[list[str | None]], scores: np.ndarray) -> Iterator[tuple[list[str | None], list[float]]]:
    yield from zip(ids, scores.tolist(), strict=True)


def _cosines(recommender: Recommender) -> dict[tuple[str, str], float]:
    scorer = recommender._ready()
    numbers = scorer.similarity(range(len(scorer.ids)))
    return {(one, other): numbers[i, j] for i, one in enumerate(scorer.ids) for j, other in enumerate(scorer.ids)}


def _same_scores(found: tuple[list[list[str | None]], np.ndarray], expected: np.ndarray, ids: list[str]) -> None:
    for row, (names, scores) in enumerate(_rows(*found)):
        np.testing.assert_allclose(scores, [expected[row, ids.index(str(name))] for name in names], atol=1e-4)
        assert scores == sorted(scores, reverse=True)
