"""What an ensemble answers from: the items and the people of all recommenders at one moment."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import final

import numpy as np
import pandas as pd

from multimodal_rec.ensemble_members import Members, RecommenderMember, Scale
from multimodal_rec.errors import MultimodalRecError, UnknownIdError
from multimodal_rec.newcomers import with_newcomers
from multimodal_rec.people import OnUnknown, Person
from multimodal_rec.reranking.candidates import Shelf
from multimodal_rec.retrieval import Query
from multimodal_rec.scorer import Scorer


@final
class EnsembleState:
    """Each recommender's scorer, and the items of all of them in one order.

    A request is answered from one state, whatever is embedded or updated meanwhile.
    """

    def __init__(
        self,
        members: Members,
        scorers: Mapping[str, Scorer],
        *,
        stored: EnsembleState | None = None,
        raw: Collection[str] = (),
    ) -> None:
        """`scorers`: one a recommender, by its name; `raw`: ids of those items that are stored nowhere, and `stored`
        the state without them."""
        self.members = members
        self.scorers = dict(scorers)
        self._stored = stored
        self._raw = frozenset(raw)

    def beside(self, items: pd.DataFrame) -> EnsembleState:
        """This state and raw items, as in `Recommender.embed`, which every recommender embeds now and stores nowhere.

        Raises as `Recommender.score` does of raw items, with a note that names the member that refuses them.
        """
        scorers: dict[str, Scorer] = {}
        for name, recommender in self.members.recommenders.items():
            try:
                scorers[name], _ = with_newcomers(self.scorers[name], recommender._fitted(), items)
            except MultimodalRecError as error:
                error.add_note(f"So says member '{name}': raw items must be such that every recommender can read them.")
                raise
        return EnsembleState(self.members, scorers, stored=self, raw=items["item_id"].tolist())

    @cached_property
    def scales(self) -> dict[str, Scale]:
        """Recommender → its scale, taken over what is stored."""
        if self._stored is not None:
            return self._stored.scales
        by_name = self.members.by_name.items()
        return {name: m.scale(self.scorers[name]) for name, m in by_name if isinstance(m, RecommenderMember)}

    @cached_property
    def ids(self) -> list[str]:
        """Every item that a recommender has, sorted."""
        return sorted({item_id for scorer in self.scorers.values() for item_id in scorer.item_rows})

    @cached_property
    def place(self) -> dict[str, int]:
        """Item id → its place in `ids`."""
        return {item_id: place for place, item_id in enumerate(self.ids)}

    @cached_property
    def rows(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Recommender → the rows of its items, and their places here, int64 (item,) both."""
        return {
            name: (
                np.fromiter(scorer.item_rows.values(), dtype=np.int64),
                np.fromiter((self.place[item_id] for item_id in scorer.item_rows), dtype=np.int64),
            )
            for name, scorer in self.scorers.items()
        }

    @cached_property
    def shelf(self) -> Shelf:
        """What steps read of the items: each recommender's embeddings at length 1, side by side, so that a cosine is
        the mean of theirs where both items are in all; attributes as the first that has them; the highest counts."""
        attributes: list[dict[str, object]] = [{} for _ in self.ids]
        counts, blocks = np.zeros(len(self.ids), dtype=np.int64), list[np.ndarray]()
        for name, scorer in self.scorers.items():
            own, places = self.rows[name]
            unit = scorer.shelf.unit(own)
            block = np.zeros((len(self.ids), unit.shape[1]), dtype=np.float32)
            block[places] = unit
            blocks.append(block)
            counts[places] = np.maximum(counts[places], scorer.shelf.counts[own])
            for row, place in zip(own.tolist(), places.tolist(), strict=True):
                attributes[place] = {**scorer.shelf.attributes[row], **attributes[place]}
        return Shelf(self.ids, np.concatenate(blocks, axis=1), counts, attributes=attributes)

    def check_stored(self, items: Sequence[str]) -> None:
        """None where a recommender has each of these. Raises `UnknownIdError` where none has."""
        missing = [item_id for item_id in items if item_id not in self.place]
        if missing:
            raise UnknownIdError(
                f"item '{missing[0]}' is embedded by no member ({len(missing)} of {len(items)} asked for are not). "
                "Expected ids of a member's store. Embed them first, or pass on_unknown='skip'."
            )

    def standardised(
        self, people: Sequence[str | Person], contexts: pd.DataFrame, items: Sequence[str]
    ) -> list[np.ndarray]:
        """Each member's scores on its scale, float64 (person, item)."""
        parts: list[np.ndarray] = []
        for name, member in self.members.by_name.items():
            told = self.members.told(member, people)
            if isinstance(member, RecommenderMember):
                parts.append(self.scales[name](member.scores(self.scorers[name], told, contexts, items)))
            else:
                parts.append(member.standardised(told, contexts, items))
        return parts

    def answered(self, people: Sequence[str | Person], on_unknown: OnUnknown) -> list[bool]:
        """Whether each person is to be answered: known to any recommender. Raises `UnknownIdError` as `score` does."""
        policy: OnUnknown = "cold" if on_unknown == "cold" else "skip"
        told = {name: self.members.told(self.members.by_name[name], people) for name in self.scorers}
        known = np.any([self.scorers[name].people.answered(told[name], policy) for name in told], axis=0).astype(bool)
        if on_unknown == "raise" and not known.all():
            # Whichever refuses first says best why.
            place, first = int(np.flatnonzero(~known)[0]), next(iter(told))
            self.scorers[first].people.answered([told[first][place]], "raise")
            raise UnknownIdError(f"person {place} is unknown to every member.")
        return known.tolist()

    def seen(self, person: str | Person) -> set[int]:
        """Places of the items that any recommender knows the person to have taken; no raw one is in a history."""
        taken = {scorer.ids[row] for scorer in self.scorers.values() for row in scorer.people.seen(person)}
        return {self.place[item_id] for item_id in taken - self._raw}

    def allowed(self, query: Query) -> np.ndarray:
        """Which items a query admits, bool (item,): attributes as any recommender has them."""
        unknown = [item_id for item_id in query.candidates or () if item_id not in self.place]
        if unknown:
            raise UnknownIdError(f"candidate '{unknown[0]}' is embedded by no member. Embed it first, or leave it out.")
        allowed = np.zeros(len(self.ids), dtype=bool)
        for name, scorer in self.scorers.items():
            own, places = self.rows[name]
            allowed[places] |= replace(query, candidates=None).allowed_mask(scorer.table)[own]
        if query.candidates is not None:
            chosen = np.zeros(len(self.ids), dtype=bool)
            chosen[[self.place[item_id] for item_id in query.candidates]] = True
            allowed &= chosen
        return allowed
