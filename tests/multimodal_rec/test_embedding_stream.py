"""Items from files and iterators, a chunk at a time: the same store as from a frame, and nothing read whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from multimodal_rec.catalogue import Catalogue
from multimodal_rec.embedding import EmbedReport
from multimodal_rec.errors import CatalogueError, ItemError
from multimodal_rec.item_stream import item_stream
from multimodal_rec.recommender import Recommender
from multimodal_rec.store import ItemStore
from tests.multimodal_rec.tiny import NUM_ITEMS, SCHEMA
from tests.towers.tiny import picture


@pytest.fixture(scope="module")
def folders(catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("written")
    return {kind: catalogue.write(place / kind, format=kind) for kind in ("parquet", "csv")}


def _embedded(own: Recommender, items: object, *, chunk_items: int = 4) -> EmbedReport:
    """What a job with small chunks does to an empty store."""
    own.store.delete_items(list(own.store.read_items(model=None).ids))
    job = replace(own._fitted().job, chunk_items=chunk_items)
    return job.run(items, own.store)  # pyright: ignore[reportArgumentType] - of every kind


@pytest.mark.parametrize("kind", ["parquet", "csv", "parquet file", "csv file", "frames"])
def test_a_stream_leaves_the_store_that_a_frame_leaves(
    own: Recommender, catalogue: Catalogue, folders: dict[str, Path], kind: str
) -> None:
    whole = own.store.read_items(model=None)
    if kind == "frames":
        source: object = (catalogue.items.iloc[start : start + 5] for start in range(0, NUM_ITEMS, 5))
    else:
        form = kind.removesuffix(" file")
        source = folders[form] if kind == form else folders[form] / f"items.{form}"
    report = _embedded(own, source)
    assert (report.embedded, report.unchanged, report.failed, report.set_aside) == (NUM_ITEMS, 0, {}, ())
    found = own.store.read_items(model=None)
    assert found.ids == whole.ids
    assert found.attributes == whole.attributes
    np.testing.assert_array_equal(found.present, whole.present)
    np.testing.assert_allclose(found.tokens, whole.tokens, atol=4e-3)
    again = replace(own._fitted().job, chunk_items=3).run(folders["csv"], own.store)
    assert (again.embedded, again.unchanged) == (0, NUM_ITEMS)


def test_chunks_are_asked_for_one_after_another(own: Recommender, catalogue: Catalogue) -> None:
    """No more than two frames are out before the first is stored: one at work, and one read ahead."""
    store, behind = own.store, []

    def frames() -> Iterator[pd.DataFrame]:
        for start in range(NUM_ITEMS):
            behind.append(start - store.num_items)
            yield catalogue.items.iloc[start : start + 1]

    _embedded(own, frames())
    assert max(behind) <= 4


def test_freed_memory_is_given_back_on_the_way(own: Recommender, catalogue: Catalogue) -> None:
    given: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("multimodal_rec.embedding.give_back", lambda: given.append(1))
        _embedded(own, catalogue.items, chunk_items=1)
    assert len(given) == NUM_ITEMS // 8 > 0


def test_marks_are_looked_up_for_the_chunk_alone(own: Recommender, catalogue: Catalogue) -> None:
    asked: list[int] = []
    read = ItemStore.read_marks

    def counted(self: ItemStore, ids: list[str], *, model: str | None = None) -> object:
        asked.append(len(ids))
        return read(self, ids, model=model)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ItemStore, "read_marks", counted)
        patch.delattr(ItemStore, "embedded")
        patch.delattr(ItemStore, "read_items")
        replace(own._fitted().job, chunk_items=4).run(catalogue.items, own.store)
    assert asked == [4, 4, 4, 2]


def test_an_id_that_comes_again_in_a_later_frame_is_refused(own: Recommender, catalogue: Catalogue) -> None:
    frames = iter([catalogue.items.iloc[:3], catalogue.items.iloc[2:5]])
    with pytest.raises(ItemError, match=r"repeats 1 ids of the frames before it.*\n.*item 'i2': comes more than once"):
        _embedded(own, frames)
    assert own.store.num_items == 3


def test_rows_of_a_file_that_are_no_items_are_set_aside_with_their_place(
    own: Recommender, folders: dict[str, Path], tmp_path: Path
) -> None:
    table = pd.read_csv(folders["csv"] / "items.csv", dtype=str, keep_default_na=False)
    table.loc[9, "item_id"] = "i2"
    table.loc[11, "cover"] = "gone.png"
    table.loc[12, "price"] = "cheap"
    (tmp_path / "media").symlink_to(folders["csv"] / "media")
    table.to_csv(tmp_path / "items.csv", index=False)
    report = _embedded(own, tmp_path / "items.csv")
    assert [(p.row, p.column, p.message) for p in report.set_aside] == [
        (9, "item_id", "this id was already used above"),
        (11, "cover", "media file is missing"),
        (12, "price", "wrong value"),
    ]
    assert report.embedded == NUM_ITEMS - 3
    with pytest.raises(ItemError, match=r"3 items could not be embedded.*\nitem 'row 9 of items.csv'"):
        own.embed(tmp_path / "items.csv")
    assert len(own.embed(tmp_path / "items.csv", on_error="quarantine").set_aside) == 3


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("items.csv", "item_id,title,cover,genre\nx,rain,,jazz\n", "column 'price': column is missing"),
        ("items.csv", "item_id,title,cover,genre,price\n", "has no row"),
        ("items.csv", "item_id,title,cover,genre,price\n,rain,,,\n", "every row has a problem"),
        ("items.parquet", "no parquet", "items.parquet' cannot be read"),
        ("items.txt", "", "Expected a catalogue's folder, or a file .parquet or .csv"),
    ],
)
def test_files_that_hold_no_items_say_why(tmp_path: Path, name: str, content: str, said: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(CatalogueError, match=said):
        list(item_stream(tmp_path / name, SCHEMA, chunk_items=2))


def test_how_many_items_a_file_has_is_known_before_it_is_read(folders: dict[str, Path]) -> None:
    for kind, folder in folders.items():
        assert item_stream(folder, SCHEMA, chunk_items=2).total == NUM_ITEMS, kind
    assert item_stream(iter([]), SCHEMA, chunk_items=2).total is None


def test_one_item_in_a_hundred_changed_is_a_hundredth_of_the_work(
    own: Recommender, catalogue: Catalogue, tmp_path: Path, tower_runs: Counter[str]
) -> None:
    """400 items; 4 get another text: one tower sees 4, and what the other one gave stays bit for bit."""
    random = np.random.default_rng(0)
    words = ["slow", "loud", "piano", "drum", "rain", "the", "in", "a"]
    for number in range(8):
        picture(number, size=(32, 32)).save(tmp_path / f"{number}.png")
    items = pd.DataFrame(
        {
            "item_id": [f"n{row}" for row in range(400)],
            "title": [" ".join(random.choice(words, 6)) + f" . {'rain ' * (row % 7)}" for row in range(400)],
            "cover": pd.Series([[str(tmp_path / f"{row % 8}.png")] for row in range(400)], dtype=object),
            "genre": "jazz",
            "price": 1.0,
        }
    )
    own.embed(items)
    before = own.store.read_items(model=None)
    changed = ["n7", "n107", "n207", "n307"]
    # Words of its own in each, so that none is found in the cache.
    titles = [
        f"{'loud ' * (7 + row % 4)} {'drum ' * (row // 100)}" if item_id in changed else title
        for row, (item_id, title) in enumerate(zip(items["item_id"], items["title"], strict=True))
    ]
    tower_runs.clear()
    report = own.embed(items.assign(title=titles))
    assert (report.embedded, report.unchanged) == (4, 396)
    assert tower_runs == {"text": 4}
    after = own.store.read_items(model=None)
    moved = (before.tokens != after.tokens).any(axis=2)
    assert [after.ids[row] for row in np.flatnonzero(moved.any(axis=1))] == sorted(changed)
    assert not moved[:, 1:].any()
