import math
from itertools import combinations

import numpy as np
import pytest

from multimodal_rec.errors import ConfigError
from multimodal_rec.evaluation import list_metrics

INF = np.inf


def test_the_best_items_are_listed_best_first() -> None:
    scores = np.array([[0.1, 0.9, 0.5, 0.7], [4.0, 3.0, 2.0, 1.0]], dtype=np.float32)
    lists = list_metrics.top_lists(scores, 3)
    np.testing.assert_array_equal(lists, [[1, 3, 2], [0, 1, 2]])
    assert lists.dtype == np.int32


def test_short_lists_are_padded_and_hold_nothing_that_may_not_be_ranked() -> None:
    scores = np.array([[-INF, 1.0, -INF], [3.0, 1.0, 2.0], [-INF, -INF, -INF]])
    np.testing.assert_array_equal(list_metrics.top_lists(scores, 4), [[1, -1, -1, -1], [0, 2, 1, -1], [-1, -1, -1, -1]])
    np.testing.assert_array_equal(list_metrics.top_lists(np.zeros((2, 0)), 2), [[-1, -1], [-1, -1]])


def test_ties_stand_in_the_order_of_their_columns() -> None:
    scores = np.array([[1.0, 2.0, 1.0, 2.0, 1.0]])
    np.testing.assert_array_equal(list_metrics.top_lists(scores, 4), [[1, 3, 0, 2]])


def test_lists_equal_a_whole_sort() -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 30, (50, 80)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.8] = -INF
    for row, items in zip(scores, list_metrics.top_lists(scores, 20), strict=True):
        expected = [item for item in np.argsort(-row, kind="stable")[:20] if row[item] > -INF]
        assert items[items >= 0].tolist() == expected
        assert (items[len(expected) :] == -1).all()


def test_coverage_counts_items_in_anybodys_list() -> None:
    assert list_metrics.coverage(np.array([[0, 1], [1, 2], [1, -1]]), 6) == pytest.approx(3 / 6)
    assert list_metrics.coverage(np.array([[-1, -1]]), 6) == 0


def test_gini_by_hand() -> None:
    assert list_metrics.gini(np.array([[0, 1], [2, 3]]), 4) == pytest.approx(0)
    # One of four items has everything: (n - 1) / n.
    assert list_metrics.gini(np.array([[2], [2], [2]]), 4) == pytest.approx(3 / 4)
    # Exposures 0, 1, 3: mean absolute difference over twice the mean.
    lists = np.array([[0, 1], [0, -1], [0, -1]])
    pairs = [abs(a - b) for a in (0, 1, 3) for b in (0, 1, 3)]
    assert list_metrics.gini(lists, 3) == pytest.approx(np.mean(pairs) / (2 * np.mean([0, 1, 3])))
    assert math.isnan(list_metrics.gini(np.array([[-1]]), 3))


def test_novelty_by_hand() -> None:
    num_takers = np.array([8, 2, 1, 0])
    values = list_metrics.novelty(np.array([[0, 1], [2, -1], [3, -1], [-1, -1]]), num_takers, 8)
    # Everybody took the first: 0 bits; nobody took the last: as new as what one person took.
    assert values[:3].tolist() == pytest.approx([(0 + 2) / 2, 3, 3])
    assert math.isnan(values[3])


def test_diversity_equals_the_mean_over_pairs() -> None:
    rng = np.random.default_rng(0)
    content = rng.normal(size=(30, 8)).astype(np.float32)
    content[[3, 4]] = 0
    lists = np.stack([rng.permutation(30)[:6] for _ in range(2000)]).astype(np.int32)
    lists[0, :5] = [3, 4, 0, 1, 2]
    lists[1, 2:] = -1
    found = list_metrics.intra_list_diversity(lists, content)
    unit = content.astype(float) / np.maximum(np.linalg.norm(content, axis=1, keepdims=True), 1e-9)
    for row in (0, 1, 2, 1023, 1024, 1999):
        items = [item for item in lists[row] if item >= 0 and item not in (3, 4)]
        assert found[row] == pytest.approx(np.mean([1 - unit[a] @ unit[b] for a, b in combinations(items, 2)]))


def test_diversity_of_one_thing_over_and_over_is_zero() -> None:
    content = np.array([[1.0, 2.0], [2.0, 4.0], [-1.0, -2.0], [0.0, 0.0]])
    found = list_metrics.intra_list_diversity(np.array([[0, 1], [0, 2], [0, 3], [0, -1]]), content)
    assert found[:2].tolist() == pytest.approx([0, 2])
    assert np.isnan(found[2:]).all()


def test_a_list_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"depth is 0\. Expected at least 1"):
        list_metrics.top_lists(np.zeros((1, 2)), 0)
