"""People in their contexts as both scores read them; what somebody did is read once, whatever is asked next."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple, final

import numpy as np
import torch
from torch import Tensor

from multimodal_rec.model import RecommenderModel
from multimodal_rec.people import People, Person
from multimodal_rec.query import Taste

# More people than this at once come from an evaluation or a nightly list, and are not asked for again soon.
_FEW = 32
_REMEMBERED = 16_384


class Asked(NamedTuple):
    """Some people in their contexts."""

    queries: Tensor
    """(person, part, dim)."""
    sides: Tensor | None
    """The people's side of the collaborative scores, (person, score dim), which read all that a person did; None
    without such."""

    def of(self, chosen: slice) -> Asked:
        """Some of them alone."""
        return Asked(self.queries[chosen], None if self.sides is None else self.sides[chosen])


class _Read(NamedTuple):
    """Some people, before it is known in which context they ask."""

    taste: Taste
    person: Tensor
    sides: Tensor | None
    """As `Blend.people` gives them, whatever the context."""

    def of(self, place: int) -> _Read:
        chosen = slice(place, place + 1)
        taste = Taste(*(tensor[chosen].clone() for tensor in self.taste))
        sides = None if self.sides is None else self.sides[chosen].clone()
        return _Read(taste, self.person[chosen].clone(), sides)


@final
class PeopleReader:
    """Reads people whose histories index a table of items."""

    def __init__(
        self,
        model: RecommenderModel,
        people: People,
        *,
        tokens: Tensor,
        present: Tensor,
        vectors: Tensor,
        hidden: Collection[str] = (),
    ) -> None:
        """`tokens` (item, part, dim), `present` bool (item, part), `vectors` (item, vector width): of the items.

        `hidden`: the 'history' or the 'context', where nothing is to be read of it.
        """
        self._model, self._people = model, people
        self._tokens, self._present, self._vectors = tokens, present, vectors
        self._hidden = hidden
        # Several threads may put the same there.
        self._remembered: dict[str, _Read] = {}

    @torch.inference_mode()
    def ask(self, people: Sequence[str | Person], contexts: np.ndarray) -> Asked:
        """These people in these encoded contexts, float32 (person, context width)."""
        read = self._read(people) if len(people) > _FEW else self._read_before(people)
        context = torch.from_numpy(contexts).to(self._tokens.device)
        if "context" in self._hidden:
            context = torch.zeros_like(context)
        queries, blend = self._model.query.ask(read.taste, read.person, context), self._model.blend
        if blend is None or read.sides is None:
            return Asked(queries, None)
        return Asked(queries, blend.asked(self._model.fused_side(queries), read.sides, context))

    def _read_before(self, people: Sequence[str | Person]) -> _Read:
        found = [self._remembered.get(person) if isinstance(person, str) else None for person in people]
        missing = [place for place, read in enumerate(found) if read is None]
        if len(missing) == len(people):
            read = self._read(people)
            self._remember(people, read)
            return read
        if missing:
            asked = [people[place] for place in missing]
            fresh = self._read(asked)
            self._remember(asked, fresh)
            for row, place in enumerate(missing):
                found[place] = fresh.of(row)
        return _joined([read for read in found if read is not None])

    def _remember(self, people: Sequence[str | Person], read: _Read) -> None:
        if len(self._remembered) + len(people) > _REMEMBERED:
            self._remembered.clear()
        for place, person in enumerate(people):
            if isinstance(person, str) and self._people.known(person):
                self._remembered[person] = read.of(place)

    def _read(self, people: Sequence[str | Person]) -> _Read:
        device = self._tokens.device
        whole = self._people.histories(people, whole=True).to(device)
        # Whoever did little is read at once.
        is_short = whole.present.shape[1] <= self._people.length
        history = whole if is_short else self._people.histories(people).to(device)
        if "history" in self._hidden:
            history = history._replace(present=torch.zeros_like(history.present))
            whole = whole._replace(present=torch.zeros_like(whole.present))
        if "context" in self._hidden:
            history = history._replace(context=torch.zeros_like(history.context))
            whole = whole._replace(context=torch.zeros_like(whole.context))
        person = self._people.features(people).to(device)
        taste = self._model.query.taste(history, self._tokens, self._present)
        blend = self._model.blend
        return _Read(taste, person, None if blend is None else blend.people(whole, self._vectors, person))


def _joined(parts: Sequence[_Read]) -> _Read:
    if len(parts) == 1:
        return parts[0]
    taste = Taste(*(torch.cat(tensors) for tensors in zip(*(part.taste for part in parts), strict=True)))
    sides = [part.sides for part in parts if part.sides is not None]
    return _Read(taste, torch.cat([part.person for part in parts]), torch.cat(sides) if sides else None)
