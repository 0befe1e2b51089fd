"""Releases: states of all tables of a store that stay as they are, under names that can be moved."""

from __future__ import annotations

import datetime
import json
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import NamedTuple, final

import pandas as pd
import pyarrow as pa
from lancedb.table import Table

from multimodal_rec.errors import StoreError
from multimodal_rec.rows import RELEASE_SCHEMA, now
from multimodal_rec.tables import Tables, quote

_TABLE = "releases"
# A tag that no release names was left by a publisher that was killed, or is one's that has not finished.
_TAG_GRACE = datetime.timedelta(days=1)
_LOOKS = 10


class Release(NamedTuple):
    """One state of a store."""

    name: str
    versions: dict[str, int]
    """Table → version."""


class _Row(NamedTuple):
    name: str
    release: str
    before: str | None
    tag: str | None
    tables: str | None
    at: datetime.datetime

    @property
    def held(self) -> dict[str, tuple[int, int]]:
        """Table → version and number of rows; nothing for an alias."""
        return {name: (version, rows) for name, (version, rows) in json.loads(self.tables or "{}").items()}


@final
class Releases:
    """The releases of one store, kept in its table `releases`: a row a name, so that one commit publishes.

    Each release also has a tag of its own on each of its tables, set before the row, so that nothing which a row names
    is ever tidied away. An alias is a row without versions that stands for a release.
    """

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def publish(self, name: str, tables: Sequence[str], *, alias: str | None) -> None:
        """Keep the present state of these tables under a name that was never used, and under an alias."""
        self._tables.check_writable()
        rows = self._rows()
        if not name or name == alias:
            raise StoreError(f"'{name}' with alias '{alias}' names no release. Expected two names that differ.")
        if name in rows:
            raise StoreError(
                f"there is a release or an alias '{name}' already, and a release stays as it is. Expected a new name. "
                "Choose another one, or withdraw that one first."
            )
        self._check_alias(alias, rows)
        opened = {table: self._tables.table(table) for table in tables}
        versions = _one_moment(opened)
        tag = f"r{time.time_ns()}-{uuid.uuid4().hex[:8]}"
        for table, version in versions.items():
            opened[table].tags.create(tag, version)
        then = self._tables.at(versions)
        held = json.dumps({table: (version, then.table(table).count_rows()) for table, version in versions.items()})
        moment = now(1)[0].as_py()
        entries = [_Row(name, name, None, tag, held, moment)]
        if alias is not None:
            entries.append(_alias(alias, name, rows))
        self._write(entries)
        if self._rows()[name].tag != tag:
            raise StoreError(f"somebody else published '{name}' at this moment. Choose another name.")

    def switch(self, alias: str, *, to: str) -> None:
        """Let an alias stand for a release, in one commit."""
        self._tables.check_writable()
        rows = self._rows()
        self._check_alias(alias, rows)
        self._write([_alias(alias, self.resolve(to).name, rows)])

    def rollback(self, alias: str) -> str:
        """Let an alias stand for what it stood for before its last switch."""
        rows = self._rows()
        before = rows[alias].before if alias in rows else None
        if before is None or before not in rows:
            raise StoreError(
                f"'{alias}' has nothing to go back to. Expected an alias that was switched, from a release that is "
                f"still there; there are {_said(rows)}. Name the release: switch('{alias}', to=...)."
            )
        self.switch(alias, to=before)
        return before

    def withdraw(self, name: str) -> None:
        """Give up a name; with a release, its tags. What a name stands for cannot be withdrawn."""
        self._tables.check_writable()
        rows = self._rows()
        if name not in rows:
            raise StoreError(f"there is no release '{name}'. Expected one of {_said(rows)}.")
        standing = [other for other, row in rows.items() if other != name and row.release == name]
        if standing:
            raise StoreError(
                f"'{standing[0]}' stands for release '{name}'. Expected a release that nothing stands for. Switch "
                f"'{standing[0]}' to another one first, or withdraw it."
            )
        # The row first: a reader must not find a release whose versions may be gone.
        self._tables.table(_TABLE).delete(f"name = {quote(name)}")
        row = rows[name]
        for table in row.held:
            found = self._tables.find(table)
            if found is not None and row.tag is not None and row.tag in found.tags.list():
                found.tags.delete(row.tag)

    def resolve(self, name: str) -> Release:
        """The release of this name, or the one that it stands for. Raises `StoreError` where there is none."""
        rows = self._rows()
        target = rows[name].release if name in rows else None
        if target is None or target not in rows:
            raise StoreError(
                f"there is no release '{name}'. Expected one of {_said(rows)}. Publish it first, or open the store "
                "without a release."
            )
        return Release(target, {table: version for table, (version, _) in rows[target].held.items()})

    def holding(self, table: str) -> list[str]:
        """The names of the releases that hold a table."""
        return [name for name, row in self._rows().items() if table in row.held]

    def frame(self, prefix: str) -> pd.DataFrame:
        """A row a name, in order of time; `prefix`: what the names of items' tables begin with."""
        rows = self._rows()
        listed = []
        for row in sorted(rows.values(), key=lambda row: (row.at, row.name)):
            held = rows.get(row.release, row).held
            items = {table.removeprefix(prefix): size for table, (_, size) in held.items() if table.startswith(prefix)}
            interactions = held["interactions"][1] if "interactions" in held else 0
            listed.append((row.name, row.release, row.before, list(items), sum(items.values()), interactions, row.at))
        names = ["name", "release", "before", "models", "items", "interactions", "at"]
        # Of objects, as a missing name is None, and not a number.
        return pd.DataFrame(listed, columns=names).assign(before=pd.Series([row[2] for row in listed], dtype=object))

    def tidy(self, tables: Sequence[str], *, older_than: datetime.timedelta) -> None:
        """Join small files, and drop versions that are older and older than what any release holds."""
        named = {row.tag for row in self._rows().values()}
        for name in tables:
            table = self._tables.table(name)
            for tag in list(table.tags.list()):
                if tag not in named and _age(tag) > _TAG_GRACE:
                    table.tags.delete(tag)
            # Lance refuses to drop any version where a tagged one is old enough to be dropped with it.
            kept = {int(about["version"]) for about in table.tags.list().values()}
            moments = [each["timestamp"] for each in table.list_versions() if each["version"] in kept]
            margin = datetime.timedelta(seconds=1)
            ages = [datetime.datetime.now(moment.tzinfo) - moment + margin for moment in moments]
            table.optimize(cleanup_older_than=max([older_than, *ages]))

    def _rows(self) -> dict[str, _Row]:
        if self._tables.find(_TABLE) is None:
            return {}
        return {row["name"]: _Row(**row) for row in self._tables.read(_TABLE, RELEASE_SCHEMA.names).to_pylist()}

    def _check_alias(self, alias: str | None, rows: Mapping[str, _Row]) -> None:
        if alias is not None and alias in rows and rows[alias].release == alias:
            raise StoreError(
                f"'{alias}' is a release, which stays as it is. Expected an alias, or a new name for one. Choose "
                "another name."
            )

    def _write(self, entries: Sequence[_Row]) -> None:
        table = self._tables.create(_TABLE, RELEASE_SCHEMA)
        rows = pa.Table.from_pylist([entry._asdict() for entry in entries], schema=RELEASE_SCHEMA)
        # A release, even one that somebody published since, is never replaced; aliases are.
        merge = table.merge_insert("name").when_not_matched_insert_all()
        merge.when_matched_update_all(where="target.release != target.name").execute(rows)


def _alias(alias: str, release: str, rows: Mapping[str, _Row]) -> _Row:
    stood = rows[alias].release if alias in rows else None
    before = rows[alias].before if alias in rows and stood == release else stood
    return _Row(alias, release, before, None, None, now(1)[0].as_py())


def _one_moment(tables: Mapping[str, Table]) -> dict[str, int]:
    """Versions that all tables had at once: those of a look that the next look repeats."""
    seen = {name: table.version for name, table in tables.items()}
    for _ in range(_LOOKS):
        again = {name: table.version for name, table in tables.items()}
        if again == seen:
            return seen
        seen = again
    raise StoreError(
        f"the store was written to throughout {_LOOKS} looks at it. Expected a moment without a commit. Publish when "
        "the jobs that write to it are done."
    )


def _age(tag: str) -> datetime.timedelta:
    return datetime.timedelta(microseconds=(time.time_ns() - int(tag[1:].partition("-")[0])) // 1000)


def _said(rows: Mapping[str, _Row]) -> str:
    return ", ".join(map(repr, rows)) or "none: nothing was published"
