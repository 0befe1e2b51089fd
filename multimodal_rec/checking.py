"""Every defect of a catalogue's tables at once, and the tables in their one normal form."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pandera.pandas as pa

from multimodal_rec.characters import not_utf8
from multimodal_rec.errors import Problem
from multimodal_rec.fields import (
    category_key,
    column_of,
    expected_of,
    field_faults,
    number_values,
    parse_field_type,
    tag_keys,
)
from multimodal_rec.media_paths import media_cells
from multimodal_rec.schema import Schema
from multimodal_rec.vectors import vector_cells

LATEST_SECONDS = 10**11
"""Unix seconds beyond this (the year 5138) are milliseconds or worse."""


COLUMN_IS_MISSING = "column is missing"
"""What a problem says where a declared column is not in its table."""


class Tables(NamedTuple):
    """The three frames of a catalogue; `users` is None where there is no such table."""

    items: pd.DataFrame
    interactions: pd.DataFrame
    users: pd.DataFrame | None


class Checked(NamedTuple):
    """Tables in normal form, all rows kept, with every problem that was found in them, file by file."""

    tables: Tables
    problems: tuple[Problem, ...]


class CheckedLog(NamedTuple):
    """Interactions in normal form with every problem that was found in them."""

    interactions: pd.DataFrame
    problems: tuple[Problem, ...]


def check_tables(
    tables: Tables,
    schema: Schema,
    *,
    media: Path | None,
    files: Sequence[str] = ("items", "interactions", "users"),
) -> Checked:
    """The tables in normal form and all of their problems.

    Normal form: ids and categories `str`, texts `str` or None, tags a tuple of `str`, numbers float64 (NaN where
    missing), media a list of absolute paths, vectors float32 (dim,) or None, `timestamp` int64 Unix seconds, `position`
    float64, `event` `str` or None, `value` float64. Undeclared columns stay as they are. A problem without a row means
    a whole column.

    `media`: the folder that every media path must lie in after links are followed; None takes absolute paths as they
    are. `files`: names of the three tables for the problems.
    """
    item_problems = not_utf8(tables.items, files[0])
    items = _check_items(tables.items, schema, media, files[0], item_problems)
    user_problems = [] if tables.users is None else not_utf8(tables.users, files[2])
    users = None if tables.users is None else _check_users(tables.users, schema, files[2], user_problems)
    problems = not_utf8(tables.interactions, files[1])
    interactions = _check_interactions(Tables(items, tables.interactions, users), schema, files, problems)
    return Checked(
        Tables(items, interactions, users), tuple(_in_order(item_problems + problems + user_problems, files))
    )


def check_items(frame: pd.DataFrame, schema: Schema, *, media: Path | None, file: str) -> Checked:
    """One table of items in normal form, as `check_tables` gives it, and all of its problems."""
    problems = not_utf8(frame, file)
    items = _check_items(frame, schema, media, file, problems)
    return Checked(Tables(items, pd.DataFrame(), None), tuple(_in_order(problems, [file])))


def check_interactions(frame: pd.DataFrame, schema: Schema, *, file: str = "interactions") -> CheckedLog:
    """The interactions in normal form and all of their problems, whichever items and people they name.

    A declared context column that is missing is no problem here: nothing is known of it then.
    """
    problems = not_utf8(frame, file)
    checked = _check_interactions(Tables(pd.DataFrame(), frame, None), schema, ("items", file, "users"), problems)
    missing = [column for column in schema.context if column not in frame]
    kept = [p for p in problems if not (p.column in missing and p.message == COLUMN_IS_MISSING)]
    return CheckedLog(checked.drop(columns=missing), tuple(kept))


def set_aside(tables: Tables, problems: Sequence[Problem], *, files: Sequence[str]) -> Checked:
    """The tables without the rows that have problems, nor the interactions of items and users that went with them.

    The interactions that go for that reason are added to the problems. Problems without a row change nothing.
    """
    bad = {file: sorted({p.row for p in problems if p.file == file and p.row is not None}) for file in files}
    items = tables.items.drop(index=bad[files[0]])
    users = None if tables.users is None else tables.users.drop(index=bad[files[2]])
    more = []
    if len(tables.interactions):
        for column, kept, all_ids in (
            ("item_id", items, tables.items),
            ("user_id", users, tables.users),
        ):
            if kept is None or all_ids is None:
                continue
            lost = set(all_ids[column]) - set(kept[column]) - {None}
            for row in np.flatnonzero(tables.interactions[column].isin(list(lost))):
                value = tables.interactions[column].iloc[row]
                message = f"the {column[:4]} of this interaction was set aside"
                more.append(Problem(files[1], int(row), column, value, message, f"Correct that {column[:4]} first."))
    bad_interactions = sorted({*bad[files[1]], *(p.row for p in more)})
    interactions = tables.interactions.drop(index=bad_interactions)
    return Checked(
        Tables(
            items.reset_index(drop=True),
            interactions.reset_index(drop=True),
            None if users is None else users.reset_index(drop=True),
        ),
        tuple(_in_order([*problems, *more], files)),
    )


def _check_items(
    frame: pd.DataFrame, schema: Schema, media: Path | None, file: str, problems: list[Problem]
) -> pd.DataFrame:
    frame = _with_ids(frame, ("item_id",))
    readable = schema.text + schema.media_columns + schema.vector_columns
    complete = all(column in frame for column in ("item_id", *readable))
    columns = {"item_id": _id_column(unique=True)}
    columns |= {column: pa.Column(nullable=True, checks=_check("text", _is_text)) for column in schema.text}
    columns |= {column: pa.Column(nullable=True, checks=_check("paths", _is_paths)) for column in schema.media_columns}
    columns |= {column: pa.Column(nullable=True) for column in schema.vector_columns}
    columns |= _field_columns(schema.attributes)
    columns |= {column: pa.Column(nullable=True) for table, column in schema.updated.items() if table == "items"}
    _validate(frame, columns, file, problems)
    if not schema.modalities:
        remedy = (
            "Name at least one text, image, audio or video column under [columns] in catalogue.toml, or one of vectors "
            "under [vectors]."
        )
        problems.append(Problem(file, None, None, None, "no column is declared that a model could read", remedy))
    for column in schema.text:
        # What is an attribute too has an attribute's normal form, which a list of tags would lose as one text.
        if column not in schema.attributes:
            frame[column] = _objects(_text(value) for value in column_of(frame, column))
    root = None if media is None else media.resolve()
    seen: dict[str, str | Problem] = {}
    for column in schema.media_columns:
        lists, bad = media_cells(column_of(frame, column), root, seen, file=file)
        frame[column] = _objects(lists)
        problems += bad
    for column in schema.vector_columns:
        cells, bad = vector_cells(column_of(frame, column), file=file)
        frame[column] = _objects(cells)
        problems += bad
    _normalise_fields(frame, schema.attributes)
    _normalise_moments(frame, schema.updated.get("items"), file, problems)
    # Where a whole column is missing, that is the one problem to correct first.
    if readable and complete:
        problems += _nothing_to_read(frame, schema, file, problems)
    return frame


def _nothing_to_read(frame: pd.DataFrame, schema: Schema, file: str, problems: Sequence[Problem]) -> Iterable[Problem]:
    blank = np.ones(len(frame), dtype=bool)
    for column in schema.text + schema.media_columns:
        blank &= ~frame[column].map(bool).to_numpy(dtype=bool)
    for column in schema.vector_columns:
        blank &= frame[column].isna().to_numpy(dtype=bool)
    # A row whose only picture is missing already has its problem.
    broken = schema.media_columns + schema.vector_columns
    blank[[p.row for p in problems if p.row is not None and p.column in broken]] = False
    vectors = ", and no vector" if schema.vectors else ""
    remedy = f"Give it one of the columns {', '.join(schema.text + broken)}, or leave it out."
    message = f"this item has no text, picture, sound or video{vectors}"
    return _row_problems(file, column_of(frame, "item_id"), blank, message=message, remedy=remedy)


def _check_users(frame: pd.DataFrame, schema: Schema, file: str, problems: list[Problem]) -> pd.DataFrame:
    frame = _with_ids(frame, ("user_id",))
    columns = {"user_id": _id_column(unique=True)} | _field_columns(schema.user_attributes)
    if schema.profile is not None:
        columns[schema.profile] = pa.Column(nullable=True, checks=_check("text", _is_text))
    columns |= {column: pa.Column(nullable=True) for table, column in schema.updated.items() if table == "users"}
    _validate(frame, columns, file, problems)
    if schema.profile is not None:
        frame[schema.profile] = _objects(_text(value) for value in column_of(frame, schema.profile))
    _normalise_fields(frame, schema.user_attributes)
    _normalise_moments(frame, schema.updated.get("users"), file, problems)
    return frame


def _check_interactions(tables: Tables, schema: Schema, files: Sequence[str], problems: list[Problem]) -> pd.DataFrame:
    file = files[1]
    frame = _with_ids(tables.interactions, ("user_id", "item_id"))
    columns = {"user_id": _id_column(), "item_id": _id_column()} | _field_columns(schema.context)
    if "position" in frame:
        columns["position"] = pa.Column(nullable=False, checks=_field_check("number"))
    if "value" in frame:
        columns |= _field_columns({"value": "number"})
    _validate(frame, columns, file, problems)
    if "event" in frame:
        frame["event"] = _objects(category_key(value) for value in frame["event"])
        if schema.events:
            unknown = frame["event"].notna() & ~frame["event"].isin(list(schema.events))
            expected = (
                f"Expected one of {', '.join(map(repr, schema.events))}: declare it under [events] or correct it."
            )
            problems += _row_problems(
                file, column_of(frame, "event"), unknown, message="unknown event", remedy=expected
            )
    for column, known, file_of in (("item_id", tables.items, files[0]), ("user_id", tables.users, files[2])):
        if known is not None and column in known and column in frame:
            unknown = frame[column].notna() & ~frame[column].isin(known[column].tolist())
            expected = f"Add it to {file_of}, or leave this interaction out."
            problems += _row_problems(
                file, column_of(frame, column), unknown, message=f"{column} is not in {file_of}", remedy=expected
            )
    _normalise_fields(frame, schema.context)
    if "value" in frame:
        frame["value"] = number_values(column_of(frame, "value"))
    if "position" in frame:
        frame["position"] = number_values(column_of(frame, "position"))
    if "timestamp" in frame:
        if column_of(frame, "timestamp").isna().all() and len(frame):
            return frame.drop(columns="timestamp")
        frame["timestamp"] = _moments(frame, "timestamp", file, problems)
    return frame


def _normalise_moments(frame: pd.DataFrame, column: str | None, file: str, problems: list[Problem]) -> None:
    if column is not None and column in frame:
        frame[column] = _moments(frame, column, file, problems)


def _moments(frame: pd.DataFrame, column: str, file: str, problems: list[Problem]) -> np.ndarray:
    stamps = column_of(frame, column)
    seconds, missing, bad = unix_seconds(stamps)
    remedy = "Give every row one, or none."
    problems += _row_problems(file, stamps, missing, message="no timestamp, while other rows have one", remedy=remedy)
    remedy = "Expected Unix seconds (not milliseconds) or an ISO 8601 time such as 2024-05-01T18:00:00Z."
    problems += _row_problems(file, stamps, bad, message="unreadable timestamp", remedy=remedy)
    return seconds


def unix_seconds(column: pd.Series) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Int64 Unix seconds (row,), with two bool masks: where the value is missing, and where it cannot be read.

    Takes numbers, datetimes and ISO 8601 text; times without a zone are UTC; fractions are rounded down.
    """
    missing = column.isna().to_numpy(dtype=bool)
    if pd.api.types.is_datetime64_any_dtype(column):
        times = pd.to_datetime(column, utc=True)
    else:
        numbers = number_values(column)
        rest = column.where(np.isnan(numbers))
        times = pd.to_datetime(pd.Series(rest, dtype=object), utc=True, errors="coerce", format="ISO8601")
        if not times.notna().any():
            return _whole_seconds(numbers, missing)
        parsed = times.notna().to_numpy(dtype=bool)
        numbers[parsed] = _since_epoch(times[parsed])
        return _whole_seconds(numbers, missing)
    seconds = np.full(len(column), np.nan)
    seconds[~missing] = _since_epoch(times[~missing])
    return _whole_seconds(seconds, missing)


def _since_epoch(times: Any) -> np.ndarray:
    return ((times - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1)).to_numpy(dtype=np.float64)


def _whole_seconds(seconds: np.ndarray, missing: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    bad = ~missing & ~(np.abs(seconds) < LATEST_SECONDS)
    whole = np.where(missing | bad, 0, np.floor(np.nan_to_num(seconds)))
    return whole.astype(np.int64), missing, bad


def _with_ids(frame: pd.DataFrame, names: Iterable[str]) -> pd.DataFrame:
    frame = frame.reset_index(drop=True)
    for name in names:
        if name in frame:
            frame[name] = _objects(category_key(value) for value in column_of(frame, name))
    return frame


def _normalise_fields(frame: pd.DataFrame, spec: Any) -> None:
    for column, field_type in spec.items():
        kind, _ = parse_field_type(column, field_type)
        values = column_of(frame, column)
        if kind in ("number", "cyclic"):
            frame[column] = number_values(values)
        else:
            frame[column] = _objects(map(category_key if kind == "category" else tag_keys, values))


def _objects(values: Iterable[object]) -> pd.Series:
    return pd.Series(list(values), dtype=object)


def _text(value: object) -> str | None:
    text = category_key(value)
    return text if text is not None and text.strip() else None


def _is_text(column: pd.Series) -> np.ndarray:
    return ~field_faults(column, "category")


def _is_paths(column: pd.Series) -> np.ndarray:
    return np.fromiter(
        (
            isinstance(value, (str, Path))
            or (isinstance(value, (list, tuple, np.ndarray)) and all(isinstance(path, (str, Path)) for path in value))
            for value in column
        ),
        dtype=bool,
        count=len(column),
    )


def _check(name: str, accept: Any) -> pa.Check:
    return pa.Check(lambda column: pd.Series(accept(column), index=column.index), name=name)


def _field_check(field_type: str) -> pa.Check:
    return _check(f"field {field_type}", lambda column: ~field_faults(column, field_type))


def _field_columns(spec: Any) -> dict[str, pa.Column]:
    return {column: pa.Column(nullable=True, checks=_field_check(kind)) for column, kind in spec.items()}


def _id_column(*, unique: bool = False) -> pa.Column:
    return pa.Column(nullable=False, unique=unique, report_duplicates="exclude_first")


def _validate(frame: pd.DataFrame, columns: dict[str, pa.Column], file: str, problems: list[Problem]) -> None:
    try:
        pa.DataFrameSchema(columns).validate(frame, lazy=True)
    except pa.errors.SchemaErrors as errors:
        cases = errors.failure_cases
        for column, check, value, index in zip(
            cases["column"], cases["check"], cases["failure_case"], cases["index"], strict=True
        ):
            problems.append(_problem_of(file, str(check), column, value, index))


def _problem_of(file: str, check: str, column: object, value: object, index: object) -> Problem:
    if check == "column_in_dataframe":
        remedy = "Add the column, or take it out of catalogue.toml."
        if str(value) in ("item_id", "user_id"):
            remedy = "Add the column: every row needs an id."
        return Problem(file, None, str(value), None, COLUMN_IS_MISSING, remedy)
    row = int(str(index))
    if check.startswith("field "):
        remedy = f"Expected {expected_of(check.removeprefix('field '))}."
        return Problem(file, row, str(column), value, "wrong value", remedy)
    message, remedy = {
        "not_nullable": ("no value", "Give this row one, or leave the row out."),
        "field_uniqueness": ("this id was already used above", "Keep one row an id."),
        "text": ("not a text", "Expected text or nothing."),
        "paths": ("not a path", "Expected a path below media/, a list of them, or paths joined by '|'."),
    }[check]
    return Problem(file, row, str(column), None if check == "not_nullable" else value, message, remedy)


def _row_problems(file: str, values: pd.Series, where: Any, *, message: str, remedy: str) -> list[Problem]:
    rows = np.flatnonzero(np.asarray(where, dtype=bool))
    return [Problem(file, int(row), str(values.name), values.iloc[row], message, remedy) for row in rows]


def _in_order(problems: Sequence[Problem], files: Sequence[str]) -> list[Problem]:
    return sorted(problems, key=lambda p: (files.index(p.file), -1 if p.row is None else p.row))
