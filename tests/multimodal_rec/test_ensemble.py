"""Several scores as one: known blends, weights that are learned, the same verbs, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from multimodal_rec.catalogue import Catalogue
from multimodal_rec.ensemble import Ensemble
from multimodal_rec.errors import ConfigError, ContextError, LeakError, UnknownIdError
from multimodal_rec.people import Person
from multimodal_rec.recommender import Recommender
from multimodal_rec.reranking import MMR, Calibrated, Cap, Explore
from multimodal_rec.retrieval import Query
from tests.multimodal_rec.tiny import CPU, NUM_ITEMS, SCHEMA, tiny_config

IDS = [f"i{item}" for item in range(NUM_ITEMS)]
USERS = [f"u{user}" for user in range(12)]
MARGIN = pd.Series({item_id: float(place) for place, item_id in enumerate(IDS)})


@pytest.fixture(scope="module")
def parts(catalogue: Catalogue) -> tuple[Catalogue, Catalogue, Catalogue]:
    train, valid, test = catalogue.split("time", valid=0.2, test=0.2)
    return train, valid, test


@pytest.fixture(scope="module")
def first(bert: Path, parts: tuple[Catalogue, ...]) -> Iterator[Recommender]:
    recommender = Recommender(tiny_config(bert)).fit(parts[0], training=replace(CPU, epochs=2))
    recommender.embed(parts[2].items)
    yield recommender
    recommender.close()


@pytest.fixture(scope="module")
def second(bert: Path, parts: tuple[Catalogue, ...]) -> Iterator[Recommender]:
    """A model that reads no context, and has not embedded i3."""
    config = tiny_config(bert, context=False)
    recommender = Recommender(config).fit(parts[0], training=replace(CPU, epochs=1, seed=1))
    recommender.embed(parts[2].items)
    recommender.store.delete_items(["i3"])
    recommender._scorer = None
    yield recommender
    recommender.close()


def test_one_member_ranks_as_it_does_alone(first: Recommender, parts: tuple[Catalogue, ...]) -> None:
    alone = Ensemble({"only": first})
    context = {"hour": 23, "device": "tv"}
    blended, own = alone.score(USERS, IDS, context=context), first.score(USERS, IDS, context=context)
    slope, offset = np.polyfit(own.ravel(), blended.ravel(), 1)
    np.testing.assert_allclose(blended, slope * own + offset, atol=1e-4)
    people: list[str | Person] = [*USERS, Person(["i1"])]
    assert alone.recommend(people, k=5, context=context).ids == first.recommend(people, k=5, context=context).ids
    pd.testing.assert_frame_equal(alone.evaluate(parts[1]).per_user, first.evaluate(parts[1]).per_user)


def test_a_blend_is_the_weighted_sum_of_standardised_scores(first: Recommender, second: Recommender) -> None:
    ensemble = Ensemble({"a": first, "b": second, "margin": MARGIN}, weights={"a": 2.0, "margin": -0.5})
    assert ensemble.weights == {"a": 2.0, "b": 1.0, "margin": -0.5}
    each = [Ensemble({name: member}) for name, member in (("a", first), ("b", second))]
    known = [item_id for item_id in IDS if item_id != "i3"]
    parts = [alone.score(USERS, known, context=None) for alone in each]
    margin = ((MARGIN - MARGIN.mean()) / MARGIN.std(ddof=0)).loc[known].to_numpy()
    expected = 2 * parts[0] + parts[1] - 0.5 * margin
    np.testing.assert_allclose(ensemble.score(USERS, known), expected, atol=1e-4)
    without = 2 * each[0].score(USERS, ["i3"]) - 0.5 * (3 - MARGIN.mean()) / MARGIN.std(ddof=0)
    np.testing.assert_allclose(ensemble.score(USERS, ["i3"]), without, atol=1e-4)
    assert ensemble.score(USERS[:1], IDS).dtype == np.float32


def test_weights_are_learned_from_what_people_took(first: Recommender, parts: tuple[Catalogue, ...]) -> None:
    """A column that knows the validation part's answers gets all the say, a column of noise none."""
    valid = parts[1]
    taken = valid.interactions.loc[valid.event_weights > 0, "item_id"].value_counts()
    oracle = taken.reindex(IDS).fillna(0)
    noise = pd.Series(np.random.default_rng(0).normal(size=NUM_ITEMS), index=IDS)
    ensemble = Ensemble({"model": first, "oracle": oracle, "noise": noise})
    before = ensemble.evaluate(valid).means()["ndcg@10"]
    assert ensemble.fit(valid) is ensemble
    after = ensemble.evaluate(valid).means()["ndcg@10"]
    alone = first.evaluate(valid).means()["ndcg@10"]
    assert after > max(before, alone)
    assert ensemble.weights["oracle"] > ensemble.weights["noise"]


def test_a_part_that_a_member_was_fitted_on_is_refused(first: Recommender, parts: tuple[Catalogue, ...]) -> None:
    with pytest.raises(LeakError):
        Ensemble({"model": first}).fit(parts[0])
    with pytest.raises(LeakError):
        Ensemble({"model": first}).evaluate(parts[0])


def test_frames(first: Recommender, second: Recommender) -> None:
    ensemble = Ensemble({"a": first, "b": second, "margin": MARGIN}, weights={"margin": 0.5})
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "user_id": rng.choice(USERS, 30),
            "item_id": rng.choice(IDS, 30),
            "hour": rng.choice([9.0, 23.0, np.nan], 30),
        },
        index=range(30, 0, -1),
    )
    scored = ensemble.score_frame(frame)
    pd.testing.assert_frame_equal(scored.drop(columns="score"), frame)
    alone = [
        ensemble.score([user], [item], context={} if np.isnan(hour) else {"hour": hour})[0, 0]
        for user, item, hour in frame.itertuples(index=False)
    ]
    np.testing.assert_allclose(scored["score"], alone, atol=1e-4)
    told = ensemble.score_frame(frame.assign(margin=13.0))["score"]
    unit = 1 / MARGIN.std(ddof=0)
    own = MARGIN.loc[frame["item_id"]].to_numpy()
    np.testing.assert_allclose(told - scored["score"], 0.5 * (13.0 - own) * unit, atol=1e-4)


def test_a_table_of_people_is_answered_as_a_member_answers_it(first: Recommender, second: Recommender) -> None:
    frame = pd.DataFrame({"user_id": ["u1", "u0"], "hour": [23.0, np.nan], "note": ["a", "b"]}, index=[7, 3])
    alone = Ensemble({"only": first}).recommend_frame(frame, k=3)
    own = first.recommend_frame(frame, k=3)
    pd.testing.assert_frame_equal(alone.drop(columns="score"), own.drop(columns="score"))
    both = Ensemble({"a": first, "b": second})
    expected = both.recommend(["u1"], k=2, context={"hour": 23.0})
    assert both.recommend_frame(frame, k=2)["item_id"].tolist()[:2] == expected.ids[0]


def test_recommendations_of_everything_that_anybody_has(first: Recommender, second: Recommender) -> None:
    ensemble = Ensemble({"a": first, "b": second})
    found = ensemble.recommend(["u0"], k=NUM_ITEMS, query=Query(exclude_seen=False))
    assert sorted(map(str, found.ids[0])) == sorted(IDS)
    scores = ensemble.score(["u0"], [str(name) for name in found.ids[0]])
    np.testing.assert_allclose(found.scores, scores, atol=1e-5)
    jazz = ensemble.recommend(["u0"], k=3, query=Query(exclude_seen=False, where={"genre": "jazz"}, exclude=("i2",)))
    assert all(int(str(name)[1:]) % 2 == 0 and name != "i2" for name in jazz.ids[0])
    few = ensemble.recommend(["u0"], k=3, query=Query(exclude_seen=False, candidates=("i3",)))
    assert few.ids == [["i3", None, None]]
    assert few.reasons[0] == ("1 of 3 asked for: of 14 items, the query admits 1, and 0 of these the person has taken.")


def test_why_a_list_is_short_is_told_as_a_member_tells_it(first: Recommender) -> None:
    """Whoever is not answered is not said to have taken anything, and what was taken counts among what is admitted."""
    people: list[str | Person] = ["u0", "nobody", Person(["i2", "i4", "i1"])]
    query, alone = Query(where={"genre": "jazz"}), Ensemble({"only": first})
    found = alone.recommend(people, k=NUM_ITEMS, query=query, on_unknown="skip")
    assert found.reasons == first.recommend(people, k=NUM_ITEMS, query=query, on_unknown="skip").reasons
    assert found.reasons[1] == "nothing is known of this person, and on_unknown='skip' asks for an empty row."
    assert str(found.reasons[2]).endswith("the query admits 7, and 2 of these the person has taken.")


def test_each_member_is_told_what_it_reads_of_a_person(
    first: Recommender, bert: Path, parts: tuple[Catalogue, ...]
) -> None:
    """One model knows ages, the other does not: both answer somebody with an age, and nobody answers for a height."""
    bare = replace(SCHEMA, user_attributes={})
    train = Catalogue.from_frames(parts[0].items, parts[0].interactions, schema=bare)
    plain = Recommender(tiny_config(bert)).fit(train, training=replace(CPU, epochs=1))
    both, person = Ensemble({"plain": plain, "aged": first}), Person(["i2"], attributes={"age": 64.0})
    aged = Ensemble({"aged": first}).score([person], ["i2", "i4"])
    alone = Ensemble({"plain": plain}).score([Person(["i2"])], ["i2", "i4"])
    np.testing.assert_allclose(both.score([person], ["i2", "i4"]), aged + alone, atol=1e-4)
    assert both.recommend([Person(attributes={"age": 64.0})], k=2).reasons == (None,)
    with pytest.raises(ConfigError, match="has the attribute 'height', which was never declared"):
        both.score([Person(["i2"], attributes={"height": 1.8})], ["i2"])
    plain.close()


def test_steps_reorder_a_blend_as_they_reorder_a_members_list(first: Recommender, second: Recommender) -> None:
    steps = (MMR(0.6), Calibrated("genre", 0.5), Cap("genre", 3), Explore(0.3, seed=2))
    query = Query(exclude_seen=False, steps=steps, pool=9)
    alone = Ensemble({"only": first})
    people: list[str | Person] = ["u0", "u1", Person(["i2"])]
    assert alone.recommend(people, k=4, query=query).ids == first.recommend(people, k=4, query=query).ids
    both = Ensemble({"a": first, "b": second})
    capped = both.recommend(["u0"], k=4, query=Query(exclude_seen=False, steps=(Cap("genre", 1),)))
    assert sorted(int(str(name)[1:]) % 2 for name in capped.ids[0][:2]) == [0, 1]
    assert capped.ids[0][2:] == [None, None]
    unit = [
        member._ready().shelf.unit(np.array([member._ready().item_rows[i] for i in ("i4", "i6")]))
        for member in (first, second)
    ]
    rows = np.array([both._now().place[i] for i in ("i4", "i6")])
    near = both._now().shelf.unit(rows)
    assert near[0] @ near[1] == pytest.approx(np.mean([pair[0] @ pair[1] for pair in unit]), abs=1e-5)


def test_unknown_ids_under_each_policy(first: Recommender, second: Recommender) -> None:
    ensemble = Ensemble({"a": first, "b": second})
    with pytest.raises(UnknownIdError, match="user 'nobody' is unknown"):
        ensemble.score(["u0", "nobody"], ["i0"])
    with pytest.raises(UnknownIdError, match=r"item 'i99' is embedded by no member \(1 of 2"):
        ensemble.score(["u0"], ["i0", "i99"])
    with pytest.raises(UnknownIdError, match="candidate 'i99' is embedded by no member"):
        ensemble.recommend(["u0"], query=Query(candidates=("i99",)))
    skipped = ensemble.score(["u0", "nobody"], ["i0", "i99"], on_unknown="skip")
    assert np.isneginf(skipped).tolist() == [[False, True], [True, True]]
    assert np.isfinite(ensemble.score(["nobody"], ["i0"], on_unknown="cold")).all()


@pytest.mark.parametrize(
    ("members", "weights", "message"),
    [
        ({"margin": MARGIN}, {}, r"none of the members \(margin\) is a Recommender"),
        ({"a": None, "b": 3}, {}, "member 'b' is a int. Expected a Recommender, or a Series"),
        ({"a": None, "b": pd.Series({"i0": "dear"})}, {}, "member 'b' holds what is no number"),
        ({"a": None, "b": pd.Series([1.0, 2.0], index=["i0", "i0"])}, {}, "member 'b' has item 'i0' twice"),
        ({"a": None}, {"c": 1.0}, "a weight is given for 'c'. Expected members: a"),
        ({"a": None}, {"a": float("nan")}, "the weight of 'a' is nan. Expected a finite number"),
    ],
)
def test_what_is_refused(first: Recommender, members: dict, weights: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Ensemble({name: first if each is None else each for name, each in members.items()}, weights=weights)


def test_what_no_member_reads(first: Recommender) -> None:
    with pytest.raises(ContextError, match="context column 'mood' is read by no member"):
        Ensemble({"a": first}).score(["u0"], ["i0"], context={"mood": "sad"})
    with pytest.raises(ConfigError, match=r"Query\.shortlist is 5: an ensemble has no index"):
        Ensemble({"a": first}).recommend(["u0"], query=Query(shortlist=5))
    with pytest.raises(ConfigError, match=r"Query\.by is 'retrieval': an ensemble blends ranking scores"):
        Ensemble({"a": first}).recommend(["u0"], query=Query(by="retrieval"))
