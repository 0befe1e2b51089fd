"""Several recommenders and other scores as one, weighed by hand or on a validation part."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import final

import numpy as np
import pandas as pd
import torch

from multimodal_rec.catalogue import Catalogue
from multimodal_rec.collaborative.weighing import weigh
from multimodal_rec.context import Context
from multimodal_rec.ensemble_members import ItemColumn, Members
from multimodal_rec.errors import ConfigError, UnknownIdError
from multimodal_rec.evaluation import Evaluation, ScoreQueries
from multimodal_rec.judging import judge_scores
from multimodal_rec.pairs import checked, listed, score_pairs
from multimodal_rec.people import OnUnknown, Person
from multimodal_rec.recommendations import Recommendations, reasons_of
from multimodal_rec.recommender import Recommender
from multimodal_rec.reranking.pool import Reader, best_on, person_name
from multimodal_rec.retrieval import Query, top_k


@final
class Ensemble:
    """score(person, item) = Σ_m w_m · (member m's score - its mean) / its deviation

    with mean and deviation of each member over some of its people and all of its items, taken once. An item that a
    member does not have gets 0 from it: neither for nor against.
    """

    def __init__(
        self,
        members: Mapping[str, Recommender | pd.Series | Mapping[str, float]],
        *,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        """`members`: by a name of one's own: recommenders, at least one, and columns of item id → number, such as a
        margin. `weights`: 1 for each that is not named; below 0 for what speaks against an item.

        Raises `ConfigError` for a member or a weight that is none of these.
        """
        self._members = Members.of(members)
        self.weights = _weights(weights or {}, tuple(members))

    def fit(self, valid: Catalogue) -> Ensemble:
        """Choose the weights that rank a validation part best, by NDCG@10; self.

        One weight is tried at a time. What the members were fitted or validated on is known and must not be in `valid`,
        or `LeakError` is raised: hold out a part of its own.
        """
        recorded: list[list[np.ndarray]] = []
        known = self._members.known_before(valid)

        def record(queries: pd.DataFrame) -> np.ndarray:
            recorded.append(self._parts(queries))
            return recorded[-1][0]

        def ndcg(score: ScoreQueries) -> float:
            return self._judged(score, valid, known).means()["ndcg@10"]

        ndcg(record)

        def measure(weights: torch.Tensor) -> float:
            # Asked in the order in which the parts were recorded.
            batches = iter(recorded)
            return ndcg(lambda _: _sum(next(batches), weights[0].tolist()))

        names = list(self.weights)
        chosen, _ = weigh(measure, torch.ones(1, len(names)), row=0)
        self.weights = dict(zip(names, chosen[0].tolist(), strict=True))
        return self

    def score(
        self,
        people: Sequence[str | Person],
        items: Sequence[str],
        *,
        context: Context = None,
        on_unknown: OnUnknown = "raise",
    ) -> np.ndarray:
        """Blended scores, float32 (person, item); as `Recommender.score`.

        Somebody or something is known where any recommender knows it; a recommender that does not scores them cold.
        """
        members = self._members
        missing = [item_id for item_id in items if item_id not in members.place]
        if missing and on_unknown == "raise":
            raise UnknownIdError(
                f"item '{missing[0]}' is embedded by no member ({len(missing)} of {len(items)} asked for are not). "
                "Expected ids of a member's store. Embed them first, or pass on_unknown='skip'."
            )
        answered = members.answered(people, on_unknown)
        columns = [place for place, item_id in enumerate(items) if item_id in members.place]
        rows = [row for row, is_answered in enumerate(answered) if is_answered]
        scores = np.full((len(people), len(items)), -np.inf, dtype=np.float32)
        if rows and columns:
            frame = members.contexts(context, len(people))
            asked, shown = [people[row] for row in rows], [items[place] for place in columns]
            parts = members.standardised(asked, frame.iloc[rows], shown)
            scores[np.ix_(np.array(rows), np.array(columns))] = _sum(parts, self._in_order())
        return scores

    def recommend(
        self,
        people: Sequence[str | Person],
        *,
        k: int = 10,
        context: Context = None,
        query: Query | None = None,
        on_unknown: OnUnknown = "raise",
    ) -> Recommendations:
        """The k items of the highest blended scores a person, of all that any recommender has embedded.

        Arguments as of `Recommender.recommend`; what any member saw somebody take is seen. Steps read the embeddings
        of all recommenders, side by side. Raises `ConfigError` where a shortlist is asked, which no index of several
        members finds, or the retrieval score, which columns do not have.
        """
        query = Query() if query is None else query
        if query.by != "ranking":
            raise ConfigError(
                f"Query.by is '{query.by}': an ensemble blends ranking scores. Expected 'ranking'. Leave it out, or "
                "ask a member alone."
            )
        if query.shortlist is not None:
            raise ConfigError(
                f"Query.shortlist is {query.shortlist}: an ensemble has no index. Expected None. Leave it out: every "
                "item is ranked."
            )
        members = self._members
        answered = members.answered(people, on_unknown)
        scores = np.full((len(people), len(members.ids)), -np.inf, dtype=np.float32)
        rows = [row for row, is_answered in enumerate(answered) if is_answered]
        if rows:
            frame = members.contexts(context, len(people)).iloc[rows]
            parts = members.standardised([people[row] for row in rows], frame, members.ids)
            scores[rows] = _sum(parts, self._in_order())
        excluded = [members.seen(person) if query.exclude_seen else set() for person in people]
        allowed = members.allowed(query)
        if query.steps:
            readers = [
                Reader(person_name(person), members.seen(person), left_out)
                for person, left_out in zip(people, excluded, strict=True)
            ]
            best = best_on(members.shelf, readers, scores, k=k, query=query, allowed=allowed)
        else:
            best = top_k(scores, members.ids, k=k, excluded=excluded, allowed=allowed)
        reasons = reasons_of(best, answered=answered, allowed=lambda: allowed, taken=lambda row: excluded[row])
        return Recommendations(best.ids, best.scores, reasons)

    def score_frame(self, frame: pd.DataFrame, *, on_unknown: OnUnknown = "raise", into: str = "score") -> pd.DataFrame:
        """The frame with a column of blended scores, as `Recommender.score_frame` gives it.

        A column of the frame that has the name of a member which is a column speaks in its place, row by row.
        """
        members = self._members
        checked(frame, ["user_id", "item_id"], into=into)
        columns = [name for name in members.context_columns if name in frame]
        situations, codes = members.distinct(frame.loc[:, columns])
        own = {
            name: member for name, member in members.by_name.items() if name in frame and isinstance(member, ItemColumn)
        }
        weights = [0.0 if name in own else weight for name, weight in self.weights.items()]

        def grid(people: Sequence[str], contexts: np.ndarray, items: Sequence[str]) -> np.ndarray:
            asked = situations.iloc[contexts[:, 0].astype(np.int64)]
            return _sum(members.standardised(people, asked, items), weights)

        scores = score_pairs(
            frame,
            grid,
            codes,
            known_people=members.answered(frame["user_id"].tolist(), "skip"),
            known_items=[item_id in members.place for item_id in frame["item_id"]],
            on_unknown=on_unknown,
        )
        for name, member in own.items():
            scores = scores + self.weights[name] * member.of_values(frame[name].tolist()).astype(np.float32)
        return frame.assign(**{into: scores})

    def recommend_frame(
        self, frame: pd.DataFrame, *, k: int = 10, query: Query | None = None, on_unknown: OnUnknown = "raise"
    ) -> pd.DataFrame:
        """Rank, item_id and score of up to k items for each row's user_id and context columns, a row an item.

        As `Recommender.recommend_frame`; columns that no member reads are passed over.
        """
        checked(frame, ["user_id"])
        columns = [name for name in self._members.context_columns if name in frame]
        people = frame["user_id"].tolist()
        found = self.recommend(people, k=k, context=frame.loc[:, columns], query=query, on_unknown=on_unknown)
        return listed(frame, found)

    def evaluate(self, test: Catalogue, *, candidates: Collection[str] | None = None) -> Evaluation:
        """How well what people took in `test` is ranked; as `Recommender.evaluate`.

        Items of `test` that no member has embedded are candidates that are never found: embed them first.
        """
        weights = self._in_order()
        return self._judged(
            lambda queries: _sum(self._parts(queries), weights), test, self._members.known_before(test), candidates
        )

    def _in_order(self) -> list[float]:
        return list(self.weights.values())

    def _parts(self, queries: pd.DataFrame) -> list[np.ndarray]:
        members = self._members
        people: list[str | Person] = queries["user_id"].tolist()
        return members.standardised(people, queries.loc[:, list(members.context_columns)], members.ids)

    def _judged(
        self,
        score: ScoreQueries,
        test: Catalogue,
        known: pd.DataFrame,
        candidates: Collection[str] | None = None,
    ) -> Evaluation:
        members = self._members
        return judge_scores(
            score, test, known=known, ids=members.ids, context_columns=members.context_columns, candidates=candidates
        )


def _sum(parts: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    total = np.zeros(parts[0].shape, dtype=np.float32)
    for part, weight in zip(parts, weights, strict=True):
        if weight != 0:
            total += np.float32(weight) * part
    return total


def _weights(given: Mapping[str, float], names: tuple[str, ...]) -> dict[str, float]:
    unknown = [name for name in given if name not in names]
    if unknown:
        raise ConfigError(f"a weight is given for '{unknown[0]}'. Expected members: {', '.join(names)}.")
    weights = {name: given.get(name, 1.0) for name in names}
    for name, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not np.isfinite(weight):
            raise ConfigError(f"the weight of '{name}' is {weight!r}. Expected a finite number.")
    return weights
