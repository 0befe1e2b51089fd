"""An index on disk comes back as it was, and is refused for anything else."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from multimodal_rec.cells import Cells
from multimodal_rec.errors import StoreError
from multimodal_rec.index import ItemIndex
from multimodal_rec.index_folder import IndexFolder, index_fingerprint, index_path

IDS = [f"i{row}" for row in range(500)]


@pytest.fixture
def items() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(500, 8)).astype(np.float32)


def kept(folder: Path, items: np.ndarray, model: str = "m") -> tuple[IndexFolder, ItemIndex]:
    index = ItemIndex.build(items, exact_up_to=0)
    place = IndexFolder(folder)
    place.write(index, index_fingerprint(IDS, items, model))
    return place, index


def test_a_round_trip(tmp_path: Path, items: np.ndarray) -> None:
    folder, index = kept(tmp_path / "a" / "index", items)
    again = folder.read(items, index_fingerprint(IDS, items, "m"))
    assert again.report == index.report
    np.testing.assert_array_equal(again.search(items[:5], 20).rows, index.search(items[:5], 20).rows)
    assert sorted(path.suffix for path in folder.path.iterdir()) == [".faiss", ".json"]


def test_an_exact_index_is_only_a_note(tmp_path: Path, items: np.ndarray) -> None:
    folder = IndexFolder(tmp_path)
    folder.write(ItemIndex.exact(items), "x")
    assert folder.read(items, "x").cells is None
    assert [path.name for path in tmp_path.iterdir()] == ["about.json"]


def test_the_fingerprint_is_that_of_items_embeddings_and_model(items: np.ndarray) -> None:
    one = index_fingerprint(IDS, items, "m")
    assert one == index_fingerprint(list(IDS), items.copy(), "m")
    moved = items.copy()
    moved[3, 2] += 1e-3
    others = [
        index_fingerprint(IDS, moved, "m"),
        index_fingerprint(IDS, items, "n"),
        index_fingerprint([*IDS[:-1], "x"], items, "m"),
        index_fingerprint(IDS[:-1], items[:-1], "m"),
    ]
    assert len({one, *others}) == 5


def test_a_stale_index_is_refused(tmp_path: Path, items: np.ndarray) -> None:
    folder, _ = kept(tmp_path, items)
    fresh = index_fingerprint(IDS[:-1], items[:-1], "m")
    with pytest.raises(StoreError, match=rf"stale: it was built for 500 items .*the store has 499 .*{fresh}.*build_in"):
        folder.read(items[:-1], fresh)


def test_no_index_and_no_description(tmp_path: Path, items: np.ndarray) -> None:
    with pytest.raises(StoreError, match=r"there is no index in .* for 500 items. Build it with"):
        IndexFolder(tmp_path / "none").read(items, "x")
    (tmp_path / "about.json").write_text("[]")
    with pytest.raises(StoreError, match=r"describes no index"):
        IndexFolder(tmp_path).read(items, "x")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"format": None}, r"describes no index \('format' is missing\)\. Expected what build_index wrote\. Build it"),
        ({"format": 2}, r"has format 2: another version of this library wrote it\. Expected format 1\. Build it"),
        ({"fingerprint": None}, r"describes no index \('fingerprint' is missing\)"),
        ({"report": {}}, r"describes no index \(.*missing 9 required"),
    ],
)
def test_a_description_of_another_kind(
    tmp_path: Path, items: np.ndarray, changed: dict[str, object], message: str
) -> None:
    folder, _ = kept(tmp_path, items)
    about = json.loads((tmp_path / "about.json").read_text()) | changed
    (tmp_path / "about.json").write_text(
        json.dumps({name: value for name, value in about.items() if value is not None})
    )
    with pytest.raises(StoreError, match=message):
        folder.read(items, index_fingerprint(IDS, items, "m"))


def test_a_broken_file_is_refused(tmp_path: Path, items: np.ndarray) -> None:
    folder, _ = kept(tmp_path, items)
    fingerprint = index_fingerprint(IDS, items, "m")
    file = next(tmp_path.glob("*.faiss"))
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StoreError, match=r"no index can be read from .*Build it again"):
        folder.read(items, fingerprint)
    file.unlink()
    with pytest.raises(StoreError, match=r"no index can be read from"):
        folder.read(items, fingerprint)
    Cells.build(items[:400], count=4).write(file)
    with pytest.raises(StoreError, match=r"holds 400 items of 16 numbers. Expected 500 of 16"):
        folder.read(items, fingerprint)


def test_a_writer_that_dies_leaves_the_index_before(tmp_path: Path, items: np.ndarray) -> None:
    folder, _ = kept(tmp_path, items)
    process = os.fork()
    if process == 0:  # pragma: no cover: the child dies between the file and its mention
        os.environ.clear()
        Path.write_text = lambda *_, **__: os._exit(9)
        kept(tmp_path, items * 2)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 9
    assert len(list(tmp_path.glob("*.faiss"))) == 2
    assert folder.read(items, index_fingerprint(IDS, items, "m")).cells is not None
    folder, _ = kept(tmp_path, items * 3)
    named = json.loads((tmp_path / "about.json").read_text())["cells"]
    assert [path.name for path in tmp_path.glob("*.faiss*")] == [named], "what nobody names is cleared away"


def test_only_a_store_in_memory_has_no_place_beside_it() -> None:
    assert index_path("stores/a", "m1") == Path("stores/a/index/m1")
    assert index_path(None, "m1") is None
    assert index_path("s3://bucket/store", "m1") == "s3://bucket/store/index/m1"
