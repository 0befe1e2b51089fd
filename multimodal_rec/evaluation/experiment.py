"""What the log of an A/B test says.

People are what is assigned, counted and compared: a person has one value however many rows the log holds, because the
rows of one person are not independent. Who was assigned and did nothing belongs in the log with value 0; left out, the
variant that moves more people to act at all looks worse than it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from multimodal_rec.errors import CatalogueError, ConfigError
from multimodal_rec.evaluation.significance import holm

_MISMATCH = 1e-3
"""A chi-square p-value below this is a sample-ratio mismatch: a check that runs on every test must seldom cry wolf."""
_Z = 1.959963984540054
"""The normal's 97.5% point."""
_NAMED = 5
"""Offenders that a message names before it only counts them."""


@dataclass(frozen=True, eq=False)
class Experiment:
    """What an A/B test showed."""

    table: pd.DataFrame
    """Index variant, the control first; columns people, mean, standard_deviation, difference, low, high (the
    difference to the control and its 95% interval), lift, lift_low, lift_high (the same relative to the control's
    mean; NaN where that is not above 0), p_value (Welch's t-test), adjusted_p_value (Holm, over the variants). The
    control's own comparisons are NaN. With a covariate, means, deviations and differences are the adjusted ones."""
    control: str
    expected_people: Mapping[str, float]
    """Variant → people it would have by the planned shares."""
    mismatch_p_value: float
    """Chance of people as unevenly spread as these, were they assigned by the planned shares (chi-square)."""
    variance_explained: float | None
    """Share of the variance between people that the covariate took away; None without one."""

    @property
    def has_mismatch(self) -> bool:
        """Whether people are spread too unevenly for the plan (p below 0.001), which voids the comparison."""
        return self.mismatch_p_value < _MISMATCH

    def sentences(self) -> list[str]:
        """What the test showed in words: the spread of people first, then a sentence a variant."""
        people = ", ".join(f"{name} {count:,}" for name, count in self.table["people"].items())
        if self.has_mismatch:
            planned = ", ".join(f"{name} {count:,.0f}" for name, count in self.expected_people.items())
            lines = [
                f"Sample ratio mismatch (p = {self.mismatch_p_value:.1g}): people are {people}, planned {planned}. "
                "Assignment or logging loses people unevenly. Find out where before believing any difference below."
            ]
        else:
            lines = [f"People are spread as planned: {people} (p = {self.mismatch_p_value:.2g})."]
        if self.variance_explained is not None:
            lines.append(f"The covariate from before the test explains {self.variance_explained:.0%} of the variance.")
        lines += [self._verdict(name) for name in self.table.index if name != self.control]
        return lines

    def _verdict(self, name: str) -> str:
        row = self.table.loc[name]
        p_value = row["adjusted_p_value"]
        size = f"{row['difference']:+.4g} ({row['low']:+.4g} to {row['high']:+.4g}"
        if math.isfinite(row["lift"]):
            size += f"; {row['lift']:+.1%} of {self.control}'s mean"
        size += f"; p = {p_value:.2g}" + (", Holm over the variants)" if len(self.table) > 2 else ")")
        if not math.isfinite(p_value):
            return f"{name} cannot be told from {self.control}: nobody differs within either, so there is no scale."
        if p_value >= 0.05:
            return f"{name} is not shown to differ from {self.control}: {size}."
        return f"{name} is {'above' if row['difference'] > 0 else 'below'} {self.control}: {size}."

    def __str__(self) -> str:
        return "\n".join([*self.sentences(), "", self.table.to_string(float_format=lambda number: f"{number:.4g}")])


def analyse_experiment(
    log: pd.DataFrame,
    control: str,
    *,
    rows: Literal["mean", "sum"] = "mean",
    expected_shares: Mapping[str, float] | None = None,
    covariate: str | None = None,
) -> Experiment:
    """What the log of an A/B test shows: each variant beside `control`, and whether people are spread as planned.

    - `log`: user_id, variant, value; a row a person, or several.
    - `rows`: what makes one value of a person's several rows, their "mean" (a rating, a share of sessions) or their
      "sum" (clicks, revenue).
    - `expected_shares`: variant → planned share of the people, any scale; None plans equal ones.
    - `covariate`: a column of `log` with something known of each person from before the test, such as the same
      measure in the weeks before, equal in all rows of the person and NaN where there was no before. What it predicts
      is taken off the value (CUPED), which narrows the interval and cannot move the expected difference. It must not
      have been touched by the test.

    Each comparison is Welch's t-test with its interval; p-values over several variants are corrected by Holm. The
    lift's interval is the delta method's. Raises `CatalogueError` for a column that is absent, a value that is no
    number, a person in two variants or with two covariates (naming them); `ConfigError` for an unknown control or
    share, or a variant with fewer than two people. Sources: Deng, Xu, Kohavi and Walker, "Improving the Sensitivity
    of Online Controlled Experiments by Utilizing Pre-Experiment Data" (WSDM 2013); Fabijan et al., "Diagnosing Sample
    Ratio Mismatch in Online Controlled Experiments" (KDD 2019); Deng, Knoblich and Lu (arXiv:1803.06336).
    """
    people = _one_row_a_person(log, rows, covariate)
    variant, value = people.variant, people.value
    counts = {str(name): int(number) for name, number in zip(*np.unique(variant, return_counts=True), strict=True)}
    if control not in counts or len(counts) < 2:
        raise ConfigError(
            f"control is '{control}' and the log has the variants {', '.join(map(repr, counts)) or 'of nobody'}. "
            "Expected the control among at least two."
        )
    few = [name for name, number in counts.items() if number < 2]
    if few:
        raise ConfigError(f"variant '{few[0]}' has one person. Expected at least two, to know how people differ.")
    names = [control, *(name for name in counts if name != control)]
    explained = None
    if people.covariate is not None:
        total = _variance_within(variant, value)
        value = _adjusted(variant, value, people.covariate)
        explained = 1 - _variance_within(variant, value) / total if total > 0 else 0.0
    groups = {name: value[variant == name] for name in names}
    compared = [_compared(groups[name], groups[control]) for name in names]
    compared[0] = _Compared(*compared[0][:3], *[math.nan] * 7)
    table = pd.DataFrame(compared, index=pd.Index(names, name="variant"), columns=list(_Compared._fields))
    table["adjusted_p_value"] = holm(table["p_value"].to_numpy(dtype=np.float64))
    expected = _expected_people(names, expected_shares, len(value))
    mismatch = stats.chisquare([counts[name] for name in names], list(expected.values())).pvalue
    return Experiment(table, control, expected, float(mismatch), explained)


class _Compared(NamedTuple):
    people: int
    mean: float
    standard_deviation: float
    difference: float
    low: float
    high: float
    lift: float
    lift_low: float
    lift_high: float
    p_value: float


def _compared(values: np.ndarray, control: np.ndarray) -> _Compared:
    mean, base = float(values.mean()), float(control.mean())
    parts = values.var(ddof=1) / len(values), control.var(ddof=1) / len(control)
    error = math.sqrt(sum(parts))
    difference, lift, lift_error = mean - base, math.nan, math.nan
    if base > 0:
        lift = difference / base
        lift_error = _Z * math.sqrt(parts[0] + (mean / base) ** 2 * parts[1]) / base
    low = high = p_value = math.nan
    if error > 0:
        # Welch and Satterthwaite's degrees of freedom.
        freedom = sum(parts) ** 2 / (parts[0] ** 2 / (len(values) - 1) + parts[1] ** 2 / (len(control) - 1))
        reach = float(stats.t.ppf(0.975, freedom)) * error
        low, high = difference - reach, difference + reach
        p_value = float(2 * stats.t.sf(abs(difference) / error, freedom))
    spread = float(values.std(ddof=1))
    lifts = lift, lift - lift_error, lift + lift_error
    return _Compared(len(values), mean, spread, difference, low, high, *lifts, p_value)


class _People(NamedTuple):
    """What is known of each person, a row a person."""

    variant: np.ndarray
    """Str."""
    value: np.ndarray
    """Float."""
    covariate: np.ndarray | None
    """Float, NaN where nothing was known before."""


def _one_row_a_person(log: pd.DataFrame, rows: str, covariate: str | None) -> _People:
    if rows not in ("mean", "sum"):
        raise ConfigError(f"rows is '{rows}'. Expected 'mean' or 'sum': what makes one value of a person's rows.")
    wanted = ["user_id", "variant", "value", *([] if covariate is None else [covariate])]
    missing = [name for name in wanted if name not in log]
    if missing:
        raise CatalogueError(
            f"the log has no column {', '.join(map(repr, missing))}; it has {', '.join(map(repr, log.columns))}. "
            "Give it a row a person with user_id, variant and value."
        )
    if log[["user_id", "variant"]].isna().to_numpy().any():
        raise CatalogueError("the log has rows without a user_id or a variant. Drop who was never assigned.")
    user_index, user_ids = pd.factorize(np.asarray(log["user_id"].astype(str), dtype=object))
    users = np.asarray(user_ids)
    variants = np.asarray(log["variant"].astype(str), dtype=object)
    variant = np.empty(len(users), dtype=object)
    variant[user_index] = variants
    strays = np.unique(user_index[variant[user_index] != variants])
    if len(strays):
        seen = ", ".join(sorted(set(variants[user_index == strays[0]])))
        raise CatalogueError(
            f"{_naming(users[strays])} in more than one variant, '{users[strays[0]]}' in {seen}. Such a person's value "
            "belongs to neither: find out why the assignment changed, or drop these people."
        )
    value = _numbers(log, "value")
    nameless = np.unique(user_index[~np.isfinite(value)])
    if len(nameless):
        raise CatalogueError(
            f"{_naming(users[nameless])} logged with a value that is no finite number. Who did nothing has 0."
        )
    value = np.bincount(user_index, weights=value, minlength=len(users))
    if rows == "mean":
        value /= np.bincount(user_index, minlength=len(users))
    if covariate is None:
        return _People(variant, value, None)
    before = _numbers(log, covariate)
    least, most = np.full(len(users), np.nan), np.full(len(users), np.nan)
    np.fmin.at(least, user_index, before)
    np.fmax.at(most, user_index, before)
    if (least < most).any():
        raise CatalogueError(
            f"{_naming(users[least < most])} logged with more than one '{covariate}'. Expected one number a person, "
            "known before the test."
        )
    return _People(variant, value, least)


def _numbers(log: pd.DataFrame, column: str) -> np.ndarray:
    try:
        return log[column].to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise CatalogueError(f"column '{column}' of the log holds what is no number. Expected numbers.") from error


def _variance_within(variant: np.ndarray, value: np.ndarray) -> float:
    return float(np.mean(_centred(variant, value) ** 2))


def _centred(variant: np.ndarray, value: np.ndarray) -> np.ndarray:
    _, index = np.unique(variant, return_inverse=True)
    return value - (np.bincount(index, weights=value) / np.bincount(index))[index]


def _adjusted(variant: np.ndarray, value: np.ndarray, covariate: np.ndarray) -> np.ndarray:
    """value − θ (covariate − its mean), θ from within the variants, so that an effect does not leak into it."""
    if np.isinf(covariate).any() or np.isnan(covariate).all():
        raise CatalogueError("the covariate is infinite for somebody or absent for everybody. Expected numbers or NaN.")
    # Whoever had no before is neither raised nor lowered: being new was settled before the test as well.
    covariate = np.where(np.isnan(covariate), np.nanmean(covariate), covariate)
    inside = _centred(variant, covariate)
    spread = float(inside @ inside)
    slope = float(inside @ _centred(variant, value)) / spread if spread > 0 else 0.0
    return value - slope * (covariate - covariate.mean())


def _expected_people(names: list[str], shares: Mapping[str, float] | None, num_people: int) -> dict[str, float]:
    if shares is None:
        shares = dict.fromkeys(names, 1.0)
    if set(shares) != set(names) or not all(share > 0 for share in shares.values()):
        raise ConfigError(
            f"expected_shares is {dict(shares)}. Expected a share above 0 for each variant of the log: "
            f"{', '.join(map(repr, names))}."
        )
    total = sum(shares.values())
    return {name: num_people * shares[name] / total for name in names}


def _naming(user_ids: np.ndarray) -> str:
    named = ", ".join(repr(user) for user in user_ids[:_NAMED])
    if len(user_ids) == 1:
        return f"person {named} is"
    more = f" and {len(user_ids) - _NAMED} more" if len(user_ids) > _NAMED else ""
    return f"people {named}{more} are"
