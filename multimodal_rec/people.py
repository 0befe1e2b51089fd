"""People as callers name them → histories and attributes as the model reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
import torch

from multimodal_rec.errors import ConfigError, UnknownIdError
from multimodal_rec.history import Histories, HistoryBatch
from multimodal_rec.vocabulary import Vocabulary, wide

OnUnknown = Literal["raise", "skip", "cold"]


@dataclass(frozen=True)
class Person:
    """Somebody the store need not know: what they took, oldest first, and what is known of them."""

    history: Sequence[str] = ()
    """Item ids, the latest last. Ids that are not embedded are an error unless `on_unknown` says otherwise."""
    _: KW_ONLY
    attributes: Mapping[str, object] = field(default_factory=dict)
    """User attribute → value, as in the catalogue's users table."""


class People:
    """Everybody known: their events as arrays over the items that can be scored, and their attributes."""

    def __init__(
        self,
        log: pd.DataFrame,
        users: pd.DataFrame,
        *,
        vocabulary: Vocabulary,
        item_rows: Mapping[str, int],
        length: int,
    ) -> None:
        """`log`: interactions; `users`: attributes by user_id, maybe none; `item_rows`: item id → row to index."""
        self._rows = {user_id: row for row, user_id in enumerate(dict.fromkeys(log["user_id"]))}
        self._events, _ = vocabulary.encode_events(log, self._rows, item_rows)
        self._histories = Histories(self._events, length=length, ordered="timestamp" in log or "position" in log)
        self._item_rows = item_rows
        self._users = users.set_index("user_id") if "user_id" in users else pd.DataFrame()
        self._encoder = vocabulary.people
        self._length = length

    def known(self, person: str | Person) -> bool:
        """Whether anything is known of a person: a history or an attribute."""
        if isinstance(person, Person):
            return bool(person.history) or bool(person.attributes)
        return person in self._rows or person in self._users.index

    def seen(self, person: str | Person) -> set[int]:
        """Item rows that the person took, as far as they are known here."""
        if isinstance(person, Person):
            return {self._item_rows[item_id] for item_id in person.history if item_id in self._item_rows}
        row = self._rows.get(person)
        if row is None:
            return set()
        return set(self._events.item_index[self._events.user_index == row].tolist())

    def some(self, count: int) -> list[str]:
        """Up to `count` people with interactions, evenly spread over those there are."""
        places = np.unique(np.linspace(0, len(self._rows) - 1, num=min(count, len(self._rows))).astype(np.int64))
        known = list(self._rows)
        return [known[place] for place in places]

    def histories(self, people: Sequence[str | Person]) -> HistoryBatch:
        """The people's latest events as one batch."""
        rows = [self._histories.latest(self._rows.get(p, -1)) if isinstance(p, str) else [] for p in people]
        batch = self._histories.collate([np.asarray(row, dtype=np.int64) for row in rows])
        strangers = [(place, p) for place, p in enumerate(people) if isinstance(p, Person)]
        if not strangers:
            return batch
        width = max([batch.present.shape[1], *(min(len(p.history), self._length) for _, p in strangers)])
        batch = HistoryBatch(*(_widened(tensor, width) for tensor in batch))
        for place, person in strangers:
            items = [self._item_rows[i] for i in person.history if i in self._item_rows][-self._length :]
            count = len(items)
            # Padding repeats some event of the log: its kind and context are not this person's.
            for tensor in batch:
                tensor[place] = 0
            batch.item_index[place, :count] = torch.tensor(items, dtype=torch.int64)
            batch.distance[place, :count] = torch.arange(count - 1, -1, -1, dtype=torch.float32)
            batch.present[place, :count] = True
        return batch

    def attributes(self, people: Sequence[str | Person]) -> torch.Tensor:
        """Encoded attributes (person, width), 0 where unknown."""
        records = [self._record(person) for person in people]
        return torch.from_numpy(wide(self._encoder.transform(pd.DataFrame(records, index=range(len(records))))))

    def answered(self, people: Sequence[str | Person], on_unknown: OnUnknown) -> list[bool]:
        """Which people are to be answered. Raises `UnknownIdError` for the others under `on_unknown="raise"`.

        Raises `ConfigError` where `people` is no list of ids and `Person`s, or a `Person` has an undeclared attribute.
        """
        self._check(people)
        if on_unknown == "cold":
            return [True] * len(people)
        faults = [self._fault(place, person) for place, person in enumerate(people)]
        for fault in faults:
            if fault is not None and on_unknown == "raise":
                raise UnknownIdError(
                    f"{fault} Expected somebody with a history or attributes. Pass on_unknown='cold' to rank by "
                    "popularity and context alone, or 'skip' for an empty row."
                )
        return [fault is None for fault in faults]

    def _check(self, people: object) -> None:
        if isinstance(people, (str, Person)) or not isinstance(people, Sequence):
            raise ConfigError(f"people is {people!r}. Expected a list of user ids and Persons, such as ['u7'].")
        for place, person in enumerate(people):
            if not isinstance(person, (str, Person)):
                raise ConfigError(
                    f"people[{place}] is {person!r}, a {type(person).__name__}. Expected a user id as str, or a Person."
                )
            unknown = [name for name in getattr(person, "attributes", {}) if name not in self._encoder.spec]
            if unknown:
                raise ConfigError(
                    f"people[{place}] has the attribute '{unknown[0]}', which was never declared. Expected one of "
                    f"{', '.join(self._encoder.spec) or 'none'}: declare it under [user_attributes] and fit again."
                )

    def _fault(self, place: int, person: str | Person) -> str | None:
        if isinstance(person, str):
            return None if self.known(person) else f"user '{person}' is unknown: no interaction, no attributes."
        unknown = [item_id for item_id in person.history if item_id not in self._item_rows]
        if unknown:
            return f"the history of person {place} holds '{unknown[0]}', which is not embedded."
        return None if self.known(person) else f"person {place} has no history and no attributes."

    def _record(self, person: str | Person) -> dict[str, object]:
        if isinstance(person, Person):
            return dict(person.attributes)
        if person in self._users.index:
            return {str(name): value for name, value in self._users.loc[person].items()}
        return {}


def _widened(tensor: torch.Tensor, width: int) -> torch.Tensor:
    missing = width - tensor.shape[1]
    if missing <= 0:
        return tensor
    return torch.cat([tensor, tensor.new_zeros(tensor.shape[0], missing, *tensor.shape[2:])], dim=1)
