"""Many threads at once, and what a service may get wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest

from multimodal_rec import scorer, service
from multimodal_rec.errors import ConfigError, ItemError, UnknownIdError
from multimodal_rec.people import Person
from multimodal_rec.recommender import Recommender
from multimodal_rec.reranking import MMR
from multimodal_rec.retrieval import Query
from multimodal_rec.scorer import Scorer
from tests.multimodal_rec.tiny import NUM_ITEMS

IDS = [f"i{item}" for item in range(NUM_ITEMS)]
THREADS = 16


def verbs(recommender: Recommender) -> list[Callable[[], np.ndarray]]:
    context = {"hour": 23, "device": "tv"}
    return [
        lambda: recommender.score(["u0", "u5"], IDS, context=context),
        lambda: recommender.recommend(["u1"], k=4, context=context).scores,
        lambda: recommender.recommend(["u2"], k=4, query=Query(shortlist=8)).scores,
        lambda: recommender.search("slow piano", k=4, user="u3").scores,
        lambda: recommender.similar_items(["i3"], k=4).scores,
        lambda: recommender.score([Person(["i1"], attributes={"age": 33.0})], IDS),
    ]


def test_scores_do_not_depend_on_how_many_items_pass_at_a_time(
    fitted: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fitted.score(["u0", "u5"], IDS, context={"hour": 3})
    monkeypatch.setattr(scorer, "_BATCH_OF_ITEMS", 5)
    np.testing.assert_allclose(fitted.score(["u0", "u5"], IDS, context={"hour": 3}), whole, rtol=1e-5)
    assert fitted.score(["u0"], []).shape == (1, 0)


def test_16_threads_get_what_one_gets_and_build_everything_once(
    saved: Path, fitted: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[str] = []
    scorer_of, search_of = Scorer.of_store, service.WishSearch
    monkeypatch.setattr(Scorer, "of_store", lambda *a, **k: built.append("scorer") or scorer_of(*a, **k))
    monkeypatch.setattr(service, "WishSearch", lambda *a: built.append("search") or search_of(*a))
    recommender = Recommender.load(saved, device="cpu")
    start = Barrier(THREADS)

    def ask(thread: int) -> list[np.ndarray]:
        start.wait()
        asked = verbs(recommender)
        return [asked[(thread + turn) % len(asked)]() for turn in range(2 * len(asked))]

    with ThreadPoolExecutor(THREADS) as pool:
        answers = list(pool.map(ask, range(THREADS)))
    alone = [verb() for verb in verbs(recommender)]
    for thread, found in enumerate(answers):
        for turn, scores in enumerate(found):
            np.testing.assert_allclose(scores, alone[(thread + turn) % len(alone)], atol=1e-5)
    assert sorted(built) == ["scorer", "search"]
    recommender.close()


def test_awaited_from_an_event_loop(fitted: Recommender) -> None:
    async def ask() -> list[np.ndarray]:
        return await asyncio.gather(*(asyncio.to_thread(verb) for verb in verbs(fitted)))

    for found, verb in zip(asyncio.run(ask()), verbs(fitted), strict=True):
        np.testing.assert_allclose(found, verb(), atol=1e-5)


def test_items_that_go_while_somebody_is_answered(own: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every verb reads one state from beginning to end, though the store loses an item in the middle of each."""
    contexts, left = own._contexts, iter(IDS)

    def lose_one(*asked: object, **told: object) -> np.ndarray:
        own.delete([next(left)])
        own._searched()
        return contexts(*asked, **told)  # pyright: ignore[reportArgumentType]

    everything = Query(exclude_seen=False)
    short = Query(exclude_seen=False, shortlist=NUM_ITEMS, steps=(MMR(0.5),))
    monkeypatch.setattr(own, "_contexts", lose_one)
    verbs = [
        lambda: own.recommend(["u0"], k=NUM_ITEMS, query=everything),
        lambda: own.recommend(["u0"], k=NUM_ITEMS, query=short),
        lambda: own.search("slow piano", k=NUM_ITEMS, user="u0", query=everything),
    ]
    for place, verb in enumerate(verbs):
        found = {item_id for item_id in verb().ids[0] if item_id is not None}
        assert found == set(IDS[place:])


def test_an_id_asked_for_twice_is_answered_twice(fitted: Recommender) -> None:
    scores = fitted.score(["u0", "u0"], ["i3", "i4", "i3"])
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-6)
    np.testing.assert_allclose(scores[:, 0], scores[:, 2], atol=1e-6)
    found = fitted.recommend(["u0"], k=3, query=Query(exclude_seen=False, candidates=("i3", "i3", "i4")))
    assert sorted(map(str, found.ids[0])) == ["None", "i3", "i4"]


@pytest.mark.parametrize("verb", ["score", "recommend"])
@pytest.mark.parametrize(
    ("people", "message"),
    [
        ("u0", "people is 'u0'. Expected a list of user ids and Persons"),
        ([7], r"people\[0\] is 7, a int. Expected a user id as str"),
        ([None], r"people\[0\] is None"),
        (np.array(["u0"]), "Expected a list of user ids"),
    ],
)
def test_people_of_the_wrong_type(fitted: Recommender, verb: str, people, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fitted.score(people, IDS) if verb == "score" else fitted.recommend(people)


@pytest.mark.parametrize("items", ["i0", [3], [None], 7])
def test_items_of_the_wrong_type(fitted: Recommender, items) -> None:
    with pytest.raises(ConfigError, match=r"items.* is .*Expected .*list of item ids"):
        fitted.score(["u0"], items)
    with pytest.raises(ConfigError, match=r"items.* is .*Expected .*list of item ids"):
        fitted.similar_items(items)


def test_a_nan_in_a_context_says_nothing(fitted: Recommender) -> None:
    plain = fitted.score(["u0"], IDS)
    for nothing in ({"hour": float("nan")}, {"hour": None, "device": None}, {"device": float("nan")}):
        np.testing.assert_array_equal(fitted.score(["u0"], IDS, context=nothing), plain)


def test_more_asked_for_than_is_left(fitted: Recommender) -> None:
    found = fitted.recommend(["u0"], k=1000)
    assert found.ids[0].count(None) == 993
    assert found.reasons[0] is not None
    for k in (0, -1):
        with pytest.raises(ConfigError, match=f"k is {k}. Expected at least 1"):
            fitted.recommend(["u0"], k=k)


def test_an_unknown_candidate_is_named(fitted: Recommender) -> None:
    with pytest.raises(UnknownIdError, match="1 of 2 candidates are not among the 14 embedded items: 'i99'"):
        fitted.recommend(["u0"], query=Query(candidates=("i0", "i99")))


def test_a_batch_that_repeats_an_id_embeds_nothing(own: Recommender, catalogue) -> None:
    with pytest.raises(ItemError, match="comes more than once"):
        own.embed(catalogue.items.iloc[[0, 0]])
