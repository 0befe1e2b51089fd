"""A trained recommender beside baselines, itself with a part hidden, and oracles, on one split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd

from multimodal_rec.baselines import EASE, Baseline, ContentKNN, ItemKNN, Popularity, tuned
from multimodal_rec.errors import SplitError
from multimodal_rec.evaluation import Evaluation, ScoreQueries
from multimodal_rec.evaluation.ablations import own_parts
from multimodal_rec.evaluation.protocol import RankingTask
from multimodal_rec.evaluation.significance import paired_difference
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
    task = RankingTask.of_split(split, content=content)
    late = RankingTask.of_split(split, among="late") if _has_late(split) else None

    def of_scores(score: ScoreQueries) -> Judged:
        return _judged(lambda which: which.judge(score), task, late)

    def of_recommender(without: Sequence[str] = ()) -> Judged:
        return _judged(
            lambda which: recommender.evaluate(split.test, candidates=which.candidates, without=without), task, late
        )

    judged: dict[str, Judged] = {}
    settings: dict[str, str] = {}
    for name, choices in _SETTINGS.items():
        best = tuned(choices, task)
        judged[name], settings[name] = of_scores(best.baseline.score), best.label
    judged[MODEL] = of_recommender()
    hidden = {
        f"{MODEL}, {part} hidden": of_recommender((part,)) for part in own_parts(recommender.config, split.train.schema)
    }
    reached = {f"{name} oracle": of_scores(score) for name, score in oracles.items()}
    return Comparison(judged | hidden | reached, (*hidden, *reached), settings)


def _has_late(split: Split) -> bool:
    return split.test.num_items > split.valid.num_items


def _judged(evaluate: Callable[[RankingTask], Evaluation], task: RankingTask, late: RankingTask | None) -> Judged:
    everything = evaluate(task)
    if late is None:
        return Judged(everything, None)
    try:
        return Judged(everything, evaluate(late))
    except SplitError:
        # Late items that nobody took in the test part: there is nothing to rank.
        return Judged(everything, None)
