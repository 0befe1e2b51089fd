"""The exact answer in blocks, and how much of it another answer holds."""

import numpy as np
import pytest

from multimodal_rec import recall as recall_module
from multimodal_rec.recall import exact_rows, mixed_queries, neighbour_recall, recall


def test_recall_as_a_fraction_that_can_be_seen() -> None:
    assert recall(np.array([[1, 2, -1], [5, 4, 3]]), np.array([[2, 9], [3, 4]])) == 3 / 4
    assert recall(np.zeros((2, 3)), np.zeros((2, 0))) == 1.0


@pytest.mark.parametrize("block_bytes", [1, 4 * 50 * 3, 2**20])
def test_exact_rows_whatever_the_block(monkeypatch, block_bytes: int) -> None:
    monkeypatch.setattr(recall_module, "_BLOCK_BYTES", block_bytes)
    rng = np.random.default_rng(0)
    items, queries = rng.normal(size=(50, 4)).astype(np.float32), rng.normal(size=(7, 4)).astype(np.float32)
    scores = queries @ items.T
    assert np.sort(exact_rows(items, queries, 5)).tolist() == np.sort(np.argsort(-scores)[:, :5]).tolist()
    allowed = np.arange(50) % 7 == 0
    scores[:, ~allowed] = -np.inf
    expected = np.sort(np.argsort(-scores)[:, :5])
    assert np.sort(exact_rows(items, queries, 5, allowed=allowed)).tolist() == expected.tolist()
    assert exact_rows(items, queries, 99, allowed=allowed).shape == (7, 8)
    assert exact_rows(items, queries, 5, allowed=np.zeros(50, dtype=bool)).shape == (7, 0)


def test_neighbours_by_cosine_leave_the_item_itself_out() -> None:
    # 0 and 1 point one way, 2 and 3 another; lengths say nothing.
    items = np.array([[1, 0], [9, 0.1], [0, 1], [0.1, 5]], dtype=np.float32)
    assert neighbour_recall(items, items * np.array([[1], [7], [2], [3]], dtype=np.float32), 1) == 1.0
    assert neighbour_recall(items, items[[0, 2, 1, 3]], 1) == 0.0
    assert neighbour_recall(items[:1], items[:1], 10) == 1.0


def test_mixed_queries_lie_between_two_items() -> None:
    items = np.eye(6, dtype=np.float32)
    queries = mixed_queries(items, 40, seed=0)
    assert queries.dtype == np.float32
    np.testing.assert_allclose(queries.sum(axis=1), 1.0, rtol=1e-6)
    assert set((queries > 0).sum(axis=1)) == {1, 2}
    np.testing.assert_array_equal(queries, mixed_queries(items, 40, seed=0))
