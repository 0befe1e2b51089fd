"""Steps as a recommender applies them: what they read, what they leave, and in which order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from multimodal_rec import Person, Query, Recommender
from multimodal_rec.errors import ConfigError
from multimodal_rec.reranking import MMR, Candidates, Cap, Deduplicate, Explore, Group, MustHave, Step

CONTEXT = {"hour": 23, "device": "tv"}


@dataclass(frozen=True)
class Backwards(Step):
    """The list from its end."""

    def apply(self, candidates: Candidates, k: int) -> Candidates:
        return candidates.take(np.arange(len(candidates))[::-1])


def ids(recommender: Recommender, *steps: Step, k: int = 3, **settings: object) -> list[str | None]:
    query = Query(steps=steps, **settings)  # type: ignore[arg-type]
    return recommender.recommend(["u1"], k=k, context=CONTEXT, query=query).ids[0]


def test_steps_read_the_pool_and_leave_k(fitted: Recommender) -> None:
    best = ids(fitted, k=7)
    assert ids(fitted, Backwards(), pool=5) == best[:5][::-1][:3]
    assert ids(fitted, Backwards(), Backwards(), pool=5) == best[:3]
    # Never fewer than k are read.
    assert ids(fitted, Backwards(), pool=1) == best[:3][::-1]


def test_scores_are_the_ranking_s(fitted: Recommender) -> None:
    query = Query(steps=(Backwards(),), pool=4)
    shown = fitted.recommend(["u1"], k=4, context=CONTEXT, query=query)
    names = [name for name in shown.ids[0] if name is not None]
    np.testing.assert_allclose(shown.scores[0], fitted.score(["u1"], names, context=CONTEXT)[0], rtol=1e-5)
    assert list(shown.scores[0]) == sorted(shown.scores[0])


def test_filters_come_before_steps(fitted: Recommender) -> None:
    rock = ids(fitted, MMR(0.5), k=20, where={"genre": "rock"})
    jazz = ids(fitted, MMR(0.5), k=20, never={"genre": "rock"})
    assert set(rock).isdisjoint(set(jazz) - {None})
    seen = {fitted._ready().ids[row] for row in fitted._ready().people.seen("u1")}
    assert (set(rock) | set(jazz)) - {None} == set(fitted._ready().ids) - seen


def test_a_rule_reaches_beyond_the_pool(fitted: Recommender) -> None:
    best = [name for name in ids(fitted, k=14) if name is not None]
    last = best[-1]
    price = float(last.removeprefix("i"))
    assert last not in ids(fitted, k=2)
    assert ids(fitted, MustHave(Group({"price": price})), k=2, pool=2) == [best[0], last]


def test_lists_that_run_short_say_so(fitted: Recommender) -> None:
    query = Query(steps=(Cap("genre", 1),))
    shown = fitted.recommend(["u1"], k=4, context=CONTEXT, query=query)
    assert shown.ids[0][2:] == [None, None]
    assert np.isneginf(shown.scores[0, 2:]).all()
    none_left = ids(fitted, Deduplicate(), never={"genre": ("jazz", "rock")})
    assert none_left == [None, None, None]


def test_steps_after_a_shortlist(fitted: Recommender) -> None:
    everything = fitted.recommend(["u1"], k=14, context=CONTEXT).ids[0]
    num_left = sum(name is not None for name in everything)
    assert ids(fitted, MMR(0.6), shortlist=14) == ids(fitted, MMR(0.6), pool=num_left)
    assert ids(fitted, never={"genre": "rock"}, shortlist=14) == ids(fitted, never={"genre": "rock"})


def test_people_who_are_not_answered_get_empty_lists(fitted: Recommender) -> None:
    query = Query(steps=(MMR(0.5), Explore(0.1)))
    shown = fitted.recommend(["nobody", "u1"], k=2, query=query, on_unknown="skip")
    assert shown.ids[0] == [None, None]
    assert shown.ids[1] == fitted.recommend(["u1"], k=2, query=query).ids[0]


def test_a_stranger_is_explored_for_repeatably(fitted: Recommender) -> None:
    query = Query(steps=(Explore(3.0),))
    first, second = (fitted.recommend([Person(["i1", "i2"])], k=5, query=query).ids for _ in range(2))
    assert first == second


def test_mistakes_are_named() -> None:
    with pytest.raises(ConfigError, match=r"Query.steps holds 'mmr'. Expected steps of multimodal_rec.reranking"):
        Query(steps=("mmr",))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"Query.pool is 0. Expected at least 1"):
        Query(pool=0)


def test_never_names_an_attribute_that_is_there(fitted: Recommender) -> None:
    with pytest.raises(ConfigError, match=r"Query.never names the attribute 'gnre'.*Did you mean 'genre'"):
        ids(fitted, never={"gnre": "rock"})
