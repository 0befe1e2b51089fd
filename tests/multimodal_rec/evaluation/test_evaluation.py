import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from multimodal_rec.errors import CatalogueError, ConfigError, SplitError, UnknownIdError
from multimodal_rec.evaluation import METRICS, Evaluation, evaluate_ranking

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
    assert list(result.per_user.columns) == list(METRICS)
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
    for metric in ("ndcg@10", "ndcg@20", "recall@10", "recall@20", "hit@10", "mrr"):
        assert metric in text
    assert len(text.splitlines()) == 8
    assert "0.3333  0.3333 to 0.3333" in text


def test_any_cutoff_comes_from_the_ranks() -> None:
    test = interactions(("u", "c"), ("u", "d"), ("v", "a"))
    result = evaluate_ranking(in_order, test, known=interactions(("u", "a")), item_ids=ITEMS)
    # u ranks b, c, d and took the last two; v took the first of four.
    assert result.values("recall@2").to_dict() == {"u": 1 / 2, "v": 1}
    assert result.values("map@3").to_dict() == {"u": pytest.approx(1 / 2 * (1 / 2 + 2 / 3)), "v": 1}
    assert result.values("auc").to_dict() == {"u": 0, "v": 1}
    pd.testing.assert_series_equal(result.values("mrr"), result.per_user["mrr"])
    with pytest.raises(ConfigError, match="metric 'speed' is unknown"):
        result.values("speed")


def test_an_auc_without_a_negative_is_left_out_of_the_mean() -> None:
    test = interactions(("u", "c"), ("u", "d"), ("v", "c"))
    result = evaluate_ranking(in_order, test, known=interactions(), item_ids=ITEMS, candidates=["c", "d"])
    assert math.isnan(result.per_user.loc["u", "auc"])
    assert result.means()["auc"] == 1
    assert result.intervals().loc["auc"].tolist() == [1, 1, 1]


def test_ranks_of_every_positive_are_kept() -> None:
    test = interactions(("v", "d", "tv"), ("u", "c", "tv"), ("u", "b", "phone"), ("v", "a", "tv"), context=["device"])
    known = interactions(("u", "a"), ("u", "a"))
    result = evaluate_ranking(in_order, test, known=known, item_ids=ITEMS, context_columns=["device"])
    assert result.rankings is not None
    assert result.rankings.frame().to_dict("list") == {
        "query_index": [0, 0, 1, 2],
        "user_id": ["v", "v", "u", "u"],
        "device": ["tv", "tv", "tv", "phone"],
        "item_id": ["d", "a", "c", "b"],
        "rank": [4, 1, 2, 1],
        "num_candidates": [4, 4, 3, 3],
    }


def test_lists_hold_candidates_only_and_nothing_known() -> None:
    test, known = interactions(("u", "d"), ("v", "b")), interactions(("u", "b"))
    result = evaluate_ranking(in_order, test, known=known, item_ids=ITEMS, candidates=["b", "d", "c"])
    assert result.rankings is not None
    np.testing.assert_array_equal(result.rankings.lists_at(4), [[2, 3, -1, -1], [1, 2, 3, -1]])
    assert result.rankings.num_items == 3
    with pytest.raises(ConfigError, match=r"k is 21. Expected 1 to 20"):
        result.list_metrics(21)


def test_list_metrics_by_hand() -> None:
    test, known = interactions(("u", "d"), ("v", "b")), interactions(("u", "a"), ("w", "a"), ("w", "b"), ("w", "b"))
    content = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    result = evaluate_ranking(in_order, test, known=known, item_ids=ITEMS)
    # u is shown b and c, v a and b.
    table = result.list_metrics(2, known=known, content=content)
    assert list(table.index) == ["coverage@2", "gini@2", "novelty@2", "diversity@2"]
    assert table["mean"].tolist() == pytest.approx([3 / 4, 3 / 8, 1 / 2 * (1 + 1 / 2), 1 / 2 * (1 + 0)])
    assert np.isnan(table.loc[["coverage@2", "gini@2"], ["low", "high"]]).all(axis=None)
    assert table.loc["diversity@2", ["low", "high"]].tolist() == [0, 1]
    assert list(result.list_metrics(2).index) == ["coverage@2", "gini@2"]
    with pytest.raises(ConfigError, match=r"content has shape \(3, 2\). Expected \(4, dim\)"):
        result.list_metrics(2, content=content[:3])
    with pytest.raises(UnknownIdError, match="1 items of the known interactions"):
        result.list_metrics(2, known=interactions(("u", "z")))


def test_lists_and_metrics_agree() -> None:
    rng = np.random.default_rng(0)
    items, users = [f"i{i}" for i in range(50)], [f"u{u}" for u in range(30)]
    rows = {"user_id": rng.choice(users, 300), "item_id": rng.choice(items, 300)}
    table = pd.DataFrame(rng.normal(size=(30, 50)), index=users)
    result = evaluate_ranking(
        lambda queries: table.loc[queries["user_id"]].to_numpy(),
        pd.DataFrame(rows),
        known=interactions(),
        item_ids=items,
        candidates=items[10:],
    )
    assert result.rankings is not None
    kept = result.rankings
    for query, user in enumerate(kept.queries["user_id"]):
        taken = set(kept.item_index[kept.standings.query == query])
        hits = taken & set(kept.lists_at(10)[query])
        assert result.per_user.loc[user, "precision@10"] == pytest.approx(len(hits) / 10)


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
