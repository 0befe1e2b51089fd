"""A catalogue: items with their media, what people did with them, and what the columns mean."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from multimodal_rec.characters import read_csv_text
from multimodal_rec.checking import COLUMN_IS_MISSING, Tables, check_tables, set_aside
from multimodal_rec.errors import CatalogueError, Problem
from multimodal_rec.schema import Schema
from multimodal_rec.splits import GIVEN_TEST, GIVEN_VALID, TEST, TRAIN, VALID, Part, Split, split_parts
from multimodal_rec.vectors import attach_vectors, write_vectors

_FILES = ("items", "interactions", "users")


@dataclass(frozen=True, eq=False, repr=False)
class Catalogue:
    """Items, interactions and users as frames in normal form, with the schema that says what the columns mean.

    Made by `Catalogue.read` or `Catalogue.from_frames`, which check everything; the frames are not to be changed.
    """

    items: pd.DataFrame
    """`item_id` (unique str), texts (str or None), media (lists of absolute paths, empty where absent), attributes,
    vectors (float32 (dim,) or None)."""
    interactions: pd.DataFrame
    """`user_id`, `item_id`, and where known `timestamp` (int64 Unix seconds), `position`, `event`, `value`, context."""
    users: pd.DataFrame | None
    """`user_id`, user attributes, profile; None where the catalogue has no such table."""
    schema: Schema
    """What the columns mean."""
    quarantined: tuple[Problem, ...] = ()
    """Why rows were set aside under `on_error="quarantine"`."""
    media: Path | None = None
    """The folder that the media paths lie in, where there is one."""
    part: Part | None = None
    """Which part of a split this is; None for a whole catalogue."""

    @classmethod
    def read(cls, folder: str | Path, *, on_error: Literal["raise", "quarantine"] = "raise") -> Catalogue:
        """The catalogue in `folder`: `catalogue.toml`, `items`, `interactions`, `users` (parquet or CSV), `media/`.

        Columns of vectors are lists in `items.parquet`, or files: `vectors/<column>.npy` (vector, dim) with the item
        ids of its rows, one a line, in `vectors/<column>.ids.txt`. In a CSV only an empty cell is missing ("NA" is a
        word), and several tags or paths are joined by "|".
        `on_error="quarantine"` drops rows with problems, lists them in `quarantined`, and still raises where a whole
        column is at fault. Raises `CatalogueError` with all problems of all files.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise CatalogueError(f"no catalogue at '{folder}': it is not a folder. Expected one with a catalogue.toml.")
        schema = Schema.read(folder / "catalogue.toml")
        paths = [_table_path(folder, name) for name in _FILES]
        if paths[0] is None:
            raise CatalogueError(
                f"catalogue '{folder}' has no items. Expected a file items.parquet or items.csv in it."
            )
        items, found = attach_vectors(read_table(paths[0]), folder, schema)
        interactions, users = [None if path is None else read_table(path) for path in paths[1:]]
        files = [name if path is None else path.name for name, path in zip(_FILES, paths, strict=True)]
        return _checked(
            items,
            interactions,
            users,
            schema=schema,
            media=folder / "media",
            files=files,
            on_error=on_error,
            found=found,
        )

    @classmethod
    def from_frames(
        cls,
        items: pd.DataFrame,
        interactions: pd.DataFrame | None = None,
        users: pd.DataFrame | None = None,
        *,
        schema: Schema,
        media: str | Path | None = None,
        on_error: Literal["raise", "quarantine"] = "raise",
    ) -> Catalogue:
        """A catalogue of these frames, which are copied, checked and brought to normal form as `read` does.

        `media`: the folder that the media columns' paths lie in; without it the paths must be absolute.
        `interactions=None` is a catalogue in which nobody has done anything yet. Raises `CatalogueError`.
        """
        root = None if media is None else Path(media)
        return _checked(items, interactions, users, schema=schema, media=root, files=_FILES, on_error=on_error)

    def write(self, folder: str | Path, *, format: Literal["parquet", "csv"] = "parquet") -> Path:  # noqa: A002 (pandas' word)
        """The folder, with this catalogue in it as `read` takes it: tables, schema, and a copy of every media file.

        Vectors go to files of their own under `vectors/`, in float32. Media keep their names below `media/` where they
        came from one folder, else they are named by column and row. Raises `CatalogueError` for another format, or
        where the folder holds the tables in the other format.
        """
        if format not in ("parquet", "csv"):
            raise CatalogueError(f"format '{format}' is unknown. Expected 'parquet' or 'csv'.")
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        other = "csv" if format == "parquet" else "parquet"
        for name in _FILES:
            if (folder / f"{name}.{other}").exists():
                raise CatalogueError(
                    f"'{folder}' already has {name}.{other}, and two tables of one name cannot be told apart. "
                    f"Write to an empty folder, or with format='{other}'."
                )
        items = self.items.copy()
        for number, column in enumerate(self.schema.media_columns):
            # A column's name may hold anything, "../" included; the number keeps two cleaned names apart.
            home = f"{number}-{re.sub(r'[^A-Za-z0-9_-]', '_', column)}"
            names = [
                [self._copy(Path(path), folder / "media", f"{home}/{row}-{place}") for place, path in enumerate(paths)]
                for row, paths in enumerate(items[column])
            ]
            items[column] = pd.Series(names, index=items.index, dtype=object)
        for column in self.schema.vector_columns:
            write_vectors(folder, column, self.item_ids, items[column].tolist())
        items = items.drop(columns=list(self.schema.vector_columns))
        (folder / "catalogue.toml").write_text(self.schema.to_toml(), encoding="utf-8")
        for name, frame in zip(_FILES, (items, self.interactions, self.users), strict=True):
            if frame is not None:
                _write_table(frame, folder / f"{name}.{format}")
        return folder

    def split(
        self, how: str, *, valid: float = 0.1, test: float = 0.1, seed: int = 0, column: str | None = None
    ) -> Split:
        """Three catalogues: to learn from, to choose on, to judge on. `how` is one of `splits.SPLITS`.

        `time` cuts at one moment for everybody, `last` keeps each person's last two interactions, `share` each
        person's last shares, `cold_items` every interaction with some items, `cold_users` with some people, whose
        histories are then in `part.given`; `random` draws interactions and `label` reads the part from `column`;
        `splits.split_parts` has the exact rules. Items that first appear in a later part are in that part's catalogue
        only: `train.items` holds the items with training interactions and those that nobody ever touched,
        `valid.items` adds those first seen in validation, `test.items` is everything.

        Raises `SplitError` without the order that `how` needs, or where a part would be empty.
        """
        log = self.interactions
        codes = split_parts(log, how, valid=valid, test=test, seed=seed, column=column)
        touched = self.items["item_id"].isin(log["item_id"].tolist()).to_numpy()
        starts = [_first_moment(log.loc[codes == code]) if how == "time" else None for code in (VALID, TEST)]
        marks = (
            (TRAIN, -1, Part(name="train", how=how, until=starts[1] if starts[0] is None else starts[0])),
            (VALID, GIVEN_VALID, Part(name="valid", how=how, since=starts[0], until=starts[1])),
            (TEST, GIVEN_TEST, Part(name="test", how=how, since=starts[1])),
        )
        catalogues = []
        for code, history, part in marks:
            known = (codes <= code) | (codes == history)
            seen = self.items["item_id"].isin(log["item_id"][known].tolist()).to_numpy()
            keep = seen | ~touched if code != TEST else np.ones(len(self.items), dtype=bool)
            given = log.loc[codes == history].reset_index(drop=True)
            catalogues.append(
                replace(
                    self,
                    items=self.items[keep].reset_index(drop=True),
                    interactions=log[codes == code].reset_index(drop=True),
                    part=replace(part, given=given) if len(given) else part,
                )
            )
        return Split(*catalogues)

    @property
    def item_ids(self) -> tuple[str, ...]:
        """The ids of all items, in the order of `items`."""
        return tuple(self.items["item_id"])

    @property
    def num_items(self) -> int:
        """Number of items."""
        return len(self.items)

    @property
    def num_users(self) -> int:
        """Number of people, known from interactions or from the users table."""
        listed = set() if self.users is None else set(self.users["user_id"])
        return len(listed | set(self.interactions["user_id"]))

    @property
    def event_weights(self) -> np.ndarray:
        """Float32 (interaction,): each one's weight by `schema.events`; 1 where no event or no weight is known."""
        if "event" not in self.interactions or not self.schema.events:
            return np.ones(len(self.interactions), dtype=np.float32)
        weights = [self.schema.events.get(event, 1.0) for event in self.interactions["event"]]
        return np.array(weights, dtype=np.float32)

    def __repr__(self) -> str:
        parts = [f"{self.num_items} items", f"{self.num_users} users", f"{len(self.interactions)} interactions"]
        if self.quarantined:
            parts.append(f"{len(self.quarantined)} problems set aside")
        has = ", ".join(self.schema.modalities)
        return f"Catalogue('{self.schema.name}', {self.schema.kind}: {', '.join(parts)}; {has})"

    def _copy(self, source: Path, media: Path, name: str) -> str:
        root = None if self.media is None else self.media.resolve()
        if root is not None and source.is_relative_to(root):
            relative = source.relative_to(root)
        else:
            relative = Path(name + source.suffix)
        target = media / relative
        if not (target.exists() and target.samefile(source)):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        return relative.as_posix()


def _checked(
    items: pd.DataFrame,
    interactions: pd.DataFrame | None,
    users: pd.DataFrame | None,
    *,
    schema: Schema,
    media: Path | None,
    files: Sequence[str],
    on_error: str,
    found: Sequence[Problem] = (),
) -> Catalogue:
    if on_error not in ("raise", "quarantine"):
        raise CatalogueError(f"on_error is '{on_error}'. Expected 'raise' or 'quarantine'.")
    if interactions is None:
        interactions = pd.DataFrame({name: pd.Series(dtype=object) for name in ("user_id", "item_id", *schema.context)})
    for frame, file in zip((items, interactions, users), files, strict=True):
        if frame is not None and not frame.columns.is_unique:
            twice = ", ".join(map(repr, frame.columns[frame.columns.duplicated()].unique()))
            raise CatalogueError(f"{file} has columns of one name: {twice}. Rename or drop one of each.")
    if not len(items):
        raise CatalogueError(f"catalogue '{schema.name}' has no items: {files[0]} has no row. Add at least one item.")
    checked = check_tables(Tables(items, interactions, users), schema, media=media, files=files)
    # A column that is missing because its file cannot be read is one problem, not two.
    unread = {problem.column for problem in found if problem.row is None}
    own = [p for p in checked.problems if not (p.message == COLUMN_IS_MISSING and p.column in unread)]
    problems = (*found, *own)
    whole = [problem for problem in problems if problem.row is None]
    if problems and (on_error == "raise" or whole):
        raise CatalogueError(f"catalogue '{schema.name}' has {_count(len(problems))}:", problems)
    if problems:
        checked = set_aside(checked.tables, own, files=files)
        if not len(checked.tables.items):
            raise CatalogueError(f"catalogue '{schema.name}' has no items left: every row has a problem.", problems)
    return Catalogue(*checked.tables, schema=schema, quarantined=(*found, *checked.problems), media=media)


def _count(number: int) -> str:
    return "1 problem" if number == 1 else f"{number} problems"


def _first_moment(log: pd.DataFrame) -> int | None:
    return int(log["timestamp"].to_numpy().min()) if "timestamp" in log and len(log) else None


def _table_path(folder: Path, name: str) -> Path | None:
    found = [path for path in (folder / f"{name}.parquet", folder / f"{name}.csv") if path.is_file()]
    if len(found) > 1:
        raise CatalogueError(f"'{folder}' has both {name}.parquet and {name}.csv. Remove the one that is out of date.")
    return found[0] if found else None


def read_table(path: Path) -> pd.DataFrame:
    """The rows of a parquet or CSV file, as they stand there. Raises `CatalogueError` where they cannot be read."""
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        return read_csv_text(str(path))
    except (OSError, ValueError) as error:
        raise CatalogueError(f"'{path}' cannot be read: {error}. Write it again as {path.suffix[1:]}.") from error


def _write_table(frame: pd.DataFrame, path: Path) -> None:
    if path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
        return
    frame = frame.copy()
    for column in frame.columns:
        if frame[column].dtype == object:
            frame[column] = frame[column].map(
                lambda value: _joined(value) if isinstance(value, (list, tuple)) else value
            )
    frame.to_csv(path, index=False, encoding="utf-8")


def _joined(words: Sequence[str]) -> str:
    for word in words:
        if "|" in word:
            raise CatalogueError(f"'{word}' holds a '|', which separates words in a CSV cell. Write format='parquet'.")
    return "|".join(words)
