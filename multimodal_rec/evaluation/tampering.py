"""A split in which one part no longer says anything: what a model trained on it reaches is what the part was not worth.

Shuffling gives every item another item's content: whatever is learned of it is still an identity, but no meaning.
Noise takes that away too, but for which items have the modality. Nothing here changes who took what.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from multimodal_rec.catalogue import Catalogue
from multimodal_rec.config import MODALITIES
from multimodal_rec.content import ItemContent
from multimodal_rec.errors import ConfigError
from multimodal_rec.schema import Schema
from multimodal_rec.splits import Split

NOISE_DIM = 64
"""Numbers of a noise vector, where the modality has no vectors whose dimension it could take."""


def part_columns(schema: Schema, part: str) -> tuple[str, ...]:
    """The item columns of a part; none for behaviour, and for sound that only videos bring."""
    if part not in MODALITIES:
        return tuple(schema.attributes) if part == "attributes" else ()
    return tuple(getattr(schema, part)) + tuple(schema.vectors.get(part, ()))


def shuffled(split: Split, part: str, *, seed: int) -> Split:
    """The split with one part's content dealt out anew among the items that have any, all its columns together.

    `part`: a modality or 'attributes'. The same items get the same content in all three parts; who is heard
    through a video gets another item's sound and keeps the pictures. Raises `ConfigError` where the part has no column
    of its own.
    """
    if part == "audio" and split.test.schema.video and split.test.schema.audio:
        split = _with_soundtracks(split)
    items = split.test.items
    columns = list(part_columns(split.test.schema, part))
    if not columns:
        raise ConfigError(f"'{part}' has no column to shuffle. Expected one that the catalogue declares.")
    rows = np.flatnonzero(_present(items, columns))
    dealt = np.arange(len(items))
    dealt[rows] = np.random.default_rng(seed).permutation(rows)
    changed = {name: pd.Series(items[name].to_numpy()[dealt], index=items.index) for name in columns}
    return _with_columns(split, changed, split.test.schema)


def _with_soundtracks(split: Split) -> Split:
    """The split with each video that is heard for want of another sound named as its item's sound."""
    schema, items = split.test.schema, split.test.items
    # A silent film is no sound: named as one, it would be a sound that cannot be read.
    through_video = ItemContent(items, schema).present("audio") & ~_present(items, list(schema.audio))
    sounds = items[schema.audio[0]].to_numpy(dtype=object, copy=True)
    for row in np.flatnonzero(through_video):
        sounds[row] = next(items[name].iloc[row][:1] for name in schema.video if _is_something(items[name].iloc[row]))
    return _with_columns(split, {schema.audio[0]: pd.Series(sounds, index=items.index)}, schema)


def with_noise(split: Split, modality: str, *, seed: int) -> tuple[Split, str]:
    """The split with a column of random vectors where items have the modality, and the column's name.

    Independent normal numbers, for a `vectors:` tower to read in place of the content.
    """
    schema, items = split.test.schema, split.test.items
    columns = part_columns(schema, modality) + (part_columns(schema, "video") if modality == "audio" else ())
    present = _present(items, list(columns))
    own = [cell for name in schema.vectors.get(modality, ()) for cell in items[name] if cell is not None]
    dim = len(own[0]) if own else NOISE_DIM
    numbers = np.random.default_rng(seed).standard_normal((len(items), dim), dtype=np.float32)
    cells = np.empty(len(items), dtype=object)
    for row in np.flatnonzero(present):
        cells[row] = numbers[row]
    name = f"noise instead of {modality}"
    vectors = {**schema.vectors, modality: (*schema.vectors.get(modality, ()), name)}
    return _with_columns(split, {name: pd.Series(cells, index=items.index)}, replace(schema, vectors=vectors)), name


def shuffled_context(split: Split, *, seed: int) -> Split:
    """The split with the contexts of each part's interactions dealt out anew among them."""
    columns = [name for name in split.test.schema.context if name in split.test.interactions]
    random = np.random.default_rng(seed)

    def dealt(part: Catalogue) -> Catalogue:
        order = random.permutation(len(part.interactions))
        changed = {name: part.interactions[name].to_numpy()[order] for name in columns}
        return replace(part, interactions=part.interactions.assign(**changed))

    return Split(*(dealt(part) for part in split))


def _present(items: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    there = np.zeros(len(items), dtype=bool)
    for name in columns:
        there |= np.array([_is_something(cell) for cell in items[name]], dtype=bool)
    return there


def _is_something(cell: object) -> bool:
    return len(cell) > 0 if isinstance(cell, (str, list, tuple, np.ndarray)) else bool(pd.notna(cell))


def _with_columns(split: Split, columns: Mapping[str, pd.Series], schema: Schema) -> Split:
    """All three parts with these columns (of the test part's items), and this schema."""
    row_of = pd.Series(np.arange(split.test.num_items), index=split.test.items["item_id"])

    def changed(part: Catalogue) -> Catalogue:
        rows = row_of.loc[part.items["item_id"]].to_numpy()
        own = {name: column.to_numpy()[rows] for name, column in columns.items()}
        items = part.items.assign(**{name: pd.Series(cells, index=part.items.index) for name, cells in own.items()})
        return replace(part, items=items, schema=schema)

    return Split(*(changed(part) for part in split))
