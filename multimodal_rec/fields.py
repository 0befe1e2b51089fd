"""Declared columns (categories, tags, numbers, cycles) as float features."""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from multimodal_rec.errors import CatalogueError, ConfigError, Problem

FIELD_KINDS = ("category", "tags", "number", "cyclic")
"""The kinds a column may be declared as; a cyclic one carries its period, `cyclic:24`."""

CLIP = 5.0
"""Standardised numbers are cut here, so that one absurd price cannot drown the rest."""

HARMONICS = (1, 2)
"""Turns per period: the first tells morning from evening, the second lets both peaks of a day matter at once."""

_PLAIN = 1e15
"""Numbers below it are read without a frame; larger ones may need more care than a subtraction."""


def parse_field_type(column: str, field_type: str) -> tuple[str, float]:
    """Kind and period of a declared type: `("cyclic", 24.0)` for `cyclic:24`; the period is 0 for other kinds.

    Raises `ConfigError` naming the column and the nearest type.
    """
    kind, colon, rest = str(field_type).partition(":")
    if kind not in FIELD_KINDS or (kind != "cyclic" and colon):
        near = difflib.get_close_matches(kind, FIELD_KINDS, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise ConfigError(
            f"column '{column}' has the type '{field_type}'. "
            f"Expected 'category', 'tags', 'number' or 'cyclic:PERIOD' such as 'cyclic:24'.{hint}"
        )
    if kind != "cyclic":
        return kind, 0.0
    try:
        period = float(rest)
    except ValueError:
        period = math.nan
    if not (math.isfinite(period) and period > 0):
        raise ConfigError(
            f"column '{column}' has the type '{field_type}'. "
            "Expected a period above 0 after the colon, such as 'cyclic:24' for hours."
        )
    return kind, period


def category_key(value: object) -> str | None:
    """A category or id as text; None where it is missing or empty.

    3, 3.0 and "3" give the same key: a CSV column of whole numbers with a gap is read as floats.
    """
    if isinstance(value, str):
        return value or None
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, (float, np.floating)):
        if math.isnan(value):
            return None
        return str(int(value)) if float(value).is_integer() else str(float(value))
    return str(value)


def tag_keys(value: object) -> tuple[str, ...]:
    """The distinct tags of one cell in their order: a list, or text such as "a|b|c". Missing gives ()."""
    if isinstance(value, str):
        value = value.split("|")
    elif not isinstance(value, (list, tuple, set, frozenset, np.ndarray)):
        value = (value,)
    elif isinstance(value, (set, frozenset)):
        value = sorted(value, key=str)
    keys = (category_key(tag.strip() if isinstance(tag, str) else tag) for tag in value)
    return tuple(dict.fromkeys(key for key in keys if key is not None))


def number_values(column: pd.Series) -> np.ndarray:
    """The column as float64 (row,): NaN where missing or not a number. Text such as "12.5" counts as a number."""
    if pd.api.types.is_datetime64_any_dtype(column) or pd.api.types.is_timedelta64_dtype(column):
        return np.full(len(column), np.nan)
    if not pd.api.types.is_numeric_dtype(column):
        column = pd.Series([value if _is_scalar(value) else None for value in column], dtype=object)
    return pd.Series(pd.to_numeric(column, errors="coerce")).to_numpy(dtype=np.float64, na_value=np.nan, copy=True)


def column_of(frame: pd.DataFrame, name: str) -> pd.Series:
    """The named column; a column of None where the frame lacks it."""
    if name in frame:
        return pd.Series(frame[name], name=name)
    return pd.Series([None] * len(frame), index=frame.index, dtype=object, name=name)


def field_faults(column: pd.Series, field_type: str) -> np.ndarray:
    """Bool (row,): True where a value is there but cannot be read as the declared type, or lies outside its cycle."""
    kind, period = parse_field_type(str(column.name), field_type)
    if kind in ("category", "tags"):
        accept = _is_scalar if kind == "category" else _is_tags
        if column.dtype != object:
            return np.zeros(len(column), dtype=bool)
        return np.fromiter((not accept(value) for value in column), dtype=bool, count=len(column))
    numbers = number_values(column)
    present = column.notna().to_numpy(dtype=bool)
    bad = ~np.isfinite(numbers)
    if kind == "cyclic":
        bad |= (numbers < 0) | (numbers >= period)
    return present & bad


def expected_of(field_type: str) -> str:
    """What a value of this type must be, in words, for messages."""
    kind, _, period = field_type.partition(":")
    return {
        "category": "one word or number a row",
        "tags": "a list of words, or words joined by '|'",
        "number": "a finite number",
        "cyclic": f"a number of at least 0 and below {period}",
    }[kind]


@dataclass(frozen=True)
class _FieldCode:
    column: str
    field_type: str
    values: tuple[str, ...] = ()
    mean: float = 0.0
    std: float = 1.0

    def names(self) -> list[str]:
        kind, _ = self.kind
        if kind == "number":
            return [self.column]
        if kind == "cyclic":
            return [f"{self.column}:{wave}{turn}" for turn in HARMONICS for wave in ("sin", "cos")]
        return [f"{self.column}={value}" for value in self.values]

    def encode(self, column: pd.Series) -> np.ndarray:
        kind, period = self.kind
        if kind in ("number", "cyclic"):
            numbers = number_values(column)
            if kind == "number":
                with np.errstate(over="ignore"):
                    block = np.clip((numbers - self.mean) / self.std, -CLIP, CLIP)[:, None]
            else:
                angle = 2 * np.pi * numbers[:, None] / period * np.asarray(HARMONICS)
                # (row, turn, wave) flattened: sin1, cos1, sin2, cos2.
                block = np.stack([np.sin(angle), np.cos(angle)], axis=2).reshape(len(numbers), 2 * len(HARMONICS))
            return np.nan_to_num(block, nan=0.0)
        block = np.zeros((len(column), len(self.values)))
        for row, value in enumerate(column):
            known = [self._index[key] for key in _keys(kind, value) if key in self._index]
            if known:
                block[row, known] = 1 / math.sqrt(len(known))
        return block

    @cached_property
    def _index(self) -> dict[str, int]:
        return {value: position for position, value in enumerate(self.values)}

    @cached_property
    def kind(self) -> tuple[str, float]:
        return parse_field_type(self.column, self.field_type)

    @cached_property
    def width(self) -> int:
        return len(self.names())

    def plain(self, value: object) -> list[float] | None:
        """The features of one value, as `encode` has them; None for a value that takes more than a look."""
        kind, period = self.kind
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return [0.0] * self.width
        if kind == "category" and isinstance(value, (str, int)) and not isinstance(value, bool):
            features = [0.0] * self.width
            place = self._index.get(str(value))
            if place is not None:
                features[place] = 1.0
            return features
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            if kind == "number" and abs(value) < _PLAIN:
                return [min(max((value - self.mean) / self.std, -CLIP), CLIP)]
            if kind == "cyclic" and 0 <= value < period:
                angles = [2 * math.pi * value / period * turn for turn in HARMONICS]
                return [wave(angle) for angle in angles for wave in (math.sin, math.cos)]
        return None


@dataclass(frozen=True)
class FieldEncoder:
    """Features of declared columns, with what `fit` learned of them. Anything missing or unseen is all zeros.

    - `category`: one-hot over the values seen in `fit`, the `max_categories` most frequent of them (ties go by
      alphabet); a rarer one is treated like an unseen one.
    - `tags`: multi-hot over the most frequent tags in the same way, divided by the root of the row's number of known
      tags, so that a row's tags have length 1 however many they are.
    - `number`: standardised with the mean and standard deviation of `fit`, cut at ±5.
    - `cyclic:P`: sine and cosine of 2πx/P and of twice that angle; x must lie in [0, P).
    """

    codes: tuple[_FieldCode, ...] = ()

    @classmethod
    def fit(cls, frame: pd.DataFrame, spec: Mapping[str, str], *, max_categories: int = 64) -> FieldEncoder:
        """An encoder of the columns in `spec` (column → type), learned from `frame`.

        `max_categories` bounds the features of each category or tags column. A declared column that `frame` lacks is
        kept and gives no features (categories, tags) or neutral ones (numbers, cycles). Raises `CatalogueError` with
        every value that is not of its declared type, `ConfigError` for an unknown type.
        """
        for column, field_type in spec.items():
            parse_field_type(column, field_type)
        _check(frame, spec)
        return cls(
            tuple(
                _learn(column, field_type, column_of(frame, column), max_categories)
                for column, field_type in spec.items()
            )
        )

    @property
    def spec(self) -> dict[str, str]:
        """Column → declared type, in the order of the features."""
        return {code.column: code.field_type for code in self.codes}

    @property
    def names(self) -> tuple[str, ...]:
        """One name a feature, such as `genre=jazz`, `price`, `hour:sin1`."""
        return tuple(name for code in self.codes for name in code.names())

    @property
    def width(self) -> int:
        """Number of features."""
        return sum(code.width for code in self.codes)

    @property
    def columns(self) -> dict[str, tuple[str, int]]:
        """Column → its kind, as in `FIELD_KINDS`, and the number of its features, in their order."""
        return {code.column: (code.kind[0], code.width) for code in self.codes}

    def transform(self, frame: pd.DataFrame) -> np.ndarray:
        """Float32 (row, width). A column that `frame` lacks counts as missing, other columns are not read.

        Raises `CatalogueError` with every value that is not of its declared type.
        """
        _check(frame, self.spec)
        blocks = [code.encode(column_of(frame, code.column)) for code in self.codes]
        if not blocks:
            return np.zeros((len(frame), 0), dtype=np.float32)
        return np.concatenate(blocks, axis=1).astype(np.float32)

    def plain_row(self, values: Mapping[str, object]) -> np.ndarray | None:
        """Float32 (width,): `transform` of one row of plain text and numbers, without a frame.

        `values`: column → value; a column that it lacks counts as missing, other columns are not read. None where a
        value is anything else, or not of its declared type: `transform` reads the one and says so of the other.
        """
        features: list[float] = []
        for code in self.codes:
            encoded = code.plain(values.get(code.column))
            if encoded is None:
                return None
            features += encoded
        return np.array(features, dtype=np.float32)

    def to_dict(self) -> dict[str, Any]:
        """This encoder as plain JSON values; `from_dict` reads it back."""
        return {"codes": [{**asdict(code), "values": list(code.values)} for code in self.codes]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FieldEncoder:
        """The encoder that `to_dict` described."""
        return cls(tuple(_FieldCode(**{**code, "values": tuple(code["values"])}) for code in values["codes"]))


def _learn(column: str, field_type: str, values: pd.Series, max_categories: int) -> _FieldCode:
    kind, _ = parse_field_type(column, field_type)
    if kind == "cyclic":
        return _FieldCode(column, field_type)
    if kind == "number":
        numbers = number_values(values)
        numbers = numbers[np.isfinite(numbers)]
        if not len(numbers):
            return _FieldCode(column, field_type)
        # Relative to the largest, so that neither squares of huge numbers overflow nor those of tiny ones vanish.
        scale = float(np.abs(numbers).max()) or 1.0
        mean, std = float((numbers / scale).mean()) * scale, float((numbers / scale).std())
        # A constant column would divide by zero; by 1 it becomes all zeros, which is what it says.
        return _FieldCode(column, field_type, mean=mean, std=std * scale if std > 1e-9 else 1.0)
    counts = Counter(key for value in values for key in _keys(kind, value))
    frequent = sorted(counts, key=lambda key: (-counts[key], key))[:max_categories]
    return _FieldCode(column, field_type, values=tuple(sorted(frequent)))


def _check(frame: pd.DataFrame, spec: Mapping[str, str]) -> None:
    problems = [
        Problem(
            "frame",
            int(row),
            column,
            column_of(frame, column).iloc[row],
            "wrong value",
            f"Expected {expected_of(field_type)}.",
        )
        for column, field_type in spec.items()
        for row in np.flatnonzero(field_faults(column_of(frame, column), field_type))
    ]
    if problems:
        raise CatalogueError("some values are not of the type that their column is declared as.", problems)


def _keys(kind: str, value: object) -> Iterable[str]:
    if kind == "tags":
        return tag_keys(value)
    key = category_key(value)
    return () if key is None else (key,)


def _is_scalar(value: object) -> bool:
    return not isinstance(value, (list, tuple, set, frozenset, dict, np.ndarray, bytes))


def _is_tags(value: object) -> bool:
    if isinstance(value, (list, tuple, set, frozenset, np.ndarray)):
        return all(_is_scalar(tag) for tag in value)
    return _is_scalar(value)
