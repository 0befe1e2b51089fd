"""Rows reach Lance in the C library's memory, and Arrow's default pool is what it was afterwards."""

from __future__ import annotations

import threading
from pathlib import Path

import pyarrow as pa

from multimodal_rec.arrow_memory import SystemMemory
from multimodal_rec.rows import item_columns
from multimodal_rec.tables import Tables
from tests.multimodal_rec.tiny_store import LAYOUT, open_store, rows


def test_an_upsert_takes_next_to_nothing_of_arrows_own_allocator(tmp_path: Path) -> None:
    ids = [f"i{row}" for row in range(2000)]
    columns = item_columns(rows(ids), LAYOUT)
    with open_store(tmp_path) as store:
        store.write_items(rows(["a"]))
    tables, pool = Tables.connect(tmp_path), pa.default_memory_pool()
    before = pool.total_bytes_allocated()
    tables.upsert("items-m1", "item_id", columns)
    # What Arrow's kernels take whoever asks is a few bytes a call, not a few a row.
    assert pool.total_bytes_allocated() - before < pa.table(columns).nbytes / 10
    assert pa.default_memory_pool().backend_name == pool.backend_name
    tables.close()


def test_the_pool_is_given_back_by_whoever_leaves_last() -> None:
    memory, own = SystemMemory(), pa.default_memory_pool().backend_name
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with memory:
            entered.set()
            leave.wait()

    thread = threading.Thread(target=other)
    with memory:
        thread.start()
        entered.wait()
    assert pa.default_memory_pool().backend_name == "system"
    leave.set()
    thread.join()
    assert pa.default_memory_pool().backend_name == own
