"""What the tables keep in memory does not grow with the number of commits."""

from __future__ import annotations

from pathlib import Path

import lancedb
import pytest

from multimodal_rec.rows import item_columns, item_schema
from multimodal_rec.tables import Tables
from tests.multimodal_rec.tiny_store import LAYOUT, rows

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
