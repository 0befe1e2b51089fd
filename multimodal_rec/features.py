"""Items' content → what the backbones give: read once, cached where the backbone is frozen, fresh where it learns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from multimodal_rec.content import Content, ItemContent
from multimodal_rec.errors import MediaError
from multimodal_rec.feature_cache import FeatureCache
from multimodal_rec.model import ModalityFeatures
from towers import Tower, TowerBatch

Prepared = dict[str, Tensor]


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


class ContentFeatures:
    """Backbone features of the items of one `ItemContent`.

    A row whose media cannot be read is absent everywhere, and `reasons` says why. `prepared`: what trained towers made
    ready is looked up and kept there; None keeps nothing.
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
    ) -> None:
        self.reasons: dict[int, str] = {}
        self._towers = dict(towers)
        self._content = content
        self._cache = cache
        self._num_workers = num_workers
        self._batch_size = batch_size
        self.prepared = prepared
        self._absent: set[tuple[int, str]] = set()

    def features(self, rows: Sequence[int], modality: str) -> ModalityFeatures:
        """Features of these items, on the CPU, in evaluation mode and without gradients.

        `windows` float32 (row, window, feature dim), zero where absent. Backbones that are kept are asked only for
        what the cache lacks.
        """
        tower = self._towers[modality]
        cached = tower.keeps_backbone
        found: dict[int, np.ndarray] = {}
        hashes: dict[int, str] = {}
        fingerprint = tower.backbone_fingerprint() if cached else ""
        if cached:
            hashes = self._hashes(rows, modality)
            kept = self._cache.get(fingerprint, list(hashes.values()))
            found = {row: kept[key].astype(np.float32) for row, key in hashes.items() if key in kept}
        missing = [row for row in rows if row not in found and (not cached or row in hashes)]
        if not missing:
            return _padded([found.get(row) for row in rows], tower.feature_dim)
        mode, backbone_mode = tower.training, tower.backbone.training
        tower.eval()
        tower.backbone.eval()
        try:
            for chunk in _chunks(self._present(missing, modality), self._batch_size):
                fresh = self._run(tower, [prepared for _, prepared in chunk])
                # Rounded to the cache's precision at once: the first run and a later, cached one must agree.
                arrays = {
                    row: array.astype(np.float16) if cached else array
                    for (row, _), array in zip(chunk, fresh, strict=True)
                }
                if cached:
                    self._cache.put(fingerprint, {hashes[row]: array for row, array in arrays.items()})
                found.update({row: array.astype(np.float32) for row, array in arrays.items()})
        finally:
            tower.train(mode)
            tower.backbone.train(backbone_mode)
        return _padded([found.get(row) for row in rows], tower.feature_dim)

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

    def _run(self, tower: Tower, prepared: Sequence[Prepared]) -> list[np.ndarray]:
        device = next(tower.projection.parameters()).device
        batch: TowerBatch = tower.collate(prepared)
        with torch.inference_mode():
            features, _ = tower.features(batch.to(device))
        rows = features.float().cpu().numpy()
        return [row[:count] for row, count in zip(rows, batch.counts.tolist(), strict=True)]

    def _present(self, rows: Sequence[int], modality: str) -> Iterator[tuple[int, Prepared]]:
        if self._num_workers == 0 or len(rows) <= self._batch_size:
            ready = ((row, self._ready(row, modality)) for row in rows)
        else:
            ready = (
                (row, self._kept(row, modality, value, reason))
                for row, value, reason in _decoding(self._content, rows, modality, self._num_workers)
            )
        yield from ((row, prepared) for row, prepared in ready if prepared is not None)

    def _ready(self, row: int, modality: str) -> Prepared | None:
        if (row, modality) in self._absent:
            return None
        key = self._key(row, modality)
        held = None if key is None or self.prepared is None else self.prepared.get(modality, key)
        return self._kept(row, modality, *_decode(self._content, row, modality)) if held is None else held

    def _kept(self, row: int, modality: str, value: Content | None, reason: str | None) -> Prepared | None:
        if reason is not None:
            self.reasons.setdefault(row, reason)
        prepared: Prepared | None = None
        if value is not None:
            try:
                prepared = self._towers[modality].prepare_one(value)
            except (TypeError, ValueError, RuntimeError) as error:
                self.reasons.setdefault(row, f"{modality}: {error}")
        if prepared is None:
            self._absent.add((row, modality))
            return None
        key = self._key(row, modality)
        if key is not None and self.prepared is not None:
            self.prepared.put(modality, key, prepared)
        return prepared

    def _key(self, row: int, modality: str) -> str | None:
        # A backbone that is kept reads each item once: nothing to keep.
        if self.prepared is None or self._towers[modality].keeps_backbone:
            return None
        try:
            return self._content.content_hash(row, modality)
        except MediaError:
            return None


class _Decoding(Dataset[tuple[int, Content | None, str | None]]):
    def __init__(self, content: ItemContent, rows: Sequence[int], modality: str) -> None:
        self._content, self._rows, self._modality = content, list(rows), modality

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[int, Content | None, str | None]:
        row = self._rows[index]
        return row, *_decode(self._content, row, self._modality)


def _decoding(content: ItemContent, rows: Sequence[int], modality: str, num_workers: int) -> Iterable:
    # Spawned, since a forked child of a process that has opened a LanceDB table hangs.
    return DataLoader(
        _Decoding(content, rows, modality), batch_size=None, num_workers=num_workers, multiprocessing_context="spawn"
    )


def _decode(content: ItemContent, row: int, modality: str) -> tuple[Content | None, str | None]:
    try:
        return content.load(row, modality), None
    except MediaError as error:
        return None, f"{modality}: {error}"


def _chunks(pairs: Iterator[tuple[int, Prepared]], size: int) -> Iterator[list[tuple[int, Prepared]]]:
    chunk: list[tuple[int, Prepared]] = []
    for pair in pairs:
        chunk.append(pair)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _padded(rows: Sequence[np.ndarray | None], dim: int) -> ModalityFeatures:
    width = max([len(row) for row in rows if row is not None] + [1])
    windows = torch.zeros(len(rows), width, dim)
    present = torch.zeros(len(rows), width, dtype=torch.bool)
    for index, row in enumerate(rows):
        if row is not None:
            windows[index, : len(row)] = torch.from_numpy(row)
            present[index, : len(row)] = True
    return ModalityFeatures(windows, present)
