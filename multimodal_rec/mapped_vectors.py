"""Vectors in files of their own, joined to items a chunk at a time."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, final

import numpy as np
import pandas as pd

from multimodal_rec.errors import CatalogueError, Problem
from multimodal_rec.fields import category_key
from multimodal_rec.schema import Schema
from multimodal_rec.vectors import VectorFiles, idle_line, map_files, repeated_line


class _Column(NamedTuple):
    matrix: np.ndarray
    """Mapped from disk."""
    lines: dict[str, int]
    used: np.ndarray
    """Bool (line,): whether an item of that id came."""
    file: str


@final
class MappedVectors:
    """A catalogue's columns of vectors for whoever streams its items: ids are held in memory, numbers stay on disk.

    `problems`: what is wrong with the files, as `vectors.attach_vectors` finds it.
    """

    def __init__(self, folder: Path, schema: Schema) -> None:
        self.problems: list[Problem] = []
        self._columns: dict[str, _Column] = {}
        for column in schema.vector_columns:
            files = VectorFiles.of(folder, column)
            if not files.matrix.exists() and not files.ids.exists():
                continue
            read = map_files(files, self.problems)
            if read is None:
                continue
            matrix, ids = read
            lines: dict[str, int] = {}
            used = np.zeros(len(ids), dtype=bool)
            for line, item_id in enumerate(ids):
                first = lines.setdefault(item_id, line)
                if first != line:
                    self.problems.append(repeated_line(files.names[1], line, item_id, first))
                    used[line] = True
            self._columns[column] = _Column(matrix, lines, used, files.names[1])

    def attach(self, items: pd.DataFrame) -> pd.DataFrame:
        """The items with these columns: float32 (dim,), or None where the file has no vector of that item.

        Raises `CatalogueError` for a column that the table has, too.
        """
        for name, column in self._columns.items():
            if name in items:
                raise CatalogueError(
                    f"column '{name}' is in the items and beside {column.file}, and nobody can tell which is right. "
                    "Remove one of them."
                )
        if "item_id" not in items:
            return items
        keys = [category_key(value) for value in items["item_id"]]
        found: dict[str, pd.Series] = {}
        for name, (matrix, lines, used, _) in self._columns.items():
            here = [None if key is None else lines.get(key) for key in keys]
            used[[line for line in here if line is not None]] = True
            with np.errstate(over="ignore"):
                cells = [None if line is None else np.array(matrix[line], dtype=np.float32) for line in here]
            found[name] = pd.Series(cells, index=items.index, dtype=object)
        return items.assign(**found) if found else items

    def idle(self) -> list[Problem]:
        """A problem for each line of ids of which no item came."""
        return [
            idle_line(column.file, line, item_id)
            for column in self._columns.values()
            for item_id, line in column.lines.items()
            if not column.used[line]
        ]
