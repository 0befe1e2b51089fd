"""The verbs that a service calls: score, recommend, search, explain, on ids, raw items and frames."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from threading import RLock
from typing import overload

import numpy as np
import pandas as pd

from multimodal_rec.context import Context
from multimodal_rec.explaining import explained
from multimodal_rec.explanation import Explanation
from multimodal_rec.export import ExportReport, Numbers, export_embeddings
from multimodal_rec.index import EXACT_UP_TO
from multimodal_rec.index_folder import index_path
from multimodal_rec.index_report import IndexReport
from multimodal_rec.newcomers import check_stored, checked_ids, similar_stored, with_newcomers
from multimodal_rec.onnx_export import OnnxReport, export_graphs
from multimodal_rec.onnx_scorer import OnnxScorer
from multimodal_rec.pairs import checked, listed, score_pairs
from multimodal_rec.people import OnUnknown, Person
from multimodal_rec.recommendations import Recommendations, shortfalls
from multimodal_rec.reranking.pool import best_after, found_after
from multimodal_rec.retrieval import Query, top_k
from multimodal_rec.scorer import Scorer
from multimodal_rec.search import TASTE, Asking, WishSearch, find
from multimodal_rec.shortlist import Shortlist
from multimodal_rec.staleness import not_embedded
from multimodal_rec.trained import Trained


class ServiceVerbs(ABC):
    """The half of `Recommender` that only asks what the other half has trained and embedded."""

    def __init__(self, store_uri: str | Path | None) -> None:
        self._store_uri = store_uri
        self._scorer: Scorer | None = None
        self._shortlist: Shortlist | None = None
        self._wishes: tuple[Scorer, WishSearch] | None = None
        # Several threads may ask at once: what is built when first asked for is built once.
        self._lock = RLock()

    @abstractmethod
    def _fitted(self) -> Trained: ...

    def score(
        self,
        people: Sequence[str | Person],
        items: Sequence[str] | pd.DataFrame,
        *,
        context: Context = None,
        on_unknown: OnUnknown = "raise",
    ) -> np.ndarray:
        """Context-aware ranking scores, float32 (person, item); higher is better.

        `items`: ids, or raw items as in `embed`, which are embedded now and not stored. `context`: one dict for all
        people or one a person. Raises `UnknownIdError` for an item that is not embedded
        (`on_unknown="skip"` gives -inf there) or a person of whom nothing is known, `ContextError` for a context
        column that was never declared.
        """
        scorer, items, _ = self._over(items)
        rows = [scorer.item_rows.get(item_id) for item_id in items]
        missing = [item_id for item_id, row in zip(items, rows, strict=True) if row is None]
        if missing and on_unknown == "raise":
            raise not_embedded(missing, len(items), self._fitted().store, model=self._fitted().job.fingerprint)
        scores = np.full((len(people), len(items)), -np.inf, dtype=np.float32)
        known = [place for place, row in enumerate(rows) if row is not None]
        answers = scorer.people.answered(people, on_unknown)
        answered = [place for place, is_answered in enumerate(answers) if is_answered]
        contexts = self._contexts(context, len(people))
        if answered and known:
            chosen = [people[place] for place in answered]
            part = scorer.rank(chosen, contexts[answered], [row for row in rows if row is not None])
            scores[np.ix_(np.array(answered), np.array(known))] = part
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
        """The k items with the highest ranking scores a person, by default without what the person already took.

        Every embedded item is scored exactly, or with `query.shortlist` as many as the index finds. `query` filters,
        and its `steps` reorder what the ranking gives: scores are the ranking's own and need not descend then.
        `new_items`: raw items as in `embed`, ranked among the others, not stored. `reasons` says why a row is short.
        Arguments and errors otherwise as in `score`; `StoreError` where a shortlist is asked and the index is stale.
        """
        query = Query() if query is None else query
        scorer, _, replaced = self._over([] if new_items is None else new_items)
        shortlist = None if query.shortlist is None else self._searched()
        if shortlist is not None:
            scorer = shortlist.scorer  # items may have been embedded meanwhile, or deleted
        answered = np.array(scorer.people.answered(people, on_unknown), dtype=bool)
        contexts = self._contexts(context, len(people))
        if shortlist is not None and query.shortlist is not None:
            check_stored(new_items, query.shortlist)
            depth = min(max(k, query.pool), query.shortlist) if query.steps and k <= query.shortlist else k
            best = shortlist.best(people, contexts, answered.tolist(), k=depth, query=query)
            if query.steps:
                best = found_after(scorer, people, best, k=k, query=query)
            return Recommendations(*best, shortfalls(best, scorer, people, answered=answered, query=query))
        scores = np.full((len(people), len(scorer.ids)), -np.inf, dtype=np.float32)
        if answered.any():
            chosen = [person for person, is_answered in zip(people, answered, strict=True) if is_answered]
            scores[answered] = scorer.rank(chosen, contexts[answered], retrieval=query.by == "retrieval")
        excluded = [replaced | scorer.people.seen(person) if query.exclude_seen else replaced for person in people]
        if query.steps:
            best = best_after(scorer, people, scores, k=k, query=query, excluded=excluded)
        else:
            best = top_k(scores, scorer.ids, k=k, excluded=excluded, allowed=query.allowed_mask(scorer.table))
        return Recommendations(*best, shortfalls(best, scorer, people, answered=answered, query=query))

    def similar_items(self, items: Sequence[str] | pd.DataFrame, *, k: int = 10) -> Recommendations:
        """The k items whose item embeddings e(i) have the highest cosine with each item's, itself left out.

        Through the index where one was built of many items; else exact. Raw items, as in `score`, are compared with
        every stored one.
        """
        scorer, ids, replaced = self._over(items)
        if isinstance(items, pd.DataFrame):
            return Recommendations(*similar_stored(scorer, ids, replaced, k=k))
        searched = self._searched()
        place = searched.scorer.item_rows
        for item_id in ids:
            if item_id not in place:
                raise not_embedded([item_id], len(ids), self._fitted().store, model=self._fitted().job.fingerprint)
        return Recommendations(*searched.similar([place[item_id] for item_id in ids], k=k))

    @overload
    def explain(self, person: str | Person, items: str, *, context: Context = None) -> Explanation: ...
    @overload
    def explain(
        self, person: str | Person, items: list[str] | tuple[str, ...], *, context: Context = None
    ) -> list[Explanation]: ...
    def explain(
        self, person: str | Person, items: str | list[str] | tuple[str, ...], *, context: Context = None
    ) -> Explanation | list[Explanation]:
        """Why an item scores as it does for this person in this context, or one explanation an item of a list.

        The score's distance from the mean item's, shared out exactly between the item's parts, and again between
        history and context. `context`: one dict. Raises as `score` does.
        """
        return explained(self._ready(), person, items, context=context, encoded=self._contexts(context, 1))

    def build_index(self, *, exact_up_to: int = EXACT_UP_TO) -> IndexReport:
        """Build the index of `Query(shortlist=...)` and `similar_items`, and keep it beside the store.

        Exact up to `exact_up_to` items, beyond that approximate, with its recall measured. Build it after each `embed`.
        """
        return self._searched().build(self._contexts(None, 1), exact_up_to=exact_up_to).report

    def export(
        self, path: str | Path, *, part: str = "item", numbers: Numbers = "float32", dims: int | None = None
    ) -> ExportReport:
        """Write embeddings with their ids for other software, .parquet or .npy; `export_embeddings` has the rest.

        `part`: 'item' for e(i), or one of the model's parts such as 'text'.
        """
        ids, embeddings = self._ready().table.part(part, self._fitted().model.parts)
        return export_embeddings(Path(path), ids, embeddings, numbers=numbers, dims=dims)

    def export_onnx(
        self, folder: str | Path, *, items: pd.DataFrame | None = None, tolerance: float | None = None
    ) -> OnnxReport:
        """Write each tower and the scoring path as ONNX graphs that run without this library; `export_graphs`.

        `items`: some raw items, as in `embed`, that the towers' graphs are checked with. Needs the extra `onnx`.
        """
        return export_graphs(self._fitted(), self._ready(), Path(folder), items=items, tolerance=tolerance)

    def onnx_scorer(self, folder: str | Path, *, num_threads: int | None = None) -> OnnxScorer:
        """What ranks this recommender's items for its people by the graph that `export_onnx` wrote; `OnnxScorer`."""
        return OnnxScorer(folder, self._ready(), num_threads=num_threads)

    def score_frame(self, frame: pd.DataFrame, *, on_unknown: OnUnknown = "raise", into: str = "score") -> pd.DataFrame:
        """The frame with a column of ranking scores, float32: one a row, of its user_id, item_id and context columns.

        Index, order and all other columns stay; those that the model does not read are passed over, and a missing
        context value says nothing. Unknown ids raise `UnknownIdError`, or score -inf where `on_unknown` is "skip", as
        unknown items do under "cold", where strangers are scored. Raises `CatalogueError` for ids that are no text,
        `ContextError` for values of the wrong type.
        """
        scorer = self._ready()
        checked(frame, ["user_id", "item_id"], into=into)
        columns = [name for name in self._fitted().vocabulary.context.columns if name in frame]
        scores = score_pairs(
            frame,
            scorer.grid,
            self._contexts(frame.loc[:, columns], len(frame)),
            known_people=[scorer.people.known(user_id) for user_id in frame["user_id"]],
            known_items=[item_id in scorer.item_rows for item_id in frame["item_id"]],
            on_unknown=on_unknown,
        )
        return frame.assign(**{into: scores})

    def recommend_frame(
        self, frame: pd.DataFrame, *, k: int = 10, query: Query | None = None, on_unknown: OnUnknown = "raise"
    ) -> pd.DataFrame:
        """Rank, item_id and score of up to k items for each row's user_id and context columns, a row an item.

        Arguments as of `recommend`; the columns and the index of the row come first. Raises as `score_frame` does.
        """
        checked(frame, ["user_id"])
        columns = [name for name in self._fitted().vocabulary.context.columns if name in frame]
        people = frame["user_id"].tolist()
        found = self.recommend(people, k=k, context=frame.loc[:, columns], query=query, on_unknown=on_unknown)
        return listed(frame, found)

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
        """The k items that match a wish in words best, a row a wish.

        Text is compared with every modality and the attributes of an item, never with who took it. With a `user` or a
        `context`, `taste` is the share of their ranking score, 0 to 1, both brought to one scale; what the `user` has
        taken is left out unless `query` says otherwise. Of a `user` of whom nothing is known, `on_unknown="cold"`
        blends in what anybody likes in this context, `"skip"` leaves every row empty and says so in `reasons`, and
        `"raise"` raises `UnknownIdError`, as an unknown candidate of the `query` always does. Raises `ConfigError`
        where the model reads no text or a wish is empty, `ContextError` as `score` does.
        """
        scorer, searcher = self._searcher()
        asked = [wishes] if isinstance(wishes, str) else list(wishes)
        contexts = None if context is None and user is None else self._contexts(context, 1)
        query = Query() if query is None else query
        asking = Asking(user, contexts, taste, on_unknown)
        return find(searcher, scorer, asked, k=k, asking=asking, query=query)

    def _searcher(self) -> tuple[Scorer, WishSearch]:
        with self._lock:
            scorer = self._ready()
            if self._wishes is None or self._wishes[0] is not scorer:
                self._wishes = (scorer, WishSearch(self._fitted().model, scorer.table))
            return self._wishes

    def _contexts(self, context: Context, num_rows: int) -> np.ndarray:
        return self._fitted().vocabulary.contexts(context, num_rows=num_rows)

    def _ready(self) -> Scorer:
        with self._lock:
            trained = self._fitted()
            if self._scorer is None:
                self._scorer = trained.scorer(trained.store.read_interactions())
            return self._scorer

    def _over(self, items: Sequence[str] | pd.DataFrame) -> tuple[Scorer, Sequence[str], set[int]]:
        """What scores these items, their ids, and the stored rows that raw ones stand in place of."""
        if not isinstance(items, pd.DataFrame):
            return self._ready(), checked_ids(items), set()
        scorer, replaced = with_newcomers(self._ready(), self._fitted(), items)
        return scorer, items["item_id"].tolist(), replaced

    def _searched(self) -> Shortlist:
        with self._lock:
            scorer = self._ready()
            if self._shortlist is None or self._shortlist.scorer is not scorer:
                model = self._fitted().job.fingerprint
                self._shortlist = Shortlist(scorer, index_path(self._store_uri, model), model=model)
            return self._shortlist
