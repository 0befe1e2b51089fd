"""Caps, what must be there, shares of exposure, and genres in proportion."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimodal_rec.errors import ConfigError
from multimodal_rec.reranking import Calibrated, Cap, ExposureFloor, Group, MustHave, Step
from multimodal_rec.reranking.calibration import divergence, spread_of
from multimodal_rec.reranking.exposure import position_weights
from tests.multimodal_rec.reranking.shelves import listed, shown

GENRES = [{"genre": "jazz"}, {"genre": "jazz"}, {"genre": ["jazz", "rock"]}, {"genre": "rock"}, {}]
FALLING = [5, 4, 3, 2, 1]


class TestCap:
    def test_the_best_of_each_value_stay(self) -> None:
        candidates = listed(FALLING, attributes=GENRES)
        # c is jazz too, so it is one too many of it; e has no genre.
        assert shown(Cap("genre", 2).apply(candidates, 3), 5) == "abde"
        assert shown(Cap("genre", 1).apply(candidates, 3), 5) == "ade"

    def test_an_attribute_nobody_has(self) -> None:
        with pytest.raises(ConfigError, match=r"Cap.attribute names the attribute 'gerne', which no embedded item has"):
            Cap("gerne").apply(listed(FALLING, attributes=GENRES), 3)

    def test_at_least_one(self) -> None:
        with pytest.raises(ConfigError, match=r"Cap.at_most is 0. Expected at least 1"):
            Cap("genre", 0)


class TestMustHave:
    def test_what_lacks_takes_the_last_places(self) -> None:
        candidates = listed(FALLING, attributes=GENRES)
        rock = Group({"genre": "rock"})
        assert shown(MustHave(rock, 1).apply(candidates, 2), 5) == "acbde"
        assert shown(MustHave(rock, 2).apply(candidates, 2), 5) == "cdabe"
        assert shown(MustHave(rock, 2).apply(candidates, 4), 5) == "abcde"

    def test_more_than_there_are(self) -> None:
        assert shown(MustHave(Group({"genre": "rock"}), 9).apply(listed(FALLING, attributes=GENRES), 3), 3) == "acd"

    def test_what_it_asks_the_pool_for(self) -> None:
        shelf = listed(FALLING, attributes=GENRES).shelf
        wanted = MustHave(Group({"genre": ("rock", "folk")})).wanted(shelf)
        np.testing.assert_array_equal(wanted, [False, False, True, True, False])


class TestExposureFloor:
    def test_places_by_hand(self) -> None:
        # Places are looked at 1, .631, .5, .431 times: 2.562 in all, of which .3 are .768. At the third place .639 is
        # owed to e, more than that place's .5; and .5 and the last place's .431 make up .931.
        step = ExposureFloor(Group(max_events=0), 0.3)
        candidates = listed(FALLING, counts=[9, 9, 9, 0, 0])
        assert shown(step.apply(candidates, 4), 4) == "abde"

    def test_a_floor_that_is_met_changes_nothing(self) -> None:
        candidates = listed(FALLING, counts=[0, 9, 9, 9, 9])
        assert shown(ExposureFloor(Group(max_events=0), 0.3).apply(candidates, 4), 5) == "abcde"

    def test_one_late_place_does_where_it_is_enough(self) -> None:
        # .1 of 2.562 is .256: less than any place gives, and never a whole one owed before the last.
        candidates = listed(FALLING, counts=[9, 9, 9, 9, 0])
        assert shown(ExposureFloor(Group(max_events=0), 0.1).apply(candidates, 4), 4) == "abce"

    @given(
        counts=st.lists(st.sampled_from([0, 5]), min_size=12, max_size=24), share=st.sampled_from([0.1, 0.35, 0.5, 0.9])
    )
    def test_the_floor_holds_where_there_are_items_enough(self, counts: list[int], share: float) -> None:
        candidates = listed(list(range(len(counts), 0, -1)), counts=counts)
        found = ExposureFloor(Group(max_events=0), share).apply(candidates, 6)
        new = found.shelf.counts[found.rows[:6]] == 0
        weights = position_weights(6)
        assert sorted(found.ids) == sorted(candidates.ids)
        if sum(count == 0 for count in counts) >= 6:
            assert (new * weights).sum() >= share * weights.sum() - 1e-9
        # Neither group's order among its own changes.
        for kind in (True, False):
            own = [item for item, is_new in zip(found.scores[:6], new, strict=True) if is_new == kind]
            assert own == sorted(own, reverse=True)


class TestCalibrated:
    def test_a_list_as_mixed_as_the_history(self) -> None:
        genres = [{"genre": "jazz"}] * 6 + [{"genre": "rock"}] * 6
        scores = [12 - place for place in range(12)]
        candidates = listed(scores, attributes=genres, taken=[0, 6])
        assert shown(candidates, 4) == "abcd"
        # Half of what was taken is rock. At full strength alone the mix counts.
        assert sorted(shown(Calibrated("genre", 0.9).apply(candidates, 4), 4)) == ["a", "b", "g", "h"]

    def test_the_divergence_falls_with_strength(self) -> None:
        random = np.random.default_rng(0)
        names = random.choice(["a", "b", "c", "d"], size=40)
        genres = [{"genre": str(name)} for name in names]
        # One genre is liked best by far; of what was taken there is something of each.
        scores = random.normal(size=40) + 2 * (names == "a")
        candidates = listed(scores.tolist(), attributes=genres, taken=list(range(8)))
        taken, spread = spread_of(genres[:8], genres, "genre")
        wished = taken.sum(axis=0) / taken.sum()

        def distance(strength: float) -> float:
            rows = Calibrated("genre", strength).apply(candidates, 8).rows[:8]
            return float(divergence(wished, spread[rows].sum(axis=0, keepdims=True))[0])

        values = [distance(strength) for strength in (0.0, 0.3, 0.9)]
        assert values[0] > values[1] >= values[2]
        assert values[2] < 0.05

    def test_divergence_by_hand(self) -> None:
        # ½ ln(½ / ½) twice is 0; all of one value: q̃ is .995 and .005.
        found = divergence(np.array([0.5, 0.5]), np.array([[3.0, 3.0], [4.0, 0.0]]))
        np.testing.assert_allclose(found, [0, 0.5 * np.log(0.5 / 0.995) + 0.5 * np.log(0.5 / 0.005)], atol=1e-12)

    def test_several_values_share_an_item(self) -> None:
        taken, listed_ = spread_of([{"genre": ["a", "b"]}], [{"genre": ["b", "z"]}, {"genre": None}], "genre")
        np.testing.assert_array_equal(taken, [[0.5, 0.5, 0]])
        np.testing.assert_array_equal(listed_, [[0, 0.5, 0.5], [0, 0, 0]])

    def test_who_took_nothing_keeps_the_list(self) -> None:
        candidates = listed(FALLING, attributes=GENRES)
        assert Calibrated("genre", 1.0).apply(candidates, 3) is candidates


def test_a_group_of_everything_is_none() -> None:
    with pytest.raises(ConfigError, match="a Group is about every item"):
        Group()


@pytest.mark.parametrize(
    "step", [Cap("x"), MustHave(Group(max_events=0)), ExposureFloor(Group(max_events=0)), Calibrated("x")]
)
def test_an_empty_list_stays_empty(step: Step) -> None:
    assert step.apply(listed([]), 3).ids == []
