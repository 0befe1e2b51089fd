"""Splits: known answers by hand, and that nothing leaks."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal_rec.catalogue import Catalogue
from multimodal_rec.errors import SplitError
from multimodal_rec.schema import Schema
from multimodal_rec.splits import SPLITS, interaction_order, split_parts


def log(users: str, items: str, times: list[int] | None = None) -> pd.DataFrame:
    frame = pd.DataFrame({"user_id": list(users), "item_id": list(items)})
    return frame if times is None else frame.assign(timestamp=np.array(times, dtype=np.int64))


def catalogue(interactions: pd.DataFrame, items: str) -> Catalogue:
    frame = pd.DataFrame({"item_id": list(items), "title": [f"title {item}" for item in items]})
    return Catalogue.from_frames(frame, interactions, schema=Schema("x", text=("title",)))


def test_time_cuts_once_for_everybody() -> None:
    frame = log("aabbaabbab", "0123456789", [9, 1, 2, 3, 4, 5, 6, 7, 8, 0])
    assert split_parts(frame, "time", valid=0.2, test=0.2).tolist() == [2, 0, 0, 0, 0, 0, 1, 1, 2, 0]
    assert split_parts(frame, "time", valid=0, test=0.2).tolist() == [2, 0, 0, 0, 0, 0, 0, 0, 2, 0]


def test_time_never_divides_one_second() -> None:
    frame = log("aaaaaaaaaa", "0123456789", [0, 1, 2, 3, 4, 5, 8, 8, 8, 9])
    assert split_parts(frame, "time", valid=0.2, test=0.2).tolist() == [0] * 4 + [1, 1, 2, 2, 2, 2]


def test_last_keeps_the_last_two_and_breaks_ties_by_row() -> None:
    frame = log("aaaabbc", "0123012", [5, 5, 5, 1, 2, 1, 7])
    # a in order: rows 3, 0, 1, 2; b: 5, 4 (too few for validation); c has one, which stays in training.
    assert split_parts(frame, "last").tolist() == [0, 1, 2, 0, 2, 0, 0]
    assert split_parts(frame, "last", valid=0).tolist() == [0, 0, 2, 0, 2, 0, 0]
    assert split_parts(frame, "last", test=0).tolist() == [0, 0, 1, 0, 1, 0, 0]


def test_share_takes_each_persons_last_shares() -> None:
    frame = log("a" * 10 + "b" * 5 + "c", "0123456789012340", [*range(10), *range(5), 0])
    parts = split_parts(frame, "share")
    assert parts[:10].tolist() == [0] * 8 + [1, 2]
    assert parts[10:15].tolist() == [0] * 4 + [2]  # floor(.8 * 5) = 4 = floor(.9 * 5)
    assert parts[15] == 0


def test_position_stands_in_for_time() -> None:
    frame = log("aaa", "012").assign(position=[3.0, 1.0, 2.0])
    assert split_parts(frame, "last").tolist() == [2, 0, 1]
    order = interaction_order(frame)
    assert order is not None
    assert order.tolist() == [1, 2, 0]
    assert interaction_order(log("a", "0")) is None


def test_cold_items_follow_the_permutation_over_ids_in_numeric_order() -> None:
    ids = [str(number) for number in (100, 20, 3, 11, 9, 5, 7, 8, 1, 2)]
    frame = pd.DataFrame({"user_id": list("ab") * 10, "item_id": ids * 2})
    permutation = np.array(sorted(map(int, ids)))[np.random.default_rng(4).permutation(10)]
    parts = split_parts(frame, "cold_items", valid=0.1, test=0.3, seed=4)
    assert set(frame["item_id"][parts == 2]) == {str(item) for item in permutation[:3]}
    assert set(frame["item_id"][parts == 1]) == {str(permutation[3])}


def test_random_is_reproducible_and_has_the_asked_sizes() -> None:
    frame = log("a" * 20, "0123456789" * 2)
    parts = split_parts(frame, "random", valid=0.1, test=0.2, seed=3)
    assert np.bincount(parts).tolist() == [14, 2, 4]
    assert (parts == split_parts(frame, "random", valid=0.1, test=0.2, seed=3)).all()
    assert (parts != split_parts(frame, "random", valid=0.1, test=0.2, seed=4)).any()


@pytest.mark.parametrize(
    "labels", [["train", "valid", "test", "train"], [0, 1, 2, 0], [0.0, 1.0, 2.0, 0.0], list("0120")]
)
def test_label_reads_the_part_from_a_column(labels: list[object]) -> None:
    assert split_parts(log("aaaa", "0123").assign(part=labels), "label", column="part").tolist() == [0, 1, 2, 0]


def test_later_items_are_only_in_later_parts() -> None:
    # Item 3 first appears in validation, 4 in test, 5 nowhere; 0 is in all three.
    frame = log("abcabc", "012304", [0, 1, 2, 3, 4, 5]).assign(part=[0, 0, 0, 1, 1, 2])
    whole = catalogue(frame, "543210")
    train, valid, test = whole.split("label", column="part")
    assert train.item_ids == ("5", "2", "1", "0")
    assert valid.item_ids == ("5", "3", "2", "1", "0")
    assert test.item_ids == whole.item_ids
    assert [len(part.interactions) for part in (train, valid, test)] == [3, 2, 1]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("0123456"), st.integers(0, 9)), min_size=1, max_size=40),
    st.sampled_from([how for how in SPLITS if how != "label"]),
    st.sampled_from([0.0, 0.1, 0.3]),
    st.integers(0, 3),
)
def test_no_interaction_is_in_two_parts_and_none_is_lost(
    rows: list[tuple[str, str, int]], how: str, valid: float, seed: int
) -> None:
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"]).assign(row=range(len(rows)))
    try:
        parts = catalogue(frame, "0123456").split(how, valid=valid, test=0.2, seed=seed)
    except SplitError as error:
        assert "would be empty" in str(error)  # noqa: PT017
        return
    given = [part.part.given for part in parts if part.part is not None and part.part.given is not None]
    got = [row for log in [*given, *(part.interactions for part in parts)] for row in log["row"]]
    assert sorted(got) == list(range(len(rows)))
    for part in parts:
        assert set(part.interactions["item_id"]) <= set(part.item_ids)
    train, _, test = (part.interactions for part in parts)
    if how == "time":
        assert max(train["timestamp"].tolist()) < min(test["timestamp"].tolist())
    if how == "cold_items":
        assert not set(train["item_id"]) & set(test["item_id"])
    if how == "cold_users":
        assert not set(train["user_id"]) & {user for log in [*given, test] for user in log["user_id"]}
    if how in ("last", "share"):
        for user in set(test["user_id"]):
            before, after = train[train["user_id"] == user], test[test["user_id"] == user]
            assert max(before["timestamp"].tolist()) <= min(after["timestamp"].tolist())


@pytest.mark.parametrize("how", ["time", "last", "share"])
def test_without_an_order_there_is_no_split_by_order(how: str) -> None:
    with pytest.raises(SplitError, match=rf"the '{how}' split needs an order.*neither a 'timestamp' nor a 'position'"):
        split_parts(log("aaaa", "0123"), how)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"how": "tim"}, r"there is no split 'tim'.*Did you mean 'time'\?"),
        ({"how": "time", "valid": 0.5, "test": 0.5}, r"leave nothing to train on\. Expected shares with a sum below 1"),
        ({"how": "random", "valid": -0.1}, r"Expected shares"),
        ({"how": "label"}, r"column=None is not among 'user_id', 'item_id', 'timestamp'\. Name one"),
        ({"how": "label", "column": "item_id"}, r"column 'item_id' holds '3' in row 3\. Expected 'train'"),
        ({"how": "time"}, r"the valid part of the 'time' split would be empty: 4 interactions"),
    ],
)
def test_an_impossible_split_is_explained(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(SplitError, match=message):
        split_parts(log("aaaa", "0123", [0, 1, 2, 3]), **arguments)  # pyright: ignore[reportArgumentType]


def test_one_moment_for_everything_leaves_no_training() -> None:
    with pytest.raises(SplitError, match=r"the train part of the 'time' split would be empty"):
        split_parts(log("aaaaaaaaaa", "0123456789", [5] * 10), "time")


def test_a_catalogue_without_interactions_cannot_be_split() -> None:
    with pytest.raises(SplitError, match="no interactions to split"):
        split_parts(log("", ""), "random")
