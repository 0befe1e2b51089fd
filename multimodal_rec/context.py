"""When, where and on what: a person's situation as features."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from itertools import accumulate

import numpy as np
import pandas as pd

from multimodal_rec.errors import ContextError
from multimodal_rec.fields import FieldEncoder, column_of, expected_of, field_faults
from multimodal_rec.schema import INTERACTION_COLUMNS

Context = Mapping[str, object] | Sequence[Mapping[str, object] | None] | pd.DataFrame | None
"""One mapping for every row, one (or None) a row, or a frame with one row each. None says nothing."""


class ContextReader:
    """Features of contexts, as callers give them, with the encoder that was fitted on training interactions."""

    def __init__(self, encoder: FieldEncoder | None) -> None:
        """`encoder`: fitted on the context columns; None for a model that reads no context."""
        self.encoder = FieldEncoder() if encoder is None else encoder

    @property
    def columns(self) -> tuple[str, ...]:
        """The declared context columns."""
        return tuple(self.encoder.spec)

    @property
    def width(self) -> int:
        """Number of features."""
        return self.encoder.width

    @property
    def spans(self) -> dict[str, slice]:
        """Context column → where its features stand."""
        widths = {name: width for name, (_, width) in self.encoder.columns.items()}
        ends = accumulate(widths.values())
        return {name: slice(end - width, end) for (name, width), end in zip(widths.items(), ends, strict=True)}

    def read(self, context: Context, *, num_rows: int) -> np.ndarray:
        """Float32 (num_rows, width). Whatever is not given, None, or a category never seen in training is all zeros.

        `context`: one mapping for all rows, a sequence with one mapping (or None) a row, or a DataFrame with one row
        each, whose interaction columns (`user_id`, `item_id`, `timestamp`, ...) are passed over. Cyclic values must
        lie in [0, period): they are not wrapped, because hour 31 is a mistake, not 7 o'clock.

        Raises `ContextError` for an undeclared column, a value of the wrong type, or another number of rows.
        """
        plain = self._plain(context, num_rows)
        if plain is not None:
            return plain
        frame = self._frame(context, num_rows)
        for column in frame.columns:
            if column not in self.columns:
                raise ContextError(self._undeclared(str(column)))
        for column, field_type in self.encoder.spec.items():
            values = column_of(frame, column)
            faults = np.flatnonzero(field_faults(values, field_type))
            if len(faults):
                raise ContextError(
                    f"context '{column}' is {values.iloc[faults[0]]!r} in row {faults[0]}. "
                    f"Expected {expected_of(field_type)}. Leave the column out where it is not known."
                )
        return self.encoder.transform(frame)

    def _plain(self, context: Context, num_rows: int) -> np.ndarray | None:
        """What `read` gives for mappings of plain values, as most requests are: without a frame, which takes longer
        than all else that a request does. None for anything that is not so plain."""
        entries = [context] if context is None or isinstance(context, Mapping) else context
        if not isinstance(entries, (list, tuple)) or not entries or (entries is context and len(entries) != num_rows):
            return None
        declared, rows = self.columns, list[np.ndarray]()
        for entry in entries:
            named = {} if entry is None else entry
            if not isinstance(named, Mapping) or any(name not in declared for name in named):
                return None
            row = self.encoder.plain_row(named)
            if row is None:
                return None
            rows.append(row)
        return np.stack(rows) if entries is context else np.repeat(rows[0][None], num_rows, axis=0)

    def _frame(self, context: Context, num_rows: int) -> pd.DataFrame:
        if context is None:
            return pd.DataFrame(index=range(num_rows))
        if isinstance(context, Mapping):
            # Object dtype keeps a list or None as the caller's own value.
            return pd.DataFrame(
                {column: pd.Series([value] * num_rows, dtype=object) for column, value in context.items()},
                index=range(num_rows),
            )
        if isinstance(context, (str, bytes)) or not isinstance(context, (pd.DataFrame, Sequence)):
            raise ContextError(
                f"context is a {type(context).__name__}. Expected a dict for all rows, a list with one dict a row, "
                "a DataFrame, or None."
            )
        if len(context) != num_rows:
            raise ContextError(
                f"context has {len(context)} rows. Expected {num_rows}, one a person, or one dict for everybody."
            )
        if isinstance(context, pd.DataFrame):
            return context.drop(columns=[c for c in INTERACTION_COLUMNS if c in context and c not in self.columns])
        for row, entry in enumerate(context):
            if entry is not None and not isinstance(entry, Mapping):
                raise ContextError(
                    f"context of row {row} is a {type(entry).__name__}. Expected a dict such as {{'hour': 22}} or None."
                )
        names = dict.fromkeys(str(name) for entry in context if entry is not None for name in entry)
        return pd.DataFrame(
            {
                name: pd.Series([None if entry is None else entry.get(name) for entry in context], dtype=object)
                for name in names
            },
            index=range(num_rows),
        )

    def _undeclared(self, column: str) -> str:
        if not self.columns:
            return (
                f"context column '{column}' was never declared: this model was trained without context. "
                "Declare it under [context] in catalogue.toml and fit again, or leave it out."
            )
        near = difflib.get_close_matches(column, self.columns, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        return (
            f"context column '{column}' was never declared. Expected one of {', '.join(map(repr, self.columns))}.{hint}"
        )
