"""The store keeps what people did and who they are, once, in order, with its types."""

import numpy as np
import pandas as pd
import pytest

from multimodal_rec.errors import CatalogueError, ItemError
from tests.multimodal_rec.tiny_store import open_store


def test_interactions_keep_order_types_and_context_and_are_not_added_twice() -> None:
    store = open_store()
    frame = pd.DataFrame(
        {
            "user_id": ["u2", "u1", "u1"],
            "item_id": ["b", "a", "a"],
            "timestamp": [20, 10, 11],
            "event": ["play", "play", "skip"],
            "value": [0.5, None, 1.0],
            "hour": [22, 8, 9],
            "device": ["tv", None, "phone"],
        }
    )
    assert store.append_interactions(frame) == 3
    assert store.append_interactions(pd.concat([frame, frame.assign(timestamp=30.0)])) == 3
    read = store.read_interactions()
    assert read.columns.tolist() == frame.columns.tolist()
    pd.testing.assert_frame_equal(read.head(3), frame, check_dtype=False)
    assert read["timestamp"].tolist() == [20, 10, 11, 30, 30, 30]
    assert read["timestamp"].dtype == np.int64
    assert read["hour"].dtype == np.int64


def test_interactions_without_time_keep_their_order_and_missing_columns_stay_missing() -> None:
    store = open_store()
    store.append_interactions(pd.DataFrame({"user_id": ["z", "z", "a", "z"], "item_id": ["3", "1", "2", "3"]}))
    store.append_interactions(pd.DataFrame({"user_id": ["b"], "item_id": ["0"]}))
    read = store.read_interactions()
    assert read.to_numpy().tolist() == [["z", "3"], ["z", "1"], ["a", "2"], ["z", "3"], ["b", "0"]]
    assert read.columns.tolist() == ["user_id", "item_id"]
    store.append_interactions(pd.DataFrame({"user_id": ["b"], "item_id": ["0"], "timestamp": [2**53 + 1]}))
    assert store.read_interactions()["timestamp"].iloc[-1] == 2**53 + 1
    assert store.read_interactions()["timestamp"].isna().sum() == 5


def test_a_batch_without_time_keeps_its_repetitions_and_is_known_when_sent_twice() -> None:
    store = open_store()
    frame = pd.DataFrame({"user_id": ["u"] * 3, "item_id": ["a"] * 3, "event": ["play"] * 3, "mood": [1, 1, 2]})
    assert store.append_interactions(frame) == 3
    assert store.append_interactions(frame) == 0
    timed = pd.concat([frame.assign(timestamp=5)] * 2)
    assert store.append_interactions(timed) == 1
    assert store.append_interactions(frame.assign(position=[1, 2, 3])) == 3


def test_a_datetime_and_its_seconds_are_the_same_moment() -> None:
    store = open_store()
    frame = pd.DataFrame({"user_id": ["u"], "item_id": ["a"], "timestamp": [1_700_000_000]})
    store.append_interactions(frame)
    moment = pd.to_datetime(frame["timestamp"], unit="s", utc=True)
    assert store.append_interactions(frame.assign(timestamp=moment)) == 0
    assert store.append_interactions(frame.assign(timestamp=moment.dt.tz_convert(None))) == 0
    assert store.append_interactions(frame.iloc[:0]) == 0


def test_interactions_without_ids_are_refused() -> None:
    store = open_store()
    with pytest.raises(CatalogueError, match=r"interactions need a column 'user_id'; they have item_id, person"):
        store.append_interactions(pd.DataFrame({"item_id": ["a"], "person": ["u"]}))
    with pytest.raises(CatalogueError, match=r"interactions lack 'item_id' in 1 rows; none was added"):
        store.append_interactions(pd.DataFrame({"item_id": ["a", None], "user_id": ["u", "v"]}))
    assert store.read_interactions().empty


def test_people_are_replaced_by_id() -> None:
    store = open_store()
    store.write_users(pd.DataFrame({"user_id": ["v", "u"], "age": [20, 30], "likes": [["x"], []]}))
    store.write_users(pd.DataFrame({"user_id": ["v"], "age": [21]}))
    read = store.read_users()
    assert read["user_id"].tolist() == ["u", "v"]
    assert read["age"].tolist() == [30, 21]
    assert read["likes"].iloc[0] == []
    assert read["likes"].iloc[1] is None
    with pytest.raises(ItemError, match=r"repeats 1 of its ids"):
        store.write_users(pd.DataFrame({"user_id": ["v", "v"]}))
    with pytest.raises(CatalogueError, match=r"users need a column 'user_id'; they have id"):
        store.write_users(pd.DataFrame({"id": ["v"]}))
