"""Who took what, when, in which context → padded history windows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Events(NamedTuple):
    """A log as arrays, one row an event, each person's events in their order."""

    user_index: np.ndarray
    """Int64."""
    item_index: np.ndarray
    """Int64."""
    kind: np.ndarray
    """Int64: index of the event's kind in the model's list, 0 for none or unknown."""
    value: np.ndarray
    """Float32: standardised rating or watched share, 0 where missing."""
    context: np.ndarray
    """Float32 (event, context width)."""
    seconds: np.ndarray
    """Float64, 0 where the log has no time."""


class HistoryBatch(NamedTuple):
    """Histories of several people, padded to one length; everything is (person, event) unless it says otherwise."""

    item_index: Tensor
    kind: Tensor
    value: Tensor
    distance: Tensor
    """How many events lie between this one and the moment asked for, 0 for the nearest."""
    age_days: Tensor
    context: Tensor
    """(person, event, context width)."""
    present: Tensor
    """Bool."""

    def to(self, device: torch.device | str) -> HistoryBatch:
        """The same histories on another device."""
        return HistoryBatch(*(tensor.to(device) for tensor in self))


class Histories:
    """Each person's events, ready to be read as of the end of the log or around one of its events."""

    def __init__(self, events: Events, *, length: int, ordered: bool) -> None:
        self._events = events
        self._length = length
        self.ordered = ordered
        order = np.argsort(events.user_index, kind="stable")
        users, starts = np.unique(events.user_index[order], return_index=True)
        self._rows = dict(zip(users.tolist(), np.split(order, starts[1:]), strict=True)) if len(order) else {}

    def latest(self, user_index: int, *, whole: bool = False) -> np.ndarray:
        """Rows of the person's last `length` events, or of the `whole` history, oldest first."""
        rows = self._rows.get(user_index, np.zeros(0, dtype=np.int64))
        return rows if whole else rows[-self._length :]

    def around(self, row: int) -> np.ndarray:
        """Rows of the person's other events nearest to event `row`, at most `length`, in order.

        Later ones count too: taste is read from all that the training log holds, as item-item models do. The same
        item taken again is left out, since it would tell the answer.
        """
        events = self._events
        rows = self._rows[int(events.user_index[row])]
        here = int(np.flatnonzero(rows == row)[0])
        others = rows[events.item_index[rows] != events.item_index[row]]
        if len(others) <= self._length:
            return others
        nearest = np.argsort(np.abs(np.searchsorted(rows, others) - here), kind="stable")[: self._length]
        return others[np.sort(nearest)]

    def collate(self, rows: list[np.ndarray], *, moments: list[int | None] | None = None) -> HistoryBatch:
        """Event rows of several people as one batch.

        `moments`: an event row a person around which distance and age are counted; None counts from after the last.
        """
        # Padding points at event 0; a log without events gets one for it, which nobody sees.
        events = self._events if len(self._events.item_index) else _padding(self._events)
        width = max([len(chosen) for chosen in rows] + [1])
        index = np.zeros((len(rows), width), dtype=np.int64)
        present = np.zeros((len(rows), width), dtype=bool)
        distance = np.zeros((len(rows), width), dtype=np.float32)
        age = np.zeros((len(rows), width), dtype=np.float32)
        for person, chosen in enumerate(rows):
            count = len(chosen)
            index[person, :count] = chosen
            present[person, :count] = True
            if not self.ordered or count == 0:
                continue
            moment = None if moments is None else moments[person]
            if moment is None:
                distance[person, :count] = np.arange(count - 1, -1, -1)
                age[person, :count] = (events.seconds[chosen[-1]] - events.seconds[chosen]) / 86_400
            else:
                place = int(np.searchsorted(chosen, moment))
                steps = np.arange(count) - place
                distance[person, :count] = np.where(steps < 0, -steps - 1, steps)
                age[person, :count] = np.abs(events.seconds[chosen] - events.seconds[moment]) / 86_400
        return HistoryBatch(
            torch.from_numpy(events.item_index[index]),
            torch.from_numpy(events.kind[index]),
            torch.from_numpy(events.value[index]),
            torch.from_numpy(distance),
            torch.from_numpy(age),
            torch.from_numpy(events.context[index]),
            torch.from_numpy(present),
        )


def _padding(events: Events) -> Events:
    return Events(*(np.zeros((1, *array.shape[1:]), dtype=array.dtype) for array in events))
