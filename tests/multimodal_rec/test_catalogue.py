"""Catalogue: round trips through both formats, quarantine, and what is refused."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from multimodal_rec.catalogue import Catalogue
from multimodal_rec.errors import CatalogueError
from multimodal_rec.schema import Schema

SCHEMA = Schema(
    "music",
    kind="music",
    text=("title",),
    image=("cover",),
    audio=("clip",),
    attributes={"genre": "category", "tags": "tags", "price": "number"},
    context={"hour": "cyclic:24"},
    user_attributes={"age": "number"},
    events={"like": 1.0, "skip": -0.5},
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "music"
    media = folder / "media"
    (media / "covers").mkdir(parents=True)
    Image.new("RGB", (4, 4), "red").save(media / "covers" / "a.png")
    Image.new("RGB", (4, 4), "blue").save(media / "covers" / "b.jpg")
    with wave.open(str(media / "b.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(800))
    (folder / "catalogue.toml").write_text(SCHEMA.to_toml())
    (folder / "items.csv").write_text(
        "item_id,title,cover,clip,genre,tags,price\n"
        '007,"NA, a song\nin two lines",covers/a.png|covers/b.jpg,,jazz,slow|piano,9.99\n'
        "b,,,b.wav,,,\n"
        "null,Ünïcode 🎵,,,jazz,,1e3\n"
    )
    (folder / "interactions.csv").write_text(
        "user_id,item_id,timestamp,event,hour\nu1,007,100,like,3\nu1,b,200,skip,\nu2,null,2024-05-01T18:00:00Z,,23\n"
    )
    (folder / "users.csv").write_text("user_id,age\nu1,30\nu2,\nu3,5\n")
    return folder


def equal(one: Catalogue, other: Catalogue) -> None:
    def relative(catalogue: Catalogue) -> pd.DataFrame:
        assert catalogue.media is not None
        root = catalogue.media.resolve()
        frame = catalogue.items.copy()
        for column in catalogue.schema.media_columns:
            frame[column] = frame[column].map(lambda paths: [str(Path(p).relative_to(root)) for p in paths])
        return frame

    assert one.schema == other.schema
    pd.testing.assert_frame_equal(relative(one), relative(other))
    pd.testing.assert_frame_equal(one.interactions, other.interactions)
    if one.users is None or other.users is None:
        assert one.users is other.users
    else:
        pd.testing.assert_frame_equal(one.users, other.users)


def test_read(folder: Path) -> None:
    catalogue = Catalogue.read(folder)
    assert catalogue.item_ids == ("007", "b", "null")
    assert catalogue.items["title"].tolist() == ["NA, a song\nin two lines", None, "Ünïcode 🎵"]
    media = folder / "media"
    assert catalogue.items["cover"].tolist() == [[str(media / "covers/a.png"), str(media / "covers/b.jpg")], [], []]
    assert catalogue.items["clip"].tolist() == [[], [str(media / "b.wav")], []]
    assert catalogue.interactions["timestamp"].tolist() == [100, 200, 1714586400]
    assert catalogue.event_weights.tolist() == [1.0, -0.5, 1.0]
    assert (catalogue.num_items, catalogue.num_users) == (3, 3)
    assert repr(catalogue) == ("Catalogue('music', music: 3 items, 3 users, 3 interactions; text, image, audio)")


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_write_and_read_give_the_same_catalogue(folder: Path, tmp_path: Path, kind: Literal["parquet", "csv"]) -> None:
    catalogue = Catalogue.read(folder)
    written = catalogue.write(tmp_path / "copy", format=kind)
    again = Catalogue.read(written)
    equal(catalogue, again)
    assert (written / "media/covers/a.png").read_bytes() == (folder / "media/covers/a.png").read_bytes()
    again.write(written, format=kind)
    equal(Catalogue.read(written), again)


def test_parts_of_a_split_can_be_written_too(folder: Path, tmp_path: Path) -> None:
    train, _, test = Catalogue.read(folder).split("time", valid=0, test=0.4)
    equal(Catalogue.read(train.write(tmp_path / "train")), train)
    assert not (tmp_path / "train/media/nothing").exists()
    assert train.item_ids == ("007", "b")
    assert test.item_ids == ("007", "b", "null")


def test_media_from_anywhere_are_gathered(folder: Path, tmp_path: Path) -> None:
    items = pd.DataFrame({"item_id": [1, 2], "../cover": [str(folder / "media/covers/a.png"), None]})
    items["title"] = ["x", "y"]
    catalogue = Catalogue.from_frames(items, schema=Schema("x", text=("title",), image=("../cover",)))
    again = Catalogue.read(catalogue.write(tmp_path / "out"))
    ((cover,), _) = again.items["../cover"].tolist()
    assert Path(cover).relative_to(tmp_path / "out/media") == Path("0-___cover/0-0.png")
    assert Path(cover).read_bytes() == (folder / "media/covers/a.png").read_bytes()


def test_without_interactions(tmp_path: Path) -> None:
    items = pd.DataFrame({"item_id": ["a"], "title": ["A"]})
    catalogue = Catalogue.from_frames(items, schema=Schema("x", text=("title",), context={"hour": "cyclic:24"}))
    assert len(catalogue.interactions) == 0
    assert {"user_id", "item_id"} <= set(catalogue.interactions)
    assert catalogue.num_users == 0
    for format in ("parquet", "csv"):  # noqa: A001
        equal_written = Catalogue.read(catalogue.write(tmp_path / format, format=format))
        assert len(equal_written.interactions) == 0
    (tmp_path / "csv/interactions.csv").unlink()
    assert len(Catalogue.read(tmp_path / "csv").interactions) == 0


def test_from_frames_leaves_the_callers_frames_alone() -> None:
    items = pd.DataFrame({"item_id": [1, 2], "title": ["A", "B"]}, index=[5, 6])
    interactions = pd.DataFrame({"user_id": [1], "item_id": [2]})
    before = items.copy(), interactions.copy()
    catalogue = Catalogue.from_frames(items, interactions, schema=Schema("x", text=("title",)))
    pd.testing.assert_frame_equal(items, before[0])
    pd.testing.assert_frame_equal(interactions, before[1])
    assert catalogue.item_ids == ("1", "2")


def test_quarantine_keeps_everything_else_and_lists_why(folder: Path) -> None:
    with (folder / "items.csv").open("a") as rows:
        rows.write("bad,A title,missing.png,,,,\nworse,,,,,,\n")
    with (folder / "interactions.csv").open("a") as rows:
        rows.write("u1,bad,300,like,1\nu1,b,soon,like,1\n")
    with pytest.raises(CatalogueError, match=r"catalogue 'music' has 3 problems:\nitems\.csv, row 3, column 'cover'"):
        Catalogue.read(folder)
    catalogue = Catalogue.read(folder, on_error="quarantine")
    assert catalogue.item_ids == ("007", "b", "null")
    assert len(catalogue.interactions) == 3
    assert [(p.file, p.row) for p in catalogue.quarantined] == [
        ("items.csv", 3),
        ("items.csv", 4),
        ("interactions.csv", 3),
        ("interactions.csv", 4),
    ]
    assert "4 problems set aside" in repr(catalogue)


def test_a_missing_column_is_refused_even_under_quarantine(folder: Path) -> None:
    (folder / "users.csv").write_text("user_id\nu1\nu2\n")
    with pytest.raises(CatalogueError, match=r"users\.csv, column 'age': column is missing"):
        Catalogue.read(folder, on_error="quarantine")


def test_nothing_left_is_refused(folder: Path) -> None:
    (folder / "items.csv").write_text("item_id,title,cover,clip,genre,tags,price\na,,,,,,\n")
    with pytest.raises(CatalogueError, match="has no items left: every row has a problem"):
        Catalogue.read(folder, on_error="quarantine")


def test_an_empty_catalogue_is_refused(folder: Path) -> None:
    (folder / "items.csv").write_text("item_id,title,cover,clip,genre,tags,price\n")
    with pytest.raises(CatalogueError, match=r"has no items: items\.csv has no row\. Add at least one item"):
        Catalogue.read(folder)


def test_files_that_are_not_there_or_twice_or_broken(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match=r"no catalogue at .*it is not a folder"):
        Catalogue.read(tmp_path / "nowhere")
    (folder / "items.parquet").write_bytes(b"not parquet")
    with pytest.raises(CatalogueError, match=r"both items\.parquet and items\.csv\. Remove the one"):
        Catalogue.read(folder)
    (folder / "items.csv").unlink()
    with pytest.raises(CatalogueError, match=r"items\.parquet' cannot be read: .*Write it again as parquet"):
        Catalogue.read(folder)
    (folder / "items.parquet").unlink()
    with pytest.raises(CatalogueError, match=r"has no items\. Expected a file items\.parquet or items\.csv"):
        Catalogue.read(folder)


def test_a_csv_that_is_not_a_table(folder: Path) -> None:
    for content in (b"", b'a,b\n"open'):
        (folder / "items.csv").write_bytes(content)
        with pytest.raises(CatalogueError, match=r"items\.csv' cannot be read"):
            Catalogue.read(folder)


def test_write_refuses_what_could_not_be_read_back(folder: Path, tmp_path: Path) -> None:
    catalogue = Catalogue.read(folder)
    with pytest.raises(CatalogueError, match=r"already has items\.csv.*Write to an empty folder"):
        catalogue.write(folder)
    with pytest.raises(CatalogueError, match="format 'json' is unknown"):
        catalogue.write(tmp_path / "x", format="json")  # pyright: ignore[reportArgumentType]
    items = pd.DataFrame({"item_id": ["a"], "title": ["A"], "tags": [["x|y"]]})
    piped = Catalogue.from_frames(items, schema=Schema("x", text=("title",), attributes={"tags": "tags"}))
    assert Catalogue.read(piped.write(tmp_path / "y")).items["tags"].tolist() == [("x|y",)]
    with pytest.raises(CatalogueError, match=r"'x\|y' holds a '\|'.*Write format='parquet'"):
        piped.write(tmp_path / "z", format="csv")


def test_tags_may_be_text_too(tmp_path: Path) -> None:
    items = pd.DataFrame({"item_id": ["a", "b"], "cast": [["Ann Lee", "Bo Yi"], "Cy|Di"], "maker": [3, None]})
    schema = Schema("x", text=("maker", "cast"), attributes={"cast": "tags", "maker": "category"})
    catalogue = Catalogue.from_frames(items, schema=schema)
    read = Catalogue.read(catalogue.write(tmp_path / "x", format="csv"))
    for each in (catalogue, read):
        assert each.items["cast"].tolist() == [("Ann Lee", "Bo Yi"), ("Cy", "Di")]
        assert each.items["maker"].tolist() == ["3", None]
    nothing = pd.DataFrame({"item_id": ["a"], "cast": [[]], "maker": [None]})
    with pytest.raises(CatalogueError, match="this item has no text"):
        Catalogue.from_frames(nothing, schema=schema)


def test_wrong_arguments() -> None:
    items = pd.DataFrame([["a", "b", "A"]], columns=["item_id", "item_id", "title"])
    with pytest.raises(CatalogueError, match="items has columns of one name: 'item_id'"):
        Catalogue.from_frames(items, schema=Schema("x", text=("title",)))
    with pytest.raises(CatalogueError, match="on_error is 'ignore'"):
        Catalogue.from_frames(items, schema=Schema("x", text=("title",)), on_error="ignore")  # pyright: ignore[reportArgumentType]


WORDS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="|\0\r"), min_size=1, max_size=8)


@settings(max_examples=25, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            WORDS, WORDS, st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False)), st.lists(WORDS)
        ),
        min_size=1,
        max_size=5,
        unique_by=lambda row: row[0],
    )
)
def test_any_text_and_number_survives_both_formats(
    rows: list[tuple[str, str, float | None, list[str]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    items = pd.DataFrame(rows, columns=["item_id", "title", "price", "tags"])
    items["title"] = "t" + items["title"]
    schema = Schema("x", text=("title",), attributes={"price": "number", "tags": "tags"})
    catalogue = Catalogue.from_frames(items, schema=schema)
    for format in ("parquet", "csv"):  # noqa: A001
        again = Catalogue.read(catalogue.write(tmp_path_factory.mktemp("any"), format=format))
        assert again.items["title"].tolist() == catalogue.items["title"].tolist()
        assert again.items["tags"].tolist() == catalogue.items["tags"].tolist()
        np.testing.assert_array_equal(again.items["price"], catalogue.items["price"])
