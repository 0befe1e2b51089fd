"""What people did and who they are, in a store's tables."""

from __future__ import annotations

import time

import pandas as pd
import pyarrow as pa

from multimodal_rec.errors import CatalogueError
from multimodal_rec.rows import EVENT_COLUMNS, check_unique, event_rows, to_json, with_json
from multimodal_rec.tables import Tables


def append_interactions(tables: Tables, interactions: pd.DataFrame) -> int:
    """How many rows were new and are there now; `ItemStore.append_interactions` has the rest."""
    tables.check_writable()
    for name in ("user_id", "item_id"):
        if name not in interactions.columns:
            raise CatalogueError(
                f"interactions need a column '{name}'; they have {', '.join(map(str, interactions.columns))}. "
                "Rename the column that holds it."
            )
        num_missing = int(interactions[name].isna().to_numpy().sum())
        if num_missing > 0:
            raise CatalogueError(
                f"interactions lack '{name}' in {num_missing} rows; none was added. Drop those rows, or fill in the id."
            )
    # Where there is no timestamp, the order in which events came is the only order there is.
    rows = event_rows(interactions.to_dict("records"), time.time_ns())
    if not rows:
        return 0
    table = tables.table("interactions")
    batch = pa.Table.from_pylist(rows, schema=table.schema)
    return table.merge_insert("event_key").when_not_matched_insert_all().execute(batch).num_inserted_rows


def read_interactions(tables: Tables) -> pd.DataFrame:
    """Every interaction in order of arrival; `ItemStore.read_interactions` has the rest."""
    rows = tables.read("interactions", [*EVENT_COLUMNS, "context", "arrival"]).sort_by("arrival")
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


def write_users(tables: Tables, users: pd.DataFrame) -> None:
    """Insert these people, or replace those whose user_id is there; every other column is an attribute."""
    if "user_id" not in users.columns:
        raise CatalogueError(
            f"users need a column 'user_id'; they have {', '.join(map(str, users.columns))}. "
            "Rename the column that holds it."
        )
    ids = [str(user_id) for user_id in users["user_id"]]
    check_unique(ids)
    texts = [to_json(row) for row in users.drop(columns="user_id").to_dict("records")]
    columns = {"user_id": pa.array(ids, pa.string()), "attributes": pa.array(texts, pa.string())}
    tables.upsert("users", "user_id", columns)


def read_users(tables: Tables) -> pd.DataFrame:
    """Every person, sorted by user_id, with a column an attribute; missing as pandas has it."""
    rows = tables.read("users", ["user_id", "attributes"]).sort_by("user_id")
    return with_json(rows.select(["user_id"]).to_pandas(), rows["attributes"])
