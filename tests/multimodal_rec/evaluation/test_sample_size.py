import numpy as np
import pytest
from scipy import stats

from multimodal_rec.errors import ConfigError
from multimodal_rec.evaluation.sample_size import people_for_mean, people_for_rate


class TestRates:
    @pytest.mark.parametrize(
        ("baseline", "effect", "power", "people"),
        [
            (0.50, 0.25, 0.90, 77),  # R's own example of power.prop.test: 76.65
            (0.60, 0.10, 0.80, 356),
            (0.20, 0.05, 0.80, 1094),
            (0.25, -0.05, 0.80, 1094),
        ],
    )
    def test_known_values(self, baseline: float, effect: float, power: float, people: int) -> None:
        assert people_for_rate(baseline, effect, power=power) == people

    def test_so_many_people_find_the_effect_as_often_as_asked(self) -> None:
        people = people_for_rate(0.10, 0.03, power=0.8)
        rng = np.random.default_rng(0)
        a, b = rng.binomial(people, 0.10, 20_000) / people, rng.binomial(people, 0.13, 20_000) / people
        pooled = (a + b) / 2
        z = (b - a) / np.sqrt(2 * pooled * (1 - pooled) / people)
        assert np.mean(np.abs(z) > 1.959964) == pytest.approx(0.8, abs=0.015)

    def test_more_variants_need_more_people(self) -> None:
        assert people_for_rate(0.1, 0.02, num_comparisons=3) == people_for_rate(0.1, 0.02, alpha=0.05 / 3)
        assert people_for_rate(0.1, 0.02, num_comparisons=3) > people_for_rate(0.1, 0.02)

    @pytest.mark.parametrize(("baseline", "effect"), [(0.1, 0.0), (0.98, 0.05), (0.0, 0.1), (0.05, -0.05)])
    def test_rates_that_are_none_are_refused(self, baseline: float, effect: float) -> None:
        with pytest.raises(ConfigError, match="Expected two different rates between 0 and 1; the effect is absolute"):
            people_for_rate(baseline, effect)

    def test_shares_out_of_range_are_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"power 1\.0 and num_comparisons 1\. Expected two shares"):
            people_for_rate(0.1, 0.1, power=1.0)
        with pytest.raises(ConfigError, match="at least one comparison"):
            people_for_mean(1.0, 0.1, num_comparisons=0)


class TestMeans:
    @pytest.mark.parametrize(
        ("effect", "power", "people"),
        # Cohen's small, medium and large effect; R's own example of power.t.test, 22.02.
        [(0.2, 0.8, 394), (0.5, 0.8, 64), (0.8, 0.8, 26), (1.0, 0.9, 23), (-0.5, 0.8, 64)],
    )
    def test_known_values(self, effect: float, power: float, people: int) -> None:
        assert people_for_mean(1.0, effect, power=power) == people

    def test_so_many_people_find_the_effect_as_often_as_asked(self) -> None:
        people = people_for_mean(3.0, 2.0, power=0.9)
        rng = np.random.default_rng(0)
        a, b = rng.normal(10, 3, (5_000, people)), rng.normal(12, 3, (5_000, people))
        assert np.mean(stats.ttest_ind(a, b, axis=1).pvalue < 0.05) == pytest.approx(0.9, abs=0.015)

    def test_large_tests_agree_with_the_normal_formula(self) -> None:
        z = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
        assert people_for_mean(1.0, 0.002) == pytest.approx(2 * (z / 0.002) ** 2, rel=1e-4)
        # On both sides of the line between the two formulas nothing jumps.
        sizes = [people_for_mean(1.0, effect) for effect in np.linspace(0.0126, 0.0124, 21)]
        assert (np.diff(sizes) > 0).all()
        assert np.diff(sizes).max() < 2 * np.diff(sizes).min()

    def test_what_a_covariate_explains_is_not_paid_for(self) -> None:
        assert people_for_mean(1.0, 0.1, correlation=0.8) == people_for_mean(0.6, 0.1)

    def test_values_out_of_range_are_refused(self) -> None:
        with pytest.raises(ConfigError, match="standard_deviation is 0, minimum_effect 1"):
            people_for_mean(0, 1)
        with pytest.raises(ConfigError, match="a correlation between -1 and 1"):
            people_for_mean(1, 1, correlation=1.0)
