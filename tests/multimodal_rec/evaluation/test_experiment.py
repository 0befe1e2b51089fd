import numpy as np
import pandas as pd
import pytest
from scipy import stats

from multimodal_rec.errors import CatalogueError, ConfigError
from multimodal_rec.evaluation.experiment import Experiment, analyse_experiment


def logged(**values: list[float]) -> pd.DataFrame:
    """A row a person; the keyword is the variant."""
    rows = [(f"{name}{i}", name, value) for name, listed in values.items() for i, value in enumerate(listed)]
    return pd.DataFrame(rows, columns=["user_id", "variant", "value"])


def drawn(effect: float, people: int = 400, *, seed: int = 0, correlation: float = 0.0) -> pd.DataFrame:
    """Variants old and new, drawn from normals of variance 1, with what was measured before the test."""
    rng = np.random.default_rng(seed)
    before = rng.normal(5, 1, 2 * people)
    value = correlation * (before - 5) + np.sqrt(1 - correlation**2) * rng.normal(size=2 * people)
    is_new = np.arange(2 * people) % 2 == 1
    return pd.DataFrame(
        {
            "user_id": [f"u{i}" for i in range(2 * people)],
            "variant": np.where(is_new, "new", "old"),
            "value": 10 + value + effect * is_new,
            "before": before,
        }
    )


def cell(experiment: Experiment, variant: str, column: str) -> float:
    return float(experiment.table[column].to_dict()[variant])


class TestComparison:
    def test_known_answer(self) -> None:
        experiment = analyse_experiment(logged(old=[1, 2, 3, 4], new=[4, 5, 6, 9]), "old")
        # Means 2.5 and 6, variances 5/3 and 14/3, so the error is √(5/12 + 14/12) and freedom 6³ ... by SciPy below.
        assert list(experiment.table.index) == ["old", "new"]
        assert cell(experiment, "new", "mean") == 6
        assert cell(experiment, "new", "difference") == 3.5
        assert cell(experiment, "new", "lift") == pytest.approx(3.5 / 2.5)
        welch = stats.ttest_ind([4, 5, 6, 9], [1, 2, 3, 4], equal_var=False)
        interval = welch.confidence_interval()
        assert cell(experiment, "new", "p_value") == pytest.approx(welch.pvalue, rel=1e-12)
        assert cell(experiment, "new", "low") == pytest.approx(interval.low, rel=1e-12)
        assert cell(experiment, "new", "high") == pytest.approx(interval.high, rel=1e-12)
        assert experiment.table.loc["old", ["difference", "low", "high", "lift", "p_value"]].isna().all()

    def test_several_rows_are_one_person(self) -> None:
        once = logged(old=[1, 2, 3, 6], new=[4, 5, 6, 9])
        several = pd.concat([once.assign(value=once["value"] - 1), once.assign(value=1.0)])
        summed = analyse_experiment(several, "old", rows="sum")
        pd.testing.assert_frame_equal(summed.table, analyse_experiment(once, "old").table)
        averaged = analyse_experiment(several, "old", rows="mean")
        pd.testing.assert_frame_equal(
            averaged.table, analyse_experiment(once.assign(value=once["value"] / 2), "old").table
        )

    def test_p_values_over_several_variants_are_holms(self) -> None:
        rng = np.random.default_rng(3)
        groups = {
            name: list(rng.normal(mean, 1, 40)) for name, mean in {"c": 0.0, "x": 0.6, "y": 0.5, "z": 0.1}.items()
        }
        table = analyse_experiment(logged(**groups), "c").table
        p_value, adjusted = table["p_value"].drop("c").sort_values(), table["adjusted_p_value"]
        first, second, third = p_value
        expected = [min(3 * first, 1), max(3 * first, 2 * second), max(3 * first, 2 * second, third)]
        np.testing.assert_allclose(adjusted[p_value.index], expected)
        assert np.isnan(adjusted["c"])

    def test_without_an_effect_one_in_twenty_is_found(self) -> None:
        found = [cell(analyse_experiment(drawn(0.0, 30, seed=s), "old"), "new", "p_value") < 0.05 for s in range(100)]
        assert 0.0 < np.mean(found) < 0.12

    def test_the_intervals_hold_the_truth_nineteen_times_in_twenty(self) -> None:
        experiments = [analyse_experiment(drawn(1.0, 60, seed=s), "old") for s in range(100)]
        for low, high, truth in (("low", "high", 1.0), ("lift_low", "lift_high", 0.1)):
            inside = [cell(e, "new", low) <= truth <= cell(e, "new", high) for e in experiments]
            assert 0.9 <= np.mean(inside) < 1.0

    def test_a_mean_that_is_not_above_0_has_no_lift(self) -> None:
        experiment = analyse_experiment(logged(old=[-1, 0, 1], new=[1, 2, 4]), "old")
        assert np.isnan(cell(experiment, "new", "lift"))
        assert "of old's mean" not in str(experiment)

    def test_people_who_are_all_alike_are_not_told_apart(self) -> None:
        experiment = analyse_experiment(logged(old=[1, 1, 1], new=[2, 2, 2]), "old")
        assert np.isnan(cell(experiment, "new", "p_value"))
        assert "new cannot be told from old: nobody differs within either" in str(experiment)


class TestCovariate:
    def test_what_was_known_before_narrows_the_interval(self) -> None:
        log = drawn(0.1, 2000, correlation=0.9)
        plain, adjusted = analyse_experiment(log, "old"), analyse_experiment(log, "old", covariate="before")
        assert plain.variance_explained is None
        assert adjusted.variance_explained == pytest.approx(0.81, abs=0.02)
        width = [cell(e, "new", "high") - cell(e, "new", "low") for e in (plain, adjusted)]
        assert width[1] == pytest.approx(np.sqrt(1 - 0.81) * width[0], rel=0.05)
        assert cell(adjusted, "new", "low") < 0.1 < cell(adjusted, "new", "high")
        assert "explains 81% of the variance" in adjusted.sentences()[1]

    def test_it_equals_a_regression_within_the_variants(self) -> None:
        log = drawn(0.5, 200, correlation=0.7)
        is_new = (log["variant"] == "new").to_numpy(dtype=float)
        design = np.column_stack([np.ones(len(log)), is_new, log["before"]])
        effect = np.linalg.lstsq(design, log["value"].to_numpy(), rcond=None)[0][1]
        assert cell(analyse_experiment(log, "old", covariate="before"), "new", "difference") == pytest.approx(effect)

    def test_false_alarms_stay_one_in_twenty(self) -> None:
        logs = [drawn(0.0, 50, seed=s, correlation=0.9) for s in range(100)]
        found = [cell(analyse_experiment(log, "old", covariate="before"), "new", "p_value") < 0.05 for log in logs]
        assert 0.0 < np.mean(found) < 0.12

    def test_who_had_no_before_is_left_as_is(self) -> None:
        log = drawn(0.0, 50, correlation=0.9)
        log.loc[:9, "before"] = np.nan
        experiment = analyse_experiment(log, "old", covariate="before")
        assert cell(experiment, "new", "people") == 50
        filled = log.assign(before=log["before"].fillna(log["before"].mean()))
        pd.testing.assert_frame_equal(experiment.table, analyse_experiment(filled, "old", covariate="before").table)

    def test_a_person_with_two_is_named(self) -> None:
        log = pd.concat([drawn(0.0, 5), drawn(0.0, 5).iloc[[3]].assign(before=-1.0)])
        with pytest.raises(CatalogueError, match="person 'u3' is logged with more than one 'before'"):
            analyse_experiment(log, "old", covariate="before")

    def test_one_that_nobody_has_is_refused(self) -> None:
        with pytest.raises(CatalogueError, match="absent for everybody"):
            analyse_experiment(drawn(0.0, 5).assign(before=np.nan), "old", covariate="before")


class TestSpreadOfPeople:
    def test_an_uneven_spread_is_named(self) -> None:
        experiment = analyse_experiment(logged(old=list(range(1000)), new=list(range(800))), "old")
        assert experiment.has_mismatch
        # (1000 − 900)² / 900, twice.
        assert experiment.mismatch_p_value == pytest.approx(stats.chi2.sf(200 / 9, 1))
        assert experiment.sentences()[0].startswith("Sample ratio mismatch (p = 2e-06): people are old 1,000, new 800")
        assert "planned old 900, new 900" in experiment.sentences()[0]

    def test_the_same_spread_may_have_been_planned(self) -> None:
        log = logged(old=list(range(1000)), new=list(range(800)))
        experiment = analyse_experiment(log, "old", expected_shares={"old": 0.55, "new": 0.45})
        assert not experiment.has_mismatch
        assert experiment.sentences()[0] == "People are spread as planned: old 1,000, new 800 (p = 0.64)."

    def test_shares_must_be_of_the_variants(self) -> None:
        with pytest.raises(ConfigError, match="Expected a share above 0 for each variant of the log: 'a', 'b'"):
            analyse_experiment(logged(a=[1, 2], b=[1, 3]), "a", expected_shares={"a": 1.0})


class TestWords:
    def test_a_gain_is_said(self) -> None:
        words = analyse_experiment(drawn(1.0), "old").sentences()[-1]
        assert words.startswith("new is above old: +0.95")
        assert "% of old's mean; p = " in words
        assert "Holm" not in words

    def test_a_loss_and_nothing_are_said(self) -> None:
        assert "new is below old: -" in str(analyse_experiment(drawn(-1.0), "old"))
        log = pd.concat(
            [drawn(0.0), drawn(1.0).iloc[1::2].assign(variant="best", user_id=[f"b{i}" for i in range(400)])]
        )
        _, best, new = analyse_experiment(log, "old").sentences()
        assert best.startswith("best is above old")
        assert new.startswith("new is not shown to differ from old")
        assert "Holm over the variants" in new


class TestRefusals:
    def test_a_person_in_two_variants_is_named(self) -> None:
        log = logged(old=[1, 2, 3], new=[1, 2, 3])
        moved = pd.concat([log, log.iloc[[1]].assign(variant="new")])
        with pytest.raises(CatalogueError, match="person 'old1' is in more than one variant, 'old1' in new, old"):
            analyse_experiment(moved, "old")
        many = pd.concat([drawn(0.0, 10), drawn(0.0, 10).assign(variant="old")])
        with pytest.raises(CatalogueError, match="people 'u1', 'u3', 'u5', 'u7', 'u9' and 5 more are in more than one"):
            analyse_experiment(many, "old")

    def test_values_must_be_numbers(self) -> None:
        log = logged(old=[1, 2, np.nan], new=[1, 2, 3])
        with pytest.raises(CatalogueError, match=r"person 'old2' is logged with a value that is no finite number"):
            analyse_experiment(log, "old")
        with pytest.raises(CatalogueError, match="column 'value' of the log holds what is no number"):
            analyse_experiment(log.assign(value="many"), "old")

    def test_columns_must_be_there(self) -> None:
        with pytest.raises(CatalogueError, match="the log has no column 'variant'; it has 'user_id', 'value'"):
            analyse_experiment(logged(old=[1, 2]).drop(columns="variant"), "old")
        with pytest.raises(CatalogueError, match="no column 'before'"):
            analyse_experiment(logged(old=[1, 2], new=[1, 2]), "old", covariate="before")
        with pytest.raises(CatalogueError, match="rows without a user_id or a variant"):
            analyse_experiment(logged(old=[1, 2], new=[1, 2]).assign(variant=["old", "old", "new", None]), "old")

    def test_the_control_must_be_one_of_several_variants(self) -> None:
        with pytest.raises(ConfigError, match="control is 'none' and the log has the variants 'new', 'old'"):
            analyse_experiment(logged(old=[1, 2], new=[1, 2]), "none")
        with pytest.raises(ConfigError, match="Expected the control among at least two"):
            analyse_experiment(logged(old=[1, 2]), "old")
        with pytest.raises(ConfigError, match="variant 'new' has one person"):
            analyse_experiment(logged(old=[1, 2], new=[1]), "old")

    def test_rows_must_be_mean_or_sum(self) -> None:
        with pytest.raises(ConfigError, match=r"rows is 'last'\. Expected 'mean' or 'sum'"):
            analyse_experiment(logged(old=[1, 2], new=[1, 2]), "old", rows="last")  # pyright: ignore[reportArgumentType]
