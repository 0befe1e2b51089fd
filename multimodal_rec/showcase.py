"""What a few people are recommended in one situation and in another, with the reason, to be looked at."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from multimodal_rec.catalogue import Catalogue
from multimodal_rec.recommender import Recommender
from multimodal_rec.report import Card, RecommendationRow
from multimodal_rec.splits import interaction_order

_NUM_LIKED = 4


class Showcase:
    """Recommendations as cards. `catalogue` holds the items and says which columns are theirs."""

    def __init__(self, recommender: Recommender, catalogue: Catalogue) -> None:
        self._recommender = recommender
        self._schema = catalogue.schema
        self._items = {str(row["item_id"]): row for row in catalogue.items.to_dict("records")}
        self._log = recommender.store.read_interactions()

    def people(self, num_people: int) -> list[str]:
        """The people of whom most is known, ties by id."""
        counts = self._log.groupby("user_id").size()
        frame = pd.DataFrame({"user_id": counts.index.astype(str), "events": counts.to_numpy()})
        ordered = frame.sort_values(["events", "user_id"], ascending=[False, True])
        return ordered["user_id"].head(num_people).tolist()

    def rows(
        self, people: Sequence[str], contexts: Sequence[Mapping[str, object]], *, k: int = 5
    ) -> list[RecommendationRow]:
        """One row a person and context: `k` items, best first, and why the first is first."""
        return [self._row(user_id, context, k) for user_id in people for context in contexts]

    def title(self, item_id: str) -> str:
        """What the item is called: its first text, else its id."""
        item = self._items[item_id]
        texts = [item.get(column) for column in self._schema.text]
        return next((text for text in texts if isinstance(text, str) and text), item_id)

    def _row(self, user_id: str, context: Mapping[str, object], k: int) -> RecommendationRow:
        found = self._recommender.recommend([user_id], k=k, context=context)
        ranked = [(item, float(score)) for item, score in zip(found.ids[0], found.scores[0], strict=True) if item]
        similar: list[str] = []
        reason = ""
        if ranked:
            explanation = self._recommender.explain(user_id, ranked[0][0], context=context)
            similar = [item_id for item_id in explanation.similar.values() if item_id is not None]
            reason = explanation.because({item_id: f"“{self.title(item_id)}”" for item_id in similar})
        liked = self._liked(user_id, similar)
        cards = [self._card(item_id, score) for item_id, score in ranked]
        return RecommendationRow(user_id, dict(context), [self._card(item_id) for item_id in liked], cards, reason)

    def _liked(self, user_id: str, first: Sequence[str]) -> list[str]:
        """What the person took: what a reason may name, then the latest."""
        log = self._log.loc[self._log["user_id"] == user_id]
        order = interaction_order(log)
        taken = log["item_id"].tolist() if order is None else log["item_id"].iloc[order].tolist()
        latest = [str(item_id) for item_id in reversed(taken)]
        chosen = dict.fromkeys([*first, *latest])
        return [item_id for item_id in chosen if item_id in self._items][:_NUM_LIKED]

    def _card(self, item_id: str, score: float | None = None) -> Card:
        item = self._items[item_id]
        caption = ", ".join(filter(None, (_said(item.get(name)) for name in self._schema.attributes)))

        def medium(columns: Sequence[str]) -> Path | None:
            return next((Path(path) for column in columns for path in item[column]), None)

        return Card(
            item_id,
            self.title(item_id),
            caption,
            image=medium(self._schema.image),
            audio=medium(self._schema.audio),
            video=medium(self._schema.video),
            score=score,
        )


def _said(value: object) -> str:
    if isinstance(value, (list, tuple, np.ndarray)):
        return ", ".join(map(str, value))
    if isinstance(value, float):
        # Numbers with gaps are floats in a frame: a year is still to read as 1988.
        return "" if math.isnan(value) else f"{value:.10g}"
    return "" if value is None else str(value)
