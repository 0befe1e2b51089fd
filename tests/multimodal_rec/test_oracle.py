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
from multimodal_rec.planting import (
    PARTS,
    Kind,
    Planted,
    context_columns,
    draw_events,
    plant,
    trait_matrix,
    utilities,
    wish_matrix,
)
from multimodal_rec.splits import TEST, split_parts


class Setting(NamedTuple):
    planted: Planted
    known: pd.DataFrame
    test: pd.DataFrame
    item_ids: list[str]


@cache
def setting(kind: Kind = "music") -> Setting:
    rng = np.random.default_rng(5)
    planted = plant(kind, num_items=100, num_users=80, rng=rng)
    log = draw_events(planted, events_per_user=25, rng=rng)
    is_test = split_parts(log, "time") == TEST
    known, test = (log.loc[rows].reset_index(drop=True) for rows in (~is_test, is_test))
    return Setting(planted, known, test, planted.items["item_id"].tolist())


@cache
def learnable(*without: str) -> Oracle:
    return Oracle.learnable(setting().planted, setting().known, without=without)


def ndcg(score: Callable[[pd.DataFrame], np.ndarray], kind: Kind = "music") -> float:
    _, known, test, item_ids = setting(kind)
    columns = context_columns(kind)
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


def test_without_context_the_context_changes_nothing() -> None:
    planted, known, _, _ = setting("product")
    seasons = ["winter", "summer", "winter"]
    queries = pd.DataFrame({"user_id": ["u003"] * 3, "season": seasons, "device": ["phone", "tv", "tv"]})
    told, untold = Oracle.learnable(planted, known), Oracle.learnable(planted, known, without=("context",))
    scores = untold.score(queries)
    np.testing.assert_allclose(scores, scores[[0, 0, 0]], rtol=1e-12)
    assert not np.allclose(told.score(queries)[0], told.score(queries)[1])
    shuffled = known.assign(season=known["season"].to_numpy()[::-1], device=known["device"].to_numpy()[::-1])
    blind = Oracle.learnable(planted, shuffled, without=("context",))
    np.testing.assert_allclose(blind.score(queries), scores, rtol=1e-12, err_msg="nor does it when tastes are inferred")
    # In winter on a phone nothing is turned: whoever takes every context for that one knows less.
    fixed = Oracle.learnable(planted, known.assign(season="winter", device="phone"))
    misled = ndcg(lambda asked: fixed.score(asked.assign(season="winter", device="phone")), "product")
    assert misled < ndcg(untold.score, "product") < ndcg(told.score, "product") - 0.01


def test_what_may_happen_in_any_context_is_the_mean_of_its_chances() -> None:
    planted, known, _, _ = setting("product")
    oracle = Oracle.learnable(planted, known, without=("context",))
    tastes = {name: taste[[3]] for name, taste in oracle.tastes.items()}
    chances = []
    for season in ("winter", "summer"):
        for device in ("phone", "tv"):
            utility = utilities(planted, tastes, pd.DataFrame({"season": [season], "device": [device]}))
            chances.append(np.exp(utility) / np.exp(utility).sum())
    found = oracle.score(pd.DataFrame({"user_id": ["u003"], "season": ["autumn"], "device": ["tv"]}))
    np.testing.assert_allclose(np.exp(found), np.mean(chances, axis=0))


def test_inferred_tastes_are_the_mode_of_a_posterior_in_which_nobody_takes_an_item_twice() -> None:
    planted, known, _, _ = setting()
    own = known.loc[known["user_id"] == "u007"]
    index_of = {item_id: index for index, item_id in enumerate(planted.items["item_id"])}
    tastes = {name: taste[[7]] for name, taste in learnable().tastes.items()}
    unit = {name: np.ones_like(taste) for name, taste in tastes.items()}
    traits, on_offer = trait_matrix(planted), ~planted.items["late"].to_numpy()
    slope = np.zeros(traits.shape[1])
    for row in range(len(own)):
        event, item = own.iloc[[row]], index_of[own["item_id"].iloc[row]]
        utility = np.where(on_offer, utilities(planted, tastes, event)[0], -np.inf)
        share = np.exp(utility - utility.max()) / np.exp(utility - utility.max()).sum()
        slope += wish_matrix(planted.kind, unit, event)[0] * (traits[item] - share @ traits)
        on_offer[item] = False
    # At the mode the slope of the log likelihood is that of the prior, N(0, I).
    np.testing.assert_allclose(slope, np.concatenate([taste[0] for taste in tastes.values()]), atol=0.01)


def test_rows_of_the_known_log_may_come_in_any_order() -> None:
    planted, known, test, _ = setting()
    shuffled = known.sample(frac=1, random_state=0)
    queries = test.iloc[:20]
    expected = learnable().score(queries)
    np.testing.assert_allclose(Oracle.learnable(planted, shuffled).score(queries), expected, atol=1e-6)


def test_late_items_count_once_they_have_arrived() -> None:
    planted, known, test, _ = setting()
    everything = pd.concat([known, test], ignore_index=True)
    scores = Oracle.learnable(planted, everything).score(test)
    taken = pd.Index(planted.items["item_id"]).get_indexer(pd.Index(test["item_id"]))
    assert np.isfinite(scores).all()
    assert scores[np.arange(len(test)), taken].mean() > learnable().score(test)[np.arange(len(test)), taken].mean()


def test_an_unknown_part_is_named() -> None:
    message = (
        r"without names 'video', .* kind 'music' .* any of 'text', 'image', 'audio', .* 'co-consumption', 'context'"
    )
    with pytest.raises(ValueError, match=message):
        Oracle.learnable(setting().planted, setting().known, without=("text", "video"))
