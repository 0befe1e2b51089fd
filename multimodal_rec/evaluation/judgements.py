"""How good single judgements are: of clicks by AUC and log loss, of ratings by RMSE; of a whole log, one row a person.

Where people say of what they were shown whether they liked it, nothing has to be ranked: each pair of a person and
an item has a score and an answer. A person's value is over that person's own pairs, so that AUC asks whether *their*
liked items stand above *their* disliked ones, which no popularity of people can fake.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from multimodal_rec.errors import ConfigError
from multimodal_rec.evaluation.significance import intervals


@dataclass(frozen=True, eq=False)
class Judgements:
    """What a scorer reached on pairs of a person and an item with known answers."""

    per_user: pd.DataFrame
    """Index user_id, one float column a metric; NaN for an AUC of somebody with answers of one kind only."""
    overall: Mapping[str, float]
    """Metric → its value over all pairs at once, whoever they are of."""
    num_pairs: int
    """Pairs that were judged."""

    def means(self) -> dict[str, float]:
        """Metric → mean over people who have a value."""
        return {str(name): float(value) for name, value in self.per_user.mean().items()}

    def intervals(self, level: float = 0.95, *, num_resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
        """Columns mean, low, high (index = metric): percentile bootstrap over people at `level`, between 0 and 1."""
        return intervals(self.per_user, level, num_resamples=num_resamples, seed=seed)

    def __str__(self) -> str:
        lines = [f"{len(self.per_user)} people, {self.num_pairs} judgements"]
        table = self.intervals().assign(num_users=self.per_user.notna().sum())
        for name, row in zip(self.per_user, table.to_dict("records"), strict=True):
            lines.append(
                f"{name:<9} {row['mean']:.4f}  {row['low']:.4f} to {row['high']:.4f}  over {row['num_users']} people; "
                f"all pairs at once {self.overall[str(name)]:.4f}"
            )
        return "\n".join(lines)


def evaluate_judgements(
    scores: ArrayLike, labels: ArrayLike, user_ids: ArrayLike, *, metrics: Sequence[str] = ("auc", "log_loss")
) -> Judgements:
    """Judge `scores` against `labels`, both (pair,), by person; `user_ids`: (pair,).

    `metrics`: of 'auc' (labels 0 and 1, scores of any size), 'log_loss' (labels 0 and 1, scores are probabilities)
    and 'rmse' (labels are ratings, scores are in their unit).

    Raises `ConfigError` for another metric, shapes that disagree, no pairs at all, or values a metric cannot read.
    """
    unknown = [name for name in metrics if name not in _METRICS]
    if unknown or not metrics:
        raise ConfigError(f"metrics are {', '.join(metrics) or 'none'}. Expected some of {', '.join(_METRICS)}.")
    score, label = _pairs(scores, labels)
    codes, users = pd.factorize(np.asarray(user_ids, dtype=object))
    if codes.shape != score.shape or not codes.size:
        raise ConfigError(f"{codes.size} user_ids go with {score.size} scores. Expected as many, and at least one.")
    # All pairs at once first: what a metric cannot read is then said of all of them.
    overall = {name: _METRICS[name](score, label) for name in metrics}
    order = np.argsort(codes, kind="stable")
    own = np.split(order, np.cumsum(np.bincount(codes))[:-1])
    per_user = {name: [_METRICS[name](score[pairs], label[pairs]) for pairs in own] for name in metrics}
    return Judgements(pd.DataFrame(per_user, index=pd.Index(users, name="user_id")), overall, len(score))


def auc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Chance that a positive scores above a negative, a tie counting half; in [0, 1], .5 is no better than a coin.

    `scores` and `labels`: (pair,), labels bool or 0 and 1. Also known as the Mann-Whitney U statistic over the number
    of pairs. NaN where either class is absent, for then nothing can be compared.

    Raises `ConfigError` where shapes disagree, a label is neither 0 nor 1, or a score is NaN.
    """
    score, label = _pairs(scores, labels)
    positive = _binary(label)
    num_positive, num_negative = int(positive.sum()), int((~positive).sum())
    if num_positive == 0 or num_negative == 0:
        return float("nan")
    rank_sum = rankdata(score)[positive].sum()
    return float((rank_sum - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative))


def log_loss(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Mean of -log of the probability given to what came true, in nats, at least 0; ln 2 is what a coin gets.

    `probabilities` and `labels`: (pair,), labels bool or 0 and 1. Also known as binary cross-entropy. Probabilities
    are held within 2.2e-16 (float64's epsilon) of 0 and 1, so that one wrong certainty costs 36 and not infinity.
    NaN without pairs.

    Raises `ConfigError` where shapes disagree, a label is neither 0 nor 1, or a probability is not in [0, 1].
    """
    probability, label = _pairs(probabilities, labels)
    positive = _binary(label)
    if not probability.size:
        return float("nan")
    if probability.min() < 0 or probability.max() > 1:
        raise ConfigError(
            f"scores reach from {probability.min():g} to {probability.max():g}. Expected probabilities between 0 and "
            "1: put scores through a sigmoid that was fitted on validation, or leave log_loss out."
        )
    epsilon = np.finfo(np.float64).eps
    held = np.clip(probability, epsilon, 1 - epsilon)
    return float(-np.log(np.where(positive, held, 1 - held)).mean())


def rmse(predictions: ArrayLike, values: ArrayLike) -> float:
    """Root of the mean squared difference, at least 0, in the unit of `values`; both (pair,). NaN without pairs.

    Raises `ConfigError` where shapes disagree or a prediction or value is NaN.
    """
    prediction, value = _pairs(predictions, values)
    difference = prediction - value.astype(np.float64)
    if np.isnan(difference).any():
        raise ConfigError(f"{int(np.isnan(difference).sum())} of {value.size} values are NaN. Drop them and say so.")
    return float(np.sqrt(np.mean(difference**2))) if difference.size else float("nan")


def _pairs(scores: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray]:
    score, label = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if score.shape != label.shape or score.ndim != 1:
        raise ConfigError(f"scores of shape {score.shape} and labels of shape {label.shape}. Expected two of (pair,).")
    if np.isnan(score).any():
        raise ConfigError(f"{int(np.isnan(score).sum())} of {score.size} scores are NaN. Drop those pairs and say so.")
    return score, label


def _binary(label: NDArray) -> NDArray[np.bool_]:
    if not np.isin(label, (0, 1)).all():
        raise ConfigError("labels hold something other than 0 and 1. Turn events or ratings into liked or not first.")
    return label.astype(bool)


_METRICS: Mapping[str, Callable[[ArrayLike, ArrayLike], float]] = {"auc": auc, "log_loss": log_loss, "rmse": rmse}
