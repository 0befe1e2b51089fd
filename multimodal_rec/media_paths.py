"""The paths in a catalogue's cells: which files they name, and whether they may."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from multimodal_rec.errors import Problem
from multimodal_rec.fields import tag_keys


def media_cells(
    column: pd.Series, root: Path | None, seen: dict[str, str | Problem], *, file: str
) -> tuple[list[list[str]], list[Problem]]:
    """The cells of a column of paths in normal form, lists of absolute paths, and a problem for each bad path.

    `root`: the folder, links followed, that every path must lie in; None takes absolute paths as they are. `seen`:
    what is known of a path already; it is added to. `file`: the table's name, for the problems.
    """
    cells: list[list[str]] = []
    problems: list[Problem] = []
    for row, value in enumerate(column):
        found = []
        for path in media_paths(value):
            if path not in seen:
                seen[path] = _resolve(path, root)
            place = seen[path]
            if isinstance(place, Problem):
                problems.append(place._replace(file=file, row=row, column=str(column.name)))
            else:
                found.append(place)
        cells.append(found)
    return cells, problems


def media_paths(value: object) -> tuple[str, ...]:
    """The paths of one cell: a list, or text such as "front.jpg|back.jpg"; () where it is missing."""
    if isinstance(value, Path):
        return (str(value),)
    if isinstance(value, (str, list, tuple, np.ndarray)):
        return tag_keys(value)
    return ()


def _resolve(path: str, root: Path | None) -> str | Problem:
    def problem(message: str, remedy: str) -> Problem:
        return Problem("", None, None, path, message, remedy)

    if root is None and not Path(path).is_absolute():
        return problem("relative media path without a media folder", "Pass media=FOLDER, or absolute paths.")
    try:
        place = (Path(path) if root is None else root / path).resolve()
        if root is not None and not place.is_relative_to(root):
            return problem(
                "media path leads out of the media folder", "Put the file under media/ and name it from there."
            )
        if not place.is_file():
            return problem("media file is missing", "Put it under media/, or leave the cell empty.")
    except (OSError, ValueError, RuntimeError):
        return problem("media path cannot be a file name", "Correct it, or leave the cell empty.")
    return str(place)
