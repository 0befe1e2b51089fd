"""What each item of a catalogue gives each tower to read."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from multimodal_rec.errors import MediaError
from multimodal_rec.film import FRAME_CHOICES
from multimodal_rec.media import has_sound, read_frames, read_image, read_sound, read_video_sound
from multimodal_rec.schema import Schema
from multimodal_rec.vectors import vector_of
from towers import Frames, Sound

Content = str | list[str] | list[Image.Image] | Sound | Frames | list[np.ndarray | None]

_MEDIA = ("image", "audio", "video")

MAX_SOUND_SECONDS = 600.0
"""At most this much of a sound is decoded; an hour in stereo would take more than a gigabyte."""


class ItemContent:
    """The tower inputs of an items table, read row by row when they are asked for.

    `items` as a `Catalogue` holds them: media columns are lists of absolute paths. `vectors`: modality → columns of
    vectors to read in place of its media; a modality that has nothing else reads all that it has. `max_windows`:
    modality → at most this many frames are decoded of a video (pictures and sound are cut down by their towers); 4
    where it is silent. `frames`: which of a video's, `even` or `scenes`, as `media.read_frames` takes them.
    `texts_apart`: text is a list of one text a column, not all in one. Raises `ValueError` for other frames.
    """

    def __init__(
        self,
        items: pd.DataFrame,
        schema: Schema,
        *,
        max_windows: Mapping[str, int] | None = None,
        frames: str = "even",
        vectors: Mapping[str, Sequence[str]] | None = None,
        texts_apart: bool = False,
    ) -> None:
        if frames not in FRAME_CHOICES:
            raise ValueError(f"frames '{frames}' are unknown. Expected one of {', '.join(map(repr, FRAME_CHOICES))}.")
        self._columns: dict[str, list[np.ndarray]] = {
            modality: [items[name].to_numpy(dtype=object) for name in getattr(schema, modality) if name in items]
            for modality in ("text", "image", "audio", "video")
        }
        chosen = {name: schema.vectors[name] for name in schema.vectors if name not in schema.media_modalities}
        chosen |= {name: tuple(columns) for name, columns in (vectors or {}).items()}
        nothing = np.full(len(items), None, dtype=object)
        self._vectors: dict[str, list[np.ndarray]] = {
            modality: [items[name].to_numpy(dtype=object) if name in items else nothing for name in columns]
            for modality, columns in chosen.items()
        }
        self._num_items = len(items)
        self._num_frames = dict(max_windows or {}).get("video", 4)
        self._frames = frames
        self._texts_apart = texts_apart
        self._file_hashes: dict[str, str] = {}

    def __len__(self) -> int:
        """How many items there are."""
        return self._num_items

    def part(self, rows: Sequence[int]) -> ItemContent:
        """The inputs of these rows alone: paths, texts and vectors, small enough to be sent to another process."""
        part = copy.copy(self)
        chosen = np.asarray(rows, dtype=np.int64)
        part._columns = {name: [column[chosen] for column in columns] for name, columns in self._columns.items()}
        part._vectors = {name: [column[chosen] for column in columns] for name, columns in self._vectors.items()}
        part._num_items = len(rows)
        read = (path for row in range(len(part)) for name in _MEDIA for path in part._paths(row, name))
        part._file_hashes = {path: self._file_hashes[path] for path in read if path in self._file_hashes}
        return part

    def load(self, row: int, modality: str) -> Content | None:
        """What the modality's tower reads of the item in `row`, None where the item has nothing of it.

        Text: the non-empty text columns, joined by ". "; apart, every column, "" where it is empty; tags stand with
        commas between them. Image: all pictures. Audio: the first sound, else the video's soundtrack. Video: the first
        video's frames. Vectors: a list with one or None a column. Raises `MediaError` for a file that cannot be read.
        """
        if modality in self._vectors:
            cells = self.vectors(row, modality)
            return None if all(cell is None for cell in cells) else cells
        if modality == "text":
            texts = self._texts(row)
            return (texts if self._texts_apart else ". ".join(texts)) if any(texts) else None
        return self._load_media(row, modality)

    def content_hash(self, row: int, modality: str) -> str | None:
        """16 hexadecimal digits over what `load` would read, None where the item has nothing of the modality.

        Files and vectors count by their bytes, never by their names, nor by which frames of a video are read. A video
        without an own sound counts as sound, whether it has a soundtrack or not. Raises `MediaError` for a file that is
        missing.
        """
        if modality in self._vectors:
            cells = self.vectors(row, modality)
            if all(cell is None for cell in cells):
                return None
            return _digest("vectors", *(b"" if cell is None else cell.tobytes() for cell in cells))
        if modality == "text":
            texts = self._texts(row)
            return _digest("texts" if self._texts_apart else "text", *texts) if any(texts) else None
        paths = self._paths(row, modality)
        if modality == "audio" and not paths:
            films = self._paths(row, "video")
            return _digest("soundtrack", self._file_hash(films[0])) if films else None
        read = paths if modality == "image" else paths[:1]
        return _digest(modality, *map(self._file_hash, read)) if read else None

    def vectors(self, row: int, modality: str) -> list[np.ndarray | None]:
        """The item's vectors of this modality, one or None for each of the columns that are read; none without such."""
        found = [vector_of(column[row]) for column in self._vectors.get(modality, ())]
        # What is no vector is left for the tower to refuse, which names the item.
        return [np.asarray(cell) if isinstance(cell, str) else cell for cell in found]

    def present(self, modality: str) -> np.ndarray:
        """Which items have something of the modality: bool (item,).

        A video's soundtrack is looked for in the file, without decoding it; a file that cannot be opened counts as
        present, so that `load` raises what is wrong with it.
        """
        return np.array([self._has(row, modality) for row in range(len(self))], dtype=bool)

    def _load_media(self, row: int, modality: str) -> Content | None:
        paths = self._paths(row, modality)
        if modality == "audio" and not paths:
            films = self._paths(row, "video")
            return read_video_sound(films[0], max_seconds=MAX_SOUND_SECONDS) if films else None
        if not paths:
            return None
        if modality == "image":
            return [read_image(path) for path in paths]
        if modality == "audio":
            return read_sound(paths[0], max_seconds=MAX_SOUND_SECONDS)
        return read_frames(paths[0], num_frames=self._num_frames, at=self._frames)

    def _has(self, row: int, modality: str) -> bool:
        if modality in self._vectors:
            return any(cell is not None for cell in self.vectors(row, modality))
        if modality == "text":
            return any(self._texts(row))
        if self._paths(row, modality):
            return True
        films = self._paths(row, "video") if modality == "audio" else []
        if not films:
            return False
        try:
            return has_sound(films[0])
        except MediaError:
            return True

    def _texts(self, row: int) -> list[str]:
        cells = [column[row] for column in self._columns["text"]]
        # A column of tags that is declared as text, too, is read as their list.
        cells = [", ".join(cell) if isinstance(cell, tuple) else cell for cell in cells]
        texts = [cell.strip() if isinstance(cell, str) else "" for cell in cells]
        return texts if self._texts_apart else [text for text in texts if text]

    def _paths(self, row: int, modality: str) -> list[str]:
        cells: list[Any] = [column[row] for column in self._columns[modality]]
        return [str(path) for cell in cells if isinstance(cell, (list, tuple, np.ndarray)) for path in cell]

    def _file_hash(self, path: str) -> str:
        if path not in self._file_hashes:
            try:
                with Path(path).open("rb") as file:
                    self._file_hashes[path] = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                raise MediaError(
                    f"media file '{path}' cannot be read: {error.strerror}. Put it there, or empty the column that "
                    f"names it."
                ) from error
        return self._file_hashes[path]


def _digest(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        # Half a surrogate pair is no text that can be written, but an item that has one shall not stop the others.
        data = part.encode(errors="surrogatepass") if isinstance(part, str) else part
        # Lengths keep ("ab", "c") and ("a", "bc") apart.
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:16]
