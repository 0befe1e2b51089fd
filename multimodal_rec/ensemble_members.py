"""What an ensemble is made of, each on one scale: recommenders, and numbers of items."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pandas as pd

from multimodal_rec.catalogue import Catalogue
from multimodal_rec.context import Context, ContextReader
from multimodal_rec.errors import ConfigError, ContextError, SplitError, UnknownIdError
from multimodal_rec.explanation import Explanation
from multimodal_rec.judging import known_before
from multimodal_rec.model import RecommenderModel
from multimodal_rec.people import OnUnknown, Person
from multimodal_rec.recommender import Recommender
from multimodal_rec.reranking.candidates import Shelf
from multimodal_rec.retrieval import Query

_PROFILE = ":profile"  # beside attributes, whose names are a catalogue's own

_ASKED = 64
"""People over whose scores a recommender's mean and deviation are taken."""


@dataclass(frozen=True, eq=False)
class Scale:
    """A mean and a deviation, above 0."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, numbers: np.ndarray) -> Scale:
        """Of the numbers that are finite; 0 and 1 where there are none, a deviation of 1 where they are all alike."""
        finite = numbers[np.isfinite(numbers)].astype(np.float64)
        if not len(finite):
            return cls(0.0, 1.0)
        spread = float(finite.std())
        return cls(float(finite.mean()), spread if spread > 1e-9 else 1.0)

    def __call__(self, numbers: np.ndarray) -> np.ndarray:
        """The numbers on this scale, 0 where they are not finite."""
        return np.nan_to_num((numbers - self.mean) / self.deviation, nan=0.0, posinf=0.0, neginf=0.0)


@dataclass(frozen=True, eq=False)
class ItemColumn:
    """A number an item, whoever asks."""

    values: Mapping[str, float]
    scale: Scale

    def has(self, item_id: str) -> bool:
        """Whether it holds a finite number of the item."""
        return bool(np.isfinite(self.values.get(item_id, np.nan)))

    def of_values(self, numbers: Sequence[object]) -> np.ndarray:
        """Numbers of the caller's on this column's scale, 0 where one is missing."""
        return self.scale(_numbers(numbers))

    def standardised(self, people: Sequence[str | Person], contexts: pd.DataFrame, items: Sequence[str]) -> np.ndarray:
        """Float64 (person, item), 0 where the column has no number; the same in all `contexts`."""
        del contexts
        row = self.scale(np.array([self.values.get(item_id, np.nan) for item_id in items], dtype=np.float64))
        return np.repeat(row[None], len(people), axis=0)


@dataclass(eq=False)
class RecommenderMember:
    """A recommender's ranking scores on one scale."""

    recommender: Recommender
    # Several threads may put the same there.
    _scaled: tuple[RecommenderModel, Scale] | None = field(default=None, init=False)

    def standardised(self, people: Sequence[str | Person], contexts: pd.DataFrame, items: Sequence[str]) -> np.ndarray:
        """Float64 (person, item), 0 where this recommender has not embedded the item; strangers are scored cold."""
        scores = self.recommender.score(people, items, context=contexts.loc[:, list(self._columns)], on_unknown="cold")
        return self.scale(scores.astype(np.float64))

    def explained(self, person: str | Person, items: Sequence[str], contexts: pd.DataFrame) -> dict[str, Explanation]:
        """Item id → why this recommender scores it as it does, for those of `items` that it has embedded.

        `contexts`: one row, as of `Members.contexts`; a stranger is explained cold.
        """
        scorer, known = self.recommender._ready(), contexts.loc[:, list(self._columns)]
        chosen = [item_id for item_id in dict.fromkeys(items) if item_id in scorer.item_rows]
        told = {str(name): value for name, value in known.iloc[0].items() if value is not None}
        rows, encoded = [scorer.item_rows[item_id] for item_id in chosen], self.recommender._contexts(known, 1)
        return dict(zip(chosen, scorer.explainer.explain(person, rows, encoded, told=told), strict=True))

    def told(self, person: Person, elsewhere: Collection[str]) -> Person:
        """The person without those attributes, and the profile, that only other members read, named in `elsewhere`."""
        unread = set(elsewhere).difference(self.reads)
        return replace(
            person,
            attributes={name: value for name, value in person.attributes.items() if name not in unread},
            profile=None if _PROFILE in unread else person.profile,
        )

    @property
    def reads(self) -> tuple[str, ...]:
        """What it reads of people: their declared attributes, and the profile where there is a tower for it."""
        trained = self.recommender._fitted()
        profile = () if trained.model.profile is None else (_PROFILE,)
        return (*trained.vocabulary.people.spec, *profile)

    @property
    def _columns(self) -> tuple[str, ...]:
        return self.recommender._fitted().vocabulary.context.columns

    @property
    def scale(self) -> Scale:
        """Over some of its people and all of its items, in no context; taken once for the weights that it has.

        What people do meanwhile changes scores, and not the scale; a fine-tune changes both.
        """
        model = self.recommender._fitted().model
        if self._scaled is None or self._scaled[0] is not model:
            scorer = self.recommender._ready()
            people: Sequence[str | Person] = scorer.people.some(_ASKED) or [Person()]
            self._scaled = (model, Scale.of(self.recommender.score(people, scorer.ids, on_unknown="cold")))
        return self._scaled[1]


class Members:
    """All of them by name, the items that any recommender has, and the people that any of them knows."""

    def __init__(
        self, by_name: Mapping[str, RecommenderMember | ItemColumn], recommenders: Sequence[Recommender]
    ) -> None:
        self.by_name = dict(by_name)
        self._recommenders = list(recommenders)

    @classmethod
    def of(cls, given: Mapping[str, Recommender | pd.Series | Mapping[str, float]]) -> Members:
        """The members that a caller names. Raises `ConfigError` for what is none, and without a recommender."""
        found: dict[str, RecommenderMember | ItemColumn] = {}
        for name, member in given.items():
            if isinstance(member, Recommender):
                found[name] = RecommenderMember(member)
            elif isinstance(member, (pd.Series, Mapping)):
                found[name] = _column(name, member)
            else:
                raise ConfigError(
                    f"member '{name}' is a {type(member).__name__}. Expected a Recommender, or a Series or dict of "
                    "numbers by item id."
                )
        recommenders = [member for member in given.values() if isinstance(member, Recommender)]
        if not recommenders:
            raise ConfigError(f"none of the members ({', '.join(given) or 'none'}) is a Recommender. Give one.")
        return cls(found, recommenders)

    @property
    def recommenders(self) -> dict[str, Recommender]:
        """Those members that are recommenders, by name."""
        return {name: each.recommender for name, each in self.by_name.items() if isinstance(each, RecommenderMember)}

    @property
    def shelf(self) -> Shelf:
        """What steps read of the items: each recommender's embeddings at length 1, side by side, so that a cosine is
        the mean of theirs where both items are in all; attributes as the first that has them; the highest counts."""
        place = self.place
        scorers = tuple(recommender._ready() for recommender in self._recommenders)
        if self._shelved is None or self._shelved[0] != scorers:
            attributes: list[dict[str, object]] = [{} for _ in place]
            counts, blocks = np.zeros(len(place), dtype=np.int64), list[np.ndarray]()
            for scorer in scorers:
                rows = [place[item_id] for item_id in scorer.ids]
                unit = scorer.shelf.unit(np.arange(len(rows)))
                block = np.zeros((len(place), unit.shape[1]), dtype=np.float32)
                block[rows] = unit
                blocks.append(block)
                counts[rows] = np.maximum(counts[rows], scorer.shelf.counts)
                for row, known in zip(rows, scorer.shelf.attributes, strict=True):
                    attributes[row] = {**known, **attributes[row]}
            shelf = Shelf(list(place), np.concatenate(blocks, axis=1), counts, attributes=attributes)
            self._shelved = (scorers, shelf)
        return self._shelved[1]

    _shelved: tuple[tuple[object, ...], Shelf] | None = None

    @property
    def ids(self) -> list[str]:
        """Every item that a recommender has embedded, sorted."""
        return list(self.place)

    @property
    def place(self) -> dict[str, int]:
        """Item id → its place in `ids`."""
        scorers = tuple(recommender._ready() for recommender in self._recommenders)
        if self._placed is None or self._placed[0] != scorers:
            ids = sorted({item_id for scorer in scorers for item_id in scorer.ids})
            self._placed = (scorers, {item_id: place for place, item_id in enumerate(ids)})
        return self._placed[1]

    _placed: tuple[tuple[object, ...], dict[str, int]] | None = None

    @cached_property
    def context_columns(self) -> tuple[str, ...]:
        """The context columns that any recommender reads."""
        readers = [recommender._fitted().vocabulary.context.columns for recommender in self._recommenders]
        return tuple(dict.fromkeys(name for columns in readers for name in columns))

    def contexts(self, context: Context, num_rows: int) -> pd.DataFrame:
        """A context, as callers give it, as a frame with every context column.

        Raises `ContextError` for a column that no member reads, or another number of rows.
        """
        frame = ContextReader(None)._frame(context, num_rows)
        unknown = [str(name) for name in frame.columns if name not in self.context_columns]
        if unknown:
            raise ContextError(
                f"context column '{unknown[0]}' is read by no member. Expected one of "
                f"{', '.join(self.context_columns) or 'none'}."
            )
        return frame.reindex(columns=list(self.context_columns)).astype(object).where(lambda cells: cells.notna(), None)

    def distinct(self, contexts: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
        """The different contexts among these rows, and which of them each row has, (row, 1)."""
        frame = self.contexts(contexts, len(contexts))
        keys = pd.Series([repr(row) for row in frame.itertuples(index=False, name=None)], dtype=object)
        codes, _ = pd.factorize(keys)
        _, first = np.unique(codes, return_index=True)
        return frame.iloc[first], codes[:, None].astype(np.float64)

    def standardised(
        self, people: Sequence[str | Person], contexts: pd.DataFrame, items: Sequence[str]
    ) -> list[np.ndarray]:
        """Each member's scores on its scale, float64 (person, item)."""
        return [member.standardised(self.told(member, people), contexts, items) for member in self.by_name.values()]

    def check_stored(self, items: Sequence[str]) -> None:
        """None where a recommender has embedded each of these. Raises `UnknownIdError` where none has."""
        missing = [item_id for item_id in items if item_id not in self.place]
        if missing:
            raise UnknownIdError(
                f"item '{missing[0]}' is embedded by no member ({len(missing)} of {len(items)} asked for are not). "
                "Expected ids of a member's store. Embed them first, or pass on_unknown='skip'."
            )

    def answered(self, people: Sequence[str | Person], on_unknown: OnUnknown) -> list[bool]:
        """Whether each person is to be answered: known to any recommender. Raises `UnknownIdError` as `score` does."""
        policy: OnUnknown = "cold" if on_unknown == "cold" else "skip"
        members = [member for member in self.by_name.values() if isinstance(member, RecommenderMember)]
        answers = [m.recommender._ready().people.answered(self.told(m, people), policy) for m in members]
        known = np.any(answers, axis=0).astype(bool)
        if on_unknown == "raise" and not known.all():
            # Whichever refuses first says best why.
            stranger = people[int(np.flatnonzero(~known)[0])]
            members[0].recommender._ready().people.answered(self.told(members[0], [stranger]), "raise")
            raise UnknownIdError(f"person {int(np.flatnonzero(~known)[0])} is unknown to every member.")
        return known.tolist()

    def told(self, member: RecommenderMember | ItemColumn, people: Sequence[str | Person]) -> Sequence[str | Person]:
        """The people as a member reads them: what no other member reads either stays, for it to refuse."""
        if isinstance(member, ItemColumn) or isinstance(people, str) or not isinstance(people, Sequence):
            return people
        by_any = {name for each in self.by_name.values() if isinstance(each, RecommenderMember) for name in each.reads}
        return [member.told(each, by_any) if isinstance(each, Person) else each for each in people]

    def seen(self, person: str | Person) -> set[int]:
        """Places of the items that any recommender knows the person to have taken."""
        place, scorers = self.place, [recommender._ready() for recommender in self._recommenders]
        return {place[scorer.ids[row]] for scorer in scorers for row in scorer.people.seen(person)}

    def allowed(self, query: Query) -> np.ndarray:
        """Which items a query admits, bool (item,): attributes as any recommender has them."""
        place = self.place
        unknown = [item_id for item_id in query.candidates or () if item_id not in place]
        if unknown:
            raise UnknownIdError(f"candidate '{unknown[0]}' is embedded by no member. Embed it first, or leave it out.")
        allowed = np.zeros(len(place), dtype=bool)
        for recommender in self._recommenders:
            scorer = recommender._ready()
            mask = replace(query, candidates=None).allowed_mask(scorer.table)
            allowed[[place[scorer.ids[row]] for row in np.flatnonzero(mask)]] = True
        if query.candidates is not None:
            chosen = np.zeros(len(place), dtype=bool)
            chosen[[place[item_id] for item_id in query.candidates]] = True
            allowed &= chosen
        return allowed

    def known_before(self, test: Catalogue) -> pd.DataFrame:
        """What any recommender was fitted or validated on: user_id, item_id and the rest, each pair once.

        Raises `LeakError` as `Recommender.evaluate` does, `SplitError` for a split that gives interactions along with
        its questions, which the members' people do not have.
        """
        if test.part is not None and test.part.given is not None and len(test.part.given):
            raise SplitError(
                f"this part gives {len(test.part.given)} interactions along with its questions, as a split of cold "
                "users does. Expected a part that asks of people the members know. Evaluate the members alone."
            )
        logs = [known_before(recommender._fitted(), test, "full") for recommender in self._recommenders]
        return pd.concat(logs, ignore_index=True).drop_duplicates(["user_id", "item_id"], ignore_index=True)


def _column(name: str, given: pd.Series | Mapping[str, float]) -> ItemColumn:
    ids = [str(item_id) for item_id in (given.index if isinstance(given, pd.Series) else given)]
    twice = [item_id for item_id, count in Counter(ids).items() if count > 1]
    if twice:
        raise ConfigError(f"member '{name}' has item '{twice[0]}' twice. Expected one number an item.")
    try:
        numbers = _numbers(given.tolist() if isinstance(given, pd.Series) else given.values())
    except (TypeError, ValueError) as error:
        raise ConfigError(f"member '{name}' holds what is no number: {error}. Expected numbers by item id.") from error
    return ItemColumn(dict(zip(ids, numbers.tolist(), strict=True)), Scale.of(numbers))


def _numbers(values: Iterable[object]) -> np.ndarray:
    """Float64 (value,), NaN where missing. Raises `TypeError` or `ValueError` for what is no number."""
    return np.array([np.nan if value is None or value is pd.NA else float(str(value)) for value in values])
