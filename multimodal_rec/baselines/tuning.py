"""Which of a baseline's settings is best on validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import replace
from typing import Generic, NamedTuple, TypeVar

import pandas as pd

from multimodal_rec.baselines.baseline import Baseline
from multimodal_rec.baselines.trained import TrainedBaseline
from multimodal_rec.errors import ConfigError
from multimodal_rec.evaluation.protocol import RankingTask

BaselineT = TypeVar("BaselineT", bound=Baseline)


class Tuned(NamedTuple, Generic[BaselineT]):
    """A baseline whose setting was chosen on validation, ready for `task.judge(tuned.baseline.score)`."""

    label: str
    """Of the setting that won."""
    baseline: BaselineT
    """Fitted on `task.fitted_on`, as many epochs as validation found best; it has read `task.given_test`."""
    valid: dict[str, float]
    """Label → what validation gave each setting, fitted on train alone."""


def tuned(
    make: Mapping[str, Callable[[], BaselineT]], task: RankingTask, *, metric: str = "ndcg@10"
) -> Tuned[BaselineT]:
    """The setting that ranks the validation part best, fitted as the task's protocol says; the first wins a tie.

    `make`: label → what builds the baseline with that setting. `metric`: a column of `task.validate`, higher is
    better; it also says when baselines that learn step by step have learned enough. Nothing of the test part is read
    but the histories that the task gives of new people.

    Raises `ConfigError` where `make` is empty or `metric` unknown, `SplitError` where the validation part leaves
    nothing to rank.
    """
    if not make:
        raise ConfigError("no settings to choose from. Expected at least one label and what builds it.")

    def validate(baseline: Baseline) -> float:
        # A copy reads what is given: the one that learns must not come to know people it does not learn from.
        means = task.validate(_having_read(copy(baseline), task.given_valid).score).means()
        if metric not in means:
            raise ConfigError(f"metric '{metric}' is unknown. Expected one of {', '.join(means)}.")
        return means[metric]

    best: tuple[str, BaselineT] | None = None
    reached: dict[str, float] = {}
    for label, build in make.items():
        candidate = build().fit(task.train, task.item_ids, content=task.content, validate=validate)
        reached[label] = validate(candidate)
        if best is None or reached[label] > reached[best[0]]:
            best = label, candidate
    if best is None:
        raise AssertionError("make is not empty")
    label, winner = best
    if task.protocol == "full":
        final = make[label]()
        if isinstance(final, TrainedBaseline) and isinstance(winner, TrainedBaseline):
            final.schedule = replace(final.schedule, epochs=winner.best_epoch)
        winner = final.fit(task.fitted_on, task.item_ids, content=task.content)
    return Tuned(label, _having_read(winner, task.given_test), reached)


def _having_read(baseline: BaselineT, given: pd.DataFrame | None) -> BaselineT:
    return baseline if given is None else baseline.read(given)
