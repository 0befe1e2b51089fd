"""Training of the sequence score: windows of histories, and at each event what came next."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple, final

import numpy as np
import torch
from torch import Tensor

from multimodal_rec.collaborative.fitting import Fitted, Learner, candidates, fit
from multimodal_rec.collaborative.item_side import ItemSide
from multimodal_rec.collaborative.score import CollaborativeScore, Log
from multimodal_rec.collaborative.sequence import SequenceEncoder
from multimodal_rec.collaborative.sequence_score import SequenceScore
from multimodal_rec.collaborative.settings import SequenceConfig
from multimodal_rec.errors import ConfigError

_NEVER = np.iinfo(np.int32).max


def fit_sequence(
    log: Log,
    config: SequenceConfig | None = None,
    *,
    validate: Callable[[CollaborativeScore], float] | None = None,
    on_epoch: Callable[[int, float, float | None], None] | None = None,
    stop_after: int | None = None,
) -> Fitted:
    """The sequence score of a log, as `fit` trains it. Raises `ConfigError` for a log without an order."""
    if not log.ordered:
        raise ConfigError("this log has no order, and a sequence is nothing without one. Give timestamp or position.")
    chosen = SequenceConfig() if config is None else config
    return fit(
        lambda: SequenceLearner(log, chosen), chosen, validate=validate, on_epoch=on_epoch, stop_after=stop_after
    )


class Windows(NamedTuple):
    """Stretches of histories that are read at once, int64 (window,), as rows of the events person by person."""

    begin: np.ndarray
    """The first event that is read."""
    end: np.ndarray
    """After the last event that is read."""
    learn_from: np.ndarray
    """States after this row and later ones are learned from: those before belong to another window."""

    @classmethod
    def of(cls, starts: np.ndarray, size: int, random: np.random.Generator) -> Windows:
        """Windows of at most `size` events, such that every event of a history is what came next exactly once.

        `starts`: int64 (person + 1,), where each history begins. A longer history is cut at a random place; each
        window still reads `size` events back where there are as many.
        """
        rows: list[tuple[int, int, int]] = []
        for begin, last in zip(starts[:-1].tolist(), (starts[1:] - 1).tolist(), strict=True):
            if last < begin:
                continue
            cuts = [last]
            if last - begin > size:
                cuts += range(last - 1 - int(random.integers(0, size)), begin, -size)
            rows += [
                (max(begin, cut - size), cut, before)
                for cut, before in zip(cuts, [*(cut + 1 for cut in cuts[1:]), begin], strict=True)
            ]
        return cls(*np.array(rows, dtype=np.int64).reshape(-1, 3).T)


@final
class SequenceLearner(Learner[SequenceScore]):
    """Loss: softmax over all items that somebody took but not this person before, at the next things they took.

    The next `horizon` count, with falling weights that sum to 1 and with the weights of their events; what was
    disliked, or had been taken before, is read but not foretold. Events of one second are shuffled every epoch: their
    order is an accident. Source of several targets: PinnerFormer's dense all-action loss (arXiv:2205.04507).
    """

    _people: Tensor

    def __init__(self, log: Log, config: SequenceConfig) -> None:
        super().__init__()
        self._config, events = config, log.events
        order = np.argsort(events.user_index, kind="stable")
        self._person, self._item = events.user_index[order], events.item_index[order]
        self._kind, self._value = events.kind[order], events.value[order].astype(np.float32)
        self._seconds, self._weight = events.seconds[order], log.weights[order].astype(np.float32)
        self._starts = np.concatenate([[0], np.cumsum(np.bincount(self._person, minlength=log.num_people))])
        self._since = np.diff(self._seconds, prepend=0.0).clip(min=0).astype(np.float32)
        self._since[self._starts[:-1][np.diff(self._starts) > 0]] = np.inf
        # Events of one person and one moment; of a log without times, each for itself.
        is_next = np.diff(self._person, prepend=-1) != 0
        is_next |= (np.diff(self._seconds, prepend=-1.0) != 0) | (not events.seconds.any())
        self._moment = np.cumsum(is_next)
        counts = np.bincount(self._item[self._weight > 0], minlength=log.num_items)
        self._share = counts / max(counts.sum(), 1)
        self.side = ItemSide(log.content, counts > 0, config.dim, scale=0.02)
        encoder = SequenceEncoder.of(config)
        num_kinds = int(self._kind.max(initial=0)) + 1
        self.score = SequenceScore(
            encoder, num_items=log.num_items, num_kinds=num_kinds, person_width=log.people.shape[1]
        )
        self.register_buffer("_people", torch.from_numpy(log.people).float(), persistent=False)

    def num_steps(self) -> int:
        """About how many losses an epoch has."""
        return math.ceil(len(self._item) / self._config.events_a_step)

    def refresh(self) -> None:
        """None; writes the taken items' vectors."""
        self.score.vectors.copy_(self.side() * self.side.taken[:, None])

    def losses(self, random: np.random.Generator) -> Iterator[Tensor]:
        """One epoch: a loss a step, about `events_a_step` events each."""
        order = np.lexsort((random.random(len(self._item)), self._moment))
        epoch = _Epoch.of(self._person, self._item[order], self._weight[order], self._starts)
        kind, value = self._kind[order], self._value[order]
        windows = Windows.of(self._starts, self._config.window, random)
        for batch in _batches(windows.end - windows.begin, self._config.events_a_step, random):
            begin, end, learn_from = (part[batch] for part in windows)
            row = begin[:, None] + np.arange(int((end - begin).max()) + 1)
            # A state after each event that is read and one before them: the state at a row foretells that row.
            learn = (row >= learn_from[:, None]) & (row <= end[:, None])
            read = np.minimum(row[:, :-1], len(order) - 1)
            person = self._person[begin]
            around = self.side()
            states = self.score.states(
                around[torch.from_numpy(epoch.item[read])],
                torch.from_numpy(kind[read]),
                torch.from_numpy(value[read]),
                torch.from_numpy(self._since[read]),
                self._people[torch.from_numpy(person)],
            )
            loss = self._loss(states[torch.from_numpy(learn)], row[learn], around, epoch, random)
            if loss is not None:
                yield loss

    def _loss(
        self, states: Tensor, row: np.ndarray, around: Tensor, epoch: _Epoch, random: np.random.Generator
    ) -> Tensor | None:
        config = self._config
        turn = epoch.before[row][:, None] + np.arange(config.horizon)
        there = turn < epoch.until[self._person[row]][:, None]
        some = there[:, 0]
        if not some.any():
            return None
        states, row, there = states[torch.from_numpy(some)], row[some], there[some]
        target = epoch.targets[np.where(there, turn[some], 0)]
        wanted = epoch.item[target]
        chosen = candidates(wanted[there], self._share, config.max_candidates, random)
        logits = states @ around[chosen.item_index].T - chosen.log_share
        right = logits.gather(1, chosen.places(torch.from_numpy(np.where(there, wanted, wanted[:, :1]))))
        people, of = np.unique(self._person[row], return_inverse=True)
        taken_at = torch.from_numpy(epoch.first_taken(people, self._starts, len(self._share)))
        # What was taken before is no candidate; what is taken later is one until then.
        taken = taken_at[:, chosen.item_index][torch.from_numpy(of)] < torch.from_numpy(row)[:, None]
        total = logits.masked_fill(taken, -torch.inf).logsumexp(dim=1)
        share = there * config.decay ** np.arange(config.horizon)
        weight = torch.from_numpy(np.where(there, epoch.weight[target] * share / share.sum(axis=1, keepdims=True), 0))
        weight = weight.float()
        return (weight * (total[:, None] - right)).sum() / weight.sum()


class _Epoch(NamedTuple):
    """The events in the order of one epoch, person by person, and which of them are to be foretold."""

    item: np.ndarray
    weight: np.ndarray
    targets: np.ndarray
    """Int64 (target,): rows that are foretold, ascending."""
    before: np.ndarray
    """Int64 (event + 1,): how many targets come before a row."""
    until: np.ndarray
    """Int64 (person,): where in `targets` each person's end."""

    @classmethod
    def of(cls, person: np.ndarray, item: np.ndarray, weight: np.ndarray, starts: np.ndarray) -> _Epoch:
        _, first = np.unique(person * (int(item.max(initial=0)) + 1) + item, return_index=True)
        is_target = np.zeros(len(item), dtype=bool)
        is_target[first] = True
        is_target &= weight > 0
        before = np.concatenate([[0], np.cumsum(is_target)])
        return cls(item, weight, np.flatnonzero(is_target), before, before[starts[1:]])

    def first_taken(self, people: np.ndarray, starts: np.ndarray, num_items: int) -> np.ndarray:
        """Int32 (person, item): the row at which each item came first to these people, beyond all rows if never."""
        table = np.full((len(people), num_items), _NEVER, dtype=np.int32)
        for place, who in enumerate(people.tolist()):
            rows = np.arange(int(starts[who + 1]) - 1, int(starts[who]) - 1, -1)
            # The earliest is written last, and stays.
            table[place, self.item[rows]] = rows
        return table


def _batches(lengths: np.ndarray, limit: int, random: np.random.Generator) -> Iterator[np.ndarray]:
    """Windows of like length, about `limit` events of them at a time, in random order."""
    order = random.permutation(len(lengths))
    order = order[np.argsort(lengths[order] // 8, kind="stable")]
    batch_of = np.cumsum(lengths[order] + 1) // limit
    groups = np.split(order, np.flatnonzero(np.diff(batch_of)) + 1) if len(order) else []
    yield from (groups[number] for number in random.permutation(len(groups)))
