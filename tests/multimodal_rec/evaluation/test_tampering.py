"""What tampering takes away, and what it must leave as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from multimodal_rec.catalogue import Catalogue
from multimodal_rec.errors import ConfigError
from multimodal_rec.evaluation.tampering import shuffled, shuffled_context, with_noise
from multimodal_rec.schema import Schema
from multimodal_rec.splits import Split
from tests.multimodal_rec.test_media import sine, write_video, write_wav

NUM = 40
SCHEMA = Schema(
    "x",
    text=("title", "plot"),
    attributes={"genre": "category"},
    context={"hour": "number"},
    vectors={"audio": ("mel",)},
)


def split() -> Split:
    items = pd.DataFrame(
        {
            "item_id": [f"i{item}" for item in range(NUM)],
            "title": [None if item % 5 == 0 else f"title {item}" for item in range(NUM)],
            "plot": [None if item % 5 == 0 else f"plot {item}" for item in range(NUM)],
            "genre": [f"g{item}" for item in range(NUM)],
            "mel": [np.full(3, item, dtype=np.float32) if item % 5 < 2 else None for item in range(NUM)],
        }
    )
    log = pd.DataFrame(
        {
            "user_id": [f"u{event % 7}" for event in range(2 * NUM)],
            "item_id": [f"i{event // 2}" for event in range(2 * NUM)],
            "timestamp": range(2 * NUM),
            "hour": [float(event) for event in range(2 * NUM)],
        }
    )
    return Catalogue.from_frames(items, log, schema=SCHEMA).split("time", valid=0.2, test=0.2)


def test_shuffled_texts_go_to_other_items_with_texts_all_columns_together() -> None:
    whole, dealt = split().test.items, shuffled(split(), "text", seed=0).test.items
    assert dealt["title"].isna().tolist() == whole["title"].isna().tolist()
    titles = [dealt["title"].dropna().tolist(), whole["title"].dropna().tolist()]
    assert sorted(titles[0]) == sorted(titles[1])
    assert sum(first != second for first, second in zip(*titles, strict=True)) > 0.8 * len(titles[0])
    assert [title.replace("title", "plot") for title in titles[0]] == dealt["plot"].dropna().tolist()
    for column in ("item_id", "genre"):
        assert dealt[column].tolist() == whole[column].tolist()


def test_an_item_has_the_same_content_in_every_part() -> None:
    parts = shuffled(split(), "text", seed=0)
    title_of = dict(zip(parts.test.items["item_id"], parts.test.items["title"], strict=True))
    for part in parts:
        assert part.items["title"].tolist() == [title_of[item_id] for item_id in part.items["item_id"]]
    assert parts.train.num_items < parts.test.num_items


def test_another_seed_deals_otherwise_and_the_same_seed_alike() -> None:
    titles = [shuffled(split(), "text", seed=seed).test.items["title"].tolist() for seed in (0, 0, 1)]
    assert titles[0] == titles[1] != titles[2]


def test_nobody_takes_anything_else() -> None:
    for tampered in (shuffled(split(), "attributes", seed=0), with_noise(split(), "audio", seed=0)[0]):
        for part, before in zip(tampered, split(), strict=True):
            pd.testing.assert_frame_equal(part.interactions, before.interactions)
            assert part.part is not None
            assert before.part is not None
            assert (part.part.name, part.part.since) == (before.part.name, before.part.since)


def test_noise_is_there_where_the_modality_is_and_as_wide() -> None:
    noisy, column = with_noise(split(), "audio", seed=0)
    cells, before = noisy.test.items[column], split().test.items["mel"]
    assert noisy.test.schema.vectors["audio"] == ("mel", column)
    assert [cell is None for cell in cells] == [cell is None for cell in before]
    numbers = np.stack([cell for cell in cells if cell is not None])
    assert numbers.shape[1] == 3
    assert len(np.unique(numbers)) == numbers.size


def test_noise_in_place_of_texts_stands_where_texts_stood() -> None:
    noisy, column = with_noise(split(), "text", seed=0)
    assert [cell is None for cell in noisy.test.items[column]] == split().test.items["title"].isna().tolist()


def test_contexts_are_dealt_out_within_each_part() -> None:
    for part, before in zip(shuffled_context(split(), seed=0), split(), strict=True):
        hours = part.interactions["hour"].tolist()
        assert hours != before.interactions["hour"].tolist()
        assert sorted(hours) == before.interactions["hour"].tolist()
        pd.testing.assert_frame_equal(part.interactions.drop(columns="hour"), before.interactions.drop(columns="hour"))


def test_sound_that_videos_bring_is_dealt_out_and_replaced_too(tmp_path: Path) -> None:
    """Six films, of which two are silent and one has a sound of its own."""
    films = [
        str(write_video(tmp_path / f"{item}.mp4", 3, sound=None if item in (1, 4) else sine(440, 0.3)))
        for item in range(6)
    ]
    own = str(write_wav(tmp_path / "own.wav", sine(220, 0.3)))
    items = pd.DataFrame(
        {
            "item_id": [f"i{item}" for item in range(6)],
            "film": [[film] for film in films],
            "sound": [[own] if item == 0 else [] for item in range(6)],
        }
    )
    log = pd.DataFrame({"user_id": "u", "item_id": items["item_id"], "timestamp": range(6)})
    parts = Catalogue.from_frames(items, log, schema=Schema("films", kind="video", audio=("sound",), video=("film",)))
    whole = Split(parts, parts, parts)
    dealt = shuffled(whole, "audio", seed=0).test.items
    assert dealt["film"].tolist() == items["film"].tolist()
    assert sorted(path for cell in dealt["sound"] for path in cell) == sorted([own, *(films[i] for i in (2, 3, 5))])
    assert [bool(cell) for cell in dealt["sound"]] == [True, False, True, True, False, True]
    assert dealt["sound"].iloc[0] != [own]
    noisy, name = with_noise(whole, "audio", seed=0)
    assert noisy.test.items[name].notna().all()


def test_a_part_without_columns_is_refused() -> None:
    with pytest.raises(ConfigError, match="'image' has no column to shuffle"):
        shuffled(split(), "image", seed=0)
