"""Items of a catalogue, a chunk at a time, however many there are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import final

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from multimodal_rec.characters import csv_text_chunks
from multimodal_rec.checking import check_items
from multimodal_rec.errors import CatalogueError, ItemError, Problem
from multimodal_rec.key_index import KeyIndex
from multimodal_rec.mapped_vectors import MappedVectors
from multimodal_rec.rows import check_unique
from multimodal_rec.schema import Schema

Items = pd.DataFrame | str | Path | Iterable[pd.DataFrame]
"""Items in normal form as a frame or as frames one after another, or the folder or file of a catalogue's items."""


class ItemStream(ABC):
    """Frames of items in normal form, one after another; each id comes once. It can be read once."""

    total: int | None = None
    """How many items there are, None where nobody knows; of a CSV file, about."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        """Why rows of a file were set aside, as far as it has been read."""

    @abstractmethod
    def __iter__(self) -> Iterator[pd.DataFrame]:
        """The chunks."""


def item_stream(items: Items, schema: Schema, *, chunk_items: int) -> ItemStream:
    """The items as a stream of frames of at most `chunk_items` rows.

    A frame, or an iterator of frames, is taken as `Catalogue.items` holds them. A catalogue's folder is read with its
    own catalogue.toml, and a parquet or CSV file of items with `schema` and the `media/` beside it; rows with problems
    are set aside and listed in `problems`. Raises `ItemError` for an id that comes twice in frames, `CatalogueError`
    where there is nothing to read or a whole column is at fault; both when the chunk is asked for that has it.
    """
    if isinstance(items, pd.DataFrame):
        return _Frames([items], chunk_items, total=len(items))
    if isinstance(items, (str, Path)):
        return _File(Path(items), schema, chunk_items)
    return _Frames(items, chunk_items)


@final
class _Frames(ItemStream):
    def __init__(self, frames: Iterable[pd.DataFrame], chunk_items: int, *, total: int | None = None) -> None:
        super().__init__()
        self.total = total
        self._frames = frames
        self._chunk_items = chunk_items

    def __iter__(self) -> Iterator[pd.DataFrame]:
        seen = KeyIndex()
        for frame in self._frames:
            ids = frame["item_id"].tolist()
            check_unique(ids)
            if len(seen):
                again = [item_id for item_id, place in zip(ids, seen.find(ids), strict=True) if place >= 0]
                if again:
                    raise ItemError(
                        f"a frame of {len(ids)} items repeats {len(again)} ids of the frames before it, which are "
                        "written; of this frame none was. Give each id once.",
                        dict.fromkeys(again, "comes more than once"),
                    )
            seen.add(ids)
            for start in range(0, len(frame), self._chunk_items):
                yield frame.iloc[start : start + self._chunk_items]


@final
class _File(ItemStream):
    def __init__(self, path: Path, schema: Schema, chunk_items: int) -> None:
        super().__init__()
        self._chunk_items = chunk_items
        self._schema, self._vectors = schema, None
        if path.is_dir():
            self._schema = Schema.read(path / "catalogue.toml")
            self._vectors = MappedVectors(path, self._schema)
            self.problems += self._vectors.problems
            self._table = _table_in(path)
            self._media: Path | None = path / "media"
        else:
            if path.suffix not in (".parquet", ".csv") or not path.is_file():
                raise CatalogueError(
                    f"no items can be read from '{path}'. Expected a catalogue's folder, or a file .parquet or .csv."
                )
            self._table = path
            self._media = path.parent / "media" if (path.parent / "media").is_dir() else None
        self.total = _rows_of(self._table)

    def __iter__(self) -> Iterator[pd.DataFrame]:
        self._check_whole()
        seen = KeyIndex()
        start, num_good = 0, 0
        for raw in _chunks_of(self._table, self._chunk_items):
            frame = raw.reset_index(drop=True)
            if self._vectors is not None:
                frame = self._vectors.attach(frame)
            checked = check_items(frame, self._schema, media=self._media, file=self._table.name)
            items = checked.tables.items
            ids: list[str | None] = items["item_id"].tolist() if "item_id" in items else []
            problems = sorted(
                [*checked.problems, *self._again(ids, seen)], key=lambda p: -1 if p.row is None else p.row
            )
            self.problems += [p if p.row is None else p._replace(row=p.row + start) for p in problems]
            self._check_whole()
            bad = {problem.row for problem in problems}
            good = items.drop(index=[row for row in range(len(frame)) if row in bad])
            seen.add([item_id for item_id in good["item_id"] if item_id is not None])
            start += len(frame)
            num_good += len(good)
            if len(good):
                yield good.reset_index(drop=True)
        if self._vectors is not None:
            self.problems += self._vectors.idle()
        if not start:
            raise CatalogueError(f"'{self._table}' has no items: it has no row. Add at least one item.")
        if not num_good:
            raise CatalogueError(f"'{self._table}' has no items left: every row has a problem.", self.problems)

    def _again(self, ids: Sequence[str | None], seen: KeyIndex) -> list[Problem]:
        known = {row: item_id for row, item_id in enumerate(ids) if item_id is not None}
        places = seen.find(list(known.values()))
        return [
            Problem(self._table.name, row, "item_id", item_id, "this id was already used above", "Keep one row an id.")
            for (row, item_id), place in zip(known.items(), places, strict=True)
            if place >= 0
        ]

    def _check_whole(self) -> None:
        whole = [problem for problem in self.problems if problem.row is None]
        if whole:
            raise CatalogueError(f"the items in '{self._table}' cannot be read:", whole)


def _table_in(folder: Path) -> Path:
    found = [path for path in (folder / "items.parquet", folder / "items.csv") if path.is_file()]
    if len(found) != 1:
        has = "both items.parquet and items.csv" if found else "no items"
        raise CatalogueError(f"catalogue '{folder}' has {has}. Expected one file items.parquet or items.csv in it.")
    return found[0]


def _rows_of(path: Path) -> int:
    if path.suffix == ".parquet":
        with _readable(path):
            return pq.read_metadata(path).num_rows
    # A line break inside a cell counts as a row: near enough for the time that is left.
    with path.open("rb") as file:
        return max(0, sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b"")) - 1)


def _chunks_of(path: Path, size: int) -> Iterator[pd.DataFrame]:
    with _readable(path):
        if path.suffix == ".parquet":
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=size):
                    yield pa.Table.from_batches([batch]).to_pandas()
            return
        yield from csv_text_chunks(str(path), size)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """A block in which a table that cannot be read raises `CatalogueError`."""
    try:
        yield
    except CatalogueError:
        raise
    except (OSError, ValueError) as error:
        raise CatalogueError(f"'{path}' cannot be read: {error}. Write it again as {path.suffix[1:]}.") from error
