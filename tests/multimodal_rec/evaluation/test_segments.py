import numpy as np
import pandas as pd
import pytest

from multimodal_rec.errors import ConfigError, UnknownIdError
from multimodal_rec.evaluation import Evaluation, evaluate_ranking
from multimodal_rec.evaluation.segments import popularity_labels

ITEMS = [f"i{index}" for index in range(30)]
USERS = [f"u{index}" for index in range(40)]


def drawn(seed: int, num_rows: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    rows = {"user_id": rng.choice(USERS, num_rows), "item_id": rng.choice(ITEMS, num_rows)}
    return pd.DataFrame(rows | {"device": rng.choice(["phone", "tv"], num_rows)})


# Eight levels of score, so that positives of different labels tie with each other and with what nobody took.
TABLE = pd.DataFrame(np.random.default_rng(7).integers(0, 8, (40, 30)).astype(float), index=USERS)
TEST, KNOWN = drawn(1, 400), drawn(2, 100)


def score(queries: pd.DataFrame) -> np.ndarray:
    return TABLE.loc[queries["user_id"]].to_numpy()


def evaluated(test: pd.DataFrame = TEST, known: pd.DataFrame = KNOWN) -> Evaluation:
    return evaluate_ranking(score, test, known=known, item_ids=ITEMS, context_columns=["device"])


def test_by_item_equals_an_evaluation_in_which_other_positives_are_no_candidates() -> None:
    metrics = ["ndcg@10", "recall@3", "map@10", "mrr", "auc"]
    labels = {item: "even" if index % 2 == 0 else "odd" for index, item in enumerate(ITEMS)}
    whole = evaluated()
    for label in ("even", "odd"):
        # One query at a time, its other positives known beforehand.
        rows, num_positives = [], 0
        for (user, device), taken in TEST.groupby(["user_id", "device"]):
            mine = taken["item_id"].map(labels) == label
            left = set(taken[mine]["item_id"]) - set(KNOWN[KNOWN["user_id"] == user]["item_id"])
            if left:
                num_positives += len(left)
                alone = evaluated(taken[mine], pd.concat([KNOWN, taken[~mine]]))
                rows.append({"user": user, "device": device} | {name: alone.values(name).iloc[0] for name in metrics})
        expected = pd.DataFrame(rows)
        for name in metrics:
            row = whole.by_item(labels, name).loc[label]
            assert row["mean"] == pytest.approx(expected.groupby("user")[name].mean().mean()), name
            counts = {"people": expected["user"].nunique(), "queries": len(expected), "positives": num_positives}
            assert row[["people", "queries", "positives"]].to_dict() == counts


def test_one_label_for_all_changes_nothing() -> None:
    whole = evaluated()
    rows = [whole.by_item(dict.fromkeys(ITEMS, "all")), whole.by_person(dict.fromkeys(USERS, "all"))]
    for row in rows:
        expected = whole.intervals().loc["ndcg@10"].to_dict()
        assert row.loc["all", ["mean", "low", "high"]].to_dict() == pytest.approx(expected)
        assert row.loc["all", "queries"] == whole.num_queries


def test_by_person_and_by_context_are_means_of_their_own_queries() -> None:
    whole = evaluated()
    labels = {user: "old" if index < 10 else "new" for index, user in enumerate(USERS)}
    table = whole.by_person(labels, "recall@10")
    assert list(table.index) == ["old", "new"]
    for label in ("old", "new"):
        mine = whole.per_user["recall@10"][[labels[user] == label for user in whole.per_user.index]]
        assert table.loc[label, "mean"] == pytest.approx(mine.mean())
        assert table.loc[label, "low"] < table.loc[label, "mean"] < table.loc[label, "high"]
    by_device = whole.by_context("device", "mrr")
    assert by_device.index.tolist() == ["phone", "tv"]
    for device in ("phone", "tv"):
        alone = evaluated(TEST[TEST["device"] == device])
        assert by_device.loc[device, "mean"] == pytest.approx(alone.means()["mrr"])
        assert by_device.loc[device, "people"] == len(alone.per_user)


def test_an_absent_context_value_has_a_row() -> None:
    test = TEST.assign(device=[None if index % 3 == 0 else "tv" for index in range(len(TEST))])
    table = evaluated(test).by_context("device")
    assert table.index[0] == "tv"
    assert pd.isna(table.index[1])


def test_rows_come_in_the_order_of_the_labels_and_only_where_something_was_taken() -> None:
    test = pd.DataFrame({"user_id": ["u0", "u1"], "item_id": ["i0", "i1"], "device": ["tv", "tv"]})
    table = evaluated(test, KNOWN.iloc[:0]).by_item({"i2": "c", "i1": "b", "i0": "a"})
    assert list(table.index) == ["b", "a"]


def test_popularity_labels() -> None:
    # Distinct people: a 4, b 3, c 2, d 1, e 1; f nobody.
    takers = {"a": "uvwx", "b": "uvw", "c": "uv", "d": "u", "e": "v"}
    rows = [(user, item) for item, users in takers.items() for user in users] + [("u", "e2"), ("v", "e")]
    known = pd.DataFrame(rows, columns=["user_id", "item_id"])
    known = known[known["item_id"] != "e2"]
    labels = popularity_labels(known, list("abcdef"))
    assert labels == {"a": "hot", "b": "warm", "c": "warm", "d": "warm", "e": "warm", "f": "cold"}
    # Two fifths: two items. Four fifths would part d and e, which are equals: neither is hot.
    assert [popularity_labels(known, list("abcdef"), hot_share=0.4)[item] for item in "abc"] == ["hot", "hot", "warm"]
    assert [popularity_labels(known, list("abcdef"), hot_share=0.8)[item] for item in "cde"] == ["hot", "warm", "warm"]
    assert set(popularity_labels(known, list("abcdef"), hot_share=1.0).values()) == {"hot", "cold"}
    with pytest.raises(ConfigError, match=r"hot_share is 20\. Expected a share"):
        popularity_labels(known, list("abcdef"), hot_share=20)


def test_bad_input_is_named() -> None:
    whole = evaluated()
    with pytest.raises(UnknownIdError, match=r"29 of 30 items with positives have no label, such as 'i\d+'"):
        whole.by_item({"i0": "a"})
    with pytest.raises(UnknownIdError, match=r"people with positives have no label, such as 'u\d+'"):
        whole.by_person({})
    with pytest.raises(ConfigError, match=r"no context column 'hour'\. Expected one of 'device'"):
        whole.by_context("hour")
    without = evaluate_ranking(score, TEST, known=KNOWN, item_ids=ITEMS)
    with pytest.raises(ConfigError, match=r"no context column 'device'\. This evaluation had no context"):
        without.by_context("device")
    with pytest.raises(ConfigError, match="metric 'ndcg' is unknown"):
        whole.by_context("device", "ndcg")
    with pytest.raises(ConfigError, match=r"keeps only values a person\. Expected one that evaluate_ranking gave"):
        Evaluation(pd.DataFrame({"ndcg@10": {"u": 1.0}}), 1).by_item({})
