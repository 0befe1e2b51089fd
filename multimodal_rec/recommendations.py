"""What to show, and why a list is shorter than was asked for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import numpy as np

from multimodal_rec.people import Person
from multimodal_rec.retrieval import Query, TopK
from multimodal_rec.scorer import Scorer


class _Lists(NamedTuple):
    ids: list[list[str | None]]
    """k item ids a person, best first; None where there are no more."""
    scores: np.ndarray
    """Float32 (person, k); -inf where the id is None."""


class Recommendations(_Lists):
    """What to show, best first: `ids, scores = recommendations`.

    `reasons` stands beside them: one a row, None where it is full, else why it is short or empty.
    """

    reasons: tuple[str | None, ...]

    def __new__(
        cls, ids: list[list[str | None]], scores: np.ndarray, reasons: Sequence[str | None] = ()
    ) -> Recommendations:
        """`reasons`: () where nothing is to be said of any row."""
        made = super().__new__(cls, ids, scores)
        made.reasons = tuple(reasons) if reasons else (None,) * len(ids)
        return made


def shortfalls(
    best: TopK, scorer: Scorer, people: Sequence[str | Person], *, answered: Sequence[bool] | np.ndarray, query: Query
) -> list[str | None]:
    """Why each row is not full, None where it is, for lists of one scorer's items."""
    return reasons_of(
        best,
        answered=answered,
        allowed=lambda: query.allowed_mask(scorer.table),
        taken=lambda place: scorer.people.seen(people[place]) if query.exclude_seen else set(),
    )


def reasons_of(
    best: TopK,
    *,
    answered: Sequence[bool] | np.ndarray,
    allowed: Callable[[], np.ndarray],
    taken: Callable[[int], Collection[int]],
) -> list[str | None]:
    """Why each row is not full, None where it is; `allowed` and `taken` are asked only where a row is short.

    `answered`: False for people whom on_unknown='skip' leaves out. `allowed`: what the query admits, bool (item,);
    `taken`: row → the items that are left out because the person has taken them.
    """
    short = [place for place, ids in enumerate(best.ids) if None in ids]
    reasons: list[str | None] = [None] * len(best.ids)
    admitted = allowed() if any(answered[place] for place in short) else np.zeros(0, dtype=bool)
    for place in short:
        if not answered[place]:
            reasons[place] = "nothing is known of this person, and on_unknown='skip' asks for an empty row."
            continue
        ids = best.ids[place]
        shown = sum(item_id is not None for item_id in ids)
        reasons[place] = (
            f"{shown} of {len(ids)} asked for: of {len(admitted)} items, the query admits {int(admitted.sum())}, and "
            f"{sum(bool(admitted[row]) for row in taken(place))} of these the person has taken."
        )
    return reasons
