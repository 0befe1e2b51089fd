"""People as callers name them → their histories, attributes and profiles as the model reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
import torch

from multimodal_rec.errors import ConfigError, UnknownIdError
from multimodal_rec.feature_cache import FeatureCache
from multimodal_rec.history import Histories, HistoryBatch
from multimodal_rec.profiles import ProfileReader, is_said
from multimodal_rec.vocabulary import Vocabulary, wide

OnUnknown = Literal["raise", "skip", "cold"]
_REMEMBERED = 65_536
"""People whose attributes and profile are kept as features once they were asked for."""


@dataclass(frozen=True)
class Person:
    """Somebody the store need not know: what they took, oldest first, and what is known of them."""

    history: Sequence[str] = ()
    """Item ids, the latest last. Ids that are not embedded are an error unless `on_unknown` says otherwise."""
    _: KW_ONLY
    profile: str | None = None
    """What they say of themselves, for a model that reads profiles."""
    attributes: Mapping[str, object] = field(default_factory=dict)
    """User attribute → value, as in the catalogue's users table."""


class People:
    """Everybody known: their events as arrays over the items that can be scored, their attributes and profiles."""

    def __init__(
        self,
        log: pd.DataFrame,
        users: pd.DataFrame,
        *,
        vocabulary: Vocabulary,
        item_rows: Mapping[str, int],
        length: int,
        profiles: ProfileReader | None = None,
    ) -> None:
        """`log`: interactions; `users`: attributes and profiles by user_id, maybe none; `item_rows`: item id → row to
        index; `profiles`: None where the model reads none.
        """
        self._rows = {user_id: row for row, user_id in enumerate(dict.fromkeys(log["user_id"]))}
        self._events, _ = vocabulary.encode_events(log, self._rows, item_rows)
        self._histories = Histories(self._events, length=length, ordered="timestamp" in log or "position" in log)
        self._item_rows = item_rows
        user_ids = users["user_id"].tolist() if "user_id" in users else []
        self._user_rows = {user_id: row for row, user_id in enumerate(user_ids)}
        read = [*vocabulary.people.spec, *([] if vocabulary.profile is None else [vocabulary.profile])]
        self._user_columns = {name: users[name].tolist() for name in read if name in users}
        self._vocabulary = vocabulary
        self._profiles = ProfileReader(None, FeatureCache()) if profiles is None else profiles
        self.length = length
        # What is known of somebody stays as it is; several threads may put the same there.
        self._known_features: dict[str, np.ndarray] = {}

    @property
    def context_spans(self) -> dict[str, slice]:
        """Context column → where its features stand in an encoded context."""
        return self._vocabulary.context.spans

    def known(self, person: str | Person) -> bool:
        """Whether anything is known of a person: a history, an attribute or a profile."""
        if isinstance(person, Person):
            return bool(person.history) or bool(person.attributes) or is_said(person.profile)
        return person in self._rows or person in self._user_rows

    def seen(self, person: str | Person) -> set[int]:
        """Item rows that the person took, as far as they are known here."""
        if isinstance(person, Person):
            return {self._item_rows[item_id] for item_id in person.history if item_id in self._item_rows}
        return set(self._events.item_index[self._histories.latest(self._rows.get(person, -1), whole=True)].tolist())

    def item_counts(self) -> np.ndarray:
        """How many events of the log each item row has, int64 (item,)."""
        return np.bincount(self._events.item_index, minlength=len(self._item_rows))

    def some(self, count: int) -> list[str]:
        """Up to `count` people with interactions, evenly spread over those there are."""
        places = np.unique(np.linspace(0, len(self._rows) - 1, num=min(count, len(self._rows))).astype(np.int64))
        known = list(self._rows)
        return [known[place] for place in places]

    def histories(self, people: Sequence[str | Person], *, whole: bool = False) -> HistoryBatch:
        """The people's latest events as one batch; `whole`: all of them."""
        # -1 has no events: a `Person` brings theirs along.
        known = [self._rows.get(person, -1) if isinstance(person, str) else -1 for person in people]
        batch = self._histories.collate([self._histories.latest(row, whole=whole) for row in known])
        strangers = [(place, p) for place, p in enumerate(people) if isinstance(p, Person)]
        if not strangers:
            return batch
        taken = [[self._item_rows[i] for i in p.history if i in self._item_rows] for _, p in strangers]
        taken = taken if whole else [items[-self.length :] for items in taken]
        width = max([batch.present.shape[1], *map(len, taken)])
        batch = HistoryBatch(*(_widened(tensor, width) for tensor in batch))
        for (place, _), items in zip(strangers, taken, strict=True):
            count = len(items)
            # Padding repeats some event of the log: its kind and context are not this person's.
            for tensor in batch:
                tensor[place] = 0
            batch.item_index[place, :count] = torch.tensor(items, dtype=torch.int64)
            batch.distance[place, :count] = torch.arange(count - 1, -1, -1, dtype=torch.float32)
            batch.present[place, :count] = True
        return batch

    def features(self, people: Sequence[str | Person]) -> torch.Tensor:
        """What is known of the people but for what they did, (person, person width), 0 where unknown."""
        rows = [self._features_at_hand(person) for person in people]
        missing = [place for place, row in enumerate(rows) if row is None]
        if missing or not rows:
            records = [self._record(people[place]) for place in missing]
            frame = pd.DataFrame(records, index=range(len(records)))
            read = person_features(frame, self._vocabulary, self._profiles)
            self._remember([people[place] for place in missing], read)
            if len(missing) == len(rows):
                return read
            for place, row in zip(missing, read.numpy(), strict=True):
                rows[place] = row
        return torch.from_numpy(np.stack([row for row in rows if row is not None]))

    def _features_at_hand(self, person: str | Person) -> np.ndarray | None:
        """A person's features where no frame has to be made for them, nor a text to be read."""
        kept = self._known_features.get(person) if isinstance(person, str) else None
        if kept is not None:
            return kept
        record, profile = self._record(person), self._vocabulary.profile
        said = None if profile is None else record.get(profile)
        attributes = None if is_said(said) else self._vocabulary.people.plain_row(record)
        if attributes is None:
            return None
        return np.concatenate([wide(attributes[None]), self._profiles.read([None])], axis=1)[0]

    def _remember(self, people: Sequence[str | Person], features: torch.Tensor) -> None:
        if len(self._known_features) + len(people) > _REMEMBERED:
            self._known_features.clear()
        for person, row in zip(people[:_REMEMBERED], features.numpy(), strict=False):
            if isinstance(person, str) and self.known(person):
                self._known_features[person] = row.copy()

    def answered(self, people: Sequence[str | Person], on_unknown: OnUnknown) -> list[bool]:
        """Which people are to be answered. Raises `UnknownIdError` for the others under `on_unknown="raise"`.

        Raises `ConfigError` where `people` is no list of ids and `Person`s, or a `Person` has an undeclared attribute
        or a profile that this model does not read.
        """
        self._check(people)
        if on_unknown == "cold":
            return [True] * len(people)
        faults = [self._fault(place, person) for place, person in enumerate(people)]
        for fault in faults:
            if fault is not None and on_unknown == "raise":
                raise UnknownIdError(
                    f"{fault} Expected somebody with a history, attributes or a profile. Pass on_unknown='cold' to "
                    "rank by popularity and context alone, or 'skip' for an empty row."
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
            if isinstance(person, Person):
                self._check_person(place, person)

    def _check_person(self, place: int, person: Person) -> None:
        declared = self._vocabulary.people.spec
        unknown = [name for name in person.attributes if name not in declared]
        if unknown:
            raise ConfigError(
                f"people[{place}] has the attribute '{unknown[0]}', which was never declared. Expected one of "
                f"{', '.join(declared) or 'none'}: declare it under [user_attributes] and fit again."
            )
        if person.profile is not None and not isinstance(person.profile, str):
            raise ConfigError(f"people[{place}] has the profile {person.profile!r}. Expected text, or None.")
        if is_said(person.profile) and not self._profiles.reads:
            raise ConfigError(
                f"people[{place}] has a profile, and this model reads none. Expected a history or attributes. Declare "
                "the column under [profile], set RecommenderConfig(profile=...) and fit again, or leave it out."
            )

    def _fault(self, place: int, person: str | Person) -> str | None:
        if isinstance(person, str):
            fault = f"user '{person}' is unknown: no interaction, no attributes, no profile."
            return None if self.known(person) else fault
        unknown = [item_id for item_id in person.history if item_id not in self._item_rows]
        if unknown:
            return f"the history of person {place} holds '{unknown[0]}', which is not embedded."
        return None if self.known(person) else f"person {place} has no history, no attributes and no profile."

    def _record(self, person: str | Person) -> dict[str, object]:
        if isinstance(person, Person):
            said = {} if self._vocabulary.profile is None else {self._vocabulary.profile: person.profile}
            return {**said, **person.attributes}
        row = self._user_rows.get(person)
        return {} if row is None else {name: column[row] for name, column in self._user_columns.items()}


def person_features(users: pd.DataFrame, vocabulary: Vocabulary, profiles: ProfileReader) -> torch.Tensor:
    """All that a model reads of people but for what they did, (person, person width): attributes, then the profile.

    `users`: a row a person, the columns as in the users table; those that it lacks count as missing, and what is
    missing is 0.
    """
    blocks = [wide(vocabulary.people.transform(users)), profiles.read(vocabulary.profiles(users))]
    return torch.from_numpy(np.concatenate(blocks, axis=1))


def _widened(tensor: torch.Tensor, width: int) -> torch.Tensor:
    missing = width - tensor.shape[1]
    if missing <= 0:
        return tensor
    return torch.cat([tensor, tensor.new_zeros(tensor.shape[0], missing, *tensor.shape[2:])], dim=1)
