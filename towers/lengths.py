"""Which items to read together where some are longer than others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

SHORTEST_BATCH = 16
"""A batch may end here where the next item is longer: few items cost little more a piece than many."""


def batches_by_length(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """The places in `lengths` in batches of at most `size`, shortest first, and of one length where that has enough.

    What is shorter than the longest of its batch is padded, and padding costs what text does; a batch without any
    needs no mask either, which attention is faster without.
    """
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        longer = len(batch) >= SHORTEST_BATCH and lengths[place] > lengths[batch[-1]]
        if len(batch) == size or longer:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch
