"""Whether a difference between runs is more than luck: paired bootstrap, paired t-test, Holm's correction.

People are what is resampled: whoever is asked twice is still one person. Runs are compared on the same people, so
that what makes some people easy for everyone cancels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import NamedTuple, Protocol

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from multimodal_rec.errors import ConfigError, SplitError


class Run(Protocol):
    """Anything with one row a person and one column a metric: an `Evaluation`, or judgements."""

    @property
    def per_user(self) -> pd.DataFrame:
        """Index user_id, one float column a metric; NaN where a person has no value."""
        ...


class PairedDifference(NamedTuple):
    """How much a scorer gains over another on the same people: mean, interval, and chance of that much by accident."""

    mean: float
    """Mean over people of the first's value less the second's."""
    low: float
    high: float
    """Ends of the 95% interval, percentile bootstrap."""
    p_value: float
    """Two-sided, in (0, 1]: how often a resampled mean strays from the observed one as far as that lies from 0."""
    num_users: int
    """People both have."""

    def __str__(self) -> str:
        return (
            f"{self.mean:+.4f} ({self.low:+.4f} to {self.high:+.4f}), p = {self.p_value:.3f}, {self.num_users} people"
        )


def paired_difference(
    a: Run, b: Run, metric: str = "ndcg@10", *, num_resamples: int = 10_000, seed: int = 0
) -> PairedDifference:
    """`a` less `b` in `metric` over the people both have, with a 95% interval and a two-sided p-value.

    Paired bootstrap over people. Raises `ConfigError` for an unknown metric, `SplitError` where nobody is in both.
    """
    first, second = _values_of_all({"a": a, "b": b}, metric)
    return _difference(first - second, num_resamples, seed)


def compare_runs(
    runs: Mapping[str, Run], *, against: str, metrics: Sequence[str] = ("ndcg@10",), seed: int = 0
) -> pd.DataFrame:
    """Every run beside the run named `against`: index (metric, run), over the people that all runs have.

    Columns: `mean`; `difference` to `against` with its 95% interval `low` and `high`; `p_bootstrap` and `p_t` (paired
    t-test), both two-sided; `p_bootstrap_holm` and `p_t_holm`, the same after Holm's correction for all the
    comparisons of this table, metrics and runs; `num_users`. The row of `against` has a mean and no comparison (NaN).

    Raises `ConfigError` for an unknown run or metric, `SplitError` where no person is in all runs.
    """
    if against not in runs:
        raise ConfigError(f"against is {against!r}. Expected one of the runs: {', '.join(map(repr, runs))}.")
    rows: dict[tuple[str, str], dict[str, float]] = {}
    for metric in metrics:
        values = dict(zip(runs, _values_of_all(runs, metric), strict=True))
        for name, own in values.items():
            row = {"mean": own.mean(), "num_users": len(own)}
            if name != against:
                difference = own - values[against]
                found = _difference(difference, 10_000, seed)
                row |= {"difference": found.mean, "low": found.low, "high": found.high}
                row |= {"p_bootstrap": found.p_value, "p_t": t_test(difference)}
            rows[metric, name] = row
    index = pd.MultiIndex.from_tuples(list(rows), names=["metric", "run"])
    columns = ["mean", "difference", "low", "high", "p_bootstrap", "p_t", "num_users"]
    table = pd.DataFrame(list(rows.values()), index=index, columns=columns)
    for column in ("p_bootstrap", "p_t"):
        table[f"{column}_holm"] = holm(table[column].to_numpy())
    table["num_users"] = table.pop("num_users").astype(int)
    return table


def t_test(differences: ArrayLike) -> float:
    """Two-sided p-value of the paired t-test, in [0, 1], that the mean of `differences` (person,) is 0.

    1 where all are 0; NaN for fewer than two people.
    """
    difference = np.asarray(differences, dtype=np.float64)
    if difference.size < 2:
        return float("nan")
    mean, error = difference.mean(), difference.std(ddof=1) / np.sqrt(difference.size)
    if error == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * stats.t.sf(abs(mean) / error, difference.size - 1))


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """P-values adjusted for how many there are, same shape (comparison,): below .05 still means .05 for the family.

    Sorted ascending, the i-th of m is multiplied by m - i + 1, never below the one before, at most 1. NaN is no
    comparison: it stays NaN and does not count. Source: Holm, "A simple sequentially rejective multiple test
    procedure" (1979).
    """
    p_value = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(p_value.shape, np.nan)
    order = np.argsort(p_value)[: np.isfinite(p_value).sum()]  # NaN sorts to the end
    factors = np.arange(order.size, 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(p_value[order] * factors), 1.0)
    return adjusted


def intervals(values: pd.DataFrame, level: float = 0.95, *, num_resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Columns mean, low, high (index = the columns of `values`): percentile bootstrap over its rows, the people.

    `level`: share of the resampled means inside, between 0 and 1. NaN is a person without that value.
    """
    ends = np.array([(1 - level) / 2, (1 + level) / 2])
    if not 0 < level < 1:
        raise ConfigError(f"level is {level}. Expected a share between 0 and 1, such as 0.95.")
    columns: dict[str, np.ndarray] = {"mean": values.mean().to_numpy()}
    # Few draws of few people who have a value can be without any of them: nothing is then known of the mean.
    resampled = resampled_means(values.to_numpy(dtype=np.float64), num_resamples, seed)
    columns["low"], columns["high"] = _quantiles(resampled, ends)
    return pd.DataFrame(columns, index=values.columns)


def resampled_means(values: NDArray[np.float64], num_resamples: int, seed: int) -> NDArray[np.float64]:
    """Means (resample, metric) of `values` (user, metric) over as many people drawn with replacement.

    NaN is left out of the mean; a resample without any value is NaN.
    """
    rng = np.random.default_rng(seed)
    num_users = len(values)
    there = np.isfinite(values)
    filled, complete = np.where(there, values, 0.0), bool(there.all())
    at_once = max(1, 1_000_000 // num_users)
    means = []
    for start in range(0, num_resamples, at_once):
        num_drawn = min(at_once, num_resamples - start)
        drawn = rng.integers(0, num_users, (num_drawn, num_users)) + num_users * np.arange(num_drawn)[:, None]
        # How often each person was drawn, so that a mean is a product of matrices and not a copy of the values.
        times = np.bincount(drawn.ravel(), minlength=num_drawn * num_users).reshape(num_drawn, num_users)
        times = times.astype(np.float64)
        count = num_users if complete else times @ there
        means.append((times @ filled) / np.where(np.equal(count, 0), np.nan, count))
    return np.concatenate(means)


def _difference(difference: NDArray[np.float64], num_resamples: int, seed: int) -> PairedDifference:
    mean = difference.mean()
    resampled = resampled_means(difference[:, None], num_resamples, seed)[:, 0]
    low, high = np.quantile(resampled, (0.025, 0.975))
    # Centred at its own mean the bootstrap distribution is that of no difference. The tolerance is for sums whose
    # last bits differ; the 1 + keeps the p-value above 0, which no finite number of resamples can show.
    as_far = np.abs(resampled - mean) >= abs(mean) - 1e-12
    p_value = (1 + as_far.sum()) / (1 + len(resampled))
    return PairedDifference(float(mean), float(low), float(high), float(p_value), len(difference))


def _quantiles(resampled: NDArray[np.float64], ends: NDArray[np.float64]) -> NDArray[np.float64]:
    quantiles = np.full((len(ends), resampled.shape[1]), np.nan)
    for column in range(resampled.shape[1]):
        known = resampled[np.isfinite(resampled[:, column]), column]
        if known.size:
            quantiles[:, column] = np.quantile(known, ends)
    return quantiles


def _values_of_all(runs: Mapping[str, Run], metric: str) -> list[NDArray[np.float64]]:
    """Of each run the values (user,) of `metric`, over the people who have one in every run, in one order."""
    for run in runs.values():
        if metric not in run.per_user:
            raise ConfigError(f"metric '{metric}' is unknown. Expected one of {', '.join(run.per_user)}.")
    columns = [run.per_user[metric].dropna() for run in runs.values()]
    both = reduce(pd.Index.intersection, [column.index for column in columns])
    if both.empty:
        raise SplitError("the evaluations have nobody in common. Evaluate all of them on the same test part.")
    return [column.loc[both].to_numpy(dtype=np.float64) for column in columns]
