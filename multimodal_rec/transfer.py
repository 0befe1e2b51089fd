"""Batches on their way to the device that encodes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch

from towers import TowerBatch


class RowsBatch(NamedTuple):
    """What a tower reads of a few rows of a table."""

    rows: list[int]
    counts: list[int]
    """How many windows each row has."""
    batch: TowerBatch


class _Sent(NamedTuple):
    batch: RowsBatch
    arrived: torch.cuda.Event


def on_device(batches: Iterable[RowsBatch], device: torch.device) -> Iterator[RowsBatch]:
    """The same batches on `device`; on a GPU each is copied while the one before it is encoded.

    Copies go from pinned memory, on a stream of their own: from other memory, or on the encoder's stream, a copy waits
    for the encoder.
    """
    if device.type != "cuda":
        for each in batches:
            yield each._replace(batch=each.batch.to(device))
        return
    stream = torch.cuda.Stream(device)
    sent: _Sent | None = None
    for each in batches:
        with torch.cuda.stream(stream):
            moved = each.batch.pinned().to(device, non_blocking=True)
            following = _Sent(each._replace(batch=moved), stream.record_event())
        if sent is not None:
            yield _arrived(sent, device)
        sent = following
    if sent is not None:
        yield _arrived(sent, device)


def _arrived(sent: _Sent, device: torch.device) -> RowsBatch:
    encoder = torch.cuda.current_stream(device)
    encoder.wait_event(sent.arrived)
    batch = sent.batch.batch
    for tensor in (*batch.windows.values(), batch.counts):
        # Made on the copying stream: without this its memory could be given away while the encoder still reads it.
        tensor.record_stream(encoder)
    return sent.batch
