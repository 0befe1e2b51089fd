"""Rows are found by key, and what the tables keep in memory does not grow with the number of commits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import lancedb
import pyarrow as pa
import pytest

from multimodal_rec.rows import item_columns, item_schema
from multimodal_rec.tables import Tables, _pieces  # pyright: ignore[reportPrivateUsage]
from tests.multimodal_rec.tiny_store import LAYOUT, open_store, rows

CACHE_BYTES = 100_000


def _kept_after_commits(folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    sessions: list[lancedb.Session] = []
    make = lancedb.Session

    def session(**sizes: int) -> lancedb.Session:
        sessions.append(make(**sizes))
        return sessions[-1]

    monkeypatch.setattr(lancedb, "Session", session)
    tables = Tables.connect(folder)
    tables.create("items-m1", item_schema(LAYOUT))
    for number in range(30):
        tables.upsert("items-m1", "item_id", item_columns(rows([f"i{number}"]), LAYOUT))
    tables.close()
    return sessions[0].size_bytes


def test_versions_that_were_written_are_not_all_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # With room for all of them, more is kept than is allowed below: commits leave something there.
    assert _kept_after_commits(tmp_path / "room", monkeypatch) > 4 * CACHE_BYTES
    monkeypatch.setattr("multimodal_rec.tables._CACHE_BYTES", CACHE_BYTES)
    assert _kept_after_commits(tmp_path / "none", monkeypatch) < 2.5 * CACHE_BYTES


@pytest.mark.parametrize("rows_a_piece", [1, 3, 1000])
def test_rows_are_found_by_key_over_all_files_of_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_a_piece: int
) -> None:
    monkeypatch.setattr("multimodal_rec.tables._ROWS_A_PIECE", rows_a_piece)
    with open_store(tmp_path) as store:
        for ids in (["a", "b", "o'c"], ["d"], ["e", "f"]):
            store.write_items(rows(ids))
        # Another row of the same id, at another place, with the one before deleted.
        store.write_items(rows(["b"], seed=1))
    tables = Tables.connect(tmp_path)
    found = tables.read_keyed("items-m1", "item_id", ["f", "o'c", "b", "strange"], ["item_id", "text_hash"])
    tables.close()
    assert sorted(found["item_id"].to_pylist()) == ["b", "f", "o'c"]
    assert found.column_names == ["item_id", "text_hash"]
    assert dict(zip(*(found[name].to_pylist() for name in found.column_names), strict=True))["f"] == "tf"


@pytest.mark.parametrize("keys", [[], ["strange"]])
def test_keys_of_no_row_give_none(keys: list[str]) -> None:
    tables = Tables.connect(None)
    tables.create("items-m1", item_schema(LAYOUT))
    found = tables.read_keyed("items-m1", "item_id", keys, ["item_id", "text"])
    assert (len(found), found.column_names) == (0, ["item_id", "text"])
    tables.close()


def test_a_row_that_is_replaced_between_looking_and_taking_is_read_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_store(tmp_path) as store:
        store.write_items(rows(["a", "b"]))
    tables = Tables.connect(tmp_path)

    def replaced_meanwhile(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
        yield from _pieces(batches)
        tables.upsert("items-m1", "item_id", item_columns(rows(["a", "b"], seed=1), LAYOUT))

    monkeypatch.setattr("multimodal_rec.tables._pieces", replaced_meanwhile)
    found = tables.read_keyed("items-m1", "item_id", ["a"], ["item_id"])
    assert found["item_id"].to_pylist() == ["a"]
    tables.close()
