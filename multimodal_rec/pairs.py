"""People and items in a DataFrame: scores as a column, recommendations as rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import pandas as pd

from multimodal_rec.errors import CatalogueError, UnknownIdError
from multimodal_rec.people import OnUnknown
from multimodal_rec.recommendations import Recommendations

_CELLS = 1 << 19
"""Scores that are computed at once: people in contexts of a block, times the items that any of them is paired with."""


class Grid(Protocol):
    """Whoever scores some people, each in a context of their own, against some items."""

    def __call__(self, people: Sequence[str], contexts: np.ndarray, items: Sequence[str]) -> np.ndarray:
        """Float (person, item)."""
        ...


def score_pairs(
    frame: pd.DataFrame,
    score: Grid,
    contexts: np.ndarray,
    *,
    known_people: Sequence[bool],
    known_items: Sequence[bool],
    on_unknown: OnUnknown,
) -> np.ndarray:
    """A score a row, float32 (row,); -inf where the person or the item is unknown and `on_unknown` allows it.

    `contexts`: encoded, (row, context width); `known_people`, `known_items`: one a row. Rows of one person in one
    context are scored together, and so are people who are paired with the same items. Raises `UnknownIdError` for an
    unknown id under `on_unknown="raise"`, naming its row; under "cold" only items may be unknown.
    """
    answered = np.array(known_items, dtype=bool)
    if on_unknown != "cold":
        answered &= np.array(known_people, dtype=bool)
    if on_unknown == "raise" and not answered.all():
        row = int(np.flatnonzero(~answered)[0])
        raise UnknownIdError(_unknown(frame, row, "user_id" if not known_people[row] else "item_id", answered))
    scores = np.full(len(frame), -np.inf, dtype=np.float32)
    rows = np.flatnonzero(answered)
    if not len(rows):
        return scores
    users, items = frame["user_id"].to_numpy(dtype=object)[rows], frame["item_id"].to_numpy(dtype=object)[rows]
    codes, names = pd.factorize(users)
    keys = np.column_stack([codes.astype(np.float64), contexts[rows]])
    _, first, query = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    item_codes, item_names = pd.factorize(items)
    for block in _blocks(query.ravel(), item_codes):
        asked, query_places = np.unique(query.ravel()[block], return_inverse=True)
        shown, item_places = np.unique(item_codes[block], return_inverse=True)
        people = [str(names[codes[first[each]]]) for each in asked]
        grid = score(people, contexts[rows[first[asked]]], [str(item_names[each]) for each in shown])
        scores[rows[block]] = grid[query_places, item_places]
    return scores


def checked(frame: pd.DataFrame, columns: Sequence[str], *, into: str | None = None) -> pd.DataFrame:
    """The frame as it came.

    Raises `CatalogueError` without one of the id `columns`, for an id that is no text, or where `into` is a column
    already: what stood there would be lost.
    """
    if not isinstance(frame, pd.DataFrame):
        raise CatalogueError(f"expected a DataFrame with {', '.join(columns)}; got a {type(frame).__name__}.")
    for name in columns:
        if name not in frame.columns:
            raise CatalogueError(
                f"the frame has no column '{name}'; it has {', '.join(map(str, frame.columns)) or 'none'}. Expected "
                f"{' and '.join(columns)}, and context columns. Rename the column that holds it."
            )
        for row, value in enumerate(frame[name]):
            if not isinstance(value, str):
                raise CatalogueError(
                    f"{name} of row {row} is {value!r}, a {type(value).__name__}. Expected text in every row: fill in "
                    f"what is missing, and turn numbers into text with frame['{name}'].astype(str)."
                )
    if into is not None and into in frame.columns:
        raise CatalogueError(f"the frame has a column '{into}' already. Rename or drop it, or pass another `into`.")
    return frame


def listed(frame: pd.DataFrame, found: Recommendations) -> pd.DataFrame:
    """A row a recommended item: the columns of the row it is for, then rank (from 1), item_id, score.

    The index is that of the row it is for; a row with nothing to show has no rows here.
    """
    places = [(row, rank) for row, ids in enumerate(found.ids) for rank, name in enumerate(ids) if name is not None]
    rows = [row for row, _ in places]
    return frame.iloc[rows].assign(
        rank=[rank + 1 for _, rank in places],
        item_id=[found.ids[row][rank] for row, rank in places],
        score=np.array([found.scores[row, rank] for row, rank in places], dtype=np.float32),
    )


def _blocks(query: np.ndarray, items: np.ndarray) -> Iterator[np.ndarray]:
    """Rows, in blocks of whole queries, so that queries times distinct items stays small."""
    order = np.argsort(query, kind="stable")
    block: list[np.ndarray] = []
    shown: set[int] = set()
    for rows in np.split(order, np.flatnonzero(np.diff(query[order])) + 1):
        own = set(items[rows].tolist())
        if block and (len(block) + 1) * len(shown | own) > _CELLS:
            yield np.concatenate(block)
            block, shown = [], set()
        block.append(rows)
        shown |= own
    yield np.concatenate(block)


def _unknown(frame: pd.DataFrame, row: int, name: str, answered: np.ndarray) -> str:
    what, remedy = {
        "user_id": (
            "is unknown: no interaction, no attributes, no profile",
            "'cold' to rank by popularity and context",
        ),
        "item_id": ("is not embedded", "'skip' for a score of -inf, or embed it first"),
    }[name]
    return (
        f"{name} '{frame[name].iloc[row]}' of row {row} {what} ({int((~answered).sum())} of {len(frame)} rows have an "
        f"unknown id). Expected known ids. Pass on_unknown={remedy}."
    )
