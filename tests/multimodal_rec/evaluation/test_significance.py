import numpy as np
import pandas as pd
import pytest
from scipy import stats

from multimodal_rec.errors import ConfigError, SplitError
from multimodal_rec.evaluation import Evaluation
from multimodal_rec.evaluation.significance import (
    compare_runs,
    holm,
    intervals,
    paired_difference,
    resampled_means,
    t_test,
)


def evaluation_of(values: dict[str, float] | np.ndarray) -> Evaluation:
    if isinstance(values, np.ndarray):
        values = {f"u{user}": value for user, value in enumerate(values)}
    return Evaluation(pd.DataFrame({"ndcg@10": values}), len(values))


def test_paired_difference_sees_what_people_share() -> None:
    rng = np.random.default_rng(0)
    ease = rng.random(200)
    better = evaluation_of({f"u{i}": e + 0.01 + 0.01 * rng.normal() for i, e in enumerate(ease)})
    worse = evaluation_of({f"u{i}": e for i, e in enumerate(ease)})
    difference = paired_difference(better, worse)
    assert difference.mean == pytest.approx(0.01, abs=0.003)
    assert 0 < difference.low < difference.mean < difference.high
    assert difference.p_value < 0.001
    assert difference.num_users == 200
    # The same two, unpaired, are far within each other's interval.
    assert better.means()["ndcg@10"] < worse.intervals().loc["ndcg@10", "high"]
    reverse = paired_difference(worse, better)
    assert reverse.mean == pytest.approx(-difference.mean)
    assert paired_difference(better, better).p_value == 1.0
    assert "p = 0.000, 200 people" in str(difference)


def test_paired_p_values_are_even_where_there_is_no_difference() -> None:
    rng = np.random.default_rng(0)
    p_values = []
    for seed in range(40):
        a, b = ({f"u{i}": v for i, v in enumerate(rng.random(60))} for _ in range(2))
        p_values.append(paired_difference(evaluation_of(a), evaluation_of(b), seed=seed).p_value)
    assert 0.3 < float(np.mean(p_values)) < 0.7


def test_paired_difference_takes_the_people_of_both() -> None:
    a, b = evaluation_of({"u": 1.0, "v": 0.5}), evaluation_of({"v": 0.25, "w": 0.0})
    assert paired_difference(a, b)[:3] == (0.25, 0.25, 0.25)
    with pytest.raises(SplitError, match="nobody in common"):
        paired_difference(a, evaluation_of({"x": 1.0}))
    with pytest.raises(ConfigError, match=r"metric 'ndcg@5' is unknown. Expected one of ndcg@10"):
        paired_difference(a, b, "ndcg@5")


def test_a_person_without_a_value_is_not_compared() -> None:
    a, b = evaluation_of({"u": 1.0, "v": np.nan, "w": 0.5}), evaluation_of({"u": 0.5, "v": 0.0, "w": 0.5})
    assert paired_difference(a, b).mean == pytest.approx(1 / 4)
    assert paired_difference(a, b).num_users == 2


def test_resampled_means_are_those_of_drawn_people() -> None:
    rng = np.random.default_rng(0)
    values = rng.random((700, 3))
    # More resamples than one step holds, and the draws of the same generator, one after another.
    found = resampled_means(values, 3000, seed=5)
    same = np.random.default_rng(5)
    for row in found:
        np.testing.assert_allclose(row, values[same.integers(0, 700, 700)].mean(axis=0))


def test_values_that_are_absent_are_left_out_of_resampled_means() -> None:
    values = np.random.default_rng(0).random((200, 2))
    values[::2, 1] = np.nan
    table = intervals(pd.DataFrame(values, columns=["all", "half"]))
    assert table.loc["half", "mean"] == pytest.approx(np.nanmean(values[:, 1]))
    width = table["high"] - table["low"]
    assert width["half"] / width["all"] == pytest.approx(2**0.5, rel=0.15)
    lonely = intervals(pd.DataFrame({"one": [0.5, np.nan, np.nan], "none": [np.nan] * 3}))
    assert lonely.loc["one"].tolist() == [0.5, 0.5, 0.5]
    assert lonely.loc["none"].isna().all()


def test_holm_by_hand() -> None:
    # Sorted .01 .02 .03 .04, times 4, 3, 2, 1: .04, .06, .06, .06 (never below the one before).
    np.testing.assert_allclose(holm([0.04, 0.01, 0.03, 0.02]), [0.06, 0.04, 0.06, 0.06])
    np.testing.assert_allclose(holm([0.6, 0.9]), [1, 1])
    np.testing.assert_allclose(holm([np.nan, 0.02, 0.03]), [np.nan, 0.04, 0.04])
    assert holm([]).size == 0


def test_t_test_equals_scipys() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random(50), rng.random(50) + 0.1
    assert t_test(a - b) == pytest.approx(stats.ttest_rel(a, b).pvalue)
    assert t_test(np.zeros(3)) == 1
    assert t_test(np.full(3, 0.25)) == 0
    assert np.isnan(t_test([0.5]))


def test_runs_side_by_side() -> None:
    rng = np.random.default_rng(0)
    ease = rng.random(200)
    runs = {
        "ours": evaluation_of(ease + 0.05 + 0.1 * rng.normal(size=200)),
        "theirs": evaluation_of(ease),
        "again": evaluation_of(ease + 0.1 * rng.normal(size=200)),
    }
    table = compare_runs(runs, against="theirs")
    assert table.index.tolist() == [("ndcg@10", "ours"), ("ndcg@10", "theirs"), ("ndcg@10", "again")]
    ours = table.loc[("ndcg@10", "ours")]
    expected = paired_difference(runs["ours"], runs["theirs"])
    assert ours["mean"] == pytest.approx(runs["ours"].means()["ndcg@10"])
    assert ours[["difference", "low", "high", "p_bootstrap"]].tolist() == pytest.approx(list(expected[:4]))
    assert ours["p_t"] < 0.001
    assert ours["p_t_holm"] == pytest.approx(2 * ours["p_t"])
    assert ours["p_bootstrap_holm"] == pytest.approx(2 * ours["p_bootstrap"])
    again = table.loc[("ndcg@10", "again")]
    assert again["low"] < 0 < again["high"]
    assert again["p_t"] == pytest.approx(again["p_bootstrap"], abs=0.03)
    theirs = table.loc[("ndcg@10", "theirs")]
    assert theirs["mean"] == pytest.approx(ease.mean())
    assert theirs.drop(["mean", "num_users"]).isna().all()
    assert table["num_users"].tolist() == [200, 200, 200]


def test_holm_counts_every_metric_and_run_of_the_table() -> None:
    rng = np.random.default_rng(0)
    frames = {
        name: pd.DataFrame(rng.random((40, 2)), columns=["a", "b"], index=[f"u{user}" for user in range(40)])
        for name in ("x", "y", "z")
    }
    table = compare_runs(
        {name: Evaluation(frame, 40) for name, frame in frames.items()}, against="z", metrics=["a", "b"]
    )
    p_values = table["p_t"].dropna()
    assert len(p_values) == 4
    np.testing.assert_allclose(table["p_t_holm"].dropna(), holm(p_values))
    assert table.loc[table["p_t"].idxmin(), "p_t_holm"] == pytest.approx(min(4 * p_values.min(), 1))


def test_means_side_by_side_are_over_the_people_of_all_runs() -> None:
    runs = {"a": {"u": 1.0, "v": 0.5}, "b": {"v": 0.25, "w": 0.0}, "c": {"u": 0.0, "v": 1.0}}
    table = compare_runs({name: evaluation_of(values) for name, values in runs.items()}, against="b")
    assert table["mean"].tolist() == [0.5, 0.25, 1.0]
    assert table["num_users"].tolist() == [1, 1, 1]


def test_false_alarms_are_as_rare_as_they_are_said_to_be() -> None:
    """No run is better: one in twenty p-values is below .05, and Holm keeps any of four below it in one in twenty."""
    rng = np.random.default_rng(0)
    num_worlds, num_runs, num_users = 250, 4, 80
    single, family = np.empty((num_worlds, num_runs, 2)), np.empty((num_worlds, 2))
    for world in range(num_worlds):
        people = rng.random(num_users)  # some are easy for every run
        base = people + 0.2 * rng.normal(size=num_users)
        for run in range(num_runs):
            difference = people + 0.2 * rng.normal(size=num_users) - base
            boot = paired_difference(evaluation_of(difference), evaluation_of(0 * base), num_resamples=1000, seed=world)
            single[world, run] = boot.p_value, t_test(difference)
        family[world] = [holm(single[world, :, kind]).min() < 0.05 for kind in (0, 1)]
    alarms = (single < 0.05).mean(axis=(0, 1))
    # Of 1,000 p-values; those of one world share their base, which widens the margin.
    assert (alarms > 0.025).all()
    assert (alarms < 0.085).all()
    assert (family.mean(axis=0) < 0.09).all()
    assert ((single < 0.05).any(axis=1).mean(axis=0) > family.mean(axis=0)).all()


def test_a_difference_that_is_there_is_found() -> None:
    rng = np.random.default_rng(0)
    found = [t_test(0.1 + 0.2 * rng.normal(size=80)) < 0.05 for _ in range(200)]
    # Half a standard deviation over 80 people: power .99.
    assert np.mean(found) > 0.95


def test_bad_input_is_named() -> None:
    a = evaluation_of({"u": 1.0})
    with pytest.raises(ConfigError, match=r"against is 'c'\. Expected one of the runs: 'a', 'b'"):
        compare_runs({"a": a, "b": a}, against="c")
    with pytest.raises(ConfigError, match="metric 'speed' is unknown"):
        compare_runs({"a": a, "b": a}, against="a", metrics=["speed"])
    with pytest.raises(SplitError, match="nobody in common"):
        compare_runs({"a": a, "b": evaluation_of({"v": 1.0})}, against="a")
