"""What is planted in a sample catalogue, and that the log of events follows it."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import pytest

from multimodal_rec.planting import (
    CONTEXT_VALUES,
    LACKING_SHARE,
    LATE_SHARE,
    MIN_LATE_EVENTS,
    MODALITIES,
    NUM_CATEGORIES,
    PARTS,
    START,
    TEST_SHARE,
    Kind,
    Planted,
    context_columns,
    context_sign,
    draw_events,
    plant,
    southern,
    traits_of,
    utilities,
)
from multimodal_rec.splits import TEST, split_parts
from multimodal_rec.wording import ATTRIBUTE_WORDS, NUM_THEMES

KINDS: tuple[Kind, ...] = ("music", "product", "video")
EVENTS_PER_USER = 20


@cache
def sample(kind: Kind) -> tuple[Planted, pd.DataFrame]:
    rng = np.random.default_rng(3)
    planted = plant(kind, num_items=120, num_users=60, rng=rng)
    return planted, draw_events(planted, events_per_user=EVENTS_PER_USER, rng=rng)


def users_of(planted: Planted, log: pd.DataFrame) -> np.ndarray:
    return pd.Index(planted.user_ids).get_indexer(pd.Index(log["user_id"]))


def items_of(planted: Planted, log: pd.DataFrame) -> np.ndarray:
    return pd.Index(planted.items["item_id"]).get_indexer(pd.Index(log["item_id"]))


@pytest.mark.parametrize("kind", KINDS)
def test_late_items_are_in_the_test_period_only_and_often_enough(kind: Kind) -> None:
    planted, log = sample(kind)
    late = planted.items.loc[planted.items["late"], "item_id"].tolist()
    assert len(late) == round(LATE_SHARE * len(planted.items))
    parts = split_parts(log, "time", valid=0.1, test=TEST_SHARE)
    is_late = log["item_id"].isin(late).to_numpy()
    assert set(parts[is_late]) == {TEST}
    counts = log.loc[is_late].groupby("item_id").size().reindex(late, fill_value=0)
    assert counts.min() >= MIN_LATE_EVENTS


@pytest.mark.parametrize("kind", KINDS)
def test_the_log_is_in_order_and_nobody_takes_an_item_twice(kind: Kind) -> None:
    planted, log = sample(kind)
    assert len(log) == EVENTS_PER_USER * len(planted.user_ids)
    assert log["timestamp"].is_monotonic_increasing
    assert log["timestamp"].is_unique
    assert len(log.drop_duplicates(["user_id", "item_id"])) == len(log)
    assert list(log.columns) == ["user_id", "item_id", "timestamp", "event", *context_columns(kind)]
    for column in context_columns(kind):
        assert set(log[column]) <= set(CONTEXT_VALUES[column])
    before_test = log.iloc[: round((1 - TEST_SHARE) * len(log))]
    people = before_test.groupby("user_id").size()
    assert people.min() >= people.max() - 1, "everybody is about equally busy"


@pytest.mark.parametrize("kind", KINDS)
def test_about_a_sixth_of_the_items_lack_one_modality(kind: Kind) -> None:
    items = plant(kind, num_items=3000, num_users=1, rng=np.random.default_rng(0)).items
    has = items[[f"has_{modality}" for modality in MODALITIES[kind]]].to_numpy()
    lacks = (~has).sum(axis=1)
    assert set(lacks) == {0, 1}
    assert lacks.mean() == pytest.approx(LACKING_SHARE, abs=0.03)
    # Each of them about equally often.
    assert (~has).mean(axis=0) == pytest.approx(LACKING_SHARE / len(MODALITIES[kind]), abs=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_traits_have_unit_size_and_are_zero_where_nothing_tells_them(kind: Kind) -> None:
    items = plant(kind, num_items=3000, num_users=1, rng=np.random.default_rng(1)).items
    for part in PARTS[kind]:
        told = items[f"has_{part.name}"].to_numpy() if f"has_{part.name}" in items else np.ones(len(items), dtype=bool)
        if part.name == "co-consumption":
            told = ~items["late"].to_numpy()
        size = (traits_of(items, part) ** 2).sum(axis=1)
        assert size[told].mean() == pytest.approx(1, abs=0.05), part.name
        assert not size[~told].any(), part.name
        assert (~told).any() or part.name == "attributes"


@pytest.mark.parametrize("kind", KINDS)
def test_a_part_that_a_context_flips_is_liked_as_much_as_disliked(kind: Kind) -> None:
    for part in PARTS[kind]:
        column = part.flips_with or context_columns(kind)[0]
        signs = context_sign(pd.DataFrame({column: CONTEXT_VALUES[column]}), part)
        assert (signs**2).mean() == pytest.approx(1)
        assert signs.mean() == pytest.approx(0 if part.flips_with else 1, abs=1e-12)


def test_every_context_column_flips_a_part() -> None:
    for kind in KINDS:
        assert {part.flips_with for part in PARTS[kind]} - {None} == set(context_columns(kind))


def test_numbers_agree_with_the_words() -> None:
    for kind in KINDS:
        sizes = sorted(len(values) for values in ATTRIBUTE_WORDS[kind].values())
        assert sizes[0] == NUM_CATEGORIES
    assert set(sample("music")[0].items["theme"]) <= set(range(NUM_THEMES))


@pytest.mark.parametrize("kind", KINDS)
def test_utility_is_the_sum_that_the_module_states(kind: Kind) -> None:
    planted, log = sample(kind)
    contexts = log.iloc[:5][list(context_columns(kind))].reset_index(drop=True)
    tastes = {name: taste[:5] for name, taste in planted.tastes.items()}
    result = utilities(planted, tastes, contexts)
    assert result.shape == (5, len(planted.items))
    for query in (0, 4):
        for item in (0, 7, len(planted.items) - 1):
            expected = planted.items["popularity"].iloc[item]
            for part in PARTS[kind]:
                trait = traits_of(planted.items.iloc[[item]], part)[0]
                sign = context_sign(contexts.iloc[[query]], part)[0]
                expected += part.weight * sign * sum(planted.tastes[part.name][query] * trait)
            assert result[query, item] == pytest.approx(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_every_part_of_taste_shows_in_the_log(kind: Kind) -> None:
    planted, log = sample(kind)
    users, items = users_of(planted, log), items_of(planted, log)
    for part in PARTS[kind]:
        taste, traits = planted.tastes[part.name][users], traits_of(planted.items, part)
        agreement = context_sign(log, part) * (taste * traits[items]).sum(axis=1)
        by_chance = context_sign(log, part) * (taste @ traits.T).mean(axis=1)
        assert (agreement - by_chance).mean() > 0.15, part.name
        if part.flips_with is not None:
            # Blind to the context there is hardly anything to see.
            blind = (taste * traits[items]).sum(axis=1) - (taste @ traits.T).mean(axis=1)
            assert blind.mean() < (agreement - by_chance).mean() / 2, part.name


def test_people_in_the_south_have_the_opposite_season() -> None:
    planted, log = sample("product")
    day = (log["timestamp"] - START) // 86_400 % 365
    assert str(pd.to_datetime(START, unit="s").date()).endswith("-01-01")
    south = southern(users_of(planted, log))
    assert 0 < south.mean() < 1
    january, july = (day < 31).to_numpy(), ((day > 190) & (day < 210)).to_numpy()
    for month, north_says, south_says in ((january, "winter", "summer"), (july, "summer", "winter")):
        assert set(log.loc[month & ~south, "season"]) == {north_says}
        assert set(log.loc[month & south, "season"]) == {south_says}


@pytest.mark.parametrize("kind", ["music", "video"])
def test_the_hour_is_that_of_the_timestamp(kind: Kind) -> None:
    _, log = sample(kind)
    assert (pd.to_datetime(log["timestamp"], unit="s").dt.hour == log["hour"]).all()


def test_the_same_generator_gives_the_same_plan_and_log() -> None:
    def make(seed: int, num_users: int = 30) -> tuple[Planted, pd.DataFrame]:
        rng = np.random.default_rng(seed)
        planted = plant("music", num_items=60, num_users=num_users, rng=rng)
        return planted, draw_events(planted, events_per_user=12, rng=rng)

    first, again, other, larger = make(0), make(0), make(1), make(0, 40)
    pd.testing.assert_frame_equal(first[0].items, again[0].items)
    pd.testing.assert_frame_equal(first[1], again[1])
    for name, taste in first[0].tastes.items():
        np.testing.assert_array_equal(taste, again[0].tastes[name])
    assert not first[0].items["hue"].equals(other[0].items["hue"])
    assert not first[1]["item_id"].equals(other[1]["item_id"])
    pd.testing.assert_frame_equal(first[0].items, larger[0].items)


def test_a_test_period_too_short_for_the_late_items_is_refused() -> None:
    rng = np.random.default_rng(0)
    planted = plant("music", num_items=100, num_users=20, rng=rng)
    wanted = r"10 late items need 50 events in the test period, which has 40 of 20 people's 400 events\. Expected more"
    with pytest.raises(ValueError, match=wanted):
        draw_events(planted, events_per_user=20, rng=rng)
    assert len(draw_events(planted, events_per_user=25, rng=rng)) == 500, "the quota may fill the whole test period"


def test_without_contexts_no_part_is_turned_round() -> None:
    planted, _ = sample("product")
    # At these values every sign is 1.
    everywhere = pd.DataFrame({"season": ["winter"] * 60, "device": "phone"})
    np.testing.assert_array_equal(
        utilities(planted, planted.tastes, None), utilities(planted, planted.tastes, everywhere)
    )
