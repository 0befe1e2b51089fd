"""The store keeps what it was given, one row an id, through other writers, kills and restarts."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from multimodal_rec.errors import CatalogueError, ItemError, StoreError
from multimodal_rec.rows import ItemRows, Layout, ModalityRows
from multimodal_rec.store import ItemStore

DIM = 12  # LanceDB treats lists of ten numbers and more in its own way


LAYOUT = Layout(("text", "image"), DIM)


def open_store(uri: Path | str | None = None, layout: Layout = LAYOUT, *, create: bool = True) -> ItemStore:
    return ItemStore.open(uri, layout, create=create)


def rows(ids: list[str], *, model: str = "m1", seed: int = 0) -> ItemRows:
    rng = np.random.default_rng(seed)
    n = len(ids)

    def numbers(dim: int = DIM) -> np.ndarray:
        return rng.normal(size=(n, dim)).astype(np.float16).astype(np.float32)

    here = np.ones(n, dtype=bool)
    odd = np.arange(n) % 2 == 1
    image = np.where(odd[:, None], numbers(), np.nan)
    return ItemRows(
        ids=ids,
        modalities={
            "text": ModalityRows(numbers(), here, [f"t{i}" for i in ids], "tower-text"),
            "image": ModalityRows(
                image, odd, [f"p{i}" if p else None for i, p in zip(ids, odd, strict=True)], "tower-i"
            ),
        },
        attribute_tokens=numbers(),
        attributes_present=here,
        behaviour_tokens=numbers(),
        behaviour_present=~odd,
        embeddings=numbers(4 * DIM),  # text, image, attributes, behaviour side by side
        model=model,
        attributes=[{"genre": f"g{i}", "tags": ["a", "b'c"], "price": 1.5, "year": None} for i in ids],
    )


def test_items_come_back_in_the_order_of_ids_with_tokens_in_the_order_of_modalities() -> None:
    batch = rows(["b", "a", "c'o"])
    with open_store() as store:
        store.write_items(batch)
        table = store.read_items(model="m1")
    assert table.ids == ["a", "b", "c'o"]
    order = [1, 0, 2]
    assert table.tokens.dtype == np.float32
    assert table.tokens.shape == (3, 4, DIM)
    np.testing.assert_array_equal(table.present[0], [True, True, True, False])
    np.testing.assert_array_equal(table.present[1], [True, False, True, True])
    np.testing.assert_array_equal(table.tokens[:, 0], batch.modalities["text"].embeddings[order])
    np.testing.assert_array_equal(table.tokens[0, 1], batch.modalities["image"].embeddings[1])
    np.testing.assert_array_equal(table.tokens[1, 1], np.zeros(DIM))
    np.testing.assert_array_equal(table.tokens[:, 2], batch.attribute_tokens[order])
    np.testing.assert_array_equal(table.tokens[1, 3], batch.behaviour_tokens[0])
    np.testing.assert_array_equal(table.embeddings, batch.embeddings[order])
    assert table.attributes[2] == {"genre": "gc'o", "tags": ["a", "b'c"], "price": 1.5, "year": None}


def test_what_is_stored_behind_a_token_comes_back_beside_it() -> None:
    plain = rows(["b", "a", "c'o"])

    def behind(numbers: np.ndarray, width: int, start: float) -> np.ndarray:
        return np.hstack([numbers, start + np.arange(3.0 * width).reshape(3, width)])

    modalities = {
        name: kept._replace(embeddings=behind(kept.embeddings, 3, start))
        for (name, kept), start in zip(plain.modalities.items(), (100, 200), strict=True)
    }
    batch = replace(
        plain,
        modalities=modalities,
        attribute_tokens=behind(plain.attribute_tokens, 3, 300),
        behaviour_tokens=behind(plain.behaviour_tokens, 5, 400),
        embeddings=behind(plain.embeddings, 2, 500),
    )
    with open_store(layout=LAYOUT._replace(content_rank=3, vector_width=5, score_dim=2)) as store:
        store.write_items(batch)
        table = store.read_items(model="m1")
        numbers, present = store.read_modality("image", ["a", "b"])
    np.testing.assert_array_equal(table.tokens[:, 0], plain.modalities["text"].embeddings[[1, 0, 2]])
    assert table.content.dtype == table.vectors.dtype == np.float32
    assert table.content[0].tolist() == [[103, 104, 105], [203, 204, 205], [303, 304, 305], [0, 0, 0]]
    # "b" has no picture, "a" no behaviour: nobody took it.
    assert table.content[1].tolist() == [[100, 101, 102], [0, 0, 0], [300, 301, 302], [0, 0, 0]]
    assert table.vectors.tolist() == [[0] * 5, [400, 401, 402, 403, 404], [410, 411, 412, 413, 414]]
    assert table.embeddings[1, -2:].tolist() == [500, 501]
    assert (numbers.shape, present.tolist()) == ((2, DIM + 3), [True, False])
    assert numbers[0, DIM:].tolist() == [203, 204, 205]


def test_writing_again_replaces_and_never_repeats() -> None:
    store = open_store()
    store.write_items(rows(["a", "b"], seed=1))
    store.write_items(rows(["a", "b"], seed=1))
    assert store.num_items == 2
    newer = rows(["c", "b"], seed=2)
    store.write_items(newer)
    table = store.read_items(model="m1")
    assert table.ids == ["a", "b", "c"]
    np.testing.assert_array_equal(table.embeddings[1], newer.embeddings[1])


def test_rows_of_another_model_are_listed_as_stale_and_not_read() -> None:
    store = open_store()
    store.write_items(rows(["a", "b", "c"], model="old"))
    store.write_items(rows(["b"], model="new"))
    assert store.read_items(model="new").ids == ["b"]
    assert store.read_items(model="o'ther").ids == []
    assert store.read_items(model="o'ther").tokens.shape == (0, 4, DIM)
    assert store.stale("new") == ["a", "c"]
    assert store.read_items(model=None).ids == ["a", "b", "c"]


def test_embedded_says_what_each_row_was_made_from() -> None:
    store = open_store()
    store.write_items(rows(["b", "a"]))
    found = store.embedded()
    assert found.columns.tolist() == ["item_id", "text_hash", "text_tower", "image_hash", "image_tower", "model"]
    assert found.to_numpy().tolist() == [
        ["a", "ta", "tower-text", "pa", "tower-i", "m1"],
        ["b", "tb", "tower-text", None, None, "m1"],
    ]


def test_read_modality_follows_the_order_asked_for() -> None:
    store = open_store()
    batch = rows(["a", "b", "c", "d"])
    store.write_items(batch)
    embeddings, present = store.read_modality("image", ["d", "nobody", "b", "a", "d"])
    np.testing.assert_array_equal(present, [True, False, True, False, True])
    image = batch.modalities["image"].embeddings
    np.testing.assert_array_equal(embeddings, [image[3], np.zeros(DIM), image[1], np.zeros(DIM), image[3]])
    with pytest.raises(ValueError, match=r"modality 'audio' is none of this store's \(text, image\)"):
        store.read_modality("audio", ["a"])


def test_more_ids_than_one_filter_or_default_limit_holds() -> None:
    store = open_store()
    ids = [f"i{n:04d}" for n in range(2300)]
    batch = rows(ids)
    store.write_items(batch)
    assert store.read_items(model="m1").ids == ids
    np.testing.assert_array_equal(store.read_modality("text", ids)[0], batch.modalities["text"].embeddings)
    store.delete_items(ids[5:])
    assert store.read_items(model="m1").ids == ids[:5]


def test_an_absent_modality_may_be_left_out() -> None:
    store = open_store()
    batch = rows(["a", "b"])
    store.write_items(replace(batch, modalities={"text": batch.modalities["text"]}))
    assert not store.read_items(model="m1").present[:, 1].any()


def test_numbers_that_float16_cannot_hold_name_their_items_and_nothing_is_written() -> None:
    store = open_store()
    batch = rows(["a", "b", "c"])
    batch.embeddings[0, 1] = np.nan
    batch.embeddings[2, 0] = 70000.0
    with pytest.raises(ItemError, match=r"2 of 3 items cannot be stored; none was written") as caught:
        store.write_items(batch)
    assert list(caught.value.reasons) == ["a", "c"]
    assert "item_embedding" in caught.value.reasons["a"]
    assert store.num_items == 0


def test_an_id_twice_in_a_batch_is_named() -> None:
    with pytest.raises(ItemError, match=r"(?s)repeats 1 of its ids.*item 'a': comes more than once"):
        open_store().write_items(rows(["a", "b", "a"]))


def test_shapes_and_modalities_that_disagree_are_refused() -> None:
    store = open_store()
    batch = rows(["a", "b"])
    with pytest.raises(ValueError, match=r"'item_embedding' has embeddings \(2, 11\).*Expected \(2, 48\)"):
        store.write_items(replace(batch, embeddings=batch.embeddings[:, :11]))
    with pytest.raises(ValueError, match=r"modality 'audio' is none of this store's"):
        store.write_items(replace(batch, modalities={"audio": batch.modalities["text"]}))
    with pytest.raises(ValueError, match=r"a batch of 2 ids has columns of other lengths: \{'attributes': 1\}"):
        store.write_items(replace(batch, attributes=[{}]))


def test_closing_and_opening_gives_equal_rows_bit_for_bit(tmp_path: Path) -> None:
    with open_store(tmp_path / "store") as store:
        store.write_items(rows(["a", "b", "c"]))
        store.append_interactions(pd.DataFrame({"user_id": ["u"], "item_id": ["a"], "hour": [3]}))
        store.write_users(pd.DataFrame({"user_id": ["u"], "age": [30]}))
        before = store.read_items(model="m1")
        interactions, users = store.read_interactions(), store.read_users()
        store.compact()
    with pytest.raises(StoreError, match=r"this store is closed"):
        store.read_items(model="m1")
    with open_store(tmp_path / "store", create=False) as store:
        after = store.read_items(model="m1")
        pd.testing.assert_frame_equal(store.read_interactions(), interactions)
        pd.testing.assert_frame_equal(store.read_users(), users)
    assert after.ids == before.ids
    assert after.attributes == before.attributes
    for name in ("tokens", "present", "embeddings"):
        assert getattr(after, name).tobytes() == getattr(before, name).tobytes()


def test_another_layout_is_refused_with_both_named(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    with pytest.raises(
        StoreError,
        match=r"(?s)Expected modalities \(text, audio\) of 8 numbers each, behaviour of 8, item embeddings of 32; got "
        r"modalities \(text, image\) of 12 numbers each, behaviour of 12, item embeddings of 48. Open it with the "
        r"model that wrote it, or embed into a new folder",
    ):
        open_store(tmp_path, Layout(("text", "audio"), 8))
    with pytest.raises(StoreError, match=r"has another layout"):
        open_store(tmp_path, Layout(("image", "text"), DIM))
    with pytest.raises(StoreError, match=r"Expected modalities \(text, image\) of 15 numbers each, behaviour of 17"):
        open_store(tmp_path, LAYOUT._replace(content_rank=3, vector_width=5))


def test_an_absent_store_is_not_invented_on_reading(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no store at .*embed first"):
        open_store(tmp_path / "nothing", create=False)
    assert not (tmp_path / "nothing" / "items.lance").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"no store can be opened at .*Expected a folder that can be written to"):
        open_store(tmp_path / "file")


def test_a_table_half_created_by_a_killed_process_is_created_again(tmp_path: Path) -> None:
    (tmp_path / "items.lance" / "_transactions").mkdir(parents=True)
    with pytest.raises(StoreError, match="no store at"):
        open_store(tmp_path, create=False)
    open_store(tmp_path).write_items(rows(["a"]))
    assert open_store(tmp_path, create=False).num_items == 1


def test_stores_in_memory_share_nothing() -> None:
    one, other = open_store(), open_store()
    one.write_items(rows(["a"]))
    assert (one.num_items, other.num_items) == (1, 0)


def test_deleting_takes_the_failure_along_and_passes_over_strangers() -> None:
    store = open_store()
    store.write_items(rows(["a", "b'c"]))
    store.record_failures({"b'c": "its picture is gone"})
    store.delete_items(["b'c", "nobody"])
    store.delete_items([])
    assert store.read_items(model="m1").ids == ["a"]
    assert store.failures().empty


def test_a_failure_stays_until_its_item_is_written() -> None:
    store = open_store()
    assert list(store.failures().columns) == ["item_id", "reason", "at"]
    store.record_failures({})
    store.record_failures({"b": "first reason", "a": "unreadable"})
    store.record_failures({"b": "second reason"})
    assert store.failures()[["item_id", "reason"]].to_numpy().tolist() == [["a", "unreadable"], ["b", "second reason"]]
    store.write_items(rows(["a", "c"]))
    assert store.failures()["item_id"].tolist() == ["b"]
    store.record_failures({"a": "its new picture is unreadable"})
    assert store.failures()["item_id"].tolist() == ["a", "b"]


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


def test_a_handle_taken_over_a_fork_raises_instead_of_hanging(monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(StoreError, match=r"used in its fork -1, where it would hang. Start workers with .*'spawn'"):
        store.num_items  # noqa: B018


def _write_overlapping(uri: str, model: str, start) -> None:
    store = None
    for round_number in range(8):
        # Both start each round together, so that both insert the same new ids at the same moment.
        start.wait(timeout=60)
        store = store or open_store(uri)
        store.write_items(rows([f"i{round_number * 3 + n}" for n in range(6)], model=model, seed=round_number))


def test_two_spawned_writers_of_the_same_new_ids_leave_one_row_each(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    start = spawn.Barrier(2)
    writers = [spawn.Process(target=_write_overlapping, args=(str(tmp_path), m, start)) for m in ("m1", "m2")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(timeout=120)
        assert writer.exitcode == 0
    store = open_store(tmp_path)
    expected = sorted(f"i{n}" for n in range(27))
    assert store.embedded()["item_id"].tolist() == expected
    assert sorted([*store.read_items(model="m1").ids, *store.read_items(model="m2").ids]) == expected


_ENDLESS_WRITER = """
import importlib.util, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("test_store", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
store = module.open_store(Path(sys.argv[2]))
for number in range(100_000):
    store.write_items(module.rows([f"i{(number * 7 + n) % 60:02d}" for n in range(20)], seed=number))
    print(number, flush=True)
"""


def test_a_writer_killed_midway_leaves_each_id_once_and_the_store_readable(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _ENDLESS_WRITER, __file__, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for _ in range(5):
            assert writer.stdout.readline() != ""
        time.sleep(0.013)  # a write takes some 20 ms: this is in the middle of one
        writer.send_signal(signal.SIGKILL)
    store = open_store(tmp_path, create=False)
    table = store.read_items(model="m1")
    assert table.ids == sorted(set(table.ids))
    assert len(table.ids) >= 20
    assert np.isfinite(table.tokens).all()
    store.write_items(rows([f"i{n:02d}" for n in range(60)]))
    assert store.num_items == 60
