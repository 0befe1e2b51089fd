"""The same job on Ray's workers: real processes, one store on disk, the rows that one process writes."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from multimodal_rec.catalogue import Catalogue
from multimodal_rec.errors import ConfigError, EngineError, ItemError, StoreError
from multimodal_rec.ray_engine import RayEngine, _as_raised, _saved, _Worker, ray_engine
from multimodal_rec.recommender import Recommender
from multimodal_rec.store import ItemStore
from tests.multimodal_rec.tiny import NUM_ITEMS

ray = pytest.importorskip("ray", exc_type=ImportError)

TWO = RayEngine(num_workers=2, chunk_size=4)


@pytest.fixture
def cluster() -> Iterator[None]:
    """Ray, already running when the job begins."""
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=2**27,
        log_to_driver=False,
        logging_level="error",
    )
    yield
    assert ray.is_initialized()
    ray.shutdown()


def rows_of(store: ItemStore) -> pa.Table:
    """Every column of every item but the moment it was written."""
    (name,) = store._alike()
    table = store._tables.find(name)
    assert table is not None
    return table.to_arrow().drop_columns(["updated_at"]).sort_by("item_id")


def loaded(saved: Path, store: Path) -> Recommender:
    return Recommender.load(saved, store=store, device="cpu")


def emptied(saved: Path, store: Path) -> Recommender:
    """The tiny recommender over a store on disk that holds what people did, and no item."""
    recommender = loaded(saved, store)
    recommender.store.delete_items(recommender.store.read_items(model=None).ids)
    return recommender


def with_broken_cover(items: pd.DataFrame, item_id: str, path: Path) -> pd.DataFrame:
    path.write_bytes(b"no picture")
    covers = [[str(path)] if i == item_id else cell for i, cell in zip(items["item_id"], items["cover"], strict=True)]
    return items.assign(cover=pd.Series(covers, dtype=object))


def test_two_workers_fill_the_store_that_one_process_fills(saved: Path, catalogue: Catalogue, tmp_path: Path) -> None:
    """Ray is started for it on this machine, and stopped; four items a chunk here as there."""
    items = with_broken_cover(catalogue.items, "i6", tmp_path / "broken.png")
    here, there = emptied(saved, tmp_path / "here"), emptied(saved, tmp_path / "there")
    embedded, reasons = 0, {}
    for start in range(0, NUM_ITEMS, 4):
        report = here.embed(items.iloc[start : start + 4], on_error="quarantine")
        embedded += report.embedded
        reasons |= report.failed
    with pytest.raises(ItemError, match=r"1 items could not be embedded; the other 13 are in the store") as raised:
        there.embed(items, engine=TWO)
    assert not ray.is_initialized()
    assert embedded == NUM_ITEMS - 1
    assert list(reasons) == ["i6"]
    assert raised.value.reasons == reasons
    assert rows_of(there.store).num_rows == NUM_ITEMS - 1
    assert rows_of(there.store).equals(rows_of(here.store))
    assert there.store.failures()[["item_id", "reason"]].equals(here.store.failures()[["item_id", "reason"]])
    assert there.recommend(["u0"], k=5).ids == here.recommend(["u0"], k=5).ids
    # Lists, missing cells and numbers among texts arrived there as they left: nothing is taken for changed.
    again = there.embed(catalogue.items)
    assert (again.embedded, again.unchanged, again.failed) == (1, NUM_ITEMS - 1, {})
    here.close()
    there.close()


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_worker_that_is_killed_loses_nothing(
    saved: Path, catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first to take a chunk kills itself before it commits; another embeds that chunk, of frames that follow."""
    recommender = emptied(saved, tmp_path / "store")
    monkeypatch.setattr("multimodal_rec.ray_engine._Worker", _mortal(tmp_path / "died"))
    frames = [catalogue.items.iloc[:5], catalogue.items.iloc[5:]]
    report = TWO.embed(iter(frames), recommender._fitted(), store=tmp_path / "store")
    assert (tmp_path / "died").exists()
    assert (report.embedded, report.failed) == (NUM_ITEMS, {})
    assert recommender.store.num_items == NUM_ITEMS
    recommender.close()


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_an_error_in_a_worker_is_raised_as_it_is(saved: Path, catalogue: Catalogue, tmp_path: Path) -> None:
    recommender = emptied(saved, tmp_path / "store")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"no store can be opened at .*file"):
        TWO.embed(catalogue.items, recommender._fitted(), store=tmp_path / "file")
    recommender.close()


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_an_item_that_kills_every_worker_ends_the_job(
    saved: Path, catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recommender = emptied(saved, tmp_path / "store")
    monkeypatch.setattr("multimodal_rec.ray_engine._Worker", _mortal(None))
    with pytest.raises(EngineError, match=r"Ray could not embed the items: .*What was committed stays written"):
        recommender.embed(catalogue.items, engine=RayEngine(num_workers=1))
    recommender.close()


def _mortal(mark: Path | None) -> type:
    """A worker that dies of its first chunk where there is no file `mark` yet; of every chunk for None."""

    class Mortal:
        def __init__(self, model: list[object], store: str, fingerprint: str, device: str) -> None:
            self.given = (model, store, fingerprint, device)

        def __call__(self, items: pd.DataFrame, *, retry_failed: bool) -> dict[str, np.ndarray]:
            if mark is not None and mark.exists():
                from multimodal_rec.ray_engine import _Worker  # in the worker's process, where it is itself

                return _Worker(*self.given)(items, retry_failed=retry_failed)
            if mark is not None:
                mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError

    return Mortal


def test_an_id_that_comes_twice_is_refused_before_anything_is_embedded(
    saved: Path, catalogue: Catalogue, tmp_path: Path
) -> None:
    frames = [catalogue.items.iloc[:5], catalogue.items.iloc[5:], catalogue.items.iloc[3:4]]
    recommender = emptied(saved, tmp_path / "store")
    with pytest.raises(ItemError, match="item 'i3': comes more than once"):
        recommender.embed(iter(frames), engine=TWO)
    assert recommender.store.num_items == 0
    recommender.close()


def test_a_store_in_memory_is_refused(own: Recommender, catalogue: Catalogue) -> None:
    with pytest.raises(StoreError, match=r"engine='ray' needs a store that its workers can open.*store=\.\.\."):
        own.embed(catalogue.items, engine="ray")


def test_another_engine_is_refused(own: Recommender, catalogue: Catalogue) -> None:
    with pytest.raises(ConfigError, match=r"there is no engine 'spark'. Expected 'local', 'ray' or a RayEngine"):
        own.embed(catalogue.items, engine="spark")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match=r"RayEngine.num_workers is 0. Expected at least 1"):
        RayEngine(num_workers=0)
    with pytest.raises(ConfigError, match=r"RayEngine.gpus_a_worker is -1. Expected 0 or more"):
        RayEngine(gpus_a_worker=-1)
    assert ray_engine("local") is None


def test_without_ray_the_extra_is_named(
    saved: Path, catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recommender = emptied(saved, tmp_path / "store")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install multimodal-rec\[ray\]"):
        recommender.embed(catalogue.items, engine="ray")
    recommender.close()


def test_as_many_workers_as_there_is_room_for() -> None:
    assert RayEngine()._workers({"CPU": 8.0}, 0) == 8
    assert RayEngine(cpus_a_worker=3)._workers({"CPU": 8.0}, 0) == 2
    assert RayEngine()._workers({"CPU": 8.0, "GPU": 2.0}, 1) == 2
    assert RayEngine()._workers({"CPU": 8.0, "GPU": 2.0}, 0.5) == 4
    assert RayEngine(num_workers=5)._workers({"CPU": 2.0}, 0) == 5
    assert RayEngine()._workers({"CPU": 1.0, "GPU": 0.0}, 1) == 1


def test_what_a_worker_met_is_named() -> None:
    assert isinstance(_as_raised("StoreError", "gone"), StoreError)
    foreign = _as_raised("RuntimeError", "out of memory")
    assert isinstance(foreign, EngineError)
    assert "a worker met RuntimeError: out of memory. What was committed stays written" in str(foreign)


def test_what_a_worker_meets_is_in_its_answer(
    saved: Path, catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker in this process; only where it gets the model from is not Ray's."""
    recommender = emptied(saved, tmp_path / "store")
    trained = recommender._fitted()
    files = _saved(trained)
    monkeypatch.setattr("multimodal_rec.ray_engine._import_ray", lambda: SimpleNamespace(get=lambda _: files))
    (tmp_path / "file").write_text("")

    def answer(store: str, fingerprint: str) -> dict[str, object]:
        worker = _Worker([None], str(tmp_path / store), fingerprint, "cpu")
        answers = worker(catalogue.items.iloc[:3], retry_failed=False)
        return {name: values[0] for name, values in answers.items()}

    good = answer("store", trained.job.fingerprint)
    assert (good["embedded"], good["unchanged"], good["failed"], good["error"]) == (3, 0, "{}", "")
    assert recommender.store.num_items == 3
    name, message = json.loads(str(answer("file", trained.job.fingerprint)["error"]))
    assert (name, "no store can be opened at" in message) == ("StoreError", True)
    name, message = json.loads(str(answer("store", "another")["error"]))
    assert (name, "install one version of this library" in message) == ("EngineError", True)
    recommender.close()


def test_a_cluster_that_cannot_be_reached_is_said(
    saved: Path, catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**told: object) -> None:
        assert set(told) == {"log_to_driver", "logging_level"}  # the address is the environment's
        raise ConnectionError("nobody there")

    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setattr(ray, "init", refuse)
    recommender = emptied(saved, tmp_path / "store")
    with pytest.raises(EngineError, match=r"Ray cannot be started or reached: nobody there"):
        recommender.embed(catalogue.items, engine="ray")
    recommender.close()
