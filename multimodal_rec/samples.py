"""Sample catalogues of real files with planted taste: music, products and videos that any machine can make."""

from __future__ import annotations

import difflib
import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from multimodal_rec.catalogue import Catalogue
from multimodal_rec.errors import CatalogueError, ConfigError
from multimodal_rec.planting import (
    CONTEXT_VALUES,
    LACKING_SHARE,
    LATE_SHARE,
    MIN_LATE_EVENTS,
    MODALITIES,
    PARTS,
    TEST_SHARE,
    Kind,
    Part,
    Planted,
    context_columns,
    context_sign,
    draw_events,
    plant,
    southern,
)
from multimodal_rec.rendering import (
    PictureStyle,
    draw_picture,
    synthesise_sound,
    write_picture,
    write_sound,
    write_video,
)
from multimodal_rec.schema import Schema
from multimodal_rec.splits import TRAIN, split_parts
from multimodal_rec.wording import ATTRIBUTE_WORDS, write_words

EVENTS_PER_USER = 25
"""Of these, 20 lie in the training part of the default time split. Small catalogues have fewer: see `write_sample`."""

_PICTURE_SUFFIXES = (".jpg", ".png")
_SOUND_SUFFIXES = (".wav", ".flac", ".ogg")


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """What the columns of one kind of catalogue are called."""

    image: str
    style: PictureStyle
    audio: str | None
    video: str | None
    planted: str
    """The attribute that carries taste; the two below are nuisance."""
    maker: str
    number: str


_LAYOUTS = {
    "music": _Layout(
        image="cover", style="cover", audio="clip", video=None, planted="genre", maker="creator", number="year"
    ),
    "product": _Layout(
        image="photo", style="product", audio=None, video=None, planted="category", maker="brand", number="price"
    ),
    "video": _Layout(
        image="poster",
        style="poster",
        audio="soundtrack",
        video="film",
        planted="format",
        maker="creator",
        number="year",
    ),
}


def write_sample(
    kind: Kind, out: str | Path, *, num_items: int = 400, num_users: int = 180, seed: int = 0
) -> Catalogue:
    """The catalogue that is now in the folder `out`: tables, media, a card (README.md) and the planted truth.

    `kind`: music, product or video. `num_items`, `num_users`: each person has `EVENTS_PER_USER` events, or a third
    of the items where that is fewer, for nobody takes an item twice. `seed`: 0 or above; the same arguments give the
    same bytes on the same machine and versions, and `num_users` changes no item. An older sample in `out` is
    replaced. Raises `ConfigError` for another kind or for sizes that cannot give every late item its test events,
    `CatalogueError` where `out` holds anything but a sample.
    """
    _check_arguments(kind, num_items, num_users, seed)
    layout, out = _LAYOUTS[kind], Path(out)
    _make_room(out)
    # One stream a purpose: what is drawn more for one leaves the others as they were.
    root = np.random.SeedSequence((seed, list(PARTS).index(kind)))
    for_plan, for_log, for_items, for_attributes, for_people = root.spawn(5)
    planted = plant(kind, num_items=num_items, num_users=num_users, rng=np.random.default_rng(for_plan))
    per_user = _events_per_user(num_items)
    log = draw_events(planted, events_per_user=per_user, rng=np.random.default_rng(for_log))
    _write_planted(out / "planted", planted, seed)

    schema = _schema(kind, layout)
    for column in schema.media_columns:
        (out / "media" / column).mkdir(parents=True)
    rows = zip(planted.items.to_dict("records"), for_items.spawn(num_items), strict=True)
    items = pd.DataFrame(
        [_write_item(kind, number, item, out / "media", own) for number, (item, own) in enumerate(rows)]
    )
    for name, values in _attributes(kind, layout, planted, np.random.default_rng(for_attributes)).items():
        items[name] = values
    users = _users(kind, planted, np.random.default_rng(for_people))
    for name, frame in (("items", items), ("interactions", log), ("users", users)):
        frame.to_parquet(out / f"{name}.parquet", index=False)
    (out / "catalogue.toml").write_text(schema.to_toml(), encoding="utf-8")
    (out / "README.md").write_text(_card(kind, planted, log, seed), encoding="utf-8")
    return Catalogue.read(out)


def read_planted(folder: str | Path) -> Planted:
    """What was planted in the sample catalogue in `folder`, as `plant` gave it.

    Raises `CatalogueError` where the folder holds no sample, or one whose planted truth cannot be read.
    """
    folder = Path(folder) / "planted"
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        items = pd.read_parquet(folder / "items.parquet")
        return Planted(meta["kind"], items, load_file(folder / "tastes.safetensors"), tuple(meta["user_ids"]))
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise CatalogueError(
            f"no planted truth can be read from '{folder}': {error}. Expected a folder that write_sample made; "
            "make it again."
        ) from error


def _check_arguments(kind: str, num_items: int, num_users: int, seed: int) -> None:
    if kind not in PARTS:
        near = difflib.get_close_matches(kind, PARTS, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise ConfigError(f"kind is '{kind}'. Expected one of {', '.join(map(repr, PARTS))}.{hint}")
    if seed < 0:
        raise ConfigError(f"seed is {seed}. Expected a whole number of at least 0.")
    fewest = math.ceil(1 / LATE_SHARE)
    if num_items < fewest:
        raise ConfigError(f"num_items is {num_items}. Expected at least {fewest}, so that one item can be a late one.")
    needed = round(LATE_SHARE * num_items) * MIN_LATE_EVENTS
    per_user = _events_per_user(num_items)
    if round(TEST_SHARE * per_user * num_users) < needed:
        raise ConfigError(
            f"num_users is {num_users}, too few for num_items={num_items}: the late items need {needed} events in the "
            f"test period. Expected at least {math.ceil(needed / (TEST_SHARE * per_user))} people, or fewer items."
        )


def _events_per_user(num_items: int) -> int:
    return min(EVENTS_PER_USER, num_items // 3)


def _make_room(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise CatalogueError(f"'{out}' is a file. Expected a folder, or a name for a new one.")
    if out.is_dir() and any(out.iterdir()) and not (out / "planted" / "meta.json").is_file():
        raise CatalogueError(f"'{out}' holds something that is no sample catalogue. Name an empty or a new folder.")
    # What is overwritten anyway stays until then: a run that was cut short leaves a folder that the next one accepts.
    if (out / "media").exists():
        shutil.rmtree(out / "media")


def _write_planted(folder: Path, planted: Planted, seed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {"num_items": len(planted.items), "num_users": len(planted.user_ids)}
    meta = {"kind": planted.kind, "seed": seed, **sizes, "user_ids": planted.user_ids}
    (folder / "meta.json").write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")
    planted.items.to_parquet(folder / "items.parquet", index=False)
    save_file(
        {name: np.ascontiguousarray(taste) for name, taste in planted.tastes.items()}, folder / "tastes.safetensors"
    )


def _schema(kind: Kind, layout: _Layout) -> Schema:
    return Schema(
        kind,
        kind=kind,
        licence="CC0-1.0",
        text=("title", "description"),
        image=(layout.image,),
        audio=() if layout.audio is None else (layout.audio,),
        video=() if layout.video is None else (layout.video,),
        attributes={layout.planted: "category", layout.maker: "category", layout.number: "number"},
        context={name: "cyclic:24" if name == "hour" else "category" for name in context_columns(kind)},
        user_attributes={"age": "number", **({"hemisphere": "category"} if kind == "product" else {})},
    )


def _write_item(
    kind: Kind, number: int, item: dict[Any, Any], media: Path, seed: np.random.SeedSequence
) -> dict[str, str | None]:
    """One item's row, its attributes aside, with its media written below `media`."""
    layout, item_id = _LAYOUTS[kind], item["item_id"]
    words, picture, sound, film = (np.random.default_rng(child) for child in seed.spawn(4))
    media_columns = [column for column in (layout.image, layout.audio, layout.video) if column is not None]
    row: dict[str, str | None] = {"item_id": item_id} | dict.fromkeys(("title", "description", *media_columns))

    def place(column: str, suffixes: Sequence[str]) -> Path:
        # Formats take turns: their mix is even, and they tell nothing.
        row[column] = name = f"{column}/{item_id}{suffixes[number % len(suffixes)]}"
        return media / name

    if item["has_text"]:
        row["title"], row["description"] = write_words(kind, item["theme"], rng=words)
    if item["has_image"]:
        image = draw_picture(item["hue"], rng=picture, style=layout.style)
        write_picture(place(layout.image, _PICTURE_SUFFIXES), image)
    melody = synthesise_sound(item["tempo"], item["brightness"], rng=sound) if item.get("has_audio") else None
    if layout.video is not None and item["has_video"]:
        write_video(place(layout.video, (".mp4",)), item["scene_hue"], soundtrack=melody, rng=film)
    elif layout.audio is not None and melody is not None:
        write_sound(place(layout.audio, _SOUND_SUFFIXES), melody)
    return row


def _attributes(
    kind: Kind, layout: _Layout, planted: Planted, rng: np.random.Generator
) -> dict[str, list[str] | np.ndarray]:
    words, num_items = ATTRIBUTE_WORDS[kind], len(planted.items)
    makers = rng.integers(len(words[layout.maker]), size=num_items)
    if layout.number == "price":
        numbers = np.round(np.exp(rng.normal(3.2, 0.8, size=num_items)), 2)
    else:
        numbers = rng.integers(1970, 2024, size=num_items)
    return {
        layout.planted: [words[layout.planted][category] for category in planted.items["category"]],
        layout.maker: [words[layout.maker][maker] for maker in makers],
        layout.number: numbers,
    }


def _users(kind: Kind, planted: Planted, rng: np.random.Generator) -> pd.DataFrame:
    num_users = len(planted.user_ids)
    users = pd.DataFrame({"user_id": list(planted.user_ids), "age": rng.integers(16, 80, size=num_users)})
    if kind == "product":
        users["hemisphere"] = np.where(southern(np.arange(num_users)), "south", "north").tolist()
    return users


def _card(kind: Kind, planted: Planted, log: pd.DataFrame, seed: int) -> str:
    """The README of a sample: what is planted in it, told by what, and how hard it is to find."""
    layout, items = _LAYOUTS[kind], planted.items
    sound = "clip" if kind == "music" else "soundtrack"
    told_by = {
        "text": "the theme of title and description",
        "image": f"the hue of the {layout.image}",
        "audio": f"how fast and how bright the {sound} is",
        "video": "the hue of the filmed scene",
        "attributes": f"the {layout.planted}",
        "co-consumption": "a hidden community of items, which shows only in who took what",
    }
    parts = [f"| {p.name} | {told_by[p.name]} | {p.weight:g} | {_flip_in_words(p)} |" for p in PARTS[kind]]
    lacking = ", ".join(f"{(~items[f'has_{name}']).sum()} without {name}" for name in MODALITIES[kind])
    train = log.loc[split_parts(log, "time", valid=0.1, test=TEST_SHARE) == TRAIN]
    item_events = train.groupby("item_id").size().reindex(items["item_id"][~items["late"]], fill_value=0)
    user_events = train.groupby("user_id").size().reindex(list(planted.user_ids), fill_value=0)
    hemisphere = " Every second person lives in the south, where January is summer." if kind == "product" else ""
    return f"""# A sample catalogue with planted taste: {kind}

Invented: {len(items)} items, {len(planted.user_ids)} people and {len(log)} events, made by
`multimodal_rec/samples.py` with seed {seed}. Real files; what they show is made up and free to use (CC0-1.0).

## What is planted
How much a person wants an item is the item's popularity plus one term a part: the part's weight, times what the
context makes of it, times the agreement of the person's taste with the item's trait. Each trait is told by one thing
and by nothing else. Tastes are drawn from a normal distribution, events from the softmax of the wants over the items
that exist by then and that the person has not had. To give late items their events, some events of the test period
are drawn the other way round: the item first, then the person who wants it.

| part | told by | weight | what turns it round |
|---|---|---|---|
{chr(10).join(parts)}

`{layout.maker}`, `{layout.number}` and people's age mean nothing.{hemisphere}
`planted/` holds the truth: traits (`items.parquet`), tastes (`tastes.safetensors`), sizes and seed (`meta.json`). A
model that reads it cheats.

## How hard it is
- About {LACKING_SHARE:.0%} of the items lack one modality, and then nothing replaces its trait: {lacking}.
- {items["late"].sum()} items ({LATE_SHARE:.0%}) are late: they first appear in the test period, which is the last
  {TEST_SHARE:.0%} of the events, have at least {MIN_LATE_EVENTS} events each there, and belong to no community.
- Median of training events (time split, a tenth each for validation and test): {item_events.median():g} an item that
  is not late, {user_events.median():g} a person.
- At the default sizes popularity is meant to reach at most .30, and EASE and content k-NN at most .60, of the NDCG@10
  of the learnable oracle, which knows traits and generator and infers tastes from the same log as a model.
"""


def _flip_in_words(part: Part) -> str:
    if part.flips_with is None:
        return "nothing"
    values = np.asarray(CONTEXT_VALUES[part.flips_with], dtype=object)
    signs = context_sign(pd.DataFrame({part.flips_with: values}), part)
    # The hour turns taste gradually: its two extremes are named.
    liked, disliked = values[signs > signs.max() - 1e-9], values[signs < signs.min() + 1e-9]
    when = {"hour": "at", "device": "on a", "season": "in"}[part.flips_with]
    likes, dislikes = (f"{when} {' and '.join(map(str, found))}" for found in (liked, disliked))
    return f"{part.flips_with}: what is liked {likes} is disliked {dislikes}"
