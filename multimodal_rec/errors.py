"""What can go wrong, and what the caller did to get there.

MultimodalRecError
├── ConfigError (ValueError)       a configuration that cannot work
├── CatalogueError (ValueError)    a catalogue that breaks its schema; carries every problem found
├── SplitError (ValueError)        a split that this catalogue does not allow
├── LeakError (ValueError)         an evaluation that would know what it asks; carries the rows at fault
├── ContextError (ValueError)      a context that this model was not trained with
├── UnknownIdError (KeyError)      a user or item id nobody has heard of
├── ItemError (ValueError)         items that cannot be embedded; carries a reason an item
├── MediaError (OSError)           a media file that is missing, unreadable or unsafe
├── StoreError (OSError)           a store that is absent, or holds another model's embeddings
├── EngineError (RuntimeError)     workers that cannot be placed, or die of more than an item
├── OnnxError (RuntimeError)       graphs that cannot be exported, or are of another model; carries a reason a graph
└── NotFittedError (RuntimeError)  a verb that needs `fit` or `load` first
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import pandas as pd

_ROWS_SHOWN = 10


class MultimodalRecError(Exception):
    """The root: `except MultimodalRecError` catches whatever this library raises on purpose."""


class ConfigError(MultimodalRecError, ValueError):
    """A configuration that cannot work, with the nearest thing that would."""


class Problem(NamedTuple):
    """One defect of a catalogue file: where it is, what was found, and what to do about it."""

    file: str
    row: int | None
    """Zero-based data row, None where the whole file or column is meant."""
    column: str | None
    value: object
    message: str
    remedy: str

    def __str__(self) -> str:
        row = "" if self.row is None else f", row {self.row}"
        column = "" if self.column is None else f", column '{self.column}'"
        value = "" if self.value is None else f" ({self.value!r})"
        return f"{self.file}{row}{column}: {self.message}{value}. {self.remedy}"


class CatalogueError(MultimodalRecError, ValueError):
    """A catalogue that breaks its schema. `problems` holds every defect, in file order."""

    def __init__(self, message: str, problems: Sequence[Problem] = ()) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join([message, *map(str, self.problems)]))


class SplitError(MultimodalRecError, ValueError):
    """A split that this catalogue does not allow, such as a split by time without timestamps."""


class LeakError(MultimodalRecError, ValueError):
    """An evaluation that would be told what it asks. `rows` holds every interaction or item at fault."""

    def __init__(self, message: str, rows: pd.DataFrame) -> None:
        self.rows = rows
        shown = rows.head(_ROWS_SHOWN).to_dict("records")
        lines = [", ".join(f"{name} {value}" for name, value in row.items()) for row in shown]
        if len(rows) > _ROWS_SHOWN:
            lines.append(f"and {len(rows) - _ROWS_SHOWN} more: see the error's `rows`")
        super().__init__("\n".join([message, *lines]))


class ContextError(MultimodalRecError, ValueError):
    """A context column that was never declared, or a value of the wrong type."""


class UnknownIdError(MultimodalRecError, KeyError):
    """A user or item id that is neither in the store nor among the people known."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class ItemError(MultimodalRecError, ValueError):
    """Items that could not be embedded. `reasons` maps each item id to what was wrong with it."""

    def __init__(self, message: str, reasons: Mapping[str, str] | None = None) -> None:
        self.reasons = dict(reasons or {})
        super().__init__("\n".join([message, *(f"item '{i}': {why}" for i, why in self.reasons.items())]))


class MediaError(MultimodalRecError, OSError):
    """A media file that is missing, unreadable, or outside the catalogue's media folder."""


class StoreError(MultimodalRecError, OSError):
    """A store that is absent, of another layout, or whose rows come from another model."""


class EngineError(MultimodalRecError, RuntimeError):
    """Workers of another engine that cannot be placed, or that ended without a reason of their own."""


class OnnxError(MultimodalRecError, RuntimeError):
    """Graphs that cannot be exported, are not there, or are another model's. `reasons`: graph → what was wrong."""

    def __init__(self, message: str, reasons: Mapping[str, str] | None = None) -> None:
        self.reasons = dict(reasons or {})
        super().__init__("\n".join([message, *(f"{name}: {why}" for name, why in self.reasons.items())]))


class NotFittedError(MultimodalRecError, RuntimeError):
    """A verb that needs a trained model was called before `fit` or `load`."""
