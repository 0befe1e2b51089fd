"""The oracles: one that knows taste, one that infers it, and what each part is worth to them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from multimodal_rec.baselines import Popularity
from multimodal_rec.evaluation import evaluate_ranking
from multimodal_rec.oracle import Oracle
from multimodal_rec.planting import PARTS, Planted, context_columns, draw_events, plant, utilities
from multimodal_rec.splits import TEST, split_parts


class Setting(NamedTuple):
    planted: Planted
    known: pd.DataFrame
    test: pd.DataFrame
    item_ids: list[str]


@cache
def setting() -> Setting:
    rng = np.random.default_rng(5)
    planted = plant("music", num_items=100, num_users=80, rng=rng)
    log = draw_events(planted, events_per_user=25, rng=rng)
    is_test = split_parts(log, "time") == TEST
    known, test = (log.loc[rows].reset_index(drop=True) for rows in (~is_test, is_test))
    return Setting(planted, known, test, planted.items["item_id"].tolist())


@cache
def learnable(*without: str) -> Oracle:
    return Oracle.learnable(setting().planted, setting().known, without=without)


def ndcg(score: Callable[[pd.DataFrame], np.ndarray]) -> float:
    _, known, test, item_ids = setting()
    columns = context_columns("music")
    return evaluate_ranking(score, test, known=known, item_ids=item_ids, context_columns=columns).means()["ndcg@10"]


def test_knowing_taste_beats_inferring_it_beats_popularity() -> None:
    popularity = ndcg(Popularity().fit(setting().known, setting().item_ids).score)
    inferred, known = ndcg(learnable().score), ndcg(Oracle.true(setting().planted).score)
    assert known > inferred + 0.02
    assert inferred > popularity + 0.1


@pytest.mark.parametrize("part", [part.name for part in PARTS["music"]])
def test_without_any_part_the_learnable_oracle_is_lower(part: str) -> None:
    assert ndcg(learnable(part).score) < ndcg(learnable().score) - 0.005


def test_inferred_tastes_point_where_the_planted_ones_do() -> None:
    planted = setting().planted
    queries = pd.DataFrame({"user_id": planted.user_ids, "hour": 21, "device": "phone"})
    true, inferred = Oracle.true(planted).score(queries), learnable().score(queries)
    correlations = [np.corrcoef(a, b)[0, 1] for a, b in zip(true, inferred, strict=True)]
    assert np.median(correlations) > 0.6


def test_scores_are_utilities_of_the_people_asked_for() -> None:
    planted = setting().planted
    queries = pd.DataFrame({"user_id": ["u003", "u001", "u003"], "hour": [21, 9, 9], "device": ["tv", "tv", "phone"]})
    scores = Oracle.true(planted).score(queries)
    expected = utilities(planted, {name: taste[[3, 1, 3]] for name, taste in planted.tastes.items()}, queries)
    np.testing.assert_array_equal(scores, expected)
    assert not np.allclose(scores[0], scores[2]), "the context changes what the same person wants"


def test_someone_without_events_is_expected_to_want_what_is_popular() -> None:
    planted, known, _, _ = setting()
    stranger = planted.user_ids[0]
    oracle = Oracle.learnable(planted, known.loc[known["user_id"] != stranger].reset_index(drop=True))
    scores = oracle.score(pd.DataFrame({"user_id": [stranger], "hour": [9], "device": ["tv"]}))
    np.testing.assert_allclose(scores[0], planted.items["popularity"], atol=1e-3)


def test_the_learnable_oracle_reads_nothing_but_the_known_log() -> None:
    planted, known, _, _ = setting()
    blinded = Planted(
        planted.kind, planted.items, {n: np.zeros_like(t) for n, t in planted.tastes.items()}, planted.user_ids
    )
    queries = setting().test.iloc[:20].reset_index(drop=True)
    np.testing.assert_allclose(Oracle.learnable(blinded, known).score(queries), learnable().score(queries), atol=1e-6)
