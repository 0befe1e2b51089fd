"""Shapley values of a ranking score: over the parts of an item, and over what is known of person and situation.

What is left out of an item is not blanked but replaced by what somebody who is not told it would expect: a modality or
attributes by the mean over the catalogue, and behaviour by what the parts that are left in let expect of it. So an
item with nothing left in is the mean item, the neutral one; and that the lovers of jazz take jazz is said by the
genre, not by who took it (docs/decisions/0012). What is left out of the question is unknown, as the model was trained
to bear: no history, no context.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import NamedTuple, final

import numpy as np
import torch
from torch import Tensor

from fusion.scoring import ContextScore
from multimodal_rec.explanation import Explanation
from multimodal_rec.likeness import centred, nearest, shared_words, word_shares
from multimodal_rec.model import RecommenderModel
from multimodal_rec.people import People, Person
from multimodal_rec.query import QueryInput
from multimodal_rec.ridge import ridge_map
from multimodal_rec.rows import ItemTable
from multimodal_rec.shapley import shapley_values, subsets

_COLUMNS_APART = 4
"""Context columns that are shared out one by one; where more are told they count as one, for 2^columns questions."""
_LEARNED_FROM = 5000
"""Items that what to expect of behaviour is learned from, at most."""


class _Asked(NamedTuple):
    """One person's question in every state of what is told."""

    names: list[str]
    """'history' and context columns: who plays."""
    queries: Tensor
    """(state, part, dim), states in the order of `subsets`."""
    sides: Tensor | None
    """(state, score dim), the people's side of the collaborative scores."""
    full: QueryInput
    """Everything told, with the whole history."""


@final
class Explainer:
    """Explanations over a scorer's items; what they need of the whole catalogue is learned at the first one."""

    def __init__(
        self,
        model: RecommenderModel,
        table: ItemTable,
        people: People,
        *,
        tokens: Tensor,
        present: Tensor,
        content: Tensor,
        vectors: Tensor,
    ) -> None:
        """`tokens` (item, part, dim), `present` bool (item, part), `content` (item, part - 1, content rank) and
        `vectors` (item, vector width) as the scorer holds them."""
        self._model, self._table, self._people = model, table, people
        self._tokens, self._present, self._content, self._vectors = tokens, present, content, vectors

    @torch.inference_mode()
    def explain(
        self, person: str | Person, rows: Sequence[int], contexts: np.ndarray, *, told: Mapping[str, object]
    ) -> list[Explanation]:
        """One explanation a row. `contexts`: encoded, (1, context width); `told`: the same as the caller said it."""
        asked = self._ask(person, contexts)
        weights = self._model.query.weights(asked.full.history)[0]
        liked = asked.full.history.item_index[0][weights > 0]
        name = person if isinstance(person, str) else ""
        return [self._explain(name, row, asked, liked, dict(told)) for row in rows]

    def _explain(self, name: str, row: int, asked: _Asked, liked: Tensor, told: dict[str, object]) -> Explanation:
        parts = self._model.parts
        here = torch.nonzero(self._present[row])[:, 0].tolist()
        worth = self._worth(row, here, asked)
        by_part = shapley_values(worth)
        by_source = shapley_values(by_part.T)
        table = {part: dict.fromkeys(["general", "history", *self._people.context_spans], 0.0) for part in parts}
        for place, index in enumerate(here):
            table[parts[index]]["general"] = float(by_part[place, 0])
            for player, source in enumerate(asked.names):
                table[parts[index]][source] = float(by_source[player, place])
        sources = list(dict.fromkeys(source for values in table.values() for source in values))
        taken = [self._table.attributes[other] for other in liked.tolist() if other != row]
        return Explanation(
            name,
            self._table.ids[row],
            score=float(worth[-1, -1]),
            neutral=float(worth[0, -1]),
            contributions={part: sum(values.values()) for part, values in table.items()},
            sources={source: sum(values.get(source, 0.0) for values in table.values()) for source in sources},
            table=table,
            attention=self._attention(row, asked),
            similar=self._similar(row, here, asked),
            shared=shared_words(self._table.attributes[row], taken, self._shares) if taken else {},
            context=told,
        )

    def _ask(self, person: str | Person, contexts: np.ndarray) -> _Asked:
        device = self._tokens.device
        context = torch.from_numpy(contexts).to(device)
        spans = {name: span for name, span in self._people.context_spans.items() if bool(context[0, span].any())}
        groups = {name: [span] for name, span in spans.items()}
        if len(groups) > _COLUMNS_APART:
            groups = {"context": list(spans.values())}
        states = torch.from_numpy(subsets(1 + len(groups))).to(device)
        told = torch.ones(len(states), context.shape[1], device=device)
        for player, columns in enumerate(groups.values(), start=1):
            for span in columns:
                told[:, span] = states[:, [player]].float()
        features = self._people.features([person]).to(device)
        history = self._people.histories([person]).to(device)
        history = type(history)(*(tensor.expand(len(states), *tensor.shape[1:]) for tensor in history))
        inputs = QueryInput(
            history._replace(present=history.present & states[:, [0]], context=history.context * told.unsqueeze(1)),
            features.expand(len(states), -1),
            context * told,
        )
        queries = self._model.queries(inputs, self._tokens, self._present)
        whole = self._people.histories([person], whole=True).to(device)
        sides = None
        if self._model.blend is not None:
            blend = self._model.blend
            # Most scores read no context: one side with the history, and one without.
            asked = list(range(len(states))) if blend.turns else [0, len(states) - 1]
            events = type(whole)(*(tensor.expand(len(asked), *tensor.shape[1:]) for tensor in whole))
            events = events._replace(
                present=events.present & states[asked][:, [0]], context=events.context * told[asked].unsqueeze(1)
            )
            sides = blend.people(events, self._vectors, features.expand(len(asked), -1))
            sides = sides if blend.turns else sides[states[:, 0].long()]
            sides = blend.asked(self._model.fused_side(queries), sides, inputs.context)
        return _Asked(["history", *groups], queries, sides, QueryInput(whole, features, context))

    def _worth(self, row: int, here: list[int], asked: _Asked) -> np.ndarray:
        """The ranking score with each subset of the item's parts in each state of the question, (subset, state)."""
        device = self._tokens.device
        shown = torch.zeros(2 ** len(here), self._present.shape[1], dtype=torch.bool, device=device)
        shown[:, here] = torch.from_numpy(subsets(len(here))).to(device)
        there = self._present[[row]].expand_as(shown)
        own = self._tokens[row]
        tokens = torch.where(shown.unsqueeze(-1), own, self._centre)
        told = centred(own[:-1], self._centre[:-1], torch.ones_like(shown[0, :-1])).unsqueeze(0)
        told = told * shown[:, :-1].unsqueeze(-1)
        expected = self._centre[-1] + told.flatten(start_dim=1) @ self._expectation
        tokens[:, -1] = torch.where(shown[:, [-1]], own[-1], expected)
        scores = self._model.rank(asked.queries, tokens, there)
        blend = self._model.blend
        if blend is not None and asked.sides is not None:
            content = torch.where(shown[:, :-1].unsqueeze(-1), self._content[row], self._mean_content)
            learned = blend.beside_content(self._vectors[[row]]).expand(len(shown), -1)
            vectors = blend.vectors(content, there[:, :-1], learned, shown[:, -1])
            scores = scores * blend.own(there[:, -1]) + asked.sides @ blend.items(vectors, there[:, -1]).T
        return scores.T.double().cpu().numpy()

    def _attention(self, row: int, asked: _Asked) -> dict[str, float]:
        if not isinstance(self._model.ranking, ContextScore):
            return {}
        weights = self._model.ranking.weights(asked.queries[-1:], self._tokens[[row]], self._present[[row]])[0, 0]
        return dict(zip(self._model.parts, weights.tolist(), strict=True))

    def _similar(self, row: int, here: list[int], asked: _Asked) -> dict[str, str | None]:
        events = asked.full.history.item_index[0]
        item = centred(self._tokens[row], self._centre, self._present[row])
        taken = centred(self._tokens[events], self._centre, self._present[events])
        pulls = self._model.query.pulls(asked.full, self._tokens, self._present, item)[0]
        counts = asked.full.history.present[0] & (events != row)
        similar: dict[str, str | None] = {}
        for part in here:
            usable = counts & self._present[events, part]
            best = nearest(item[part], taken[usable, part], pulls[usable, part])
            similar[self._model.parts[part]] = None if best is None else self._table.ids[int(events[usable][best])]
        return similar

    @cached_property
    def _centre(self) -> Tensor:
        """The mean item, (part, dim)."""
        there = self._present.unsqueeze(-1)
        return (self._tokens * there).sum(dim=0) / there.sum(dim=0).clamp(min=1)

    @cached_property
    def _mean_content(self) -> Tensor:
        """(part - 1, content rank)."""
        there = self._present[:, :-1].unsqueeze(-1)
        return (self._content * there).sum(dim=0) / there.sum(dim=0).clamp(min=1)

    @cached_property
    def _expectation(self) -> Tensor:
        """What the parts of content let expect of behaviour, (content part · dim, dim)."""
        rows = torch.nonzero(self._present[:, -1])[:, 0]
        rows = rows[:: max(1, len(rows) // _LEARNED_FROM)]
        told = centred(self._tokens[rows, :-1], self._centre[:-1], self._present[rows, :-1]).flatten(start_dim=1)
        return ridge_map(told, self._tokens[rows, -1] - self._centre[-1])

    @cached_property
    def _shares(self) -> dict[tuple[str, str], float]:
        return word_shares(self._table.attributes)
