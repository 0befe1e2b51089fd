"""One row an id, and a store that can be read, through other writers, kills and forks."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from multimodal_rec.errors import StoreError
from tests.multimodal_rec import tiny_store
from tests.multimodal_rec.tiny_store import open_store, rows


def _write_overlapping(uri: str, start) -> None:
    store = None
    for round_number in range(8):
        # Both start each round together, so that both insert the same new ids at the same moment.
        start.wait(timeout=300)
        store = store or open_store(uri)
        store.write_items(rows([f"i{round_number * 3 + n}" for n in range(6)], seed=round_number))


def test_two_spawned_writers_of_the_same_new_ids_leave_one_row_each(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    start = spawn.Barrier(2)
    writers = [spawn.Process(target=_write_overlapping, args=(str(tmp_path), start)) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(timeout=300)
        assert writer.exitcode == 0
    store = open_store(tmp_path)
    expected = sorted(f"i{n}" for n in range(27))
    assert store.read_items(model="m1").ids == expected
    assert store.num_items == len(expected)


_ENDLESS_WRITER = """
import importlib.util, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("tiny_store", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
store = module.open_store(Path(sys.argv[2]))
for number in range(100_000):
    store.write_items(module.rows([f"i{(number * 7 + n) % 60:02d}" for n in range(20)], seed=number))
    print(number, flush=True)
"""


def test_a_writer_killed_midway_leaves_each_id_once_and_the_store_readable(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _ENDLESS_WRITER, tiny_store.__file__, str(tmp_path)]
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


def test_a_handle_taken_over_a_fork_raises_instead_of_hanging(monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(StoreError, match=r"used in its fork -1, where it would hang. Start workers with .*'spawn'"):
        store.num_items  # noqa: B018
