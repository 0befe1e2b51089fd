"""What the store's rows look like: the values that go in and come out, and the Arrow columns between them."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from multimodal_rec.attributes import AttributeColumns
from multimodal_rec.errors import ConfigError, ItemError

EVENT_COLUMNS = ("user_id", "item_id", "timestamp", "position", "event", "value")
"""The columns of an interaction that are no context; those after the ids may be missing."""

# Lance merges two writers' inserts of one new id into one row only where the key is declared in the schema. Without
# it, two processes that insert the same id at the same moment leave two rows (tried: on every run).
_KEY = {"lance-schema:unenforced-primary-key": "true"}
_TIME = pa.timestamp("us", tz="UTC")
FLOAT16_MAX = 65504.0
"""The largest number that a row holds."""


def _key(name: str) -> pa.Field:
    return pa.field(name, pa.string(), nullable=False, metadata=_KEY)


_EVENT_TYPES = {"user_id": pa.string(), "item_id": pa.string(), "timestamp": pa.int64(), "position": pa.int64()}
_EVENT_TYPES |= {"event": pa.string(), "value": pa.float64(), "context": pa.string(), "arrival": pa.int64()}
OTHER_TABLES = {
    "interactions": pa.schema([_key("event_key"), *(pa.field(name, kind) for name, kind in _EVENT_TYPES.items())]),
    "users": pa.schema([_key("user_id"), pa.field("attributes", pa.string())]),
    "failures": pa.schema(
        [_key("item_id"), pa.field("reason", pa.string()), pa.field("mark", pa.string()), pa.field("at", _TIME)]
    ),
}
"""Table name → Arrow schema of every table but those of items."""
RELEASE_SCHEMA = pa.schema(
    [
        _key("name"),
        pa.field("release", pa.string()),  # itself, or what an alias stands for
        pa.field("before", pa.string()),
        pa.field("tag", pa.string()),  # on each of its tables; None for an alias
        pa.field("tables", pa.string()),  # JSON: table → [version, rows]; None for an alias
        pa.field("at", _TIME),
    ]
)
"""The Arrow schema of the table of releases: a row a name."""


class Layout(NamedTuple):
    """How wide a store's columns are."""

    modalities: tuple[str, ...]
    """In the model's order, which is the order of an item's tokens."""
    embedding_dim: int
    """Of a token."""
    content_rank: int = 0
    """Numbers that stand after the token of a modality or of attributes: what these let expect of an item's vectors."""
    vector_width: int = 0
    """Numbers that stand after the token of behaviour: the item's vectors themselves."""
    score_dim: int = 0
    """Numbers that an item embedding has beside one block a part: the item's side of the collaborative scores."""

    @property
    def fused_dim(self) -> int:
        """Length of an item embedding's blocks: one for each modality, for attributes and for behaviour."""
        return (len(self.modalities) + 2) * self.embedding_dim

    def width_of(self, column: str) -> int:
        """How many numbers a row holds in a column of tokens, or in `item_embedding`."""
        if column == "item_embedding":
            return self.fused_dim + self.score_dim
        return self.embedding_dim + (self.vector_width if column == "behaviour_token" else self.content_rank)


class ModalityRows(NamedTuple):
    """One modality of a batch of items, before it is written."""

    embeddings: np.ndarray
    """Float (item, dim + content rank); rows whose `present` is False may hold anything, NaN included."""
    present: np.ndarray
    """Bool (item,), True = the item has this modality."""
    hashes: Sequence[str | None]
    """Content hash an item; None where the item has nothing of this modality."""
    tower: str
    """Fingerprint of the tower that gave the embeddings."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ItemRows:
    """A batch of items to write; row i of everything belongs to `ids[i]`."""

    ids: Sequence[str]
    modalities: Mapping[str, ModalityRows]
    """A modality left out is absent for the whole batch."""
    attribute_tokens: np.ndarray
    """Float (item, dim + content rank)."""
    attributes_present: np.ndarray
    """Bool (item,)."""
    behaviour_tokens: np.ndarray
    """Float (item, dim + vector width)."""
    behaviour_present: np.ndarray
    """Bool (item,)."""
    embeddings: np.ndarray
    """Float (item, part · dim + score dim): the fused item embeddings, a block a part, and their sides of scores."""
    model: str
    """Fingerprint of the model that fused them."""
    attributes: Sequence[Mapping[str, Any]]
    """Attribute name → str, number, list of str, or None."""


@dataclass(frozen=True, eq=False)
class ItemTable:
    """The items that may be scored together, sorted by id; row i of everything belongs to `ids[i]`."""

    ids: list[str]
    tokens: np.ndarray
    """Float32 (item, token, dim): the store's modalities in order, then attributes, then behaviour; absent = 0."""
    present: np.ndarray
    """Bool (item, token)."""
    embeddings: np.ndarray
    """Float32 (item, part · dim + score dim)."""
    attributes: list[dict[str, Any]]
    content: np.ndarray
    """Float32 (item, token, content rank), absent = 0: what each token's content lets expect of the item's vectors."""
    vectors: np.ndarray
    """Float32 (item, vector width): what was learned of the items that somebody took, 0 for others."""

    @cached_property
    def position(self) -> dict[str, int]:
        """Item id → row."""
        return {item_id: row for row, item_id in enumerate(self.ids)}

    def part(self, name: str, parts: Sequence[str]) -> tuple[list[str], np.ndarray]:
        """The ids that have one part, and its embeddings, float32 (item, dim); 'item' is the item embedding.

        `parts`: the names of the tokens, in order. Raises `ConfigError` for a part that is none of them.
        """
        if name == "item":
            return self.ids, self.embeddings
        if name not in parts:
            raise ConfigError(f"there is no part '{name}'. Expected 'item', or one of {', '.join(parts)}.")
        token = list(parts).index(name)
        here = np.flatnonzero(self.present[:, token])
        return [self.ids[row] for row in here], self.tokens[here, token]

    @cached_property
    def columns(self) -> AttributeColumns:
        """The attributes as columns, for filters."""
        return AttributeColumns(self.attributes)


def item_schema(layout: Layout) -> pa.Schema:
    """The Arrow schema of a table of items of this layout."""

    def numbers(name: str) -> pa.Field:
        return pa.field(name, pa.list_(pa.float16(), layout.width_of(name)))

    items = [_key("item_id")]
    for modality in layout.modalities:
        items += [pa.field(f"{modality}_hash", pa.string()), numbers(modality)]
        items += [pa.field(f"{modality}_tower", pa.string())]
    items += [numbers(name) for name in ("attributes_token", "behaviour_token", "item_embedding")]
    items += [pa.field("model", pa.string()), pa.field("attributes", pa.string()), pa.field("updated_at", _TIME)]
    return pa.schema(items)


def layout_of(schema: pa.Schema) -> str:
    """A schema in the words of a message: its modalities and their widths, or its columns where it has neither."""
    tokens = ("attributes_token", "behaviour_token", "item_embedding")
    if not all(name in schema.names and pa.types.is_fixed_size_list(schema.field(name).type) for name in tokens):
        return f"columns ({', '.join(schema.names)})"
    modalities = [name.removesuffix("_hash") for name in schema.names if name.endswith("_hash")]
    content, behaviour, embedding = (schema.field(name).type.list_size for name in tokens)
    return (
        f"modalities ({', '.join(modalities)}) of {content} numbers each, behaviour of {behaviour}, "
        f"item embeddings of {embedding}"
    )


def item_columns(batch: ItemRows, layout: Layout) -> dict[str, pa.Array]:
    """Column name → Arrow array of the items table.

    Raises `ItemError` naming the items whose id comes twice or whose numbers are NaN, infinite or beyond float16;
    `ValueError` where a modality is none of the store's, or lengths or dimensions disagree.
    """
    check_unique(batch.ids)
    unknown = [modality for modality in batch.modalities if modality not in layout.modalities]
    if unknown:
        raise ValueError(f"modality '{unknown[0]}' is none of this store's ({', '.join(layout.modalities)}).")
    num_items = len(batch.ids)
    everywhere = np.ones(num_items, dtype=bool)
    nothing = ModalityRows(np.zeros((num_items, layout.width_of("modality"))), ~everywhere, [None] * num_items, "")
    columns: dict[str, pa.Array] = {"item_id": pa.array(batch.ids, pa.string())}
    encoded = {
        "attributes_token": (batch.attribute_tokens, batch.attributes_present),
        "behaviour_token": (batch.behaviour_tokens, batch.behaviour_present),
        "item_embedding": (batch.embeddings, everywhere),
    }
    for modality in layout.modalities:
        rows = batch.modalities.get(modality, nothing)
        encoded[modality] = (rows.embeddings, rows.present)
        columns[f"{modality}_hash"] = pa.array(rows.hashes, pa.string())
        columns[f"{modality}_tower"] = pa.array([rows.tower if here else None for here in rows.present], pa.string())
    for name, (embeddings, present) in encoded.items():
        expected = (num_items, layout.width_of(name))
        if embeddings.shape != expected or present.shape != expected[:1]:
            raise ValueError(
                f"'{name}' has embeddings {embeddings.shape} and present {present.shape}. "
                f"Expected {expected} and {expected[:1]}."
            )
        columns[name] = _encode(name, batch.ids, embeddings, present.astype(bool))
    columns["model"] = pa.array([batch.model] * num_items, pa.string())
    columns["attributes"] = pa.array([to_json(row) for row in batch.attributes], pa.string())
    columns["updated_at"] = now(num_items)
    other = {name: len(column) for name, column in columns.items() if len(column) != num_items}
    if other:
        raise ValueError(f"a batch of {num_items} ids has columns of other lengths: {other}.")
    return columns


def decode_embeddings(column: pa.ChunkedArray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A stored column as embeddings, float32 (item, width) with 0 where absent, and present, bool (item,)."""
    present = np.asarray(column.is_valid().to_numpy(), dtype=bool)
    embeddings = np.zeros((len(column), width), dtype=np.float32)
    if present.any():
        flat = pa.concat_arrays([chunk.drop_null().flatten() for chunk in column.chunks])
        embeddings[present] = flat.to_numpy(zero_copy_only=False).reshape(-1, width)
    return embeddings, present


def event_rows(records: Iterable[Mapping[str, Any]], first_arrival: int) -> list[dict[str, Any]]:
    """Rows of the interactions table: its own columns typed, all else as context, one row a key, in order.

    Two records have the same key where user, item, timestamp, position and event agree. Records with neither time nor
    position cannot be told apart by them: there value, context and the number of the repetition belong to the key, so
    that a batch keeps what it repeats, and the same batch sent twice is still known.
    """
    rows: dict[str, dict[str, Any]] = {}
    repetitions: Counter[str] = Counter()
    for arrival, record in enumerate(records, start=first_arrival):
        row = _typed_event(record)
        named = {str(name): value for name, value in record.items()}
        row["context"] = to_json({name: value for name, value in named.items() if name not in EVENT_COLUMNS})
        identity = json.dumps([row[name] for name in ("user_id", "item_id", "timestamp", "position", "event")])
        if row["timestamp"] is None and row["position"] is None:
            identity += json.dumps([row["value"], row["context"]])
            repetitions[identity] += 1
            identity += str(repetitions[identity])
        key = hashlib.sha256(identity.encode()).hexdigest()
        rows.setdefault(key, {"event_key": key, **row, "arrival": arrival})
    return list(rows.values())


def with_json(frame: pd.DataFrame, texts: pa.ChunkedArray) -> pd.DataFrame:
    """The frame with a column for each name in the JSON texts, row by row; missing as pandas has it."""
    values = [json.loads(text) for text in texts.to_pylist()]
    names = dict.fromkeys(name for row in values for name in row)
    expanded = {name: pd.Series([row.get(name) for row in values], index=frame.index) for name in names}
    return pd.concat([frame, pd.DataFrame(expanded, index=frame.index)], axis=1)


def to_json(values: Mapping[str, Any]) -> str:
    """A row of attributes or context as JSON text. Raises `TypeError` for a value that JSON does not know."""
    return json.dumps({str(name): plain_value(value) for name, value in values.items()}, ensure_ascii=False)


def plain_value(value: Any) -> Any:
    """A cell of a frame without NumPy and pandas: missing values as None, arrays as lists, times as ISO 8601."""
    if type(value) in (str, int, bool):  # most cells, and pandas' own test for missing ones takes its time
        return value
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain_value(element) for element in value]
    if value is None or pd.isna(value):
        return None
    if isinstance(value, (datetime.date, np.datetime64)):
        return pd.Timestamp(value).isoformat()
    return value.item() if isinstance(value, np.generic) else value


def check_unique(ids: Sequence[str]) -> None:
    """Raise `ItemError` naming the ids that come twice in one batch: a merge would keep both rows."""
    twice = sorted(item_id for item_id, count in Counter(ids).items() if count > 1)
    if twice:
        raise ItemError(
            f"a batch of {len(ids)} rows repeats {len(twice)} of its ids; none was written. Give each id once.",
            dict.fromkeys(twice, "comes more than once"),
        )


def now(num_rows: int) -> pa.Array:
    """The present moment, UTC, as a column."""
    return pa.array([datetime.datetime.now(datetime.UTC)] * num_rows, _TIME)


def _typed_event(record: Mapping[str, Any]) -> dict[str, Any]:
    row = {name: plain_value(record.get(name)) for name in EVENT_COLUMNS}
    timestamp = record.get("timestamp")
    if row["timestamp"] is not None and isinstance(timestamp, (datetime.datetime, np.datetime64)):
        row["timestamp"] = int(pd.Timestamp(timestamp).to_datetime64().astype("datetime64[s]").astype(np.int64))
    # One type a column: 12 and 12.0 are the same second and must give the same key.
    casts = {"user_id": str, "item_id": str, "timestamp": int, "position": int, "event": str, "value": float}
    return {name: None if row[name] is None else cast(row[name]) for name, cast in casts.items()}


def _encode(name: str, ids: Sequence[str], embeddings: np.ndarray, present: np.ndarray) -> pa.Array:
    filled = np.where(present[:, None], embeddings, 0.0)
    bad = np.flatnonzero(~(np.abs(filled) <= FLOAT16_MAX).all(axis=1)).tolist()
    if bad:
        raise ItemError(
            f"{len(bad)} of {len(ids)} items cannot be stored; none was written. Expected finite numbers that fit "
            "float16. Look at their media and at the model's weights, or write the batch without them.",
            {ids[i]: f"'{name}' is NaN, infinite or beyond ±{FLOAT16_MAX:.0f}" for i in bad},
        )
    flat = pa.array(filled.astype(np.float16).ravel(), pa.float16())
    return pa.FixedSizeListArray.from_arrays(flat, embeddings.shape[1], mask=pa.array(~present))
