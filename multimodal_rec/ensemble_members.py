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
from multimodal_rec.errors import ConfigError, ContextError, SplitError
from multimodal_rec.explanation import Explanation
from multimodal_rec.judging import known_before
from multimodal_rec.model import RecommenderModel
from multimodal_rec.people import Person
from multimodal_rec.recommender import Recommender
from multimodal_rec.scorer import Scorer

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

    def scores(
        self, scorer: Scorer, people: Sequence[str | Person], contexts: pd.DataFrame, items: Sequence[str]
    ) -> np.ndarray:
        """Float64 (person, item), -inf where the scorer, one of this recommender's, does not have the item; strangers
        are scored cold."""
        scorer.people.answered(people, "cold")  # for what it refuses
        known = [place for place, item_id in enumerate(items) if item_id in scorer.item_rows]
        scores = np.full((len(people), len(items)), -np.inf)
        if known:
            encoded = self.recommender._contexts(contexts.loc[:, list(self._columns)], len(people))
            scores[:, known] = scorer.rank(people, encoded, [scorer.item_rows[items[place]] for place in known])
        return scores

    def explained(
        self, scorer: Scorer, person: str | Person, items: Sequence[str], contexts: pd.DataFrame
    ) -> dict[str, Explanation]:
        """Item id → why it scores as it does, for those of `items` that the scorer has.

        `contexts`: one row, as of `Members.contexts`; a stranger is explained cold.
        """
        known = contexts.loc[:, list(self._columns)]
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

    def scale(self, scorer: Scorer) -> Scale:
        """Over some people of a scorer and all of its items, in no context; taken once for the weights that it has.

        What people do meanwhile changes scores, and not the scale; a fine-tune changes both.
        """
        kept = self._scaled
        if kept is None or kept[0] is not scorer.model:
            people: Sequence[str | Person] = scorer.people.some(_ASKED) or [Person()]
            numbers = scorer.rank(people, self.recommender._contexts(None, len(people))) if scorer.ids else np.zeros(0)
            kept = self._scaled = (scorer.model, Scale.of(numbers))
        return kept[1]


class Members:
    """All of them by name, and the contexts and people that any of them reads."""

    def __init__(self, by_name: Mapping[str, RecommenderMember | ItemColumn]) -> None:
        self.by_name = dict(by_name)

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
        members = cls(found)
        if not members.recommenders:
            raise ConfigError(f"none of the members ({', '.join(given) or 'none'}) is a Recommender. Give one.")
        return members

    @property
    def recommenders(self) -> dict[str, Recommender]:
        """Those members that are recommenders, by name."""
        return {name: each.recommender for name, each in self.by_name.items() if isinstance(each, RecommenderMember)}

    @cached_property
    def context_columns(self) -> tuple[str, ...]:
        """The context columns that any recommender reads."""
        readers = [recommender._fitted().vocabulary.context.columns for recommender in self.recommenders.values()]
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

    def told(self, member: RecommenderMember | ItemColumn, people: Sequence[str | Person]) -> Sequence[str | Person]:
        """The people as a member reads them: what no other member reads either stays, for it to refuse."""
        if isinstance(member, ItemColumn) or isinstance(people, str) or not isinstance(people, Sequence):
            return people
        by_any = {name for each in self.by_name.values() if isinstance(each, RecommenderMember) for name in each.reads}
        return [member.told(each, by_any) if isinstance(each, Person) else each for each in people]

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
        logs = [known_before(recommender._fitted(), test, "full") for recommender in self.recommenders.values()]
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
