"""The offline job: items in, rows of the store out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch

from multimodal_rec.changes import Changes, Chunk, nothing_to_read
from multimodal_rec.decoding import DecodingWorkers
from multimodal_rec.embedding_progress import EmbeddingProgress
from multimodal_rec.errors import ItemError, Problem
from multimodal_rec.feature_cache import FeatureCache
from multimodal_rec.features import ContentFeatures, PreparedMemory, SharedReading
from multimodal_rec.freed_memory import give_back
from multimodal_rec.item_stream import Items, ItemStream, item_stream
from multimodal_rec.model import ModalityFeatures, RecommenderModel
from multimodal_rec.read_ahead import read_ahead
from multimodal_rec.refreshing import fused, rounded
from multimodal_rec.rows import FLOAT16_MAX, ItemRows, ModalityRows
from multimodal_rec.schema import Schema
from multimodal_rec.store import ItemStore
from multimodal_rec.vocabulary import Vocabulary

# Chunks that are written before freed memory is given back: in between it grows by some tens of megabytes at most, and
# giving back takes some ten milliseconds.
_GIVE_BACK_EVERY = 8


@dataclass(frozen=True)
class EmbedReport:
    """What an embedding run did."""

    embedded: int
    """Items that were written."""
    unchanged: int
    """Items whose content, attributes and model were those of their row."""
    failed: dict[str, str] = field(default_factory=dict)
    """Item id → why it could not be embedded; also in the store's `failures`."""
    set_aside: tuple[Problem, ...] = ()
    """What is wrong with rows of a file that are no items."""


@dataclass(frozen=True, eq=False, kw_only=True)
class EmbeddingJob:
    """All that turning items into rows needs of a trained model."""

    model: RecommenderModel
    vocabulary: Vocabulary
    schema: Schema
    behaviour: Mapping[str, np.ndarray]
    """Item id → behaviour features and what the item is to the collaborative scores, for those that somebody took."""
    cache: FeatureCache
    num_workers: int = 0
    prepared: PreparedMemory | None = None
    """What training has made ready already, of the same items."""
    batch_size: int = 64
    """Items that pass a tower together."""
    chunk_items: int = 2048
    """Items that are read, and written, together."""

    def run(self, items: Items, store: ItemStore, *, retry_failed: bool = False, progress: bool = False) -> EmbedReport:
        """Embed what is new or changed among `items`, in chunks, each committed as it is done.

        `items`: a frame as in `Catalogue.items`, several one after another, or the path of a catalogue's folder or of
        a parquet or CSV file, which is never held whole. While one chunk passes the towers, the next is read and
        compared with the store, and the last is written. A run that is killed loses these chunks and is taken up by the
        next run. An item that cannot be embedded is left out and noted in the store's failures; it is tried again when
        its content or the model changes, or with `retry_failed`. `progress`: a bar on standard error.
        """
        stream = item_stream(items, self.schema, chunk_items=self.chunk_items)
        towers = {name: self.model.tower(name) for name in self.model.towers}
        embedded, unchanged, failed = 0, 0, {}
        self.model.eval()
        with (
            EmbeddingProgress(stream.total, num_passes=len(towers), shown=progress) as bar,
            DecodingWorkers(towers, self.num_workers) as workers,
            _Writer(store) as writer,
        ):
            shared = SharedReading(workers if self.num_workers else None, self._backbone_fingerprints(), bar.passed)
            for chunk in read_ahead(self._compared(stream, store, retry_failed=retry_failed), depth=1):
                made = self._rows(chunk, store, shared)
                writer.write(made, chunk.unreadable)
                embedded += 0 if made.rows is None else len(made.rows.ids)
                unchanged += chunk.num_unchanged
                failed |= chunk.known_failures | chunk.unreadable | made.reasons
                bar.stored(chunk.num_items)
        return EmbedReport(embedded, unchanged, failed, tuple(stream.problems))

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of the model whose rows these are; its weights do not change while a job holds it."""
        return self.model.item_fingerprint()

    @cached_property
    def _tower_fingerprints(self) -> dict[str, str]:
        return {name: self.model.modality_fingerprint(name) for name in self.model.towers}

    def _backbone_fingerprints(self) -> dict[str, str]:
        towers = {name: self.model.tower(name) for name in self.model.towers}
        return {name: tower.backbone_fingerprint() for name, tower in towers.items() if tower.keeps_backbone}

    def _compared(self, stream: ItemStream, store: ItemStore, *, retry_failed: bool) -> Iterator[Chunk]:
        changes = Changes(
            store,
            model=self.fingerprint,
            towers=tuple(self.model.towers),
            attributes=tuple(self.schema.attributes),
            retry_failed=retry_failed,
        )
        for items in stream:
            yield changes.of(items, self.model.content_of(items, self.schema))

    def _rows(self, chunk: Chunk, store: ItemStore, shared: SharedReading) -> _Made:
        """The rows of a chunk, and why items have none."""
        model, layout = self.model, store.layout
        device = model.log_temperature.device
        ids = chunk.items["item_id"].tolist()
        if not ids:
            return _Made(None, {}, {})
        reader = ContentFeatures(
            {name: model.tower(name) for name in model.towers},
            chunk.content,
            cache=self.cache,
            batch_size=self.batch_size,
            prepared=self.prepared,
            shared=shared,
        )
        numbers: list[np.ndarray] = []
        present: list[np.ndarray] = []
        with torch.inference_mode():
            for name in model.towers:
                token, here = self._modality(name, chunk, reader=reader, store=store)
                numbers.append(token)
                present.append(here)
            attributes, known = self.vocabulary.item_attributes(chunk.items)
            numbers.append(model.attribute_numbers(torch.from_numpy(attributes).to(device)).cpu().numpy())
            behaviour, taken = self._behaviour(ids)
            numbers.append(model.behaviour_numbers(torch.from_numpy(behaviour).to(device)).cpu().numpy())
            shown = np.stack([*present, known, taken], axis=1)
            reasons = self._reasons(chunk, reader.reasons, numbers, shown)
            good = [row for row in range(len(ids)) if row not in reasons]
            if not good:
                return self._made(None, chunk, reasons)
            kept, dim = [rounded(part[good]) for part in numbers], layout.embedding_dim
            tokens = np.stack([part[:, :dim] for part in kept], axis=1)
            said = np.stack([part[:, dim:] for part in kept[:-1]], axis=1)
            embeddings = fused(model, tokens, shown[good], content=said, vectors=kept[-1][:, dim:])
        rows = ItemRows(
            ids=[ids[row] for row in good],
            modalities={
                name: ModalityRows(
                    numbers[index][good],
                    shown[good, index],
                    [chunk.hashes[name][row] for row in good],
                    self._tower_fingerprints[name],
                )
                for index, name in enumerate(model.towers)
            },
            attribute_tokens=numbers[-2][good],
            attributes_present=shown[good, -2],
            behaviour_tokens=numbers[-1][good],
            behaviour_present=shown[good, -1],
            embeddings=embeddings,
            model=self.fingerprint,
            attributes=[chunk.attributes[row] for row in good],
        )
        return self._made(rows, chunk, reasons)

    def _reasons(
        self, chunk: Chunk, found: Mapping[int, str], numbers: Sequence[np.ndarray], shown: np.ndarray
    ) -> dict[int, str]:
        """Row → why it cannot be stored."""
        reasons = dict(found)
        for row in np.flatnonzero(~shown.any(axis=1)).tolist():
            reasons.setdefault(row, nothing_to_read(chunk.content, row, tuple(self.model.towers)))
        for index, part in enumerate(numbers):
            # One item whose numbers cannot be kept must not cost the others of its chunk.
            wrong = shown[:, index] & ~(np.abs(part) <= FLOAT16_MAX).all(axis=1)
            for row in np.flatnonzero(wrong).tolist():
                name = self.model.parts[index]
                reasons.setdefault(row, f"{name}: its embedding is NaN, infinite or beyond ±{FLOAT16_MAX:.0f}")
        return reasons

    def _made(self, rows: ItemRows | None, chunk: Chunk, reasons: Mapping[int, str]) -> _Made:
        ids = chunk.items["item_id"].tolist()
        # Whoever lacks everything may be taken tomorrow: that is asked again each time, which costs nothing.
        marks = {ids[row]: chunk.mark(row, self.fingerprint) for row in reasons if _has_content(chunk, row)}
        return _Made(rows, {ids[row]: reason for row, reason in sorted(reasons.items())}, marks)

    def _modality(
        self, name: str, chunk: Chunk, *, reader: ContentFeatures, store: ItemStore
    ) -> tuple[np.ndarray, np.ndarray]:
        """Numbers and presence of one modality; only items whose content or tower changed run through the tower."""
        ids = chunk.items["item_id"].tolist()
        now = self._tower_fingerprints[name]
        same: list[int] = []
        for row, (item_id, content_hash) in enumerate(zip(ids, chunk.hashes[name], strict=True)):
            marks = chunk.stored.get(item_id)
            if marks is not None and marks[f"{name}_tower"] == now and marks[f"{name}_hash"] == content_hash:
                same.append(row)
        numbers = np.zeros((len(ids), store.layout.width_of(name)), dtype=np.float32)
        present = np.zeros(len(ids), dtype=bool)
        if same:
            asked = [ids[row] for row in same]
            numbers[same], present[same] = store.read_modality(name, asked, model=self.fingerprint)
        kept = set(same)
        new = [row for row in range(len(ids)) if row not in kept]
        if new:
            device = self.model.log_temperature.device
            windows, there = reader.features(new, name)
            made, here = self.model.modality_numbers(name, ModalityFeatures(windows.to(device), there.to(device)))
            numbers[new], present[new] = made.cpu().numpy(), here.cpu().numpy()
        return numbers, present

    def _behaviour(self, ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        features = np.zeros((len(ids), self.model.shape.behaviour_width + self.model.vector_width), dtype=np.float32)
        taken = np.array([item_id in self.behaviour for item_id in ids], dtype=bool)
        for index, item_id in enumerate(ids):
            if taken[index]:
                features[index] = self.behaviour[item_id]
        return features, taken


class _Made(NamedTuple):
    """What came of a chunk."""

    rows: ItemRows | None
    reasons: dict[str, str]
    """Item id → why it has no row."""
    marks: dict[str, str]
    """Of those that would fail again: item id → what was tried."""


class _Writer:
    """Writes a chunk in a thread while the next one is embedded; never more than one at a time."""

    def __init__(self, store: ItemStore) -> None:
        self._store = store
        self._pool = ThreadPoolExecutor(1)
        self._last: Future[None] | None = None
        self._num_written = 0

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._pool.shutdown()
        if kind is None:
            self._wait()

    def write(self, made: _Made, unreadable: Mapping[str, str]) -> None:
        """Have it written. Raises what went wrong with the one before."""
        self._wait()
        self._last = self._pool.submit(self._write, made, {**unreadable, **made.reasons})

    def _wait(self) -> None:
        if self._last is not None:
            self._last.result()

    def _write(self, made: _Made, reasons: dict[str, str]) -> None:
        if made.rows is not None:
            self._store.write_items(made.rows)
        if reasons:
            self._store.record_failures(reasons, made.marks)
        self._num_written += 1
        if self._num_written % _GIVE_BACK_EVERY == 0:
            give_back()


def _has_content(chunk: Chunk, row: int) -> bool:
    return any(hashes[row] is not None for hashes in chunk.hashes.values())


def check_failures(report: EmbedReport) -> None:
    """Raise `ItemError` with every item of the report that could not be embedded; the others stay written."""
    problems = {f"row {p.row} of {p.file}": str(p) for p in report.set_aside}
    if report.failed or problems:
        raise ItemError(
            f"{len(report.failed) + len(problems)} items could not be embedded; the other "
            f"{report.embedded + report.unchanged} are in the store. Expected media that can be read and one of the "
            "model's modalities each. Mend them, or pass on_error='quarantine' to go on without them.",
            {**report.failed, **problems},
        )
