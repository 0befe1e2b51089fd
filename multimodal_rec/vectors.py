"""Vectors that came with a catalogue: their files, their cells, and what a training catalogue teaches of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from multimodal_rec.config import RecommenderConfig
from multimodal_rec.errors import CatalogueError, Problem
from multimodal_rec.fields import category_key, column_of
from multimodal_rec.schema import Schema
from towers import VectorStatistics, chosen_columns, split_name


class VectorFiles(NamedTuple):
    """The two files of one column: `vectors/<column>.npy` (vector, dim), and whose vectors these are, one id a line."""

    matrix: Path
    ids: Path

    @classmethod
    def of(cls, folder: Path, column: str) -> VectorFiles:
        """The files of a column in a catalogue's folder, whether they are there or not."""
        return cls(folder / "vectors" / f"{column}.npy", folder / "vectors" / f"{column}.ids.txt")

    @property
    def names(self) -> tuple[str, str]:
        """The names that problems go by: those of the matrix and of the ids."""
        return f"vectors/{self.matrix.name}", f"vectors/{self.ids.name}"


def attach_vectors(items: pd.DataFrame, folder: Path, schema: Schema) -> tuple[pd.DataFrame, list[Problem]]:
    """The items with the columns that lie in files of their own, joined by item id, and what is wrong with the files.

    Cells are float32 (dim,), rows of one matrix in memory, or None where the file has no vector of that item. A column
    whose files cannot be read whole is left out. A line of ids without an item, or one that repeats another, is a
    problem of that line; its vector is nobody's. Raises `CatalogueError` for a column that the table has, too.
    """
    problems: list[Problem] = []
    found: dict[str, pd.Series] = {}
    for column in schema.vector_columns:
        files = VectorFiles.of(folder, column)
        if not files.matrix.exists() and not files.ids.exists():
            continue
        if column in items:
            raise CatalogueError(
                f"column '{column}' is in the items and in {files.names[0]}, and nobody can tell which is right. "
                "Remove one of them."
            )
        read = map_files(files, problems)
        if read is not None and "item_id" in items:
            mapped, ids = read
            with np.errstate(over="ignore"):
                # The one copy in memory: a file that stayed mapped would change under who writes the catalogue anew.
                matrix = np.array(mapped, dtype=np.float32, order="C")
            found[column] = _joined(column_of(items, "item_id"), matrix, ids, file=files.names[1], problems=problems)
    return items.assign(**found) if found else items, problems


def write_vectors(folder: Path, column: str, item_ids: Sequence[str], cells: Sequence[np.ndarray | None]) -> None:
    """Write the vectors of one column as `attach_vectors` reads them; items whose cell is None have no line.

    The matrix is written row by row, so that it is copied nowhere. Raises `CatalogueError` for an id with a line break.
    """
    files = VectorFiles.of(folder, column)
    files.matrix.parent.mkdir(parents=True, exist_ok=True)
    rows = [row for row, cell in enumerate(cells) if cell is not None]
    ids = [item_ids[row] for row in rows]
    for item_id in ids:
        if "\n" in item_id or "\r" in item_id:
            raise CatalogueError(
                f"item id {item_id!r} holds a line break, and {files.names[1]} has one id a line. Give it another id."
            )
    dim = max((len(cell) for cell in cells if cell is not None), default=0)
    if rows:
        matrix = np.lib.format.open_memmap(files.matrix, mode="w+", dtype=np.float32, shape=(len(rows), dim))
        for place, row in enumerate(rows):
            matrix[place] = cells[row]
        matrix.flush()
    else:
        np.save(files.matrix, np.zeros((0, 0), dtype=np.float32))
    files.ids.write_text("".join(f"{item_id}\n" for item_id in ids), encoding="utf-8", newline="\n")


def vector_of(value: Any) -> np.ndarray | str | None:
    """A cell as float32 (dim,), None where it is empty, and in words what it is where it is no vector.

    Arrays and lists of numbers are vectors; None, NaN and an empty list are empty. Float32 is not copied.
    """
    if isinstance(value, (list, tuple)):
        try:
            value = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError):
            return f"a list of {len(value)}"
    if not isinstance(value, np.ndarray):
        return None if value is None or pd.isna(value) else repr(value)[:40]
    if value.size == 0:
        return None
    if value.ndim != 1 or value.dtype.kind not in "fiu":
        return f"{value.dtype} of shape {value.shape}"
    with np.errstate(over="ignore"):
        return value if value.dtype == np.float32 else value.astype(np.float32)


def vector_cells(column: pd.Series, *, file: str) -> tuple[list[np.ndarray | None], list[Problem]]:
    """The cells of a column of vectors in normal form, float32 (dim,) or None, and a problem for each bad one.

    Cells are read as `vector_of` reads them. All must have the dim that most have, at least 2, and finite numbers.
    """
    name = str(column.name)
    cells: list[np.ndarray | None] = []
    problems: list[Problem] = []

    def wrong(row: int, value: object, message: str, remedy: str) -> None:
        problems.append(Problem(file, row, name, value, message, remedy))

    for row, value in enumerate(column):
        vector = vector_of(value)
        if isinstance(vector, str):
            wrong(row, vector, "not a vector", "Expected a list of numbers, or nothing; or put them into vectors/.")
            vector = None
        elif vector is not None and not np.isfinite(vector).all():
            wrong(row, None, "a vector with NaN or infinity", "Compute it again, or leave the cell empty.")
            vector = None
        cells.append(vector)
    dims = Counter(len(cell) for cell in cells if cell is not None)
    if not dims:
        return cells, problems
    usual, _ = dims.most_common(1)[0]
    if usual < 2:
        remedy = f'Declare it as an attribute, {name} = "number", instead.'
        problems.append(Problem(file, None, name, None, "vectors of one number", remedy))
    for row, cell in enumerate(cells):
        if cell is not None and len(cell) != usual:
            remedy = f"Expected {usual} as in most rows: compute it with the same network."
            wrong(row, len(cell), "a vector of another number of dimensions", remedy)
            cells[row] = None
    return cells, problems


def vector_matrix(cells: Iterable[np.ndarray | None]) -> tuple[np.ndarray, np.ndarray]:
    """Float32 (item, dim), 0 where an item has no vector, and bool (item,): who has one. Dim is 1 where nobody has."""
    rows = list(cells)
    present = np.array([row is not None for row in rows], dtype=bool)
    matrix = np.zeros((len(rows), max((len(row) for row in rows if row is not None), default=1)), dtype=np.float32)
    for place, row in enumerate(rows):
        if row is not None:
            matrix[place] = row
    return matrix, present


def vector_columns(config: RecommenderConfig, schema: Schema) -> dict[str, tuple[str, ...]]:
    """Modality → the columns that its tower reads, for towers of vectors.

    Raises `CatalogueError` where a tower asks for columns that this catalogue does not declare, or for media of a
    modality that it has as vectors only.
    """
    found: dict[str, tuple[str, ...]] = {}
    for modality, tower in config.towers.items():
        prefix, rest = split_name(tower.backbone)
        if prefix == "vectors":
            try:
                found[modality] = chosen_columns(rest, schema.vectors.get(modality, ()))
            except ValueError as error:
                raise CatalogueError(f"the {modality} tower cannot read this catalogue: {error}") from error
        elif modality in schema.vectors and modality not in schema.media_modalities:
            raise CatalogueError(
                f"the {modality} tower '{tower.backbone}' reads media, and this catalogue has {modality} as vectors "
                f"only. Take TowerConfig('vectors:'), or name columns of {modality} under [columns]."
            )
    return found


def fit_vectors(items: pd.DataFrame, columns: Mapping[str, Sequence[str]]) -> dict[str, VectorStatistics]:
    """Modality → how the vectors of its `columns` lie in these items, which must be the ones to learn from.

    Raises `CatalogueError` for a column in which no item has a vector.
    """
    found: dict[str, VectorStatistics] = {}
    for modality, names in columns.items():
        try:
            found[modality] = VectorStatistics.fit({name: items[name].tolist() for name in names})
        except ValueError as error:
            raise CatalogueError(
                f"the {modality} tower cannot learn from this catalogue: {error} Fill it, or drop the tower."
            ) from error
    return found


def map_files(files: VectorFiles, problems: list[Problem]) -> tuple[np.ndarray, list[str]] | None:
    """A column's matrix, mapped from disk, and the item ids of its rows; None, with a problem, where there is none."""

    def whole(file: str, message: str, remedy: str) -> None:
        problems.append(Problem(file, None, files.matrix.stem, None, message, remedy))

    for path, name, other in zip(files, files.names, reversed(files.names), strict=True):
        if not path.is_file():
            whole(name, f"the file is missing, while {other} is there", "Write both, an id a line and a vector a row.")
            return None
    try:
        mapped = np.load(files.matrix, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        whole(files.names[0], "no NumPy matrix can be read from it", "Save numbers of shape (item, dim) with np.save.")
        return None
    if not isinstance(mapped, np.ndarray) or mapped.ndim != 2 or mapped.dtype.kind not in "fiu":
        what = f"{mapped.dtype} of shape {mapped.shape}" if isinstance(mapped, np.ndarray) else "an archive"
        whole(files.names[0], f"it holds {what}", "Expected numbers of shape (item, dim), one vector a row.")
        return None
    try:
        lines = files.ids.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError):
        whole(files.names[1], "no UTF-8 text can be read from it", "Expected one item id a line.")
        return None
    ids = [line.removesuffix("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]
    if len(ids) != len(mapped):
        whole(
            files.names[1],
            f"{len(ids)} ids for the {len(mapped)} vectors of {files.names[0]}",
            "Expected one line a row: write both files anew, together.",
        )
        return None
    return mapped, ids


def repeated_line(file: str, line: int, item_id: str, first: int) -> Problem:
    """The problem of a line of ids that repeats an earlier one."""
    return Problem(file, line, None, item_id, f"this id was already used in row {first}", "Keep one vector an item.")


def idle_line(file: str, line: int, item_id: str) -> Problem:
    """The problem of a line of ids that is no item's."""
    remedy = "Add it to items, or leave its line and its vector out."
    return Problem(file, line, None, item_id, "no item has this id", remedy)


def _joined(
    item_ids: pd.Series, matrix: np.ndarray, ids: Sequence[str], *, file: str, problems: list[Problem]
) -> pd.Series:
    rows = {key: row for row, value in enumerate(item_ids) if (key := category_key(value)) is not None}
    cells: list[np.ndarray | None] = [None] * len(item_ids)
    seen: dict[str, int] = {}
    for line, item_id in enumerate(ids):
        if item_id in seen:
            problems.append(repeated_line(file, line, item_id, seen[item_id]))
            continue
        seen[item_id] = line
        if item_id not in rows:
            problems.append(idle_line(file, line, item_id))
            continue
        cells[rows[item_id]] = matrix[line]
    return pd.Series(cells, index=item_ids.index, dtype=object)
