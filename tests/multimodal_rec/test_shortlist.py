"""Candidates from the index, ranked by the context-aware score; an index that belongs to other rows is refused."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, cast

import numpy as np
import pandas as pd
import pytest

from multimodal_rec import shortlist as shortlist_module
from multimodal_rec.errors import ConfigError, StoreError
from multimodal_rec.people import Person
from multimodal_rec.recommender import Recommender
from multimodal_rec.retrieval import Query
from tests.multimodal_rec.tiny import NUM_ITEMS

PEOPLE = ["u0", "u1", Person(["i2", "i5"])]
NIGHT = {"hour": 23, "device": "tv"}


@pytest.fixture
def stored(saved: Path, tmp_path: Path):
    recommender = Recommender.load(saved, store=tmp_path / "store", device="cpu")
    yield recommender
    recommender.close()


def test_a_shortlist_of_everything_changes_nothing(fitted: Recommender) -> None:
    everything = fitted.recommend(PEOPLE, k=6, context=NIGHT)
    short = fitted.recommend(PEOPLE, k=6, context=NIGHT, query=Query(shortlist=NUM_ITEMS))
    assert short.ids == everything.ids
    np.testing.assert_allclose(short.scores, everything.scores, rtol=1e-5)


def test_candidates_have_the_highest_retrieval_scores_and_are_ranked_by_the_other(fitted: Recommender) -> None:
    scorer = fitted._ready()
    contexts = fitted._contexts(NIGHT, 2)
    retrieval = scorer.rank(["u0", "u1"], contexts, retrieval=True)
    np.testing.assert_allclose(
        scorer.search_queries(["u0", "u1"], contexts) @ scorer.search_embeddings.T, retrieval, rtol=1e-4, atol=1e-5
    )
    query = Query(shortlist=5, exclude_seen=False)
    ids, scores = fitted.recommend(["u0", "u1"], k=3, context=NIGHT, query=query)
    for place, person in enumerate(["u0", "u1"]):
        candidates = [scorer.ids[row] for row in np.argsort(-retrieval[place])[:5]]
        ranking = fitted.score([person], candidates, context=NIGHT)[0]
        assert ids[place] == [candidates[i] for i in np.argsort(-ranking)[:3]]
        np.testing.assert_allclose(scores[place], np.sort(ranking)[::-1][:3], rtol=1e-5)


def test_conditions_hold_in_a_shortlist(fitted: Recommender) -> None:
    query = Query(shortlist=8, where={"genre": "jazz"}, exclude=("i2",), exclude_seen=False)
    ids, scores = fitted.recommend(["u0"], k=8, query=query)
    assert sorted(filter(None, ids[0])) == sorted(f"i{i}" for i in range(0, NUM_ITEMS, 2) if i != 2)
    assert ids[0][6:] == [None, None]
    assert scores[0, 6:].tolist() == [-np.inf] * 2
    seen = fitted._ready().people.seen("u0")
    shown = fitted.recommend(["u0"], k=NUM_ITEMS, query=Query(shortlist=NUM_ITEMS)).ids[0]
    assert {fitted._ready().item_rows[i] for i in shown if i is not None} == set(range(NUM_ITEMS)) - seen


def test_whoever_is_skipped_has_an_empty_row(fitted: Recommender) -> None:
    ids, scores = fitted.recommend(["nobody", "u1"], k=2, query=Query(shortlist=4), on_unknown="skip")
    assert ids[0] == [None, None]
    assert scores[0].tolist() == [-np.inf] * 2
    assert None not in ids[1]
    assert fitted.recommend(["nobody"], k=2, query=Query(shortlist=4), on_unknown="skip").ids == [[None, None]]


def test_a_shortlist_that_is_too_short(fitted: Recommender) -> None:
    with pytest.raises(ConfigError, match=r"Query.shortlist is 3, and k is 4. Expected a shortlist of at least k"):
        fitted.recommend(["u0"], k=4, query=Query(shortlist=3))
    with pytest.raises(ConfigError, match=r"Query.shortlist is 0. Expected at least 1"):
        Query(shortlist=0)


def test_many_items_need_an_index_and_it_is_kept(stored: Recommender, saved: Path, monkeypatch) -> None:
    monkeypatch.setattr(shortlist_module, "EXACT_UP_TO", 5)
    with pytest.raises(StoreError, match=r"there is no index.*build_index"):
        stored.recommend(["u0"], k=2, query=Query(shortlist=4))
    exact = stored.similar_items(["i3"], k=NUM_ITEMS - 1)
    report = stored.build_index(exact_up_to=5)
    assert (report.num_items, report.cells) == (NUM_ITEMS, 7)
    ids = stored.recommend(["u0"], k=2, query=Query(shortlist=4)).ids
    # In cells of two items, the second nearest may lie in one that is not read; cosines are exact all the same.
    similar, cosines = stored.similar_items(["i3"], k=3), dict(zip(exact.ids[0], exact.scores[0], strict=True))
    assert similar.ids[0][0] == exact.ids[0][0]
    np.testing.assert_allclose(similar.scores[0], [cosines[item_id] for item_id in similar.ids[0]], rtol=1e-4)
    other = Recommender.load(saved, store=stored._store_uri, device="cpu")
    assert other.recommend(["u0"], k=2, query=Query(shortlist=4)).ids == ids
    assert other._searched().index.report == report
    other.close()


def test_an_index_of_other_rows_is_refused(stored: Recommender, saved: Path, monkeypatch) -> None:
    stored.build_index(exact_up_to=5)
    stored.store.delete_items(["i4"])
    other = Recommender.load(saved, store=stored._store_uri, device="cpu")
    # Few items are all looked at instead, and then nothing is stale.
    assert len(other.recommend(["u0"], k=2, query=Query(shortlist=4)).ids[0]) == 2
    other.close()
    monkeypatch.setattr(shortlist_module, "EXACT_UP_TO", 5)
    other = Recommender.load(saved, store=stored._store_uri, device="cpu")
    with pytest.raises(StoreError, match=r"is stale: it was built for 14 items .* the store has 13"):
        other.recommend(["u0"], k=2, query=Query(shortlist=4))
    assert len(other.similar_items(["i3"], k=3).ids[0]) == 3, "exact where the index cannot be used"
    other.build_index(exact_up_to=5)
    other.recommend(["u0"], k=2, query=Query(shortlist=4))
    other.close()


def test_an_index_from_before_an_update_is_refused(stored: Recommender, saved: Path, monkeypatch) -> None:
    """Here, in a process that loads the store afterwards, and not where the update touched no item."""
    monkeypatch.setattr(shortlist_module, "EXACT_UP_TO", 5)
    short = Query(shortlist=6, exclude_seen=False)
    stored.build_index(exact_up_to=5)
    event = {"timestamp": 1_800_000_000, "event": "dislike", "hour": 9.0, "device": "tv", "value": 1.0}
    stored.update(pd.DataFrame([{"user_id": "u0", "item_id": "i3", **event}]))
    assert None not in stored.recommend(["u0"], k=2, query=short).ids[0]
    report = stored.update(pd.DataFrame([{"user_id": "u0", "item_id": "i3", **event, "event": "like"}]))
    assert report.items == 1
    later = Recommender.load(saved, store=stored._store_uri, device="cpu")
    for asked in (stored, later):
        with pytest.raises(StoreError, match=r"the index in .* is stale.*Build it with recommender.build_index"):
            asked.recommend(["u0"], k=2, query=short)
        ids = [str(item_id) for item_id in asked.similar_items(["i3"], k=3).ids[0]]
        cosines = asked._ready().similarity([asked._ready().item_rows["i3"]])[0]
        assert ids == [asked._ready().ids[row] for row in np.argsort(-cosines)[1:4]]
    stored.build_index(exact_up_to=5)
    whole = Query(shortlist=NUM_ITEMS, exclude_seen=False)
    assert (
        stored.recommend(["u0"], k=4, query=whole).ids
        == stored.recommend(["u0"], k=4, query=Query(exclude_seen=False)).ids
    )
    later.close()


def test_people_whose_queries_measure_an_index(fitted: Recommender) -> None:
    people = fitted._ready().people
    assert people.some(1) == ["u0"]
    assert people.some(3) == ["u0", "u5", "u11"]
    assert people.some(99) == [f"u{u}" for u in range(12)]


def test_several_callers_get_what_one_gets(fitted: Recommender) -> None:
    people = [f"u{place % 6}" for place in range(48)]
    queries = [Query(shortlist=8), Query(shortlist=6, exclude_seen=False)]

    def ask(place: int) -> tuple[list[str | None], np.ndarray]:
        context = {"hour": place % 24, "device": "tv"}
        found = fitted.recommend([people[place]], k=4, context=context, query=queries[place % 2])
        return found.ids[0], found.scores[0]

    alone = [ask(place) for place in range(48)]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(ask, range(48)))
    assert [ids for ids, _ in together] == [ids for ids, _ in alone]
    np.testing.assert_allclose([s for _, s in together], [s for _, s in alone], rtol=1e-5, atol=1e-6)


def test_who_was_asked_for_before_is_answered_as_the_first_time(fitted: Recommender) -> None:
    fitted._scorer = None
    query = Query(shortlist=6)
    first = [fitted.recommend(["u1"], k=3, context={"hour": hour, "device": "tv"}, query=query) for hour in (2, 20)]
    fitted._scorer = None
    fitted.recommend(["u0", "u2"], k=3, query=query)
    for hour, before in zip((2, 20), first, strict=True):
        found = fitted.recommend(["u2", "u1"], k=3, context={"hour": hour, "device": "tv"}, query=query)
        assert found.ids[1] == before.ids[0]
        np.testing.assert_allclose(found.scores[1], before.scores[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shortlist", [None, 6])
def test_by_the_retrieval_score(fitted: Recommender, shortlist: int | None) -> None:
    scorer, contexts = fitted._ready(), fitted._contexts(NIGHT, 1)
    retrieval = scorer.rank(["u1"], contexts, retrieval=True)[0]
    ids, scores = fitted.recommend(
        ["u1"], k=3, context=NIGHT, query=Query(by="retrieval", shortlist=shortlist, exclude_seen=False)
    )
    order = np.argsort(-retrieval)[:3]
    assert ids[0] == [scorer.ids[row] for row in order]
    np.testing.assert_allclose(scores[0], retrieval[order], rtol=1e-4)
    with pytest.raises(ConfigError, match=r"Query.by is 'popularity'. Expected 'ranking' or 'retrieval'"):
        Query(by=cast(Literal["ranking"], "popularity"))
