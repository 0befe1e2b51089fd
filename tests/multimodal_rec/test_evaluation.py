import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from multimodal_rec.errors import CatalogueError, ConfigError, SplitError, UnknownIdError
from multimodal_rec.evaluation import METRICS, Evaluation, evaluate_ranking, paired_difference

ITEMS = ["a", "b", "c", "d"]


def interactions(*rows: Sequence[object], context: Sequence[str] = ()) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=["user_id", "item_id", *context])


def in_order(queries: pd.DataFrame) -> np.ndarray:
    """The first item best, whoever asks."""
    return np.tile([4.0, 3.0, 2.0, 1.0], (len(queries), 1))


def evaluation_of(values: dict[str, float]) -> Evaluation:
    return Evaluation(pd.DataFrame({"ndcg@10": values}), len(values))


def test_known_items_are_not_ranked() -> None:
    test = interactions(("u", "c"), ("v", "c"))
    result = evaluate_ranking(in_order, test, known=interactions(("u", "a"), ("u", "b")), item_ids=ITEMS)
    assert result.num_queries == 2
    assert list(result.per_user.columns) == ["ndcg@10", "ndcg@20", "recall@10", "recall@20", "hit@10", "mrr"]
    assert result.per_user["mrr"].to_dict() == {"u": 1.0, "v": pytest.approx(1 / 3)}
    assert result.means()["mrr"] == pytest.approx(1 / 2 * (1 + 1 / 3))
    assert result.means()["ndcg@10"] == pytest.approx(1 / 2 * (1 + 1 / math.log2(4)))
    assert result.per_user.index.name == "user_id"


def test_each_context_is_a_query_and_a_person_is_their_mean() -> None:
    def by_device(queries: pd.DataFrame) -> np.ndarray:
        phone = (queries["device"] == "phone").to_numpy()[:, None]
        return np.where(phone, [[4.0, 3.0, 2.0, 1.0]], [[1.0, 2.0, 3.0, 4.0]])

    test = interactions(
        ("u", "a", "phone"), ("u", "d", "tv"), ("u", "c", "tv"), ("v", "b", "phone"), context=["device"]
    )
    nobody = interactions()
    result = evaluate_ranking(by_device, test, known=nobody, item_ids=ITEMS, context_columns=["device"])
    assert result.num_queries == 3
    assert result.per_user.loc["u", "ndcg@10"] == pytest.approx(1 / 2 * (1 + 1))
    assert result.per_user.loc["v", "mrr"] == pytest.approx(1 / 2)
    # Without the column the person is one query, and no single order can have a and d on top.
    merged = evaluate_ranking(in_order, test, known=nobody, item_ids=ITEMS)
    assert merged.num_queries == 2
    assert merged.means()["ndcg@10"] < 1


def test_an_absent_context_value_is_a_query_of_its_own() -> None:
    test = interactions(("u", "a", None), ("u", "b", "tv"), context=["device"])
    result = evaluate_ranking(in_order, test, known=interactions(), item_ids=ITEMS, context_columns=["device"])
    assert result.num_queries == 2


def test_candidates_are_all_that_is_ranked() -> None:
    test = interactions(("u", "d"), ("u", "a"), ("v", "b"))
    result = evaluate_ranking(in_order, test, known=interactions(), item_ids=ITEMS, candidates=["d", "c"])
    assert list(result.per_user.index) == ["u"]
    assert result.means()["mrr"] == pytest.approx(1 / 2)
    assert result.left_out == {"not a candidate": 2}


def test_items_taken_again_are_counted_and_left_out() -> None:
    test = interactions(("u", "a"), ("u", "b"), ("u", "b"), ("v", "a"))
    result = evaluate_ranking(in_order, test, known=interactions(("u", "a")), item_ids=ITEMS)
    assert result.left_out == {"already known": 1}
    assert result.per_user["mrr"].to_dict() == {"u": 1.0, "v": 1.0}
    assert "test interactions left out: 1 already known" in str(result)


def test_a_batch_of_one_equals_all_at_once() -> None:
    rng = np.random.default_rng(0)
    items = [f"i{i}" for i in range(30)]
    users = [f"u{u}" for u in range(25)]
    pairs = pd.MultiIndex.from_product([users, items], names=["user_id", "item_id"]).to_frame(index=False)
    pairs = pairs.sample(frac=1, random_state=0)
    table = pd.DataFrame(rng.normal(size=(25, 30)).astype(np.float32), index=users)
    sizes: list[int] = []

    def score(queries: pd.DataFrame) -> np.ndarray:
        sizes.append(len(queries))
        return table.loc[queries["user_id"]].to_numpy()

    one = evaluate_ranking(score, pairs[:200], known=pairs[200:400], item_ids=items, batch_size=1)
    assert max(sizes) == 1
    whole = evaluate_ranking(score, pairs[:200], known=pairs[200:400], item_ids=items)
    pd.testing.assert_frame_equal(one.per_user, whole.per_user)
    # The order of the rows only decides the order of the people.
    backwards = evaluate_ranking(score, pairs[:200][::-1], known=pairs[200:400], item_ids=items)
    pd.testing.assert_frame_equal(backwards.per_user.sort_index(), whole.per_user.sort_index())
    # The slow way, with the same definition.
    for user, value in whole.per_user["recall@10"].items():
        known = set(pairs[200:400].query("user_id == @user")["item_id"])
        taken = set(pairs[:200].query("user_id == @user")["item_id"])
        order = [items[i] for i in np.argsort(-table.loc[user]) if items[i] not in known]
        assert value == pytest.approx(len(taken & set(order[:10])) / len(taken))


def test_scores_of_the_caller_are_left_alone() -> None:
    scores = np.array([[4.0, 3.0, 2.0, 1.0]])
    evaluate_ranking(lambda queries: scores, interactions(("u", "b")), known=interactions(("u", "a")), item_ids=ITEMS)
    np.testing.assert_array_equal(scores, [[4.0, 3.0, 2.0, 1.0]])


def test_whole_number_scores_can_be_masked() -> None:
    result = evaluate_ranking(
        lambda queries: np.array([[4, 3, 2, 1]]),
        interactions(("u", "b")),
        known=interactions(("u", "a")),
        item_ids=ITEMS,
    )
    assert result.means()["mrr"] == 1.0


def test_intervals_hold_the_mean_and_shrink_with_people() -> None:
    rng = np.random.default_rng(0)
    few = evaluation_of({f"u{i}": value for i, value in enumerate(rng.random(30))})
    many = evaluation_of({f"u{i}": value for i, value in enumerate(rng.random(3000))})
    narrow, wide = many.intervals().loc["ndcg@10"], few.intervals().loc["ndcg@10"]
    assert wide["low"] < wide["mean"] < wide["high"]
    assert narrow["high"] - narrow["low"] < (wide["high"] - wide["low"]) / 5
    # Of a uniform variable the standard error is sqrt(1 / 12 / n).
    assert narrow["high"] - narrow["low"] == pytest.approx(2 * 1.96 * math.sqrt(1 / 12 / 3000), rel=0.1)
    pd.testing.assert_frame_equal(few.intervals(seed=3), few.intervals(seed=3))
    assert few.intervals(0.5).loc["ndcg@10", "high"] < wide["high"]


def test_printing_shows_each_metric_with_its_interval() -> None:
    text = str(evaluate_ranking(in_order, interactions(("u", "c")), known=interactions(), item_ids=ITEMS))
    assert text.splitlines()[0] == "1 people, 1 queries"
    for metric in METRICS:
        assert metric in text
    assert "0.3333  0.3333 to 0.3333" in text


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


def test_bad_input_is_named() -> None:
    test, known = interactions(("u", "c")), interactions(("u", "a"))
    with pytest.raises(CatalogueError, match="the test interactions have no column 'hour'; they have 'user_id'"):
        evaluate_ranking(in_order, test, known=known, item_ids=ITEMS, context_columns=["hour"])
    with pytest.raises(UnknownIdError, match=r"1 items of the test interactions are not among the 4 item_ids.*'z'"):
        evaluate_ranking(in_order, interactions(("u", "z")), known=known, item_ids=ITEMS)
    with pytest.raises(UnknownIdError, match="1 items of candidates are not among"):
        evaluate_ranking(in_order, test, known=known, item_ids=ITEMS, candidates={"z"})
    with pytest.raises(SplitError, match=r"none of 1 test interactions can be ranked: \{'already known': 1\}"):
        evaluate_ranking(in_order, known, known=known, item_ids=ITEMS)
    with pytest.raises(SplitError, match="the test part is empty"):
        evaluate_ranking(in_order, interactions(), known=known, item_ids=ITEMS)
    with pytest.raises(ConfigError, match=r"scores have shape \(1, 3\). Expected \(1, 4\)"):
        evaluate_ranking(lambda queries: np.zeros((1, 3)), test, known=known, item_ids=ITEMS)
    with pytest.raises(ConfigError, match="score that is NaN"):
        evaluate_ranking(lambda queries: np.full((1, 4), np.nan), test, known=known, item_ids=ITEMS)
    with pytest.raises(ConfigError, match="batch_size is 0"):
        evaluate_ranking(in_order, test, known=known, item_ids=ITEMS, batch_size=0)
    with pytest.raises(ConfigError, match="level is 95"):
        evaluation_of({"u": 1.0}).intervals(95)
