import math

import numpy as np
import pytest

from multimodal_rec.errors import ConfigError
from multimodal_rec.evaluation.judgements import auc, evaluate_judgements, log_loss, rmse


def test_auc_by_hand() -> None:
    # Pairs of a positive and a negative: .9 wins both, .4 loses to .5 and ties with .4.
    assert auc([0.9, 0.4, 0.5, 0.4], [1, 1, 0, 0]) == pytest.approx((2 + 0 + 1 / 2) / 4)
    assert auc([1.0, 1.0, 1.0], [True, False, False]) == pytest.approx(1 / 2)
    assert math.isnan(auc([1.0, 2.0], [1, 1]))


def test_log_loss_by_hand() -> None:
    assert log_loss([0.5, 0.5], [1, 0]) == pytest.approx(math.log(2))
    assert log_loss([0.9, 0.2], [1, 0]) == pytest.approx(-(math.log(0.9) + math.log(0.8)) / 2)
    assert log_loss([1.0, 0.0], [1, 0]) == pytest.approx(0, abs=1e-12)
    # A certainty that was wrong costs much, and not infinitely much.
    assert log_loss([1.0], [0]) == pytest.approx(-math.log(np.finfo(float).eps))
    assert math.isnan(log_loss([], []))


def test_rmse_by_hand() -> None:
    assert rmse([1.0, 4.0], [2, 1]) == pytest.approx(math.sqrt((1 + 9) / 2))
    assert math.isnan(rmse([], []))


def test_a_person_is_judged_on_that_persons_pairs() -> None:
    # u likes what scores high, w the reverse, and v likes everything.
    users = ["u", "w", "u", "w", "v"]
    result = evaluate_judgements([0.9, 0.8, 0.1, 0.2, 0.5], [1, 0, 0, 1, 1], users)
    assert result.per_user["auc"].fillna(-1).to_dict() == {"u": 1, "w": 0, "v": -1}
    assert result.per_user.loc["v", "log_loss"] == pytest.approx(math.log(2))
    assert result.means()["auc"] == pytest.approx(1 / 2)
    assert result.overall["auc"] == pytest.approx(auc([0.9, 0.8, 0.1, 0.2, 0.5], [1, 0, 0, 1, 1]))
    assert result.num_pairs == 5
    table = result.intervals()
    assert list(table.index) == ["auc", "log_loss"]
    assert table.loc["auc", "low"] == 0
    assert table.loc["auc", "high"] == 1


def test_popular_people_do_not_fake_an_auc() -> None:
    # Who likes everything scores high: over all pairs that looks like skill, within a person there is none.
    scores, labels = np.repeat([2.0, 1.0], 10), np.repeat([1, 0], 10)
    labels[[0, 19]] = [0, 1]
    result = evaluate_judgements(scores, labels, np.repeat(["u", "v"], 10), metrics=["auc"])
    assert result.overall["auc"] == pytest.approx(0.9)
    assert result.per_user["auc"].tolist() == [0.5, 0.5]


def test_printing_says_over_whom() -> None:
    lines = str(evaluate_judgements([0.9, 0.1, 0.5], [1, 0, 1], ["u", "u", "v"])).splitlines()
    assert lines[0] == "2 people, 3 judgements"
    assert lines[1] == "auc       1.0000  1.0000 to 1.0000  over 1 people; all pairs at once 1.0000"


def test_ratings_have_an_error_in_their_unit() -> None:
    result = evaluate_judgements([3.0, 4.0, 5.0], [4, 4, 1], ["u", "u", "v"], metrics=["rmse"])
    assert result.per_user["rmse"].to_dict() == {"u": pytest.approx(math.sqrt(1 / 2)), "v": 4.0}


def test_bad_input_is_named() -> None:
    with pytest.raises(ConfigError, match="labels hold something other than 0 and 1"):
        auc([1.0, 2.0], [1, 5])
    with pytest.raises(ConfigError, match="1 of 2 scores are NaN"):
        auc([1.0, np.nan], [1, 0])
    with pytest.raises(ConfigError, match="Expected two of"):
        auc([1.0], [1, 0])
    with pytest.raises(ConfigError, match=r"scores reach from 0\.5 to 3\. Expected probabilities.*leave log_loss out"):
        evaluate_judgements([0.5, 3.0], [1, 0], ["u", "u"])
    with pytest.raises(ConfigError, match="1 of 1 values are NaN"):
        rmse([1.0], [np.nan])
    with pytest.raises(ConfigError, match=r"metrics are logloss\. Expected some of auc, log_loss, rmse"):
        evaluate_judgements([0.5], [1], ["u"], metrics=["logloss"])
    with pytest.raises(ConfigError, match="metrics are none"):
        evaluate_judgements([0.5], [1], ["u"], metrics=[])
    with pytest.raises(ConfigError, match="2 user_ids go with 1 scores"):
        evaluate_judgements([0.5], [1], ["u", "v"])
    with pytest.raises(ConfigError, match="0 user_ids go with 0 scores"):
        evaluate_judgements([], [], [])
