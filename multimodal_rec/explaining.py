"""The verb `explain`: ids and contexts as callers give them, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from multimodal_rec.context import Context
from multimodal_rec.errors import UnknownIdError
from multimodal_rec.explanation import Explanation
from multimodal_rec.people import Person
from multimodal_rec.scorer import Scorer


def explained(
    scorer: Scorer, person: str | Person, items: str | Sequence[str], *, context: Context, encoded: np.ndarray
) -> Explanation | list[Explanation]:
    """The explanation of one item, or one an item of a list. `encoded`: the `context`, (1, context width).

    Raises `UnknownIdError` for an item that is not embedded or a person of whom nothing is known.
    """
    asked = [items] if isinstance(items, str) else list(items)
    unknown = [item_id for item_id in asked if item_id not in scorer.item_rows]
    if unknown:
        raise UnknownIdError(f"item '{unknown[0]}' is not embedded. Expected an id in the store. Embed it first.")
    scorer.people.answered([person], "raise")
    rows = [scorer.item_rows[item_id] for item_id in asked]
    found = scorer.explainer.explain(person, rows, encoded, told=_told(context))
    return found[0] if isinstance(items, str) else found


def _told(context: Context) -> dict[str, object]:
    row = context
    if isinstance(context, pd.DataFrame):
        row = {str(name): value for name, value in context.iloc[0].items()}
    elif isinstance(context, Sequence):
        row = context[0]
    return {name: value for name, value in row.items() if value is not None} if isinstance(row, Mapping) else {}
