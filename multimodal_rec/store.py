"""The durable item store: what the offline embedding job writes and every score reads."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import pandas as pd
import pyarrow as pa

from multimodal_rec.errors import StoreError
from multimodal_rec.log_tables import append_interactions, read_interactions, read_users, write_users
from multimodal_rec.object_storage import check_endpoint, reason_of
from multimodal_rec.rows import (
    OTHER_TABLES,
    ItemRows,
    ItemTable,
    Layout,
    decode_embeddings,
    item_columns,
    item_schema,
    layout_of,
    now,
)
from multimodal_rec.tables import Tables, filters
from multimodal_rec.versions import Releases

_ITEMS = "items-"


@final
class ItemStore:
    """Items, interactions, users and failures in one folder, object-storage prefix or in memory.

    Items have one table a model, so that two models' embeddings stand side by side and are never read as one. In each,
    every id has one row at most, whoever writes and whenever a writer is killed: each call commits whole or not at
    all. Every read sees the latest commit of any process, or, where a release was opened, that release. A handle must
    not cross a fork (the child would hang on threads that it does not have; here it raises `StoreError`): start workers
    with spawn, and open one in each.
    """

    def __init__(self, tables: Tables, layout: Layout, *, release: str | None = None) -> None:
        self._tables = tables
        self.layout = layout
        self.release = release

    @classmethod
    def open(
        cls, uri: str | Path | None, layout: Layout, *, create: bool = True, release: str | None = None
    ) -> ItemStore:
        """The store at `uri` (None: one in memory, gone when closed), created where there is none.

        `layout`: of the items that are read and written here; a store holds models of several. `release`: as it was
        when that name was published, or when what it now stands for was; nothing can be written then. Raises
        `StoreError` where `uri` cannot be opened, has no such release, or holds nothing and `create` is False.
        """
        check_endpoint(uri)
        try:
            tables = Tables.connect(uri)
            for name, schema in OTHER_TABLES.items():
                found = tables.find(name)
                if found is None and (release is not None or not create) and name == "interactions":
                    raise StoreError(
                        f"no store at '{uri}'. Expected a folder that `embed` has written to; got one without a table "
                        "'interactions'. Check the path, or embed first."
                    )
                _check_layout(tables.create(name, schema).schema, schema, f"table '{name}' of the store at '{uri}'")
            if release is None:
                return cls(tables, layout)
            resolved = Releases(tables).resolve(release)
            return cls(tables.at(resolved.versions), layout, release=resolved.name)
        except StoreError:
            raise
        except (OSError, RuntimeError, ValueError) as error:
            raise StoreError(
                f"no store can be opened at '{uri}': {reason_of(error)}. "
                "Expected a folder that can be written to, or a URI such as 's3://bucket/store'."
            ) from error

    def __enter__(self) -> ItemStore:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the tables; a store in memory is lost. What was written stays written. Closing twice is fine."""
        self._tables.close()

    @property
    def num_items(self) -> int:
        """How many items are stored, whichever models' rows they have."""
        spaces = self._spaces()
        return self._tables.table(spaces[0]).count_rows() if len(spaces) == 1 else len(set(self._ids(spaces)))

    @property
    def num_interactions(self) -> int:
        """How many interactions are stored."""
        return self._tables.table("interactions").count_rows()

    @property
    def models(self) -> dict[str, int]:
        """Fingerprint of each model that has items here → how many, those of other layouts included."""
        return {name.removeprefix(_ITEMS): self._tables.table(name).count_rows() for name in self._spaces()}

    def write_items(self, batch: ItemRows) -> None:
        """Insert these items, or replace those of the same model whose id is there, in one commit.

        Writing the same batch again changes nothing but `updated_at`; other models' rows stay. Embeddings are kept as
        float16. Raises `ItemError` naming the items whose id comes twice or whose numbers are NaN, infinite or beyond
        float16, and then writes none of them; `ValueError` where lengths or dimensions disagree, `StoreError` where
        this model's items have another layout.
        """
        columns = item_columns(batch, self.layout)
        name, schema = f"{_ITEMS}{batch.model}", item_schema(self.layout)
        _check_layout(self._tables.create(name, schema).schema, schema, f"table '{name}'")
        self._tables.upsert(name, "item_id", columns)

    def read_items(self, *, model: str | None) -> ItemTable:
        """Every item that the model of fingerprint `model` embedded, sorted by id, ready to be scored.

        None reads the rows of every model of this layout, an id once a model: to look at, never to score side by side.
        Raises `StoreError` where the model's items have another layout.
        """
        schema = item_schema(self.layout)
        spaces = self._alike() if model is None else [f"{_ITEMS}{model}"]
        parts = []
        for name in spaces:
            table = self._tables.find(name)
            if table is not None:
                _check_layout(table.schema, schema, f"table '{name}'")
                parts.append(self._tables.read(name, schema.names))
        rows = (pa.concat_tables(parts) if parts else schema.empty_table()).sort_by("item_id")
        names = [*self.layout.modalities, "attributes_token", "behaviour_token"]
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

    def read_modality(
        self, modality: str, ids: Sequence[str], *, model: str | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """One modality's stored numbers, float32 (item, dim + content rank), and present, bool (item,).

        In the order of `ids`; an id that is not stored is absent. From the rows that `read_marks(ids, model)`
        describes: for the job that fuses an item again after another modality changed.
        """
        if modality not in self.layout.modalities:
            raise ValueError(f"modality '{modality}' is none of this store's ({', '.join(self.layout.modalities)}).")
        position = {item_id: i for i, item_id in enumerate(dict.fromkeys(ids))}
        embeddings = np.zeros((len(position), self.layout.width_of(modality)), dtype=np.float32)
        present = np.zeros(len(position), dtype=bool)
        for name in self._alike(model):
            rows = self._tables.read_keyed(name, "item_id", list(position), ["item_id", modality])
            index = [position[item_id] for item_id in rows["item_id"].to_pylist()]
            embeddings[index], present[index] = decode_embeddings(rows[modality], self.layout.width_of(modality))
        order = np.array([position[item_id] for item_id in ids], dtype=np.int64)
        return embeddings[order], present[order]

    def read_marks(self, ids: Sequence[str], *, model: str | None = None) -> dict[str, dict[str, str | None]]:
        """What those of `ids` that are stored were embedded from: id → `{modality}_hash`, `{modality}_tower`, model and
        attributes; None where absent.

        One row an id: that of `model` where it has one, else another model's of the same layout. An item is current
        where all of them are what they would be now.
        """
        marks = [f"{modality}_{mark}" for modality in self.layout.modalities for mark in ("hash", "tower")]
        found: dict[str, dict[str, str | None]] = {}
        for name in self._alike(model):
            rows = self._tables.read_keyed(name, "item_id", ids, ["item_id", *marks, "model", "attributes"])
            found.update((row.pop("item_id"), row) for row in rows.to_pylist())
        return found

    def embedded(self) -> pd.DataFrame:
        """What each stored row was embedded from: item_id, `{modality}_hash`, `{modality}_tower`, model; by id, model.

        Of the models of this layout. Columns of objects, None where absent.
        """
        marks = [f"{modality}_{mark}" for modality in self.layout.modalities for mark in ("hash", "tower")]
        names = ["item_id", *marks, "model"]
        parts = [self._tables.read(name, names) for name in self._alike()]
        rows = pa.concat_tables(parts) if parts else item_schema(self.layout).empty_table()
        rows = rows.sort_by([("item_id", "ascending"), ("model", "ascending")])
        return pd.DataFrame({name: pd.Series(rows[name].to_pylist(), dtype=object) for name in names})

    def stale(self, model: str) -> list[str]:
        """The ids, sorted, that other models embedded and `model` did not. `read_items` leaves them out."""
        own = f"{_ITEMS}{model}"
        spaces = self._spaces()
        others = set(self._ids([name for name in spaces if name != own]))
        return sorted(others.difference(self._ids([own] if own in spaces else [])))

    def delete_items(self, ids: Sequence[str]) -> None:
        """Remove these items, in every model's rows, and their failures; ids that are not there are passed over.

        Interactions stay, and so does what a release holds until it is withdrawn.
        """
        self._tables.check_writable()
        for name in (*self._spaces(), "failures"):
            for where in filters("item_id", ids):
                self._tables.table(name).delete(where)

    def retire(self, model: str) -> list[str]:
        """The releases that still hold a model's rows; where there are none, its rows are removed."""
        name = f"{_ITEMS}{model}"
        holding = self._releases.holding(name)
        if not holding and name in self._spaces():
            self._tables.drop(name)
        return holding

    def append_interactions(self, interactions: pd.DataFrame) -> int:
        """Add what people did, in one commit, and give back how many rows were new.

        Columns user_id, item_id, and optionally timestamp (Unix seconds or datetimes), position, event, value;
        every other column is kept as context. A row whose user, item, timestamp, position and event are stored
        already is not added again; rows with neither time nor position may repeat within one call. Raises
        `CatalogueError` where an id is missing.
        """
        return append_interactions(self._tables, interactions)

    def read_interactions(self) -> pd.DataFrame:
        """Every interaction in order of arrival: user_id, item_id, then those of timestamp, position, event, value
        and the context columns that any row has; missing as pandas has it.
        """
        return read_interactions(self._tables)

    def write_users(self, users: pd.DataFrame) -> None:
        """Insert these people, or replace those whose user_id is there; every other column is an attribute.

        Raises `CatalogueError` without a column user_id, `ItemError` where an id comes twice.
        """
        write_users(self._tables, users)

    def read_users(self) -> pd.DataFrame:
        """Every person, sorted by user_id, with a column an attribute; missing as pandas has it."""
        return read_users(self._tables)

    def record_failures(self, reasons: Mapping[str, str], marks: Mapping[str, str] | None = None) -> None:
        """Note why items could not be embedded: item_id → reason. A later reason replaces an earlier one.

        `marks`: item_id → what was tried, for whoever asks whether trying again makes sense.
        """
        marks = {} if marks is None else marks
        columns = {
            "item_id": pa.array(list(reasons), pa.string()),
            "reason": pa.array(list(reasons.values()), pa.string()),
            "mark": pa.array([marks.get(item_id) for item_id in reasons], pa.string()),
        }
        self._tables.upsert("failures", "item_id", {**columns, "at": now(len(reasons))})

    def read_failures(self, ids: Sequence[str]) -> dict[str, tuple[str | None, str]]:
        """Id → mark and reason, of those of `ids` that ever failed, whether they were written since or not."""
        rows = self._tables.read_keyed("failures", "item_id", ids, ["item_id", "mark", "reason"])
        return {row["item_id"]: (row["mark"], row["reason"]) for row in rows.to_pylist()}

    def failures(self) -> pd.DataFrame:
        """The items that could not be embedded and were not written since: item_id, reason, at (UTC); by id."""
        failed = self._tables.read("failures", ["item_id", "reason", "at"]).sort_by("item_id").to_pandas()
        written: dict[str, Any] = {}
        # Compared, not deleted on writing: a writer killed between the two commits would leave a reason for ever.
        for name in self._spaces() if len(failed) else ():
            rows = self._tables.read_keyed(name, "item_id", failed["item_id"].tolist(), ["item_id", "updated_at"])
            # A model that reads less of an item may have written it where another one failed.
            for item_id, at in zip(rows["item_id"].to_pylist(), rows["updated_at"].to_pylist(), strict=True):
                written[item_id] = at if item_id not in written else max(written[item_id], at)
        still = [i not in written or at > written[i] for i, at in zip(failed["item_id"], failed["at"], strict=True)]
        return failed[np.array(still, dtype=bool)].reset_index(drop=True)

    def publish(self, name: str, *, model: str | None = None, alias: str | None = None) -> str:
        """Keep the present state of all tables as release `name`, in one commit; `name`.

        `model`: with the items of this model only; None: of all. `alias`: a second name, such as 'live', that stands
        for this release from the same commit on. Whoever opens either sees the tables of one moment, whatever is
        written later and whenever a publisher is killed. Raises `StoreError` where the name is taken.
        """
        spaces = self._spaces() if model is None else [f"{_ITEMS}{model}"]
        self._releases.publish(name, [*spaces, *OTHER_TABLES], alias=alias)
        return name

    def switch(self, alias: str, *, to: str) -> None:
        """Let `alias` stand for release `to` from now on. Raises `StoreError` where there is no such release."""
        self._releases.switch(alias, to=to)

    def rollback(self, alias: str) -> str:
        """Let `alias` stand again for what it stood for before; that release's name. Twice leads back."""
        return self._releases.rollback(alias)

    def withdraw(self, name: str) -> None:
        """Give up a release or an alias; its rows stay where others hold them. Raises where an alias stands for it."""
        self._releases.withdraw(name)

    def releases(self) -> pd.DataFrame:
        """Every release and alias in order of time: name, release, before, models, items, interactions, at (UTC).

        `release` is the name itself, or what an alias stands for; `before` what it stood for until its last switch.
        """
        return self._releases.frame(_ITEMS)

    def copy_into(self, other: ItemStore) -> None:
        """Add all rows of this store to another, empty one. Releases are not taken along."""
        for name in (*self._spaces(), *OTHER_TABLES):
            table = self._tables.table(name)
            rows = table.to_arrow()
            if rows.num_rows:
                other._tables.create(name, table.schema).add(rows, on_bad_vectors="null")

    def compact(self, *, older_than: datetime.timedelta = datetime.timedelta(days=7)) -> None:
        """Join the small files that many writes leave, and drop versions that are older and that no release needs."""
        self._tables.check_writable()
        self._releases.tidy(self._tables.names(), older_than=older_than)

    @property
    def _releases(self) -> Releases:
        return Releases(self._tables)

    def _spaces(self) -> list[str]:
        return [name for name in self._tables.names() if name.startswith(_ITEMS)]

    def _alike(self, model: str | None = None) -> list[str]:
        """The items' tables of this layout, that of `model` last, so that its rows are laid over the others'."""
        schema, own = item_schema(self.layout), f"{_ITEMS}{model}"
        alike = [name for name in self._spaces() if self._tables.table(name).schema.equals(schema)]
        return sorted(alike, key=lambda name: (name == own, name))

    def _ids(self, spaces: Sequence[str]) -> list[str]:
        return [item_id for name in spaces for item_id in self._tables.read(name, ["item_id"])["item_id"].to_pylist()]


def _check_layout(found: pa.Schema, expected: pa.Schema, where: str) -> None:
    if not found.equals(expected):
        raise StoreError(
            f"{where} has another layout. Expected {layout_of(expected)}; got {layout_of(found)}. "
            "Open it with the model that wrote it."
        )
