"""Which items of a chunk are new, changed, or known to fail: what a job has to do, before it does it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NamedTuple, final

import pandas as pd

from multimodal_rec.config import MODALITIES
from multimodal_rec.content import ItemContent
from multimodal_rec.rows import to_json
from multimodal_rec.store import ItemStore


class Chunk(NamedTuple):
    """Some items of a catalogue, and what is to be done with them."""

    items: pd.DataFrame
    """Those that have to be embedded."""
    content: ItemContent
    """What they give each tower to read, row by row of `items`."""
    hashes: dict[str, list[str | None]]
    """Modality → content hash of each of them."""
    attributes: list[dict[str, object]]
    """Of each of them, as the store keeps them."""
    stored: dict[str, dict[str, str | None]]
    """Id → what the store says of it; ids that are not stored are not in it."""
    num_items: int
    """How many there were, all told."""
    known_failures: dict[str, str]
    """Id → reason, of those that failed before and are what they were then."""
    unreadable: dict[str, str]
    """Id → reason, of those whose files cannot even be opened."""

    @property
    def num_unchanged(self) -> int:
        """How many are in the store as they are."""
        return self.num_items - len(self.items) - len(self.known_failures) - len(self.unreadable)

    def mark(self, row: int, model: str) -> str:
        """What a failure of this item goes by: the same content under the same model would fail again."""
        said = [model, to_json(self.attributes[row]), *(f"{hashes[row]}" for hashes in self.hashes.values())]
        return hashlib.sha256("\n".join(said).encode(errors="surrogatepass")).hexdigest()[:16]


@final
class Changes:
    """Compares items with their rows in a store, a chunk at a time.

    `model`: fingerprint of what would embed them now; `towers`: the modalities that it reads. `retry_failed`: whether
    items that failed are tried again although nothing about them changed.
    """

    def __init__(
        self, store: ItemStore, *, model: str, towers: tuple[str, ...], attributes: tuple[str, ...], retry_failed: bool
    ) -> None:
        self._store = store
        self._model = model
        self._towers = towers
        self._attributes = attributes
        self._retry_failed = retry_failed

    def of(self, items: pd.DataFrame, content: ItemContent) -> Chunk:
        """What is to be done with these items."""
        ids: list[str] = items["item_id"].tolist()
        stored = self._store.read_marks(ids, model=self._model)
        failures = {} if self._retry_failed else self._store.read_failures(ids)
        names = [name for name in self._attributes if name in items]
        attributes = [
            {str(name): value for name, value in row.items()} for row in items.loc[:, names].to_dict("records")
        ]
        if not names:
            attributes = [{} for _ in ids]
        unreadable: dict[str, str] = {}
        rows: list[int] = []
        hashes: dict[str, list[str | None]] = {name: [] for name in self._towers}
        for row, item_id in enumerate(ids):
            try:
                found = {name: content.content_hash(row, name) for name in self._towers}
            except OSError as error:
                unreadable[item_id] = str(error)
                continue
            if self._is_current(stored.get(item_id), found, attributes[row]):
                continue
            rows.append(row)
            for name, content_hash in found.items():
                hashes[name].append(content_hash)
        if len(rows) < len(ids):
            items, content = items.iloc[rows], content.part(rows)
        own = [attributes[row] for row in rows]
        chunk = Chunk(items, content, hashes, own, stored, len(ids), {}, unreadable)
        return self._without_failures(chunk, failures) if failures else chunk

    def _is_current(
        self, stored: Mapping[str, str | None] | None, found: Mapping[str, str | None], attributes: dict[str, object]
    ) -> bool:
        if stored is None or stored["model"] != self._model or stored["attributes"] != to_json(attributes):
            return False
        return all((stored[f"{name}_hash"] or None) == found[name] for name in found)

    def _without_failures(self, chunk: Chunk, failures: Mapping[str, tuple[str | None, str]]) -> Chunk:
        known: dict[str, str] = {}
        rows: list[int] = []
        for row, item_id in enumerate(chunk.items["item_id"]):
            mark, reason = failures.get(item_id, (None, ""))
            if mark is not None and mark == chunk.mark(row, self._model):
                known[item_id] = reason
            else:
                rows.append(row)
        if not known:
            return chunk
        return chunk._replace(
            items=chunk.items.iloc[rows],
            content=chunk.content.part(rows),
            hashes={name: [hashes[row] for row in rows] for name, hashes in chunk.hashes.items()},
            attributes=[chunk.attributes[row] for row in rows],
            known_failures=known,
        )


def nothing_to_read(content: ItemContent, row: int, modalities: tuple[str, ...]) -> str:
    """Why an item that has something cannot be embedded by towers that read something else."""
    has = [name for name in MODALITIES if _holds(content, row, name)]
    read = ", ".join(f"'{name}'" for name in modalities)
    held = ", ".join(f"'{name}'" for name in has) or "no modality at all"
    return (
        f"has none of this model's modalities ({read}), no known attribute, and nobody took it; it has {held}. "
        "Give it one of them, or leave it out."
    )


def _holds(content: ItemContent, row: int, modality: str) -> bool:
    try:
        return content.content_hash(row, modality) is not None
    except OSError:
        # Named by a column, and no file: there is something, if nothing that anybody could read.
        return True
