"""Media decoded and made ready for towers, in this process or in others."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import NamedTuple, TypeVar, final

import numpy as np
import torch
from torch import Tensor

from multimodal_rec.content import ItemContent
from multimodal_rec.errors import MediaError
from towers import Tower
from towers.backbone import Backbone

Prepared = dict[str, Tensor]

Value = TypeVar("Value")

_GROUP = 16
"""Items that are sent to a process at once: enough that sending costs little, few enough that all have some."""


def in_groups(values: Iterable[Value], size: int) -> Iterator[tuple[Value, ...]]:
    """The values in groups of `size`; the last may be smaller."""
    iterator = iter(values)
    while group := tuple(islice(iterator, size)):
        yield group


class Decoded(NamedTuple):
    """What came of one item's modality: something ready, nothing, or a reason."""

    row: int
    prepared: Prepared | None
    reason: str | None


class Reader(NamedTuple):
    """A backbone that prepares and cannot run, and how many windows it takes."""

    backbone: Backbone
    max_windows: int

    @classmethod
    def of(cls, tower: Tower) -> Reader:
        """The reader of a tower; it reads exactly as the tower does."""
        return cls(tower.backbone.without_weights(), tower.max_windows)


def decode(content: ItemContent, row: int, modality: str, reader: Reader) -> Decoded:
    """One item's media, decoded and prepared. What cannot be read is a reason, never an exception."""
    try:
        value = content.load(row, modality)
        return Decoded(row, None if value is None else reader.backbone.prepare(value, reader.max_windows), None)
    except (MediaError, OSError, TypeError, ValueError, RuntimeError, MemoryError) as error:
        return Decoded(row, None, f"{modality}: {error}")


def decode_here(content: ItemContent, rows: Iterable[int], modality: str, reader: Reader) -> Iterator[Decoded]:
    """`decode` of each row, one after another in this process."""
    return (decode(content, row, modality, reader) for row in rows)


@final
class DecodingWorkers:
    """Processes that decode, started when they are first needed and kept until `close`.

    They are spawned, since a forked child of a process that has opened a LanceDB table hangs, and they open no table.
    Media that bring a decoder down cost their own item only: the process is replaced, and the items that it had in
    hand are read once more, one by one.
    """

    def __init__(self, towers: Mapping[str, Tower], num_workers: int) -> None:
        self._towers = dict(towers)
        self._num_workers = num_workers
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> DecodingWorkers:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def decode(self, content: ItemContent, rows: Sequence[int], modality: str) -> Iterator[Decoded]:
        """Each row decoded and prepared, in order."""
        waiting: deque[tuple[tuple[int, ...], Future[list[_Packed]]]] = deque()
        try:
            for group in in_groups(rows, _GROUP):
                waiting.append((group, self._submit(content, group, modality)))
                if len(waiting) > 2 * self._num_workers:
                    yield from self._collect(content, *waiting.popleft(), modality)
            while waiting:
                yield from self._collect(content, *waiting.popleft(), modality)
        finally:
            for _, future in waiting:
                future.cancel()

    def _collect(
        self, content: ItemContent, group: Sequence[int], future: Future[list[_Packed]], modality: str
    ) -> Iterator[Decoded]:
        try:
            packed = future.result()
        except BrokenProcessPool:
            packed = [self._alone(content, row, modality) for row in group]
        for row, (arrays, reason) in zip(group, packed, strict=True):
            prepared = None if arrays is None else {name: torch.from_numpy(array) for name, array in arrays.items()}
            yield Decoded(row, prepared, reason)

    def _alone(self, content: ItemContent, row: int, modality: str) -> _Packed:
        try:
            return self._submit(content, [row], modality).result()[0]
        except BrokenProcessPool:
            return _Packed(None, f"{modality}: its media brought the decoder down. Encode them again, or leave it out.")

    def _submit(self, content: ItemContent, group: Sequence[int], modality: str) -> Future[list[_Packed]]:
        # Copies that share nothing with the towers: what is read here may change there.
        for _ in range(2):
            if self._pool is None:
                readers = {name: Reader.of(tower) for name, tower in self._towers.items()}
                spawn = multiprocessing.get_context("spawn")
                self._pool = ProcessPoolExecutor(
                    self._num_workers, mp_context=spawn, initializer=_start, initargs=(readers,)
                )
            try:
                return self._pool.submit(_decode_group, content.part(group), modality)
            except BrokenProcessPool:
                self.close()
        raise RuntimeError("the processes that decode media end as soon as they start. Pass num_workers=0.")


class _Packed(NamedTuple):
    """One item on its way between processes: arrays, since tensors would take a file descriptor each."""

    arrays: dict[str, np.ndarray] | None
    reason: str | None


_readers: dict[str, Reader] = {}


def _start(readers: dict[str, Reader]) -> None:
    # One thread each: the processes share the machine with the encoder.
    torch.set_num_threads(1)
    _readers.update(readers)


def _decode_group(content: ItemContent, modality: str) -> list[_Packed]:
    found = (decode(content, row, modality, _readers[modality]) for row in range(len(content)))
    return [
        _Packed(None if prepared is None else {name: value.numpy() for name, value in prepared.items()}, reason)
        for _, prepared, reason in found
    ]
