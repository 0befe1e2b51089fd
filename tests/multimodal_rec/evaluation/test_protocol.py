"""What a task asks, of whom, against what."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from multimodal_rec.catalogue import Catalogue
from multimodal_rec.errors import ConfigError
from multimodal_rec.evaluation.protocol import RankingTask
from multimodal_rec.schema import Schema

ITEMS = [f"i{item}" for item in range(6)]


def log(*rows: tuple[str, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["user_id", "item_id"]).assign(timestamp=range(len(rows)))


TRAIN = log(("a", "i0"), ("b", "i1")).assign(timestamp=1)
VALID = log(("a", "i1"), ("b", "i2")).assign(timestamp=2)
TEST = log(("a", "i2"), ("b", "i3")).assign(timestamp=3)


def descending(queries: pd.DataFrame) -> np.ndarray:
    """The item of lower number first, for everybody."""
    return np.tile(-np.arange(len(ITEMS), dtype=np.float32), (len(queries), 1))


def test_at_test_everything_fitted_or_validated_on_is_no_candidate() -> None:
    task = RankingTask(TRAIN, VALID, TEST, ITEMS)
    # a: i0 and i1 are known, so i2 comes first; b: i0 is before i3.
    assert task.judge(descending).per_user["mrr"].to_dict() == {"a": 1.0, "b": 0.5}
    assert len(task.fitted_on) == 4


def test_mmrec_ranks_validation_positives_and_refits_nothing() -> None:
    task = RankingTask(TRAIN, VALID, TEST, ITEMS, protocol="mmrec")
    # a: i1 is a candidate again; b: i0 and i2 are.
    assert task.judge(descending).per_user["mrr"].to_dict() == {"a": 0.5, "b": pytest.approx(1 / 3)}
    assert task.fitted_on is TRAIN


def test_validation_knows_training_only() -> None:
    for protocol in ("full", "mmrec"):
        task = RankingTask(TRAIN, VALID, TEST, ITEMS, protocol=protocol)
        assert task.validate(descending).per_user["mrr"].to_dict() == {"a": 1.0, "b": 0.5}


def test_dislikes_are_known_and_not_asked_for() -> None:
    schema = Schema("x", text=("title",), events={"like": 1.0, "dislike": -1.0})
    whole = pd.DataFrame(
        {
            "user_id": "a",
            "item_id": ["i0", "i1", "i2", "i3"],
            "event": ["dislike", "like", "like", "like"],
            "part": ["train", "train", "valid", "test"],
        }
    )
    items = pd.DataFrame({"item_id": ITEMS, "title": "t"})
    task = RankingTask.of_split(Catalogue.from_frames(items, whole, schema=schema).split("label", column="part"))
    assert task.train["item_id"].tolist() == ["i1"]
    assert task.judge(descending).per_user.loc["a", "mrr"] == 1.0


def test_late_items_are_ranked_among_late_items() -> None:
    items = pd.DataFrame({"item_id": ITEMS, "title": "t"})
    rows = log(("a", "i0"), ("b", "i1"), ("a", "i2"), ("b", "i3"), ("a", "i4"), ("b", "i5"))
    split = Catalogue.from_frames(items, rows, schema=Schema("x", text=("title",))).split("time", valid=0.34, test=0.34)
    task = RankingTask.of_split(split, among="late")
    assert task.valid_candidates == ["i2", "i3"]
    assert task.candidates == ["i4", "i5"]
    assert task.judge(descending).per_user["mrr"].to_dict() == {"a": 1.0, "b": 0.5}


def test_histories_of_held_out_people_are_read_and_not_ranked() -> None:
    rows = log(*((f"u{user}", f"i{item}") for user in range(6) for item in range(6)))
    catalogue = Catalogue.from_frames(
        pd.DataFrame({"item_id": ITEMS, "title": "t"}), rows, schema=Schema("x", text=("title",))
    )
    task = RankingTask.of_split(catalogue.split("cold_users", valid=0.2, test=0.2))
    assert task.given_test is not None
    held_out = set(task.test["user_id"])
    assert set(task.given_test["user_id"]) == held_out
    assert not held_out & set(task.train["user_id"])
    # Four of six are history: the other two are the only candidates left.
    assert task.judge(descending).per_user["recall@10"].tolist() == [1.0] * len(held_out)
    assert task.judge(descending).per_user["mrr"].tolist() == [1.0] * len(held_out)


def test_an_unknown_protocol_is_named() -> None:
    with pytest.raises(ConfigError, match=r"protocol 'peers' is unknown. Expected one of full, mmrec"):
        RankingTask(TRAIN, VALID, TEST, ITEMS, protocol="peers")  # pyright: ignore[reportArgumentType]
