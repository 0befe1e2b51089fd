"""Several recommenders and other scores as one, weighed by hand or on a validation part."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import final, overload

import numpy as np
import pandas as pd
import torch

from multimodal_rec.catalogue import Catalogue
from multimodal_rec.collaborative.weighing import weigh
from multimodal_rec.context import Context
from multimodal_rec.ensemble_explanation import EnsembleExplanation, explained_blend
from multimodal_rec.ensemble_matches import cosines, matches
from multimodal_rec.ensemble_members import ItemColumn, Members
from multimodal_rec.ensemble_state import EnsembleState
from multimodal_rec.ensemble_updating import update_members
from multimodal_rec.errors import ConfigError
from multimodal_rec.evaluation import Evaluation, ScoreQueries
from multimodal_rec.fine_tuning import FineTune
from multimodal_rec.judging import judge_scores
from multimodal_rec.newcomers import checked_ids
from multimodal_rec.pairs import checked, listed, score_pairs
from multimodal_rec.people import OnUnknown, Person
from multimodal_rec.recommendations import Recommendations, reasons_of
from multimodal_rec.recommender import Recommender
from multimodal_rec.reranking.pool import Reader, best_on, person_name
from multimodal_rec.retrieval import Query, top_k
from multimodal_rec.search import TASTE, blended, check_share
from multimodal_rec.updating import UpdateReport


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
        # Several threads may put the same there.
        self._state: EnsembleState | None = None

    def fit(self, valid: Catalogue) -> Ensemble:
        """Choose the weights that rank a validation part best, by NDCG@10; self.

        One weight is tried at a time. What the members were fitted or validated on is known and must not be in `valid`,
        or `LeakError` is raised: hold out a part of its own.
        """
        recorded: list[list[np.ndarray]] = []
        known, state = self._members.known_before(valid), self._now()

        def record(queries: pd.DataFrame) -> np.ndarray:
            recorded.append(_parts(state, queries))
            return recorded[-1][0]

        def ndcg(score: ScoreQueries) -> float:
            return _judged(state, score, valid, known).means()["ndcg@10"]

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
        items: Sequence[str] | pd.DataFrame,
        *,
        context: Context = None,
        on_unknown: OnUnknown = "raise",
    ) -> np.ndarray:
        """Blended scores, float32 (person, item); as `Recommender.score`.

        Somebody or something is known where any recommender knows it; a recommender that does not scores them cold.
        Raw items must be such that every recommender can embed them; a column has the numbers of their ids.
        """
        state, ids = self._over(items)
        if on_unknown == "raise":
            state.check_stored(ids)
        answered = state.answered(people, on_unknown)
        columns = [place for place, item_id in enumerate(ids) if item_id in state.place]
        rows = [row for row, is_answered in enumerate(answered) if is_answered]
        frame = self._members.contexts(context, len(people))
        scores = np.full((len(people), len(ids)), -np.inf, dtype=np.float32)
        if rows and columns:
            asked, shown = [people[row] for row in rows], [ids[place] for place in columns]
            parts = state.standardised(asked, frame.iloc[rows], shown)
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
        new_items: pd.DataFrame | None = None,
    ) -> Recommendations:
        """The k items of the highest blended scores a person, of all that any recommender has embedded.

        Arguments as of `Recommender.recommend`, raw `new_items` as in `score`; what any member saw somebody take is
        seen. Steps read the embeddings of all recommenders, side by side. Raises `ConfigError` where a shortlist is
        asked, which no index of several members finds, or the retrieval score, which columns do not have.
        """
        query = _blendable(query)
        state, _ = self._over([] if new_items is None else new_items)
        scores, answered = self._of_everything(state, people, context, on_unknown)
        return _best(state, people, scores, k=k, query=query, answered=answered)

    def similar_items(self, items: Sequence[str] | pd.DataFrame, *, k: int = 10) -> Recommendations:
        """The k items whose item embeddings have the highest cosines with each item's, itself left out.

        A cosine is the mean of those of the recommenders that have both items; where none has both, they are not
        compared. Raw items, as in `score`, are compared with every stored one. Raises `ConfigError` where `items` is
        no list of text, `UnknownIdError` for one that is not embedded.
        """
        state, asked = self._over(items)
        state.check_stored(asked)
        itself = [{state.place[item_id]} for item_id in asked]
        excluded = [set[int]().union(*itself)] * len(asked) if isinstance(items, pd.DataFrame) else itself
        return Recommendations(*top_k(cosines(state, asked), state.ids, k=k, excluded=excluded))

    def search(
        self,
        wishes: str | Sequence[str],
        *,
        k: int = 10,
        user: str | Person | None = None,
        context: Context = None,
        query: Query | None = None,
        taste: float = TASTE,
        on_unknown: OnUnknown = "raise",
    ) -> Recommendations:
        """The k items that match a wish in words best, a row a wish; arguments as of `Recommender.search`.

        How well an item matches is the mean of what those recommenders say that read text and have the item; an item
        that none of them has is no better or worse than the usual. `taste` is the share of the blended ranking score.
        Raises `ConfigError` where no member reads text, else as `Recommender.search` and `recommend` do.
        """
        query = _blendable(query)
        check_share(taste)
        asked = [wishes] if isinstance(wishes, str) else list(wishes)
        state = self._now()
        scores = matches(state, asked)
        person, is_told, is_answered = Person() if user is None else user, user is not None or context is not None, True
        if is_told:
            policy: OnUnknown = "cold" if user is None else on_unknown
            ranking, (is_answered,) = self._of_everything(state, [person], context, policy)
            scores = blended(scores, ranking, taste) if is_answered else np.full_like(scores, -np.inf)
        people, answered = [person] * len(asked), [is_answered] * len(asked)
        return _best(state, people, scores, k=k, query=query, answered=answered)

    @overload
    def explain(self, person: str | Person, items: str, *, context: Context = None) -> EnsembleExplanation: ...
    @overload
    def explain(
        self, person: str | Person, items: list[str] | tuple[str, ...], *, context: Context = None
    ) -> list[EnsembleExplanation]: ...
    def explain(
        self, person: str | Person, items: str | list[str] | tuple[str, ...], *, context: Context = None
    ) -> EnsembleExplanation | list[EnsembleExplanation]:
        """What each member added to an item's blended score, exactly, and why each recommender scores it as it does.

        One explanation, or one an item of a list. `context`: one dict. Raises as `score` does.
        """
        asked = [items] if isinstance(items, str) else checked_ids(items)
        found = explained_blend(self._now(), self.weights, person, asked, context=context)
        return found[0] if isinstance(items, str) else found

    def update(
        self, interactions: pd.DataFrame, *, users: pd.DataFrame | None = None, fine_tune: FineTune | None = None
    ) -> dict[str, UpdateReport]:
        """What each recommender's `update` reports, by the member's name; columns stay as they are.

        One recommender is told after the other, each as a whole, and whoever asks meanwhile may be answered by some
        that know already and some that do not. Several stores have no commit in common: where one fails, those before
        it have been told, and the error says which. Call it again then: interactions that are stored already count
        once (a `fine_tune` tunes again). Weights stay as they are. Raises `CatalogueError` with every defect of the
        interactions that a member finds, before any is told.
        """
        return update_members(self._members.recommenders, interactions, users=users, fine_tune=fine_tune)

    def score_frame(self, frame: pd.DataFrame, *, on_unknown: OnUnknown = "raise", into: str = "score") -> pd.DataFrame:
        """The frame with a column of blended scores, as `Recommender.score_frame` gives it.

        A column of the frame that has the name of a member which is a column speaks in its place, row by row.
        """
        members, state = self._members, self._now()
        checked(frame, ["user_id", "item_id"], into=into)
        columns = [name for name in members.context_columns if name in frame]
        situations, codes = members.distinct(frame.loc[:, columns])
        own = {
            name: member for name, member in members.by_name.items() if name in frame and isinstance(member, ItemColumn)
        }
        weights = [0.0 if name in own else weight for name, weight in self.weights.items()]

        def grid(people: Sequence[str], contexts: np.ndarray, items: Sequence[str]) -> np.ndarray:
            asked = situations.iloc[contexts[:, 0].astype(np.int64)]
            return _sum(state.standardised(people, asked, items), weights)

        scores = score_pairs(
            frame,
            grid,
            codes,
            known_people=state.answered(frame["user_id"].tolist(), "skip"),
            known_items=[item_id in state.place for item_id in frame["item_id"]],
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
        state, weights = self._now(), self._in_order()
        known = self._members.known_before(test)
        return _judged(state, lambda queries: _sum(_parts(state, queries), weights), test, known, candidates)

    def _now(self) -> EnsembleState:
        scorers = {name: recommender._ready() for name, recommender in self._members.recommenders.items()}
        state = self._state
        if state is None or state.scorers != scorers:
            state = self._state = EnsembleState(self._members, scorers)
        return state

    def _over(self, items: Sequence[str] | pd.DataFrame) -> tuple[EnsembleState, Sequence[str]]:
        """What is asked of these items, raw ones beside the stored, and their ids."""
        if not isinstance(items, pd.DataFrame):
            return self._now(), checked_ids(items)
        state = self._now().beside(items)
        return state, items["item_id"].tolist()

    def _of_everything(
        self, state: EnsembleState, people: Sequence[str | Person], context: Context, on_unknown: OnUnknown
    ) -> tuple[np.ndarray, list[bool]]:
        """Blended scores, float32 (person, item), -inf for whoever is not answered; and who is."""
        answered = state.answered(people, on_unknown)
        frame = self._members.contexts(context, len(people))
        scores = np.full((len(people), len(state.ids)), -np.inf, dtype=np.float32)
        rows = [row for row, is_answered in enumerate(answered) if is_answered]
        if rows:
            parts = state.standardised([people[row] for row in rows], frame.iloc[rows], state.ids)
            scores[rows] = _sum(parts, self._in_order())
        return scores, answered

    def _in_order(self) -> list[float]:
        return list(self.weights.values())


def _parts(state: EnsembleState, queries: pd.DataFrame) -> list[np.ndarray]:
    people: list[str | Person] = queries["user_id"].tolist()
    return state.standardised(people, queries.loc[:, list(state.members.context_columns)], state.ids)


def _judged(
    state: EnsembleState,
    score: ScoreQueries,
    test: Catalogue,
    known: pd.DataFrame,
    candidates: Collection[str] | None = None,
) -> Evaluation:
    columns = state.members.context_columns
    return judge_scores(score, test, known=known, ids=state.ids, context_columns=columns, candidates=candidates)


def _best(
    state: EnsembleState,
    people: Sequence[str | Person],
    scores: np.ndarray,
    *,
    k: int,
    query: Query,
    answered: Sequence[bool],
) -> Recommendations:
    excluded = [state.seen(person) if query.exclude_seen else set() for person in people]
    allowed = state.allowed(query)
    if query.steps:
        readers = [
            Reader(person_name(person), state.seen(person), left_out)
            for person, left_out in zip(people, excluded, strict=True)
        ]
        best = best_on(state.shelf, readers, scores, k=k, query=query, allowed=allowed)
    else:
        best = top_k(scores, state.ids, k=k, excluded=excluded, allowed=allowed)
    reasons = reasons_of(best, answered=answered, allowed=lambda: allowed, taken=lambda row: excluded[row])
    return Recommendations(best.ids, best.scores, reasons)


def _blendable(query: Query | None) -> Query:
    """The query, the plain one for None. Raises `ConfigError` where it asks for what only one recommender has."""
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
    return query


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
