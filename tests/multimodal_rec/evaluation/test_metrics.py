import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimodal_rec.errors import ConfigError
from multimodal_rec.evaluation import metrics

INF = np.inf


def discount(rank: int) -> float:
    return 1 / math.log2(rank + 1)


def test_ranks_are_one_based_ascending_and_padded() -> None:
    scores = np.array([[0.1, 0.9, 0.5, 0.7], [4.0, 3.0, 2.0, 1.0]])
    ranks = metrics.ranks_of_positives(scores, [[0, 1, 3], [2]])
    np.testing.assert_array_equal(ranks, [[1, 2, 4], [3, INF, INF]])


def test_masked_items_take_no_place() -> None:
    ranks = metrics.ranks_of_positives(np.array([[-INF, -INF, 0.2, 0.1]]), [[3]])
    np.testing.assert_array_equal(ranks, [[2]])


@pytest.mark.parametrize(
    ("num_items", "positives", "expected"),
    [
        (5, [4], [3]),  # the middle of five
        (4, [0], [3]),  # 5 / 2, rounded up
        (10, [0, 9], [4, 8]),  # 11 / 3 and 22 / 3, rounded up
        (3, [0, 1, 2], [1, 2, 3]),  # nothing but positives
    ],
)
def test_ties_take_the_expected_places_of_a_random_order(
    num_items: int, positives: list[int], expected: list[int]
) -> None:
    ranks = metrics.ranks_of_positives(np.zeros((1, num_items)), [positives])
    np.testing.assert_array_equal(ranks, [expected])


def test_ties_below_better_items_and_in_two_groups() -> None:
    scores = np.array([[9.0, 5.0, 5.0, 5.0, 1.0, 1.0]])
    # Positives 1 and 2 of three at 5.0: ceil(4/3) = 2 and ceil(8/3) = 3 below one better item; 4 of two at 1.0.
    np.testing.assert_array_equal(metrics.ranks_of_positives(scores, [[4, 2, 1]]), [[3, 4, 6]])


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12), st.data())
def test_ranks_are_distinct_places_and_ignore_the_order_of_items(values: list[int], data: st.DataObject) -> None:
    num_items = len(values)
    positives = data.draw(st.lists(st.integers(0, num_items - 1), min_size=1, unique=True))
    order = data.draw(st.permutations(range(num_items)))
    scores = np.array([values], dtype=np.float32)
    ranks = metrics.ranks_of_positives(scores, [positives])
    assert len(set(ranks[0])) == len(positives)
    assert ranks.min() >= 1
    assert ranks.max() <= num_items
    shuffled = metrics.ranks_of_positives(scores[:, order], [[order.index(p) for p in positives]])
    np.testing.assert_array_equal(shuffled, ranks)


def test_ranks_equal_the_slow_loop_over_more_positives_than_one_step_holds() -> None:
    rng = np.random.default_rng(0)
    scores = rng.permuted(np.tile(np.arange(50.0), (40, 1)), axis=1)
    positives = [rng.permutation(50)[: rng.integers(0, 20)] for _ in range(40)]
    assert sum(map(len, positives)) > 256
    ranks = metrics.ranks_of_positives(scores, positives)
    for row, items in enumerate(positives):
        expected = sorted(1 + sum(scores[row] > scores[row, item]) for item in items)
        assert list(ranks[row][np.isfinite(ranks[row])]) == expected


def test_ndcg_by_hand() -> None:
    ranks = np.array([[1, 3, INF], [2, 5, 11], [1, 2, 3]])
    expected = [
        (discount(1) + discount(3)) / (discount(1) + discount(2)),
        (discount(2) + discount(5)) / (discount(1) + discount(2) + discount(3)),
        1.0,
    ]
    np.testing.assert_allclose(metrics.ndcg(ranks, 10), expected)


def test_ideal_of_ndcg_holds_at_most_k() -> None:
    assert metrics.ndcg(np.array([[1.0, 2.0, 3.0, 4.0]]), 2) == pytest.approx(1.0)


def test_recall_precision_hits_and_reciprocal_rank_by_hand() -> None:
    ranks = np.array([[1, 3, 12], [11, INF, INF], [2, INF, INF]])
    np.testing.assert_allclose(metrics.recall(ranks, 10), [2 / 3, 0, 1])
    np.testing.assert_allclose(metrics.precision(ranks, 10), [2 / 10, 0, 1 / 10])
    np.testing.assert_allclose(metrics.hit_rate(ranks, 10), [1, 0, 1])
    np.testing.assert_allclose(metrics.reciprocal_rank(ranks), [1, 1 / 11, 1 / 2])
    assert metrics.reciprocal_rank(np.array([[1.0], [2.0], [6.0]])).mean() == pytest.approx(1 / 3 * (1 + 1 / 2 + 1 / 6))


def test_f1_average_precision_and_cut_reciprocal_rank_by_hand() -> None:
    ranks = np.array([[1, 3, 12], [11, INF, INF], [2, INF, INF]])
    # Two of three in ten: precision 1/5, recall 2/3.
    np.testing.assert_allclose(metrics.f1(ranks, 10), [2 * (1 / 5) * (2 / 3) / (1 / 5 + 2 / 3), 0, 2 / 11])
    np.testing.assert_allclose(metrics.average_precision(ranks, 10), [1 / 3 * (1 + 2 / 3), 0, 1 / 2])
    np.testing.assert_allclose(metrics.average_precision(ranks, 2), [1 / 2 * 1, 0, 1 / 2])
    np.testing.assert_allclose(metrics.average_precision(np.array([[1.0, 2.0, 3.0]]), 2), [1])
    np.testing.assert_allclose(metrics.reciprocal_rank(ranks, 10), [1, 0, 1 / 2])
    np.testing.assert_allclose(metrics.reciprocal_rank(ranks, 1), [1, 0, 0])


def test_auc_of_a_query_by_hand() -> None:
    # Positives .9 and .4 among negatives .5, .4 and .1: three won of the first, one and a half of the second.
    scores = np.array([[0.9, 0.4, 0.5, 0.4, 0.1, -INF], [1.0] * 6])
    standing = metrics.standings(scores, [[0, 1], [4]])
    assert metrics.auc_of_standings(standing, [5, 6]).tolist() == pytest.approx([(3 + 1.5) / 6, 1 / 2])


def test_auc_of_a_query_needs_a_negative() -> None:
    standing = metrics.standings(np.array([[1.0, 2.0, -INF], [1.0, 2.0, 3.0]]), [[0, 1], []], num_candidates=[2, 3])
    assert np.isnan(metrics.auc_of_standings(standing, [2, 3])).all()


def test_a_positive_without_a_score_stands_last_among_candidates_only() -> None:
    scores = np.array([[2.0, 1.0, -INF, -INF, -INF]])
    # All five could be ranked: the middle of the last three. Only three could: it is the third.
    np.testing.assert_array_equal(metrics.ranks_of_positives(scores, [[4]]), [[4]])
    np.testing.assert_array_equal(metrics.ranks_of_positives(scores, [[4]], num_candidates=[3]), [[3]])


def test_long_rows_are_counted_as_short_ones_are() -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 3000, (3, 12_000)).astype(np.float32)
    few, many = rng.permutation(12_000)[:5], rng.permutation(12_000)[:60]
    found = metrics.standings(scores, [few, many, []])
    for row, items in ((0, few), (1, many)):
        of_row = found.query == row
        np.testing.assert_array_equal(found.above[of_row], [(scores[row] > scores[row, i]).sum() for i in items])
        np.testing.assert_array_equal(found.tied[of_row], [(scores[row] == scores[row, i]).sum() for i in items])


def test_metrics_by_name() -> None:
    ranks = np.array([[1.0, 3.0, 12.0]])
    assert metrics.metric_named("recall@3")(ranks) == pytest.approx(2 / 3)
    assert metrics.metric_named("mrr@2")(ranks) == metrics.metric_named("mrr")(ranks) == 1
    for name in ("ndcg", "ndcg@0", "ndcg@x", "speed@10", "auc"):
        with pytest.raises(ConfigError, match=f"metric '{name}' is unknown. Expected mrr, auc, or one of ndcg, recall"):
            metrics.metric_named(name)


def test_a_query_without_positives_has_no_value() -> None:
    ranks = metrics.ranks_of_positives(np.zeros((2, 3)), [[], [1]])
    for values in (
        metrics.ndcg(ranks, 2),
        metrics.recall(ranks, 2),
        metrics.precision(ranks, 2),
        metrics.hit_rate(ranks, 2),
        metrics.f1(ranks, 2),
        metrics.average_precision(ranks, 2),
        metrics.reciprocal_rank(ranks),
        metrics.reciprocal_rank(ranks, 1),
    ):
        assert np.isnan(values[0])
        assert np.isfinite(values[1])
    assert np.isnan(metrics.ndcg(metrics.ranks_of_positives(np.zeros((1, 3)), [[]]), 2)).all()


def test_bad_input_is_named() -> None:
    with pytest.raises(ConfigError, match="1 queries have a score that is NaN"):
        metrics.ranks_of_positives(np.array([[np.nan, 1.0]]), [[0]])
    with pytest.raises(ConfigError, match=r"scores of shape \(1, 2\) do not go with positives of 2 queries"):
        metrics.ranks_of_positives(np.zeros((1, 2)), [[0], [1]])
    with pytest.raises(ConfigError, match="positives name item 5; the scores have items 0 to 1"):
        metrics.ranks_of_positives(np.zeros((1, 2)), [[5]])
    with pytest.raises(ConfigError, match=r"k is 0\. Expected at least 1"):
        metrics.ndcg(np.array([[1.0]]), 0)
