"""Verbs that a service calls beside `score` and `recommend`: on frames, and for a wish in words."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from threading import RLock

import numpy as np
import pandas as pd

from multimodal_rec.context import Context
from multimodal_rec.pairs import checked, listed, score_pairs
from multimodal_rec.people import OnUnknown, Person
from multimodal_rec.recommendations import Recommendations
from multimodal_rec.retrieval import Query
from multimodal_rec.scorer import Scorer
from multimodal_rec.search import TASTE, Asking, WishSearch, find
from multimodal_rec.trained import Trained


class ServiceVerbs(ABC):
    """The half of `Recommender` that only asks what the other half has trained and embedded."""

    def __init__(self) -> None:
        self._wishes: tuple[Scorer, WishSearch] | None = None
        # Several threads may ask at once: what is built when first asked for is built once.
        self._lock = RLock()

    @abstractmethod
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
        """The k items with the highest ranking scores a person."""

    @abstractmethod
    def _fitted(self) -> Trained: ...

    @abstractmethod
    def _ready(self) -> Scorer: ...

    @abstractmethod
    def _contexts(self, context: Context, num_rows: int) -> np.ndarray: ...

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
    ) -> Recommendations:
        """The k items that match a wish in words best, a row a wish.

        Text is compared with every modality and the attributes of an item, never with who took it. With a `user` or a
        `context`, `taste` is the share of their ranking score, 0 to 1, both brought to one scale; what the `user` has
        taken is left out unless `query` says otherwise. Raises `ConfigError` where the model reads no text or a wish
        is empty, `UnknownIdError` for an unknown user, `ContextError` as `score` does.
        """
        scorer = self._ready()
        asked = [wishes] if isinstance(wishes, str) else list(wishes)
        contexts = None if context is None and user is None else self._contexts(context, 1)
        query = Query() if query is None else query
        return find(self._searcher(), scorer, asked, k=k, asking=Asking(user, contexts, taste), query=query)

    def _searcher(self) -> WishSearch:
        with self._lock:
            scorer = self._ready()
            if self._wishes is None or self._wishes[0] is not scorer:
                self._wishes = (scorer, WishSearch(self._fitted().model, scorer.table))
            return self._wishes[1]
