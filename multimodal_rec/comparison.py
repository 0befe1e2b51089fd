"""A trained recommender beside baselines, itself with a part hidden, and oracles, on one split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd

from multimodal_rec.baselines import EASE, Baseline, ContentKNN, ItemKNN, Popularity, tuned
from multimodal_rec.catalogue import Catalogue
from multimodal_rec.errors import SplitError
from multimodal_rec.evaluation import Evaluation, ScoreQueries, evaluate_ranking, paired_difference
from multimodal_rec.recommender import Recommender
from multimodal_rec.splits import Split

MODEL = "multimodal-rec"
"""Row of the recommender."""
CONTENT_KNN = "content k-NN"
"""Row of the baseline that can rank an item nobody has taken."""
MEASURES = ("NDCG@10", "NDCG@10, late", "recall@10")
"""Columns of a comparison; the second ranks late items among late items only."""

_SETTINGS: Mapping[str, Mapping[str, Callable[[], Baseline]]] = {
    "popularity": {"": Popularity},
    "item k-NN": {
        f"k={k}, shrinkage {shrinkage:g}": partial(ItemKNN, k, shrinkage=shrinkage)
        for k in (20, 50, 100)
        for shrinkage in (0.0, 10.0)
    },
    "EASE": {f"λ={weight:g}": partial(EASE, weight) for weight in (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)},
    CONTENT_KNN: {**{f"k={k}": partial(ContentKNN, k) for k in (5, 10, 20, 50, 100)}, "all items": ContentKNN},
}


class Judged(NamedTuple):
    """What one method reached."""

    everything: Evaluation
    """Among all items."""
    late: Evaluation | None
    """Late items among late items; None where the test part has none."""

    def row(self) -> tuple[float, float, float]:
        """The values of `MEASURES`."""
        means = self.everything.means()
        late = np.nan if self.late is None else self.late.means()["ndcg@10"]
        return means["ndcg@10"], late, means["recall@10"]


@dataclass(frozen=True)
class Comparison:
    """Methods in the order in which they are shown, and the settings that validation chose."""

    judged: Mapping[str, Judged]
    """Name of the method → what it reached."""
    references: tuple[str, ...]
    """Methods that are no competitors: the recommender with a part hidden, and the oracles."""
    settings: Mapping[str, str]
    """Baseline → its setting, chosen on validation."""

    @property
    def table(self) -> pd.DataFrame:
        """Floats (method, measure)."""
        return pd.DataFrame(
            [judged.row() for judged in self.judged.values()],
            index=pd.Index(list(self.judged), name="method"),
            columns=list(MEASURES),
        )

    def notes(self) -> list[str]:
        """Sentences on how to read the table."""
        chosen = "; ".join(f"{name} {setting}" for name, setting in self.settings.items() if setting)
        notes = [f"Chosen on validation, then fitted on train and valid: {chosen}."]
        model, content = self.judged[MODEL], self.judged[CONTENT_KNN]
        if model.late is not None and content.late is not None:
            difference = paired_difference(model.late, content.late)
            notes.append(f"Late items, {MODEL} less {CONTENT_KNN}, NDCG@10 paired over people: {difference}.")
        for name in (name for name in self.references if "oracle" in name):
            ours, best = model.row(), self.judged[name].row()
            late = "" if np.isnan(best[1]) else f", late items {ours[1] / best[1]:.2f}"
            notes.append(f"{MODEL} reaches of the {name}'s NDCG@10: {ours[0] / best[0]:.2f}{late}.")
        return notes


def compare(
    recommender: Recommender, split: Split, *, content: np.ndarray, oracles: Mapping[str, ScoreQueries]
) -> Comparison:
    """Everything judged on `split.test`: all items ranked, nothing sampled, and late items among late items.

    `recommender` was fitted on the split's train and valid. `content`: float (item, dim) in the order of
    `split.test.items`, for content k-NN. `oracles`: name → scores of queries, items in that same order.
    """
    judge = _Judge(split)
    judged: dict[str, Judged] = {}
    settings: dict[str, str] = {}
    for name, choices in _SETTINGS.items():
        best = tuned(
            choices,
            judge.train,
            valid=judge.valid,
            item_ids=judge.item_ids,
            content=content,
            context_columns=judge.context,
            # Whoever chose a setting then had these items before them, and not yet the late ones.
            candidates=split.valid.item_ids,
        )
        judged[name], settings[name] = judge.of_scores(best.baseline.score), best.label
    judged[MODEL] = judge.of_recommender(recommender)
    parts = [*recommender.towers, *_own_parts(recommender, split.train)]
    hidden = {f"{MODEL}, {part} hidden": judge.of_recommender(recommender, (part,)) for part in parts}
    reached = {f"{name} oracle": judge.of_scores(score) for name, score in oracles.items()}
    return Comparison(judged | hidden | reached, (*hidden, *reached), settings)


def _own_parts(recommender: Recommender, train: Catalogue) -> list[str]:
    config, schema = recommender.config, train.schema
    there = {
        "attributes": config.attributes and bool(schema.attributes),
        "behaviour": config.behaviour,
        "context": config.context and bool(schema.context),
    }
    return [name for name, is_there in there.items() if is_there]


def _liked(part: Catalogue) -> pd.DataFrame:
    return part.interactions.loc[part.event_weights > 0]


class _Judge:
    def __init__(self, split: Split) -> None:
        self.test = split.test
        self.item_ids: Sequence[str] = split.test.item_ids
        self.context = tuple(split.test.schema.context)
        self.train, self.valid, self._log = _liked(split.train), _liked(split.valid), _liked(split.test)
        self._known = pd.concat([split.train.interactions, split.valid.interactions], ignore_index=True)
        earlier = set(split.valid.item_ids)
        self._late = [item_id for item_id in self.item_ids if item_id not in earlier]

    def of_scores(self, score: ScoreQueries) -> Judged:
        def evaluate(candidates: Sequence[str] | None) -> Evaluation:
            return evaluate_ranking(
                score,
                self._log,
                known=self._known,
                item_ids=self.item_ids,
                context_columns=self.context,
                candidates=candidates,
            )

        return self._both(evaluate)

    def of_recommender(self, recommender: Recommender, without: Sequence[str] = ()) -> Judged:
        return self._both(lambda candidates: recommender.evaluate(self.test, candidates=candidates, without=without))

    def _both(self, evaluate: Callable[[Sequence[str] | None], Evaluation]) -> Judged:
        everything = evaluate(None)
        if not self._late:
            return Judged(everything, None)
        try:
            return Judged(everything, evaluate(self._late))
        except SplitError:
            # Late items that nobody took in the test part: there is nothing to rank.
            return Judged(everything, None)
