"""What towers read of an items table, and the hashes that say when to read again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from multimodal_rec.content import ItemContent
from multimodal_rec.errors import MediaError
from multimodal_rec.schema import Schema
from tests.multimodal_rec.test_media import sine, write_film, write_video, write_wav
from towers import Frames, Sound

SCHEMA = Schema(
    "films", kind="video", text=("title", "plot"), image=("poster", "stills"), audio=("clip",), video=("film",)
)


@pytest.fixture
def items(tmp_path: Path) -> pd.DataFrame:
    pictures = []
    for index in range(3):
        Image.new("RGB", (8, 8), (index * 50, 0, 0)).save(tmp_path / f"{index}.png")
        pictures.append(str(tmp_path / f"{index}.png"))
    clip = str(write_wav(tmp_path / "clip.wav", sine(440, 0.2)))
    loud = str(write_video(tmp_path / "loud.mp4", 9, sound=sine(220, 0.9)))
    silent = str(write_video(tmp_path / "silent.mp4", 9))
    return pd.DataFrame(
        {
            "item_id": ["full", "soundtrack", "silent", "bare"],
            "title": ["A film", " ", None, np.nan],
            "plot": ["It rains", "Only a plot", None, None],
            "poster": [pictures[:1], [], [], []],
            "stills": [pictures[1:], pictures[:1], [], []],
            "clip": [[clip], [], [], []],
            "film": [[loud], [loud], [silent], []],
        }
    )


def test_each_modality_gives_what_its_tower_reads(items: pd.DataFrame) -> None:
    content = ItemContent(items, SCHEMA, max_windows={"video": 3})
    assert len(content) == 4
    assert [content.load(row, "text") for row in range(4)] == ["A film. It rains", "Only a plot", None, None]
    pictures = content.load(0, "image")
    assert isinstance(pictures, list)
    assert [picture.getpixel((0, 0)) for picture in pictures] == [(0, 0, 0), (50, 0, 0), (100, 0, 0)]
    assert content.load(2, "image") is None
    film = content.load(0, "video")
    assert isinstance(film, Frames)
    assert len(film.images) == 3
    assert content.load(3, "video") is None


def test_frames_are_taken_at_scenes_where_told(items: pd.DataFrame, tmp_path: Path) -> None:
    path = str(write_film(tmp_path / "cut.mp4", [(200, 0, 0)] * 3 + [(0, 200, 0)] * 17))
    items = items.assign(film=[[path]] * 4)
    even = ItemContent(items, SCHEMA, max_windows={"video": 2})
    scenes = ItemContent(items, SCHEMA, max_windows={"video": 2}, frames="scenes")
    found = [content.load(0, "video") for content in (even, scenes)]
    assert [[round(t, 1) for t in film.seconds] for film in found if isinstance(film, Frames)] == [[0, 1.9], [0, 0.3]]
    assert even.content_hash(0, "video") == scenes.content_hash(0, "video")
    with pytest.raises(ValueError, match=r"frames 'often' are unknown\. Expected one of 'even', 'scenes'"):
        ItemContent(items, SCHEMA, frames="often")


def test_a_text_that_cannot_be_written_has_a_hash_all_the_same() -> None:
    titles = pd.Series(["half a pair \udce9", "half a pair \udcea"], dtype=object)
    content = ItemContent(pd.DataFrame({"title": titles}), SCHEMA)
    assert content.content_hash(0, "text") != content.content_hash(1, "text")


def test_soundtrack_speaks_where_the_item_has_no_sound(items: pd.DataFrame) -> None:
    content = ItemContent(items, SCHEMA)
    own, track = content.load(0, "audio"), content.load(1, "audio")
    assert isinstance(own, Sound)
    assert isinstance(track, Sound)
    assert own.samples.shape[1] == 3200
    assert track.samples.shape[1] > 10_000
    assert content.load(2, "audio") is None
    assert content.load(3, "audio") is None


def test_tags_are_read_as_their_list() -> None:
    items = pd.DataFrame({"title": ["Rain", None], "cast": [("Ann Lee", "Bo Yi"), ()], "maker": ["Ann Lee", None]})
    schema = Schema("films", text=("title", "cast", "maker"), attributes={"cast": "tags", "maker": "category"})
    joined, apart = ItemContent(items, schema), ItemContent(items, schema, texts_apart=True)
    assert joined.load(0, "text") == "Rain. Ann Lee, Bo Yi. Ann Lee"
    assert apart.load(0, "text") == ["Rain", "Ann Lee, Bo Yi", "Ann Lee"]
    assert apart.load(1, "text") is None
    assert joined.content_hash(0, "text") != ItemContent(items.drop(columns="cast"), schema).content_hash(0, "text")


def test_presence_agrees_with_loading(items: pd.DataFrame) -> None:
    content = ItemContent(items, SCHEMA)
    for modality in ("text", "image", "audio", "video"):
        loaded = [content.load(row, modality) is not None for row in range(4)]
        assert content.present(modality).tolist() == loaded
    assert content.present("audio").dtype == bool


def test_columns_that_are_not_there_are_empty(items: pd.DataFrame) -> None:
    content = ItemContent(items[["item_id", "title"]], SCHEMA)
    assert not content.present("image").any()
    assert content.content_hash(0, "video") is None


def test_hashes_follow_content_not_names(items: pd.DataFrame, tmp_path: Path) -> None:
    content = ItemContent(items, SCHEMA)
    for modality in ("text", "image", "audio", "video"):
        assert [content.content_hash(row, modality) is None for row in (0, 3)] == [False, True]
    assert content.content_hash(0, "video") == content.content_hash(1, "video")
    assert content.content_hash(1, "audio") not in (content.content_hash(1, "video"), content.content_hash(0, "audio"))
    moved = items.copy()
    copy = tmp_path / "renamed.png"
    copy.write_bytes(Path(items["poster"][0][0]).read_bytes())
    moved["poster"] = [[str(copy)], [], [], []]
    moved["title"] = ["A film", "x", None, None]
    again = ItemContent(moved, SCHEMA)
    assert again.content_hash(0, "image") == content.content_hash(0, "image")
    assert again.content_hash(0, "text") == content.content_hash(0, "text")
    assert again.content_hash(1, "text") != content.content_hash(1, "text")
    copy.write_bytes(copy.read_bytes() + b" ")
    assert ItemContent(moved, SCHEMA).content_hash(0, "image") != content.content_hash(0, "image")


def test_columns_do_not_run_together(items: pd.DataFrame) -> None:
    one = pd.DataFrame({"title": ["ab"], "plot": ["c"]})
    two = pd.DataFrame({"title": ["a"], "plot": ["bc"]})
    assert ItemContent(one, SCHEMA).content_hash(0, "text") != ItemContent(two, SCHEMA).content_hash(0, "text")


def test_one_bad_file_concerns_its_item_only(items: pd.DataFrame) -> None:
    broken = items.copy()
    broken["poster"] = [["/no/such.png"], [], [], []]
    broken["film"] = [["/no/such.mp4"], items["film"][1], [], []]
    broken["clip"] = [[], [], [], []]
    content = ItemContent(broken, SCHEMA)
    for modality in ("image", "audio", "video"):
        assert content.present(modality)[0]
        with pytest.raises(MediaError, match=r"media file '/no/such\.(png|mp4)' does not exist"):
            content.load(0, modality)
        with pytest.raises(MediaError, match=r"media file '/no/such\.(png|mp4)' cannot be read: No such file"):
            content.content_hash(0, modality)
        assert content.load(1, modality) is not None
