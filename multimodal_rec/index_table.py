"""An index beside a store on object storage: the files of an index folder as rows of a Lance table."""

from __future__ import annotations

import datetime
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import final

import lancedb
import numpy as np
import pyarrow as pa

from multimodal_rec.errors import StoreError
from multimodal_rec.index import ItemIndex
from multimodal_rec.index_folder import IndexFolder
from multimodal_rec.object_storage import check_endpoint, reason_of

_SCHEMA = pa.schema([("file", pa.string()), ("part", pa.int64()), ("content", pa.large_binary())])
_PART_BYTES = 16 * 2**20
# Whoever began to read the index before stays able to.
_KEPT = datetime.timedelta(days=1)


@final
class IndexTable:
    """A URI with one index, written and read through the client that the store itself uses, with its credentials.

    The whole index is replaced in one commit, so that a writer that is killed leaves the one that was there before.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri

    @property
    def exists(self) -> bool:
        """Whether an index was ever written here."""
        return self._open() is not None

    def write(self, index: ItemIndex, fingerprint: str) -> None:
        """Keep an index of the items of this fingerprint, in place of the one that was there."""
        with tempfile.TemporaryDirectory() as folder:
            IndexFolder(Path(folder)).write(index, fingerprint)
            reader = pa.RecordBatchReader.from_batches(_SCHEMA, _parts(Path(folder)))
            try:
                table = self._database().create_table("index", reader, mode="overwrite")
                table.optimize(cleanup_older_than=_KEPT)
            except (OSError, RuntimeError, ValueError) as error:
                raise StoreError(f"the index cannot be kept at '{self.uri}': {reason_of(error)}") from error

    def read(self, embeddings: np.ndarray, fingerprint: str) -> ItemIndex:
        """The index of these embeddings, as `IndexFolder.read` finds it, with its errors."""
        with tempfile.TemporaryDirectory() as folder:
            table = self._open()
            if table is not None:
                rows = (
                    table.search()
                    .select(["file", "part"])
                    .to_arrow()
                    .sort_by([("file", "ascending"), ("part", "ascending")])
                )
                for file, part in zip(rows["file"].to_pylist(), rows["part"].to_pylist(), strict=True):
                    found = table.search().where(f"file = '{file}' AND part = {part}").select(["content"]).to_arrow()
                    with (Path(folder) / Path(file).name).open("ab") as written:
                        written.write(found["content"][0].as_py())
            return IndexFolder(Path(folder), name=self.uri).read(embeddings, fingerprint)

    def _database(self) -> lancedb.DBConnection:
        return lancedb.connect(self.uri)

    def _open(self) -> lancedb.table.Table | None:
        check_endpoint(self.uri)
        try:
            return self._database().open_table("index")
        except ValueError as error:
            if "not found" in str(error):
                return None
            raise StoreError(f"no index can be looked for at '{self.uri}': {reason_of(error)}") from error


def index_at(place: Path | str | None) -> IndexFolder | IndexTable | None:
    """Where `index_path` says that an index is kept: a folder, a URI, or nowhere."""
    if place is None:
        return None
    return IndexTable(place) if isinstance(place, str) else IndexFolder(place)


def _parts(folder: Path) -> Iterator[pa.RecordBatch]:
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            part = 0
            while content := file.read(_PART_BYTES):
                rows = {"file": [path.name], "part": [part], "content": [content]}
                yield pa.RecordBatch.from_pydict(rows, schema=_SCHEMA)
                part += 1
