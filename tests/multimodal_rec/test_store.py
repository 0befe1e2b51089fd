"""The store keeps the items that it was given, one row an id and model, through restarts."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from multimodal_rec.errors import ItemError, StoreError
from multimodal_rec.rows import Layout, to_json
from tests.multimodal_rec.tiny_store import DIM, LAYOUT, open_store, rows


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


def test_rows_of_two_models_stand_side_by_side_and_are_read_apart() -> None:
    store = open_store()
    old, new = rows(["a", "b", "c"], model="old"), rows(["b"], model="new", seed=1)
    store.write_items(old)
    store.write_items(new)
    np.testing.assert_array_equal(store.read_items(model="new").embeddings, new.embeddings)
    np.testing.assert_array_equal(store.read_items(model="old").embeddings, old.embeddings)
    assert store.read_items(model="other").ids == []
    assert store.read_items(model="other").tokens.shape == (0, 4, DIM)
    assert store.stale("new") == ["a", "c"]
    assert store.stale("old") == []
    assert store.stale("other") == ["a", "b", "c"]
    assert store.read_items(model=None).ids == ["a", "b", "b", "c"]
    assert store.models == {"old": 3, "new": 1}
    assert store.num_items == 3
    assert store.retire("old") == []
    assert store.models == {"new": 1}
    assert store.retire("old") == []


def test_another_model_may_have_another_layout(tmp_path: Path) -> None:
    open_store(tmp_path).write_items(rows(["a", "b"], model="old"))
    wide = LAYOUT._replace(score_dim=2)
    batch = rows(["b"], model="new")
    with open_store(tmp_path, wide) as store:
        store.write_items(replace(batch, embeddings=np.hstack([batch.embeddings, np.ones((1, 2))])))
        assert store.read_items(model="new").embeddings.shape == (1, 4 * DIM + 2)
        # Nothing of a row of another layout can be used again, and yet it is there.
        assert list(store.read_marks(["a", "b"], model="new")) == ["b"]
        assert store.stale("new") == ["a"]
        assert store.models == {"new": 1, "old": 2}
    assert open_store(tmp_path).read_items(model="old").ids == ["a", "b"]


def test_what_an_item_was_embedded_from_is_told_of_the_models_own_row_first() -> None:
    store = open_store()
    older, newer = rows(["a", "b", "c", "d"], model="m1"), rows(["b", "d"], model="m0", seed=1)
    store.write_items(older)
    store.write_items(newer)
    ids = ["a", "b", "c", "d"]
    assert [store.read_marks(ids, model="m0")[item_id]["model"] for item_id in ids] == ["m1", "m0", "m1", "m0"]
    assert [store.read_marks(ids, model="m1")[item_id]["model"] for item_id in ids] == ["m1"] * 4
    here = store.read_modality("image", ["b", "d"], model="m0")[0]
    np.testing.assert_array_equal(here, [np.zeros(DIM), newer.modalities["image"].embeddings[1]])
    there = store.read_modality("image", ["b", "d"], model="m1")[0]
    np.testing.assert_array_equal(there, older.modalities["image"].embeddings[[1, 3]])


def test_marks_say_what_each_row_was_made_from() -> None:
    store = open_store()
    batch = rows(["b", "a"])
    store.write_items(batch)
    found = store.read_marks(["a", "b", "nobody"])
    towers = {"text_tower": "tower-text", "model": "m1"}
    about = {item_id: to_json(values) for item_id, values in zip(batch.ids, batch.attributes, strict=True)}
    assert found == {
        "a": {**towers, "text_hash": "ta", "image_hash": "pa", "image_tower": "tower-i", "attributes": about["a"]},
        "b": {**towers, "text_hash": "tb", "image_hash": None, "image_tower": None, "attributes": about["b"]},
    }


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


def test_a_models_rows_of_another_layout_are_refused_with_both_named(tmp_path: Path) -> None:
    open_store(tmp_path).write_items(rows(["a"]))
    with pytest.raises(
        StoreError,
        match=r"(?s)Expected modalities \(text, audio\) of 8 numbers each, behaviour of 8, item embeddings of 32; got "
        r"modalities \(text, image\) of 12 numbers each, behaviour of 12, item embeddings of 48. Open it with the "
        r"model that wrote it",
    ):
        open_store(tmp_path, Layout(("text", "audio"), 8)).read_items(model="m1")
    with pytest.raises(StoreError, match=r"has another layout"):
        open_store(tmp_path, Layout(("image", "text"), DIM)).write_items(rows(["b"]))
    with pytest.raises(StoreError, match=r"Expected modalities \(text, image\) of 15 numbers each, behaviour of 17"):
        open_store(tmp_path, LAYOUT._replace(content_rank=3, vector_width=5)).read_items(model="m1")


def test_an_absent_store_is_not_invented_on_reading(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no store at .*embed first"):
        open_store(tmp_path / "nothing", create=False)
    assert not (tmp_path / "nothing" / "interactions.lance").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"no store can be opened at .*Expected a folder that can be written to"):
        open_store(tmp_path / "file")


def test_a_table_half_created_by_a_killed_process_is_created_again(tmp_path: Path) -> None:
    (tmp_path / "interactions.lance" / "_transactions").mkdir(parents=True)
    (tmp_path / "items-m1.lance" / "_transactions").mkdir(parents=True)
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
