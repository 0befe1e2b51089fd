"""Which items have a value of an attribute, fast enough to ask at every request."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple, final

import numpy as np


class _Column(NamedTuple):
    """One attribute as numbers: entry e says that item `rows[e]` has the value of code `codes[e]`."""

    codes: np.ndarray
    rows: np.ndarray | None
    """None where no item has several values: then entry e is item e, and a code of -1 says that it has none."""
    code_of: dict[Hashable, int]


@final
class AttributeColumns:
    """The attributes of a table's items, turned into columns of codes one by one, each when it is first asked for."""

    def __init__(self, rows: Sequence[Mapping[str, object]]) -> None:
        self._rows = rows
        self._columns: dict[str, _Column] = {}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Every attribute that an item has, in order of appearance."""
        return tuple(dict.fromkeys(name for row in self._rows for name in row))

    def mask(self, name: str, wanted: Sequence[object]) -> np.ndarray:
        """Which items have one of the wanted values of an attribute, bool (item,).

        A list among an item's attributes is several values, of which any may be wanted; None is none. Values are the
        same where Python's `==` says so: 1999 is 1999.0, and not '1999'.
        """
        if name not in self._columns:
            self._columns[name] = _column([row.get(name) for row in self._rows])
        codes, rows, code_of = self._columns[name]
        asked = sorted({code_of[key] for key in map(_key, wanted) if key in code_of})
        if not asked:
            return np.zeros(len(self._rows), dtype=bool)
        # One comparison of a million codes takes a tenth of a look-up of each.
        hit = codes == asked[0] if len(asked) == 1 else np.isin(codes, asked, kind="table")
        if rows is None:
            return hit
        mask = np.zeros(len(self._rows), dtype=bool)
        mask[rows[hit]] = True
        return mask


def _column(values: Sequence[object]) -> _Column:
    code_of: dict[Hashable, int] = {}
    if not any(isinstance(value, list) for value in values):
        codes = [-1 if value is None else code_of.setdefault(_key(value), len(code_of)) for value in values]
        return _Column(np.array(codes, dtype=np.int32), None, code_of)
    pairs = [
        (row, code_of.setdefault(_key(element), len(code_of)))
        for row, value in enumerate(values)
        for element in (value if isinstance(value, list) else [value])
        if element is not None
    ]
    rows, codes = np.array(pairs, dtype=np.int32).reshape(-1, 2).T
    return _Column(np.ascontiguousarray(codes), np.ascontiguousarray(rows), code_of)


def _key(value: object) -> Hashable:
    # Stored attributes were JSON: whatever cannot be hashed is a list or an object, and has one spelling.
    return value if isinstance(value, Hashable) else json.dumps(value, sort_keys=True, default=str)
