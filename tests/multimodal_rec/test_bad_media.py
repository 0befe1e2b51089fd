"""One bad file or text costs its own item, and no other: from a folder on disk to the store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from multimodal_rec.catalogue import Catalogue
from multimodal_rec.config import RecommenderConfig, TowerConfig
from multimodal_rec.content import ItemContent
from multimodal_rec.errors import CatalogueError, ItemError
from multimodal_rec.feature_cache import FeatureCache
from multimodal_rec.features import ContentFeatures
from multimodal_rec.recommender import Recommender
from multimodal_rec.schema import Schema
from tests.multimodal_rec.test_media import sine, write_bomb, write_coded, write_film, write_video, write_wav
from tests.multimodal_rec.tiny import CPU
from tests.towers.tiny import picture

SCHEMA = Schema("bad", kind="video", text=("title",), image=("cover",), audio=("clip",), video=("film",))

GOOD = 4


REASONS = {
    "cut.jpg": ("cover", r"image: picture '.*cut\.jpg' cannot be read"),
    "cut.png": ("cover", r"image: picture '.*cut\.png' cannot be read"),
    "bomb.png": ("cover", r"image: picture '.*bomb\.png' has too many pixels\. Expected at most 64,000,000"),
    "text.png": ("cover", r"image: picture '.*text\.png' cannot be read"),
    "cut.wav": ("clip", r"audio: sound '.*cut\.wav' is cut short"),
    "photo.wav": ("clip", r"audio: '.*photo\.wav' is a picture\. Expected a sound"),
    "zero.wav": ("clip", r"audio: sound '.*zero\.wav' (is of zero length|cannot be read)"),
    "empty.flac": ("clip", r"audio: media file '.*empty\.flac' is empty \(0 bytes\)"),
    "cut.mp4": ("film", r"video '.*cut\.mp4' is cut short"),
    "photo.mp4": ("film", r"'.*photo\.mp4' is a picture\. Expected a video"),
    "text.mp4": ("film", r"video '.*text\.mp4' cannot be read"),
    "hollow.mp4": ("film", r"video '.*hollow\.mp4' (has no frame that can be decoded|cannot be read)"),
    "voice.mp4": ("film", r"video: '.*voice\.mp4' has no pictures in it"),
}
"""Bad file → the column that names it, and what the reason must say."""


def _half(path: Path) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path


def write_bad_files(media: Path) -> None:
    noise = np.asarray(Image.effect_noise((200, 200), 60))
    Image.fromarray(noise).save(media / "cut.jpg")
    Image.fromarray(noise).save(media / "cut.png")
    write_wav(media / "cut.wav", sine(440, 1.0))
    write_video(media / "cut.mp4", 30, faststart=True)
    for name in ("cut.jpg", "cut.png", "cut.wav", "cut.mp4"):
        _half(media / name)
    Image.new("RGB", (20, 20)).save(media / "photo.jpg")
    (media / "photo.wav").write_bytes((media / "photo.jpg").read_bytes())
    (media / "photo.mp4").write_bytes((media / "photo.jpg").read_bytes())
    (media / "text.mp4").write_text("no film at all\n" * 50)
    (media / "text.png").write_text("no picture at all\n" * 50)
    write_wav(media / "zero.wav", np.zeros((1, 0), np.float32))
    (media / "empty.flac").touch()
    write_bomb(media / "bomb.png", 30_000, 30_000)
    write_video(media / "hollow.mp4", 10, faststart=True)
    whole = (media / "hollow.mp4").read_bytes()
    start = whole.index(b"mdat") + 4
    (media / "hollow.mp4").write_bytes(whole[:start] + bytes(len(whole) - start))
    write_coded(media / "voice.mp4", "aac", sine(440, 0.5))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalogue of good items first and last, and a bad file each between them."""
    folder = tmp_path_factory.mktemp("bad") / "catalogue"
    media = folder / "media"
    media.mkdir(parents=True)
    rows: list[dict[str, object]] = []
    for item in range(GOOD):
        Image.Image.save(picture(item), media / f"{item}.png")
        write_wav(media / f"{item}.wav", sine(300 + 100 * item, 0.3))
        write_film(media / f"{item}.mp4", [(60 * item, 90, 200 - 60 * item)] * 5)
        rows.append(
            {
                "item_id": f"good{item}",
                "title": "slow piano",
                "cover": f"{item}.png",
                "clip": f"{item}.wav",
                "film": f"{item}.mp4",
            }
        )
    write_bad_files(media)
    bad = [{"item_id": name, "title": "a loud drum", column: name} for name, (column, _) in REASONS.items()]
    items = pd.DataFrame([*rows[:2], *bad, *rows[2:]])
    items.to_csv(folder / "items.csv", index=False)
    (folder / "catalogue.toml").write_text(SCHEMA.to_toml())
    return folder


@pytest.fixture(scope="module")
def recommender(bert: Path, folder: Path) -> Iterator[Recommender]:
    """Four frozen towers, trained on the good items alone."""
    net = {"pretrained": False, "image_size_px": 32}
    config = RecommenderConfig(
        {
            "text": TowerConfig(f"hf:{bert}", max_tokens=16),
            "image": TowerConfig("timm:test_efficientnet_gn", **net),
            "audio": TowerConfig("spectrogram:test_efficientnet_gn", pretrained=False, clip_seconds=0.2),
            "video": TowerConfig("frames:image", max_windows=2),
        },
        embedding_dim=8,
    )
    catalogue = Catalogue.read(folder)
    good = catalogue.items[catalogue.items["item_id"].str.startswith("good")]
    interactions = pd.DataFrame(
        [(f"u{user}", f"good{item}") for user in range(4) for item in (user, (user + 1) % GOOD)],
        columns=["user_id", "item_id"],
    )
    seen = Catalogue.from_frames(good.reset_index(drop=True), interactions, schema=SCHEMA)
    recommender = Recommender(config).fit(seen, training=replace(CPU, epochs=1))
    yield recommender
    recommender.close()


def test_bad_items_are_set_aside_with_their_reason_and_the_rest_go_on(recommender: Recommender, folder: Path) -> None:
    recommender.store.delete_items([f"good{item}" for item in range(GOOD)])
    report = recommender.embed(Catalogue.read(folder).items, on_error="quarantine")
    assert report.embedded == GOOD
    assert set(report.failed) == set(REASONS)
    for name, (_, reason) in REASONS.items():
        with pytest.raises(ItemError, match=reason):
            raise ItemError(report.failed[name])
    table = recommender.store.read_items(model=None)
    good = [f"good{item}" for item in range(GOOD)]
    assert sorted({*good, *REASONS} & set(table.ids)) == good
    assert table.present[[table.ids.index(item_id) for item_id in good], :4].all()
    noted = recommender.store.failures().set_index("item_id")["reason"]
    assert {name: noted[name] for name in REASONS} == report.failed


def test_bad_items_are_raised_together_unless_told_otherwise(recommender: Recommender, folder: Path) -> None:
    with pytest.raises(
        ItemError, match=rf"{len(REASONS)} items could not be embedded; the other {GOOD} are in"
    ) as raised:
        recommender.embed(Catalogue.read(folder).items)
    assert set(raised.value.reasons) == set(REASONS)


def test_training_goes_on_without_them(recommender: Recommender, folder: Path) -> None:
    catalogue = Catalogue.read(folder)
    content = ItemContent(catalogue.items, catalogue.schema, max_windows={"video": 2}, frames="scenes")
    features = ContentFeatures(recommender.towers, content, cache=FeatureCache())
    ids = catalogue.items["item_id"].tolist()
    for modality in ("image", "audio", "video"):
        present = features.features(range(len(ids)), modality).present.any(dim=1).tolist()
        # A sound that is called a film is still the item's sound.
        heard = {"voice.mp4"} if modality == "audio" else set()
        assert {name for name, there in zip(ids, present, strict=True) if there} == {
            *(f"good{item}" for item in range(GOOD)),
            *heard,
        }
    assert {ids[row] for row in features.reasons} == set(REASONS)


def test_a_text_of_a_million_characters_is_read(recommender: Recommender) -> None:
    long = pd.DataFrame(
        {
            "item_id": ["book", "word", "page"],
            "title": ["slow piano in the rain " * 45_000, "x" * 1_000_000, "a loud drum"],
            **{column: pd.Series([[], [], []], dtype=object) for column in ("cover", "clip", "film")},
        }
    )
    assert long["title"].str.len().max() > 1_000_000
    report = recommender.embed(long, on_error="quarantine")
    assert (report.embedded, report.failed) == (3, {})
    table = recommender.store.read_items(model=None)
    assert np.isfinite(table.embeddings[[table.ids.index(name) for name in long["item_id"]]]).all()


def test_a_text_that_is_no_unicode_stops_no_other(recommender: Recommender) -> None:
    broken = pd.DataFrame(
        {
            "item_id": pd.Series(["half", "whole"], dtype=object),
            "title": pd.Series(["caf\udce9", "a loud drum"], dtype=object),
            **{column: pd.Series([[], []], dtype=object) for column in ("cover", "clip", "film")},
        }
    )
    report = recommender.embed(broken, on_error="quarantine")
    assert report.embedded + len(report.failed) == 2
    assert "whole" not in report.failed
    assert "whole" in recommender.store.read_items(model=None).ids


def test_invalid_utf8_in_a_table_says_where(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "catalogue.toml").write_text(SCHEMA.to_toml())
    (tmp_path / "items.csv").write_bytes(b"item_id,title,cover,clip,film\na,Good,,,\nb,Caf\xe9,,,\nc,Fine,,,\n")
    (tmp_path / "interactions.csv").write_bytes(b"user_id,item_id\nu1,a\nJos\xe9,c\nu1,b\n")
    with pytest.raises(CatalogueError) as error:
        Catalogue.read(tmp_path)
    assert [(p.file, p.row, p.column, p.value) for p in error.value.problems if p.message == "not UTF-8"] == [
        ("items.csv", 1, "title", b"Caf\xe9"),
        ("interactions.csv", 1, "user_id", b"Jos\xe9"),
    ]
    kept = Catalogue.read(tmp_path, on_error="quarantine")
    assert kept.items["item_id"].tolist() == ["a", "c"]
    assert kept.interactions["user_id"].tolist() == ["u1"]
    assert len(kept.quarantined) == 3
