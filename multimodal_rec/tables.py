"""Lance tables under one URI: opened by name, read and written; all at their latest version, or each at a given one."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import final

import lancedb
import pyarrow as pa
import pyarrow.compute as pc
from lancedb.db import DBConnection
from lancedb.table import Table

from multimodal_rec.arrow_memory import system_memory
from multimodal_rec.errors import StoreError

# Lance plans a filter on ids as one expression; many thousands in one are slower than several filters.
_IDS_A_FILTER = 1000
# Of the column of keys, read together: the keys that are looked for are made ready once a piece.
_ROWS_A_PIECE = 1 << 16
# Lance keeps the manifest of every version that it sees, up to 1 GB, and each names all files of its table: of as many
# commits as a large catalogue takes, that is all of the 1 GB. A process reads the latest one only.
_CACHE_BYTES = 16 << 20


@final
class Tables:
    """The tables of one store, as one process sees them: every read sees the latest commit of any process.

    With `versions` (table → version) only these tables are there, each as it was then, and nothing can be written. A
    handle must not cross a fork (the child would hang on threads that it does not have; here it raises `StoreError`).
    """

    def __init__(self, database: DBConnection, versions: Mapping[str, int] | None = None) -> None:
        self._database = database
        self._versions = versions
        self._open: dict[str, Table] = {}
        self._process = os.getpid()
        self._closed = False

    @classmethod
    def connect(cls, uri: str | Path | None) -> Tables:
        """The tables at `uri`, a folder or an object-storage prefix; None: in memory."""
        always = datetime.timedelta(0)
        session = lancedb.Session(index_cache_size_bytes=_CACHE_BYTES, metadata_cache_size_bytes=_CACHE_BYTES)
        where = "memory://" if uri is None else uri
        return cls(lancedb.connect(where, read_consistency_interval=always, session=session))

    def at(self, versions: Mapping[str, int]) -> Tables:
        """These tables as they were at the given versions, to be read."""
        return Tables(self._database, versions)

    def close(self) -> None:
        """Let go of the tables."""
        self._open.clear()
        self._closed = True

    def names(self) -> list[str]:
        """The tables that can be opened, sorted."""
        self._check()
        if self._versions is not None:
            return sorted(self._versions)
        listed: list[str] = []
        token: str | None = None
        while True:
            page = self._database.list_tables(page_token=token, limit=1000)
            listed += page.tables
            token = page.page_token
            if not token:
                break
        # The listing names the folder that a process killed while creating a table leaves.
        return [name for name in sorted(listed) if self.find(name) is not None]

    def find(self, name: str) -> Table | None:
        """The table of this name, None where there is none."""
        self._check()
        if name in self._open:
            return self._open[name]
        if self._versions is not None and name not in self._versions:
            return None
        try:
            table = self._database.open_table(name)
        except ValueError as error:
            if "not found" in str(error):
                return None
            raise
        if self._versions is not None:
            try:
                table.checkout(self._versions[name])
            except (ValueError, RuntimeError) as error:
                raise StoreError(
                    f"version {self._versions[name]} of table '{name}' is gone: {error}. Expected the release that was "
                    "opened to be there still. Open another one."
                ) from error
        self._open[name] = table
        return table

    def table(self, name: str) -> Table:
        """The table of this name. Raises `StoreError` where there is none."""
        found = self.find(name)
        if found is None:
            raise StoreError(f"the store has no table '{name}'. Expected one that embed has written to. Embed first.")
        return found

    def create(self, name: str, schema: pa.Schema) -> Table:
        """The table of this name, made where there is none."""
        found = self.find(name)
        if found is None:
            self.check_writable()
            # Another process may have created it since; `exist_ok` takes that one.
            found = self._open[name] = self._database.create_table(name, schema=schema, exist_ok=True)
        return found

    def drop(self, name: str) -> None:
        """Remove a table with all its versions."""
        self.check_writable()
        self._open.pop(name, None)
        self._database.drop_table(name)

    def read(self, name: str, columns: list[str]) -> pa.Table:
        """Some columns of all rows."""
        return self.table(name).search().select(columns).to_arrow().select(columns)

    def read_keyed(self, name: str, key: str, keys: Sequence[str], columns: list[str]) -> pa.Table:
        """Some columns of the rows that have one of these keys.

        The column of keys is read, a piece at a time, and then these rows alone. A condition would be planned anew for
        each file of the table, with all keys in it, and every plan kept to the end: 650 bytes a key and file, 335 MB
        for a thousand keys among a million rows that were written 2,048 at a time, in twice the time of a processor.
        """
        table = self.table(name)
        if not len(keys):
            return table.schema.empty_table().select(columns)
        if self._versions is None:
            # Where a row lies holds for one version.
            table = self.at({name: table.version}).table(name)
        wanted, places = pa.array(keys, pa.string()), list[int]()
        for piece in _pieces(table.search().select([key]).with_row_id(True).to_batches()):
            # Arrow makes its functions as it is imported, so that their types are not known before.
            hit = pc.is_in(piece[key], value_set=wanted)  # pyright: ignore[reportAttributeAccessIssue]
            places += piece["_rowid"].filter(hit).to_pylist()
        if not places:
            return table.schema.empty_table().select(columns)
        return table.take_row_ids(places).select(columns).to_arrow().select(columns)

    def upsert(self, name: str, key: str, columns: Mapping[str, pa.Array]) -> None:
        """Insert these rows, or replace those of the same key, in one commit."""
        self.check_writable()
        table = self.table(name)
        if len(columns[key]) == 0:
            return
        with system_memory:
            rows = pa.table(dict(columns)).select(table.schema.names).cast(table.schema)
            merge = table.merge_insert(key).when_matched_update_all().when_not_matched_insert_all()
            # LanceDB takes lists of ten numbers and more for vectors and refuses null among them unless told; numbers
            # that are not finite have been refused before, so "null" replaces nothing.
            merge.execute(rows, on_bad_vectors="null")

    def check_writable(self) -> None:
        """Raise `StoreError` where these tables are held at versions, or closed."""
        self._check()
        if self._versions is not None:
            raise StoreError(
                "this store was opened at a release, which stays as it is. Expected one to write to. Open the store "
                "without release=, write, and publish."
            )

    def _check(self) -> None:
        if self._process != os.getpid():
            raise StoreError(
                f"this store was opened in process {self._process} and is used in its fork {os.getpid()}, where it "
                "would hang. Start workers with multiprocessing's 'spawn' and open the store in each."
            )
        if self._closed:
            raise StoreError("this store is closed. Open it again with ItemStore.open(...).")


def _pieces(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """The same rows, some tens of thousands together; the last piece has what is left."""
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        waiting.append(batch)
        if sum(map(len, waiting)) >= _ROWS_A_PIECE:
            yield pa.Table.from_batches(waiting)
            waiting = []
    if waiting:
        yield pa.Table.from_batches(waiting)


def filters(column: str, ids: Sequence[str]) -> Iterator[str]:
    """Conditions in SQL that together admit these ids."""
    for start in range(0, len(ids), _IDS_A_FILTER):
        yield f"{column} IN ({', '.join(map(quote, ids[start : start + _IDS_A_FILTER]))})"


def quote(text: str) -> str:
    """A text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"
