"""The durable item store: what the offline embedding job writes and every score reads."""

from __future__ import annotations

import datetime
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import final

import lancedb
import numpy as np
import pandas as pd
import pyarrow as pa
from lancedb.db import DBConnection
from lancedb.table import Table

from multimodal_rec.errors import CatalogueError, StoreError
from multimodal_rec.object_storage import check_endpoint, reason_of
from multimodal_rec.rows import (
    EVENT_COLUMNS,
    ItemRows,
    ItemTable,
    Layout,
    check_unique,
    decode_embeddings,
    event_rows,
    item_columns,
    layout_of,
    now,
    table_schemas,
    to_json,
    with_json,
)

# Lance plans a filter on ids as one expression; many thousands in one are slower than several filters.
_IDS_A_FILTER = 1000


@final
class ItemStore:
    """Tables `items`, `interactions`, `users` and `failures` in one folder, object-storage prefix or in memory.

    Every id has one row at most, whoever writes and whenever a writer is killed: each call commits whole or not at
    all. Every read sees the latest commit of any process. A handle must not cross a fork (the child would hang on
    threads that it does not have; here it raises `StoreError`): start workers with spawn, and open one in each.
    """

    def __init__(self, tables: Mapping[str, Table], layout: Layout) -> None:
        self._tables = dict(tables)
        self._process = os.getpid()
        self.layout = layout

    @classmethod
    def open(cls, uri: str | Path | None, layout: Layout, *, create: bool = True) -> ItemStore:
        """The store at `uri` (None: one in memory, gone when closed), created where there is none.

        Raises `StoreError` where `uri` cannot be opened, holds another layout, or holds nothing and `create` is False.
        """
        tables: dict[str, Table] = {}
        check_endpoint(uri)
        try:
            database = lancedb.connect(
                "memory://" if uri is None else uri, read_consistency_interval=datetime.timedelta(0)
            )
            for name, schema in table_schemas(layout).items():
                table = _open_table(database, name)
                if table is None and name == "items" and not create:
                    raise StoreError(
                        f"no store at '{uri}'. Expected a folder that `embed` has written to; got one without a table "
                        "'items'. Check the path, or embed first."
                    )
                if table is None:
                    # Another process may have created it since; `exist_ok` takes that one.
                    table = database.create_table(name, schema=schema, exist_ok=True)
                _check_layout(table.schema, schema, f"table '{name}' of the store at '{uri}'")
                tables[name] = table
        except StoreError:
            raise
        except (OSError, RuntimeError, ValueError) as error:
            raise StoreError(
                f"no store can be opened at '{uri}': {reason_of(error)}. "
                "Expected a folder that can be written to, or a URI such as 's3://bucket/store'."
            ) from error
        return cls(tables, layout)

    def __enter__(self) -> ItemStore:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the tables; a store in memory is lost. What was written stays written. Closing twice is fine."""
        self._tables.clear()

    @property
    def num_items(self) -> int:
        """How many items are stored, stale ones included."""
        return self._table("items").count_rows()

    @property
    def num_interactions(self) -> int:
        """How many interactions are stored."""
        return self._table("interactions").count_rows()

    def write_items(self, batch: ItemRows) -> None:
        """Insert these items, or replace those whose id is there, in one commit.

        Writing the same batch again changes nothing but `updated_at`. Embeddings are kept as float16. Raises
        `ItemError` naming the items whose id comes twice or whose numbers are NaN, infinite or beyond float16, and
        then writes none of them; `ValueError` where lengths or dimensions disagree.
        """
        self._upsert("items", "item_id", item_columns(batch, self.layout))

    def read_items(self, *, model: str | None) -> ItemTable:
        """Every item that the model of fingerprint `model` embedded, sorted by id, ready to be scored.

        None reads the rows of every model: to look at, never to score side by side.
        """
        where = None if model is None else f"model = {_quote(model)}"
        names = [*self.layout.modalities, "attributes_token", "behaviour_token"]
        rows = self._read("items", ["item_id", *names, "item_embedding", "attributes"], where).sort_by("item_id")
        decoded = [decode_embeddings(rows[name], self.layout.width_of(name)) for name in names]
        dim, rank = self.layout.embedding_dim, self.layout.content_rank
        content = np.zeros((len(rows), len(names), rank), dtype=np.float32)
        for part, (numbers, _) in enumerate(decoded[:-1]):
            content[:, part] = numbers[:, dim:]
        return ItemTable(
            ids=rows["item_id"].to_pylist(),
            tokens=np.stack([numbers[:, :dim] for numbers, _ in decoded], axis=1),
            present=np.stack([present for _, present in decoded], axis=1),
            embeddings=decode_embeddings(rows["item_embedding"], self.layout.width_of("item_embedding"))[0],
            attributes=[json.loads(text) for text in rows["attributes"].to_pylist()],
            content=content,
            vectors=decoded[-1][0][:, dim:],
        )

    def read_modality(self, modality: str, ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """One modality's stored numbers, float32 (item, dim + content rank), and present, bool (item,).

        In the order of `ids`; an id that is not stored is absent. For the job that fuses an item again after another
        modality changed.
        """
        if modality not in self.layout.modalities:
            raise ValueError(f"modality '{modality}' is none of this store's ({', '.join(self.layout.modalities)}).")
        position = {item_id: i for i, item_id in enumerate(dict.fromkeys(ids))}
        embeddings = np.zeros((len(position), self.layout.width_of(modality)), dtype=np.float32)
        present = np.zeros(len(position), dtype=bool)
        for where in _filters("item_id", list(position)):
            rows = self._read("items", ["item_id", modality], where)
            index = [position[item_id] for item_id in rows["item_id"].to_pylist()]
            embeddings[index], present[index] = decode_embeddings(rows[modality], self.layout.width_of(modality))
        order = np.array([position[item_id] for item_id in ids], dtype=np.int64)
        return embeddings[order], present[order]

    def embedded(self) -> pd.DataFrame:
        """What each stored item was embedded from: item_id, `{modality}_hash`, `{modality}_tower`, model; by id.

        Columns of objects, None where absent. An item is current where all of them are what they would be now.
        """
        marks = [f"{modality}_{mark}" for modality in self.layout.modalities for mark in ("hash", "tower")]
        rows = self._read("items", ["item_id", *marks, "model"]).sort_by("item_id")
        return pd.DataFrame({name: pd.Series(rows[name].to_pylist(), dtype=object) for name in rows.column_names})

    def stale(self, model: str) -> list[str]:
        """The ids, sorted, whose row another model than `model` wrote. `read_items` leaves them out."""
        return sorted(self._read("items", ["item_id"], f"model != {_quote(model)}")["item_id"].to_pylist())

    def delete_items(self, ids: Sequence[str]) -> None:
        """Remove these items and their failures; ids that are not there are passed over. Interactions stay."""
        for table in ("items", "failures"):
            for where in _filters("item_id", ids):
                self._table(table).delete(where)

    def append_interactions(self, interactions: pd.DataFrame) -> int:
        """Add what people did, in one commit, and give back how many rows were new.

        Columns user_id, item_id, and optionally timestamp (Unix seconds or datetimes), position, event, value;
        every other column is kept as context. A row whose user, item, timestamp, position and event are stored
        already is not added again; rows with neither time nor position may repeat within one call. Raises
        `CatalogueError` where an id is missing.
        """
        for name in ("user_id", "item_id"):
            if name not in interactions.columns:
                raise CatalogueError(
                    f"interactions need a column '{name}'; they have {', '.join(map(str, interactions.columns))}. "
                    "Rename the column that holds it."
                )
            num_missing = int(interactions[name].isna().to_numpy().sum())
            if num_missing > 0:
                raise CatalogueError(
                    f"interactions lack '{name}' in {num_missing} rows; none was added. "
                    "Drop those rows, or fill in the id."
                )
        # Where there is no timestamp, the order in which events came is the only order there is.
        rows = event_rows(interactions.to_dict("records"), time.time_ns())
        if not rows:
            return 0
        table = self._table("interactions")
        batch = pa.Table.from_pylist(rows, schema=table.schema)
        return table.merge_insert("event_key").when_not_matched_insert_all().execute(batch).num_inserted_rows

    def read_interactions(self) -> pd.DataFrame:
        """Every interaction in order of arrival: user_id, item_id, then those of timestamp, position, event, value
        and the context columns that any row has; missing as pandas has it.
        """
        rows = self._read("interactions", [*EVENT_COLUMNS, "context", "arrival"]).sort_by("arrival")
        known = [name for name in EVENT_COLUMNS if name.endswith("_id") or rows[name].null_count < len(rows)]
        frame = pd.DataFrame(
            {
                # Int64 only where a row lacks it: as float64, a timestamp or a position would lose its type.
                name: rows[name].to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
                if rows[name].null_count
                else rows[name].to_pandas()
                for name in known
            }
        )
        return with_json(frame, rows["context"])

    def write_users(self, users: pd.DataFrame) -> None:
        """Insert these people, or replace those whose user_id is there; every other column is an attribute.

        Raises `CatalogueError` without a column user_id, `ItemError` where an id comes twice.
        """
        if "user_id" not in users.columns:
            raise CatalogueError(
                f"users need a column 'user_id'; they have {', '.join(map(str, users.columns))}. "
                "Rename the column that holds it."
            )
        ids = [str(user_id) for user_id in users["user_id"]]
        check_unique(ids)
        texts = [to_json(row) for row in users.drop(columns="user_id").to_dict("records")]
        columns = {"user_id": pa.array(ids, pa.string()), "attributes": pa.array(texts, pa.string())}
        self._upsert("users", "user_id", columns)

    def read_users(self) -> pd.DataFrame:
        """Every person, sorted by user_id, with a column an attribute; missing as pandas has it."""
        rows = self._read("users", ["user_id", "attributes"]).sort_by("user_id")
        return with_json(rows.select(["user_id"]).to_pandas(), rows["attributes"])

    def record_failures(self, reasons: Mapping[str, str]) -> None:
        """Note why items could not be embedded: item_id → reason. A later reason replaces an earlier one."""
        columns = {
            "item_id": pa.array(list(reasons), pa.string()),
            "reason": pa.array(list(reasons.values()), pa.string()),
        }
        self._upsert("failures", "item_id", {**columns, "at": now(len(reasons))})

    def failures(self) -> pd.DataFrame:
        """The items that could not be embedded and were not written since: item_id, reason, at (UTC); by id."""
        failed = self._read("failures", ["item_id", "reason", "at"]).sort_by("item_id").to_pandas()
        written: dict[str, datetime.datetime] = {}
        # Compared, not deleted on writing: a writer killed between the two commits would leave a reason for ever.
        for where in _filters("item_id", failed["item_id"].tolist()):
            rows = self._read("items", ["item_id", "updated_at"], where)
            written.update(zip(rows["item_id"].to_pylist(), rows["updated_at"].to_pylist(), strict=True))
        still = [i not in written or at > written[i] for i, at in zip(failed["item_id"], failed["at"], strict=True)]
        return failed[np.array(still, dtype=bool)].reset_index(drop=True)

    def copy_into(self, other: ItemStore) -> None:
        """Add all rows of this store to another, empty one of the same layout."""
        for name in self._tables:
            rows = self._table(name).to_arrow()
            if rows.num_rows:
                other._table(name).add(rows, on_bad_vectors="null")

    def compact(self) -> None:
        """Join the small files that many writes leave, and drop versions older than seven days."""
        for name in tuple(self._tables):
            self._table(name).optimize()

    def _table(self, name: str) -> Table:
        if self._process != os.getpid():
            raise StoreError(
                f"this store was opened in process {self._process} and is used in its fork {os.getpid()}, where it "
                "would hang. Start workers with multiprocessing's 'spawn' and open the store in each."
            )
        if name not in self._tables:
            raise StoreError("this store is closed. Open it again with ItemStore.open(...).")
        return self._tables[name]

    def _read(self, table: str, columns: list[str], where: str | None = None) -> pa.Table:
        query = self._table(table).search().select(columns)
        return (query if where is None else query.where(where)).to_arrow().select(columns)

    def _upsert(self, name: str, key: str, columns: Mapping[str, pa.Array]) -> None:
        table = self._table(name)
        if len(columns[key]) == 0:
            return
        rows = pa.table(dict(columns)).select(table.schema.names).cast(table.schema)
        merge = table.merge_insert(key).when_matched_update_all().when_not_matched_insert_all()
        # LanceDB takes lists of ten numbers and more for vectors and refuses null among them unless told; numbers that
        # are not finite have been refused before, so "null" replaces nothing.
        merge.execute(rows, on_bad_vectors="null")


def _open_table(database: DBConnection, name: str) -> Table | None:
    # The listing of tables would not do: it names the folder that a process killed while creating a table leaves.
    try:
        return database.open_table(name)
    except ValueError as error:
        if "not found" in str(error):
            return None
        raise


def _check_layout(found: pa.Schema, expected: pa.Schema, where: str) -> None:
    if not found.equals(expected):
        raise StoreError(
            f"{where} has another layout. Expected {layout_of(expected)}; got {layout_of(found)}. "
            "Open it with the model that wrote it, or embed into a new folder."
        )


def _filters(column: str, ids: Sequence[str]) -> Iterator[str]:
    for start in range(0, len(ids), _IDS_A_FILTER):
        yield f"{column} IN ({', '.join(map(_quote, ids[start : start + _IDS_A_FILTER]))})"


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
