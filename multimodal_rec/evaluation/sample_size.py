"""How many people an A/B test needs, so that an effect worth finding is found."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from multimodal_rec.errors import ConfigError


def people_for_rate(
    baseline: float,
    minimum_effect: float,
    *,
    alpha: float = 0.05,
    power: float = 0.8,
    num_comparisons: int = 1,
) -> int:
    """People a variant so that a rate of `baseline` becoming `baseline + minimum_effect` is found, two-sided.

    n = (z(1 − α/2) √(2 p̄ q̄) + z(power) √(p₁q₁ + p₂q₂))² / (p₂ − p₁)², with p̄ the mean of the two rates and q = 1 − p,
    rounded up. `baseline`: the control's rate, between 0 and 1. `minimum_effect`: the smallest difference worth
    finding, absolute and not 0 (0.01 is a point, negative is a loss). `num_comparisons`: variants beside the control;
    α is divided by it (Bonferroni, the strictest step of Holm's correction in `analyse_experiment`).

    Raises `ConfigError` where either rate or a share is not between 0 and 1. Source: Fleiss, Levin and Paik,
    "Statistical Methods for Rates and Proportions" (3rd edition, 2003), chapter 4, without continuity correction.
    """
    alpha = _checked_alpha(alpha, power, num_comparisons)
    other = baseline + minimum_effect
    if not (0 < baseline < 1 and 0 < other < 1) or minimum_effect == 0:
        raise ConfigError(
            f"a rate of {baseline} with an effect of {minimum_effect} gives {other}. Expected two different rates "
            "between 0 and 1; the effect is absolute, so 5% more than 0.10 is 0.005."
        )
    mean = (baseline + other) / 2
    under_null = stats.norm.ppf(1 - alpha / 2) * math.sqrt(2 * mean * (1 - mean))
    under_effect = stats.norm.ppf(power) * math.sqrt(baseline * (1 - baseline) + other * (1 - other))
    return math.ceil(((under_null + under_effect) / minimum_effect) ** 2)


def people_for_mean(
    standard_deviation: float,
    minimum_effect: float,
    *,
    alpha: float = 0.05,
    power: float = 0.8,
    num_comparisons: int = 1,
    correlation: float = 0.0,
) -> int:
    """People a variant so that a mean that moves by `minimum_effect` is found by a two-sided t-test.

    The smallest n whose power, P(|T| > t(1 − α/2)) with T noncentral t of 2n − 2 degrees of freedom and noncentrality
    |effect| / σ · √(n/2), reaches `power`. `standard_deviation`: σ between people, in the unit of `minimum_effect`.
    `num_comparisons` as in `people_for_rate`. `correlation`: between a person's value and the covariate from before
    the test that `analyse_experiment` will get; it leaves σ √(1 − correlation²).

    Raises `ConfigError` for a value out of range. Source: Cohen, "Statistical Power Analysis for the Behavioral
    Sciences" (2nd edition, 1988), chapter 2; the covariate's part: Deng et al. (WSDM 2013).
    """
    alpha = _checked_alpha(alpha, power, num_comparisons)
    if not standard_deviation > 0 or minimum_effect == 0 or not -1 < correlation < 1:
        raise ConfigError(
            f"standard_deviation is {standard_deviation}, minimum_effect {minimum_effect} and correlation "
            f"{correlation}. Expected a deviation above 0, an effect other than 0, a correlation between -1 and 1."
        )
    effect = abs(minimum_effect) / (standard_deviation * math.sqrt(1 - correlation**2))

    def reached(people: int) -> bool:
        freedom = 2 * people - 2
        critical, centre = stats.t.ppf(1 - alpha / 2, freedom), effect * math.sqrt(people / 2)
        # Where the noncentral t is out of SciPy's reach, the normal stands in: it is exact to many digits there.
        above = stats.nct.sf(critical, freedom, centre) if freedom < 1e5 else stats.norm.sf(critical - centre)
        below = stats.nct.cdf(-critical, freedom, centre) if freedom < 1e5 else stats.norm.cdf(-critical - centre)
        return float(above) + float(np.nan_to_num(below)) >= power

    low, high = 1, 2
    while not reached(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high


def _checked_alpha(alpha: float, power: float, num_comparisons: int) -> float:
    if not (0 < alpha < 1 and 0 < power < 1 and num_comparisons >= 1):
        raise ConfigError(
            f"alpha is {alpha}, power {power} and num_comparisons {num_comparisons}. Expected two shares between "
            "0 and 1 and at least one comparison."
        )
    return alpha / num_comparisons
