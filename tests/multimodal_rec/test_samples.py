"""Sample catalogues on disk: whole, readable, reproducible, and carrying what was planted."""

from __future__ import annotations

import hashlib
import inspect
import itertools
import re
import runpy
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from multimodal_rec import samples
from multimodal_rec.catalogue import Catalogue
from multimodal_rec.errors import CatalogueError, ConfigError
from multimodal_rec.media import has_sound, read_frames, read_image, read_sound, read_video_sound
from multimodal_rec.planting import (
    MIN_LATE_EVENTS,
    MODALITIES,
    PARTS,
    TEST_SHARE,
    Kind,
    Planted,
    context_columns,
    draw_events,
    plant,
    southern,
)
from multimodal_rec.samples import read_planted, write_sample
from multimodal_rec.splits import TRAIN, split_parts
from multimodal_rec.wording import ATTRIBUTE_WORDS, NUM_THEMES, write_words
from towers import Sound

ROOT = Path(__file__).parents[2]
KINDS: tuple[Kind, ...] = get_args(Kind)
SIZES = {"num_items": 24, "num_users": 12}
ReadySample = Callable[[Kind], Path]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> ReadySample:
    made: dict[str, Path] = {}

    def folder(kind: Kind) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp(kind)
            write_sample(kind, made[kind], **SIZES)
        return made[kind]

    return folder


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def mean_hue(image: Image.Image) -> complex:
    """A complex number that points to the prevailing hue of the saturated area."""
    hue, saturation, value = np.moveaxis(np.asarray(image.convert("HSV"), dtype=np.float64) / 255, -1, 0)
    weight = (saturation * value) ** 2
    mean = (weight * np.exp(2j * np.pi * hue)).sum()
    return complex(mean / abs(mean))


def agreement(found: list[complex], planted: pd.Series) -> float:
    """1 where the hues found are those planted, about 0 where they have nothing to do with each other."""
    return float(np.real(np.conj(found) * np.exp(2j * np.pi * planted.to_numpy())).mean())


def centroid_hz(sound: Sound) -> float:
    power = np.abs(np.fft.rfft(sound.samples.mean(axis=0))) ** 2
    return float((power * np.fft.rfftfreq(sound.samples.shape[1], 1 / sound.sample_rate_hz)).sum() / power.sum())


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_is_a_catalogue_without_problems(kind: Kind, sample: ReadySample) -> None:
    catalogue = Catalogue.read(sample(kind), on_error="raise")
    assert catalogue.schema.kind == kind
    assert (catalogue.num_items, catalogue.num_users) == (SIZES["num_items"], SIZES["num_users"])
    assert tuple(catalogue.schema.context) == context_columns(kind)
    assert set(MODALITIES[kind]) == set(catalogue.schema.modalities)
    assert set(catalogue.schema.attributes) - set(ATTRIBUTE_WORDS[kind]) in ({"year"}, {"price"})
    assert catalogue.users is not None
    assert len(set(catalogue.users["user_id"])) == catalogue.num_users


@pytest.mark.parametrize("kind", KINDS)
def test_late_items_wait_for_the_test_part(kind: Kind, sample: ReadySample) -> None:
    late = read_planted(sample(kind)).items.query("late")["item_id"].tolist()
    train, valid, test = Catalogue.read(sample(kind)).split("time", valid=0.1, test=TEST_SHARE)
    assert late
    for part in (train, valid):
        assert not set(part.interactions["item_id"]) & set(late)
        assert not set(part.item_ids) & set(late)
    counts = Counter(test.interactions["item_id"])
    assert min(counts[item_id] for item_id in late) >= MIN_LATE_EVENTS


@pytest.mark.parametrize("kind", KINDS)
def test_items_have_just_the_modalities_that_are_planted(kind: Kind, sample: ReadySample) -> None:
    planted = read_planted(sample(kind)).items
    catalogue = Catalogue.read(sample(kind))
    items, schema = catalogue.items, catalogue.schema
    assert items["item_id"].tolist() == planted["item_id"].tolist()
    found = {"text": items[["title", "description"]].notna().to_numpy().all(axis=1)}
    for modality in ("image", "audio", "video"):
        for column in getattr(schema, modality):
            found[modality] = np.array([len(paths) == 1 for paths in items[column]])
    if kind == "video":
        # Sound has a file of its own only where there is no film for it to belong to.
        assert not (found["audio"] & found["video"]).any()
        sounding = [bool(paths) and has_sound(paths[0]) for paths in items["film"]]
        found["audio"] = found["audio"] | np.array(sounding)
    for modality in MODALITIES[kind]:
        assert found[modality].tolist() == planted[f"has_{modality}"].tolist(), modality
    assert (~np.array([found[modality] for modality in MODALITIES[kind]])).any()


def test_every_file_can_be_read_and_formats_are_mixed(sample: ReadySample) -> None:
    suffixes = set()
    for kind in KINDS:
        catalogue = Catalogue.read(sample(kind))
        for column in catalogue.schema.media_columns:
            for path in itertools.chain(*catalogue.items[column]):
                suffixes.add(Path(path).suffix)
                if column in catalogue.schema.image:
                    assert min(read_image(path).size) >= 64
                elif column in catalogue.schema.audio:
                    sound = read_sound(path)
                    assert sound.samples.shape[1] >= 3 * sound.sample_rate_hz
                else:
                    assert len(read_frames(path, num_frames=3).images) == 3
    assert suffixes == {".jpg", ".png", ".wav", ".flac", ".ogg", ".mp4"}


@pytest.mark.parametrize("kind", KINDS)
def test_each_trait_is_told_by_the_medium_that_should_tell_it(kind: Kind, sample: ReadySample) -> None:
    planted, catalogue = read_planted(sample(kind)).items, Catalogue.read(sample(kind))
    items = catalogue.items
    pictures = items[catalogue.schema.image[0]]
    rows = pictures.map(len) > 0
    assert agreement([mean_hue(read_image(paths[0])) for paths in pictures[rows]], planted.loc[rows, "hue"]) > 0.8
    if kind == "video":
        rows = items["film"].map(len) > 0
        films = [read_frames(paths[0], num_frames=3).images for paths in items["film"][rows]]
        found = [sum(mean_hue(image) for image in images) / 3 for images in films]
        assert agreement(found, planted.loc[rows, "scene_hue"]) > 0.7
    if "audio" in MODALITIES[kind]:
        column = "clip" if kind == "music" else "film"
        read = read_sound if kind == "music" else read_video_sound
        heard = {row: read(paths[0]) for row, paths in enumerate(items[column]) if paths}
        pitch = {row: np.log(centroid_hz(sound)) for row, sound in heard.items() if sound is not None}
        assert np.corrcoef(list(pitch.values()), planted.loc[list(pitch), "brightness"])[0, 1] > 0.7
    planted_word = next(iter(catalogue.schema.attributes))
    words = ATTRIBUTE_WORDS[kind][planted_word]
    assert items[planted_word].tolist() == [words[category] for category in planted["category"]]


@pytest.mark.parametrize("kind", KINDS)
def test_each_text_is_about_the_planted_theme(kind: Kind, sample: ReadySample) -> None:
    rng = np.random.default_rng(0)
    written = [
        " ".join(itertools.chain(*(write_words(kind, theme, rng=rng) for _ in range(40))))
        for theme in range(NUM_THEMES)
    ]
    told = [set(re.findall("[a-z]{4,}", text.lower())) for text in written]
    own = [words - set().union(*(other for other in told if other is not words)) for words in told]
    items = Catalogue.read(sample(kind)).items
    guesses = {
        row: int(np.argmax([sum(word in text.lower() for word in words) for words in own]))
        for row, text in enumerate(items["title"] + ". " + items["description"])
        if isinstance(text, str)
    }
    right = [guess == read_planted(sample(kind)).items["theme"].iloc[row] for row, guess in guesses.items()]
    assert np.mean(right) > 0.8


def test_people_say_where_they_live_where_it_matters(sample: ReadySample) -> None:
    users = Catalogue.read(sample("product")).users
    assert users is not None
    expected = np.where(southern(np.arange(len(users))), "south", "north")
    assert users["hemisphere"].tolist() == expected.tolist()
    music = Catalogue.read(sample("music")).users
    assert music is not None
    assert list(music.columns) == ["user_id", "age"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_arguments_give_the_same_bytes_also_over_another_sample(
    kind: Kind, sample: ReadySample, tmp_path: Path
) -> None:
    write_sample("product", tmp_path, num_items=30, num_users=15, seed=9)
    other = hashes(tmp_path)
    write_sample(kind, tmp_path, **SIZES)
    assert hashes(tmp_path) == hashes(sample(kind))
    for table in ("items", "interactions", "users"):
        assert other[f"{table}.parquet"] != hashes(tmp_path)[f"{table}.parquet"]


def test_another_seed_changes_everything_and_more_people_no_item(sample: ReadySample, tmp_path: Path) -> None:
    first = hashes(sample("product"))
    write_sample("product", tmp_path / "seed", **SIZES, seed=1)
    write_sample("product", tmp_path / "people", num_items=24, num_users=20)
    pictures = {name for name in first if name.startswith("media/")}
    other, more = hashes(tmp_path / "seed"), hashes(tmp_path / "people")
    assert all(other.get(name) != first[name] for name in (*pictures, "items.parquet", "interactions.parquet"))
    assert all(more[name] == first[name] for name in (*pictures, "items.parquet", "planted/items.parquet"))
    assert more["interactions.parquet"] != first["interactions.parquet"]


def test_what_was_planted_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Planted] = []

    def draw(planted: Planted, *, events_per_user: int, rng: np.random.Generator) -> pd.DataFrame:
        seen.append(planted)
        return draw_events(planted, events_per_user=events_per_user, rng=rng)

    monkeypatch.setattr(samples, "draw_events", draw)
    write_sample("product", tmp_path, num_items=12, num_users=15)
    planted = read_planted(tmp_path)
    assert planted.kind == "product"
    assert planted.user_ids == seen[0].user_ids
    pd.testing.assert_frame_equal(planted.items, seen[0].items)
    assert set(planted.tastes) == set(seen[0].tastes)
    for name, taste in seen[0].tastes.items():
        np.testing.assert_array_equal(planted.tastes[name], taste)


@pytest.mark.parametrize("kind", KINDS)
def test_the_card_names_every_part_and_what_turns_it(kind: Kind, sample: ReadySample) -> None:
    card = (sample(kind) / "README.md").read_text(encoding="utf-8")
    for part in PARTS[kind]:
        row = next(line for line in card.splitlines() if line.startswith(f"| {part.name} |"))
        assert f"| {part.weight:g} |" in row
        assert row.endswith("| nothing |") if part.flips_with is None else f"| {part.flips_with}: what is liked" in row
    if kind == "music":
        assert "what is liked at 21 is disliked at 9" in card


@pytest.mark.parametrize("kind", KINDS)
def test_the_default_sizes_have_eight_training_events_an_item_and_twenty_a_person(kind: Kind) -> None:
    defaults = inspect.signature(write_sample).parameters
    rng = np.random.default_rng(0)
    sizes = {name: defaults[name].default for name in ("num_items", "num_users")}
    planted = plant(kind, **sizes, rng=rng)
    log = draw_events(planted, events_per_user=samples.EVENTS_PER_USER, rng=rng)
    counts = Counter(log.loc[split_parts(log, "time", valid=0.1, test=TEST_SHARE) == TRAIN, "item_id"])
    people = Counter(log.loc[split_parts(log, "time", valid=0.1, test=TEST_SHARE) == TRAIN, "user_id"])
    items = planted.items.loc[~planted.items["late"], "item_id"]
    assert np.median([counts[item_id] for item_id in items]) == pytest.approx(8, abs=1)
    assert np.median([people[user_id] for user_id in planted.user_ids]) == 20


def test_arguments_that_cannot_work_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "sample"
    with pytest.raises(ConfigError, match=r"kind is 'musik'\. Expected one of .* Did you mean 'music'\?"):
        write_sample("musik", out)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match=r"seed is -1\. Expected a whole number of at least 0"):
        write_sample("music", out, seed=-1)
    with pytest.raises(ConfigError, match=r"num_items is 3\. Expected at least \d+"):
        write_sample("music", out, num_items=3)
    with pytest.raises(ConfigError, match=r"num_users is 20, too few for num_items=400: .* at least 80 people"):
        write_sample("music", out, num_users=20)
    assert not out.exists()


def test_somebody_elses_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("all of it")
    with pytest.raises(CatalogueError, match=r"holds something that is no sample catalogue\. Name an empty"):
        write_sample("product", tmp_path, **SIZES)
    with pytest.raises(CatalogueError, match=r"is a file\. Expected a folder"):
        write_sample("product", tmp_path / "thesis.txt", **SIZES)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_folder_without_planted_truth_is_named(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match=r"no planted truth can be read from .*make it again"):
        read_planted(tmp_path)
    write_sample("product", tmp_path, num_items=12, num_users=15)
    (tmp_path / "planted" / "tastes.safetensors").write_bytes(b"cut short")
    with pytest.raises(CatalogueError, match=r"no planted truth can be read from"):
        read_planted(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_prepare_makes_the_sample(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--out", str(tmp_path / "made"), "--num-items", "12", "--num-users", "15", "--seed", "2"]
    monkeypatch.setattr(sys, "argv", ["prepare.py", *arguments])
    runpy.run_path(str(ROOT / "datasets" / kind / "prepare.py"), run_name="__main__")
    assert f"Catalogue('{kind}', {kind}: 12 items, 15 users" in capsys.readouterr().out
    assert Catalogue.read(tmp_path / "made").schema.kind == kind
