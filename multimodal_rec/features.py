"""Items' content → what the backbones give: read once, cached where the backbone is frozen, fresh where it learns."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from multimodal_rec.content import ItemContent
from multimodal_rec.decoding import Decoded, DecodingWorkers, Prepared, Reader, decode, decode_here, in_groups
from multimodal_rec.errors import MediaError
from multimodal_rec.feature_cache import FeatureCache
from multimodal_rec.model import ModalityFeatures
from multimodal_rec.read_ahead import read_ahead
from multimodal_rec.transfer import RowsBatch, on_device
from towers import Tower

_BLOCK = 4096
"""Texts that are tokenised and sorted by length together."""

_SHORTEST_BATCH = 16
"""A batch of texts may end here, where the next text is longer: few items cost little more a piece than many."""

_KEEP_SECONDS = 5.0
"""What slow backbones gave is kept at least this often, so that a killed run has little to do again."""


class PreparedMemory:
    """Tensors that towers made ready, by modality and content hash, so that no picture is decoded once an epoch.

    `room_mb`: what is kept at most, in megabytes; what comes when it is full is not.
    """

    def __init__(self, room_mb: float = 2048) -> None:
        self._held: dict[tuple[str, str], Prepared] = {}
        self._room_bytes = room_mb * 1e6

    def get(self, modality: str, content_hash: str) -> Prepared | None:
        """What was kept; None where nothing was."""
        return self._held.get((modality, content_hash))

    def put(self, modality: str, content_hash: str, prepared: Prepared) -> None:
        """Keep it if there is room."""
        size = sum(tensor.numel() * tensor.element_size() for tensor in prepared.values())
        if size <= self._room_bytes:
            self._room_bytes -= size
            self._held[modality, content_hash] = prepared


class SharedReading(NamedTuple):
    """What the chunks of one job share when they are read."""

    workers: DecodingWorkers | None = None
    """Processes to decode in; None decodes in a thread of this one."""
    fingerprints: Mapping[str, str] = {}
    """Modality → fingerprint of its backbone, which takes a moment to compute."""
    done: Callable[[int], None] = lambda _: None
    """Told how many items came out of a backbone, each time that some have."""


class ContentFeatures:
    """Backbone features of the items of one `ItemContent`.

    A row whose media cannot be read is absent everywhere, and `reasons` says why. `prepared`: what trained towers made
    ready is looked up and kept there; None keeps nothing. `num_workers`: processes to decode in, unless `shared` has
    some. Media are decoded while the backbone is at work on those before them; texts are read in batches of one length.
    """

    def __init__(
        self,
        towers: Mapping[str, Tower],
        content: ItemContent,
        *,
        cache: FeatureCache,
        num_workers: int = 0,
        batch_size: int = 64,
        prepared: PreparedMemory | None = None,
        shared: SharedReading | None = None,
    ) -> None:
        self.reasons: dict[int, str] = {}
        self._towers = dict(towers)
        self._content = content
        self._cache = cache
        self._num_workers = num_workers
        self._batch_size = batch_size
        self.prepared = prepared
        self._shared = SharedReading() if shared is None else shared
        self._absent: set[tuple[int, str]] = set()

    def features(self, rows: Sequence[int], modality: str) -> ModalityFeatures:
        """Features of these items, on the CPU, in evaluation mode and without gradients.

        `windows` float32 (row, window, feature dim), zero where absent. Backbones that are kept are asked only for
        what the cache lacks, and once for what several items have in common.
        """
        tower = self._towers[modality]
        if not tower.keeps_backbone:
            missing = [row for row in dict.fromkeys(rows) if (row, modality) not in self._absent]
            found = dict(self._encoded(tower, missing, modality))
            return _padded([found.get(row) for row in rows], tower.feature_dim)
        fingerprint = self._shared.fingerprints.get(modality) or tower.backbone_fingerprint()
        hashes = self._hashes(rows, modality)
        kept: dict[str, np.ndarray] = dict(self._cache.get(fingerprint, list(hashes.values())))
        first = {key: row for row, key in reversed(hashes.items()) if key not in kept}
        self._shared.done(len(rows) - len(first))
        with _Keeper(self._cache, fingerprint) as keeper:
            for row, array in self._encoded(tower, sorted(first.values()), modality):
                # Rounded to the cache's precision at once: the first run and a later, cached one must agree.
                kept[hashes[row]] = array.astype(np.float16)
                keeper.put(hashes[row], kept[hashes[row]])
        for row, key in hashes.items():
            if key not in kept and first[key] in self.reasons:
                self.reasons.setdefault(row, self.reasons[first[key]])
        arrays = [kept.get(hashes.get(row, "")) for row in rows]
        return _padded([None if array is None else array.astype(np.float32) for array in arrays], tower.feature_dim)

    def fresh(
        self, rows: Sequence[int], modality: str, device: torch.device | str
    ) -> tuple[list[int], ModalityFeatures]:
        """Which of these items have the modality (positions in `rows`), and their features with gradients."""
        tower = self._towers[modality]
        here = [
            (place, prepared) for place, row in enumerate(rows) if (prepared := self._ready(row, modality)) is not None
        ]
        if not here:
            empty = torch.zeros(0, 1, tower.feature_dim, device=device)
            return [], ModalityFeatures(empty, torch.zeros(0, 1, dtype=torch.bool, device=device))
        batch = tower.collate([prepared for _, prepared in here]).to(device)
        return [place for place, _ in here], ModalityFeatures(*tower.features(batch))

    def _hashes(self, rows: Sequence[int], modality: str) -> dict[int, str]:
        hashes: dict[int, str] = {}
        for row in rows:
            try:
                key = self._content.content_hash(row, modality)
            except (MediaError, OSError) as error:
                self.reasons.setdefault(row, f"{modality}: {error}")
                continue
            if key is not None:
                hashes[row] = key
        return hashes

    def _encoded(self, tower: Tower, rows: Sequence[int], modality: str) -> Iterator[tuple[int, np.ndarray]]:
        """Each row's windows, (window, feature dim), in the order in which they come out."""
        if not rows:
            return
        # Read again here where it was released, not in two threads at once.
        backbone = tower.backbone
        mode, backbone_mode = tower.training, backbone.training
        tower.eval()
        backbone.eval()
        device = next(tower.projection.parameters()).device
        last: tuple[RowsBatch, Tensor] | None = None
        try:
            for each in on_device(read_ahead(self._batches(tower, rows, modality)), device):
                with torch.inference_mode():
                    features, _ = tower.features(each.batch)
                # A GPU is asked for one batch only after it was given the next one to do.
                if last is not None:
                    yield from self._out(*last)
                last = each, features
            if last is not None:
                yield from self._out(*last)
        finally:
            tower.train(mode)
            backbone.train(backbone_mode)

    def _out(self, batch: RowsBatch, features: Tensor) -> Iterator[tuple[int, np.ndarray]]:
        arrays = features.float().cpu().numpy()
        self._shared.done(len(batch.rows))
        for row, array, count in zip(batch.rows, arrays, batch.counts, strict=True):
            yield row, array[:count]

    def _batches(self, tower: Tower, rows: Sequence[int], modality: str) -> Iterator[RowsBatch]:
        size = self._batch_size
        if not tower.backbone.varies:
            for batch in in_groups(self._decoded(tower, rows, modality), size):
                yield _collated(tower, batch)
            return
        for block in in_groups(rows, _BLOCK):
            pairs = self._texts(tower, block, modality)
            lengths = tower.backbone.lengths([prepared for _, prepared in pairs])
            order = sorted(range(len(pairs)), key=lengths.__getitem__)
            for batch in _alike(order, lengths, size):
                yield _collated(tower, [pairs[place] for place in batch])

    def _texts(self, tower: Tower, rows: Sequence[int], modality: str) -> list[tuple[int, Prepared]]:
        """What is read of texts, which are prepared together."""
        if self.prepared is not None and not tower.keeps_backbone:
            ready = ((row, self._ready(row, modality)) for row in rows)
            return [(row, prepared) for row, prepared in ready if prepared is not None]
        values = {row: value for row in rows if (value := self._content.load(row, modality)) is not None}
        self._absent.update((row, modality) for row in rows if row not in values)
        try:
            return list(zip(values, tower.prepare_many(list(values.values())), strict=True))
        except (TypeError, ValueError, RuntimeError):
            # One of them is at fault: each on its own.
            ready = ((row, self._ready(row, modality)) for row in values)
            return [(row, prepared) for row, prepared in ready if prepared is not None]

    def _decoded(self, tower: Tower, rows: Sequence[int], modality: str) -> Iterator[tuple[int, Prepared]]:
        held = {row: prepared for row in rows if (prepared := self._held(row, modality)) is not None}
        yield from held.items()
        rest = [row for row in rows if row not in held]
        workers = self._shared.workers
        if len(rest) <= self._batch_size or (workers is None and self._num_workers == 0):
            found = decode_here(self._content, rest, modality, Reader(tower.backbone, tower.max_windows))
            yield from self._kept(found, modality)
        elif workers is not None:
            yield from self._kept(workers.decode(self._content, rest, modality), modality)
        else:
            with DecodingWorkers({modality: tower}, self._num_workers) as own:
                yield from self._kept(own.decode(self._content, rest, modality), modality)

    def _ready(self, row: int, modality: str) -> Prepared | None:
        if (row, modality) in self._absent:
            return None
        held = self._held(row, modality)
        if held is not None:
            return held
        tower = self._towers[modality]
        reader = Reader(tower.backbone, tower.max_windows)
        return next((ready for _, ready in self._kept([decode(self._content, row, modality, reader)], modality)), None)

    def _held(self, row: int, modality: str) -> Prepared | None:
        key = self._key(row, modality)
        return None if key is None or self.prepared is None else self.prepared.get(modality, key)

    def _kept(self, found: Iterable[Decoded], modality: str) -> Iterator[tuple[int, Prepared]]:
        for row, prepared, reason in found:
            if reason is not None:
                self.reasons.setdefault(row, reason)
            if prepared is None:
                self._absent.add((row, modality))
                continue
            key = self._key(row, modality)
            if key is not None and self.prepared is not None:
                self.prepared.put(modality, key, prepared)
            yield row, prepared

    def _key(self, row: int, modality: str) -> str | None:
        # A backbone that is kept reads each item once: nothing to keep.
        if self.prepared is None or self._towers[modality].keeps_backbone:
            return None
        try:
            return self._content.content_hash(row, modality)
        except MediaError:
            return None


class _Keeper:
    """Puts what comes into the cache, many at once: a file and a wait for the disk each would be slow."""

    def __init__(self, cache: FeatureCache, fingerprint: str) -> None:
        self._cache, self._fingerprint = cache, fingerprint
        self._waiting: dict[str, np.ndarray] = {}
        self._since = time.monotonic()

    def __enter__(self) -> _Keeper:
        return self

    def __exit__(self, *exception: object) -> None:
        self._cache.put(self._fingerprint, self._waiting)

    def put(self, key: str, features: np.ndarray) -> None:
        self._waiting[key] = features
        if time.monotonic() - self._since > _KEEP_SECONDS:
            self._cache.put(self._fingerprint, self._waiting)
            self._waiting, self._since = {}, time.monotonic()


def _collated(tower: Tower, pairs: Sequence[tuple[int, Prepared]]) -> RowsBatch:
    batch = tower.collate([prepared for _, prepared in pairs])
    return RowsBatch([row for row, _ in pairs], batch.counts.tolist(), batch)


def _alike(order: Sequence[int], lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """The places in `order`, of rising lengths, in batches of at most `size`, of one length where that has enough."""
    batch: list[int] = []
    for place in order:
        longer = bool(batch) and lengths[place] > lengths[batch[-1]] and len(batch) >= _SHORTEST_BATCH
        if len(batch) == size or longer:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def _padded(rows: Sequence[np.ndarray | None], dim: int) -> ModalityFeatures:
    width = max([len(row) for row in rows if row is not None] + [1])
    windows = torch.zeros(len(rows), width, dim)
    present = torch.zeros(len(rows), width, dtype=torch.bool)
    for index, row in enumerate(rows):
        if row is not None:
            windows[index, : len(row)] = torch.from_numpy(row)
            present[index, : len(row)] = True
    return ModalityFeatures(windows, present)
