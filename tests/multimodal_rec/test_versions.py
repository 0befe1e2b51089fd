"""A release is one moment of all tables: what is written, moved, killed or tidied later does not touch it."""

import datetime
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from multimodal_rec.errors import StoreError
from multimodal_rec.store import ItemStore
from tests.multimodal_rec.tiny_store import LAYOUT, open_store, rows

AT_ONCE = datetime.timedelta(milliseconds=1)


def events(*items: str, at: int = 10) -> pd.DataFrame:
    return pd.DataFrame({"user_id": "u", "item_id": list(items), "timestamp": [at + n for n in range(len(items))]})


def at(path: Path, release: str) -> ItemStore:
    return ItemStore.open(path, LAYOUT, release=release)


@pytest.fixture
def store(tmp_path: Path) -> ItemStore:
    """A release 'monday' with two items and one interaction, and two more of each that came later."""
    store = open_store(tmp_path / "store")
    store.write_items(rows(["a", "b"]))
    store.append_interactions(events("a"))
    store.write_users(pd.DataFrame({"user_id": ["u"], "age": [30]}))
    store.publish("monday", alias="live")
    store.write_items(rows(["b", "c", "d"], seed=1))
    store.append_interactions(events("a", "b", "c"))
    store.write_users(pd.DataFrame({"user_id": ["u", "v"], "age": [31, 40]}))
    store.record_failures({"e": "unreadable"})
    return store


def test_a_reader_of_a_release_sees_all_tables_of_its_moment(store: ItemStore, tmp_path: Path) -> None:
    then = at(tmp_path / "store", "monday")
    assert then.release == "monday"
    np.testing.assert_array_equal(then.read_items(model="m1").embeddings, rows(["a", "b"]).embeddings)
    assert then.read_interactions()["item_id"].tolist() == ["a"]
    assert then.read_users()["age"].tolist() == [30]
    assert then.failures().empty
    assert (then.num_items, then.num_interactions, then.models) == (2, 1, {"m1": 2})
    # The release stays as it is for whoever opened it, while the store goes on.
    store.delete_items(["a"])
    assert then.read_items(model="m1").ids == ["a", "b"]
    assert store.read_items(model="m1").ids == ["b", "c", "d"]
    assert store.release is None


def test_a_release_cannot_be_written_to(store: ItemStore, tmp_path: Path) -> None:
    then = at(tmp_path / "store", "live")
    for write in (
        lambda: then.write_items(rows(["x"])),
        lambda: then.write_items(rows(["x"], model="new")),
        lambda: then.append_interactions(events("a", at=99)),
        lambda: then.write_users(pd.DataFrame({"user_id": ["u"]})),
        lambda: then.record_failures({"a": "why"}),
        lambda: then.delete_items(["a"]),
        lambda: then.publish("again"),
        lambda: then.switch("live", to="monday"),
        lambda: then.withdraw("monday"),
        then.compact,
    ):
        with pytest.raises(StoreError, match=r"opened at a release, which stays as it is.*without release="):
            write()
    assert then.read_items(model="m1").ids == ["a", "b"]


def test_an_alias_is_moved_and_moved_back(store: ItemStore, tmp_path: Path) -> None:
    path = tmp_path / "store"
    assert at(path, "live").num_items == 2
    store.publish("tuesday")
    assert at(path, "live").num_items == 2
    store.switch("live", to="tuesday")
    assert at(path, "live").num_items == 4
    assert at(path, "live").release == "tuesday"
    assert store.rollback("live") == "monday"
    assert at(path, "live").num_items == 2
    assert store.rollback("live") == "tuesday"
    store.switch("live", to="tuesday")  # where it stands already: what it stood for before is not forgotten
    assert store.rollback("live") == "monday"
    store.switch("canary", to="live")  # for what 'live' stands for now
    store.switch("live", to="tuesday")
    assert at(path, "canary").release == "monday"


def test_releases_are_listed_with_what_they_hold(store: ItemStore) -> None:
    store.write_items(rows(["a"], model="m2"))
    store.publish("tuesday", model="m2", alias="live")
    listed = store.releases()
    assert listed.columns.tolist() == ["name", "release", "before", "models", "items", "interactions", "at"]
    found = listed.set_index("name").drop(columns="at").to_dict("index")
    assert found["monday"] == {"release": "monday", "before": None, "models": ["m1"], "items": 2, "interactions": 1}
    assert found["tuesday"] == {"release": "tuesday", "before": None, "models": ["m2"], "items": 1, "interactions": 3}
    assert found["live"] == {**found["tuesday"], "before": "monday"}
    assert str(listed["at"].dt.tz) == "UTC"
    assert open_store().releases().empty


def test_names_that_are_taken_or_unknown_are_told(store: ItemStore, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"there is a release or an alias 'monday' already.*Choose another"):
        store.publish("monday")
    with pytest.raises(StoreError, match=r"there is a release or an alias 'live' already"):
        store.publish("live")
    with pytest.raises(StoreError, match=r"'monday' is a release, which stays as it is"):
        store.publish("tuesday", alias="monday")
    with pytest.raises(StoreError, match=r"Expected two names that differ"):
        store.publish("live2", alias="live2")
    with pytest.raises(StoreError, match=r"no release 'friday'. Expected one of 'monday', 'live'"):
        store.switch("live", to="friday")
    with pytest.raises(StoreError, match=r"'monday' is a release"):
        store.switch("monday", to="live")
    with pytest.raises(StoreError, match=r"'live' has nothing to go back to"):
        store.rollback("live")
    with pytest.raises(StoreError, match=r"no release 'friday'"):
        at(tmp_path / "store", "friday")
    with pytest.raises(StoreError, match=r"no store at"):
        at(tmp_path / "nothing", "live")
    assert not (tmp_path / "nothing" / "interactions.lance").exists()
    with pytest.raises(StoreError, match=r"Expected one of none: nothing was published"):
        open_store().switch("live", to="monday")
    with pytest.raises(StoreError, match=r"the store has no table 'items-m9'"):
        store.publish("tuesday", model="m9")


def test_what_a_release_needs_outlives_tidying_and_what_it_does_not_is_dropped(
    store: ItemStore, tmp_path: Path
) -> None:
    path = tmp_path / "store"
    time.sleep(1.1)
    for seed in range(5):
        store.write_items(rows(["a", "b", "c", "d"], seed=seed))
    before = at(path, "monday").read_items(model="m1")
    store.compact(older_than=AT_ONCE)
    after = at(path, "monday").read_items(model="m1")
    assert after.embeddings.tobytes() == before.embeddings.tobytes()
    assert at(path, "live").read_interactions()["item_id"].tolist() == ["a"]
    np.testing.assert_array_equal(
        store.read_items(model="m1").embeddings, rows(["a", "b", "c", "d"], seed=4).embeddings
    )
    store.publish("tuesday", alias="live")
    store.withdraw("monday")
    files = list((path / "items-m1.lance" / "data").iterdir())
    time.sleep(1.1)
    store.compact(older_than=AT_ONCE)
    assert len(list((path / "items-m1.lance" / "data").iterdir())) < len(files)
    assert at(path, "live").num_items == 4
    with pytest.raises(StoreError, match="no release 'monday'"):
        at(path, "monday")


def test_what_something_stands_for_is_not_withdrawn_nor_its_rows_retired(store: ItemStore) -> None:
    with pytest.raises(StoreError, match=r"'live' stands for release 'monday'.*Switch 'live' to another"):
        store.withdraw("monday")
    assert store.retire("m1") == ["monday"]
    assert store.num_items == 4
    store.withdraw("live")
    store.withdraw("monday")
    assert store.releases().empty
    assert store.retire("m1") == []
    assert store.num_items == 0
    with pytest.raises(StoreError, match=r"there is no release 'monday'"):
        store.withdraw("monday")


def test_a_store_in_memory_has_releases_too() -> None:
    store = open_store()
    store.write_items(rows(["a"]))
    assert store.publish("monday", alias="live") == "monday"
    store.write_items(rows(["b"]))
    assert store.releases()["items"].tolist() == [1, 1]


_KILLED = """
import os, signal, sys
from pathlib import Path
from multimodal_rec import versions
from tests.multimodal_rec.tiny_store import open_store
versions.Releases._write = lambda self, entries: os.kill(os.getpid(), signal.SIGKILL)
open_store(Path(sys.argv[1])).publish("tuesday", alias="live")
"""


def test_a_publisher_killed_after_its_tags_leaves_readers_where_they_were(store: ItemStore, tmp_path: Path) -> None:
    path = tmp_path / "store"
    root = str(Path(__file__).parents[2])
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED, str(path)], env={**os.environ, "PYTHONPATH": root}, timeout=120, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert at(path, "live").num_items == 2
    assert store.releases()["name"].tolist() == ["monday", "live"]
    table = store._tables.table("items-m1")
    assert len(table.tags.list()) == 2  # that of 'monday', and the one that was left
    store.compact()
    assert len(table.tags.list()) == 2  # somebody could be at it still
    store.publish("tuesday", alias="live")
    assert at(path, "live").num_items == 4


def test_tags_that_were_left_are_tidied_away_in_time(store: ItemStore, monkeypatch: pytest.MonkeyPatch) -> None:
    table = store._tables.table("items-m1")
    yesterday = time.time_ns() - 25 * 3600 * 10**9
    table.tags.create(f"r{yesterday}-0", table.version)
    store.compact()
    assert len(table.tags.list()) == 1
