"""Graphs: edges seen from both ends, embeddings carried along them, neighbours in content."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse

from multimodal_rec.collaborative import graph
from multimodal_rec.collaborative.graph import Edges, carry, nearest, predictors, who_took_what


def _random_edges() -> tuple[np.ndarray, Edges]:
    random = np.random.default_rng(0)
    dense = (random.normal(size=(5, 7)) * (random.random((5, 7)) < 0.5)).astype(np.float32)
    return dense, Edges.of(sparse.csr_array(dense))


class TestEdges:
    def test_they_are_the_matrix_and_its_transpose(self) -> None:
        dense, edges = _random_edges()
        np.testing.assert_array_equal(edges.forward.toarray(), dense)
        np.testing.assert_array_equal(edges.backward.toarray(), dense.T)
        np.testing.assert_array_equal(edges.reversed().forward.toarray(), dense.T)
        assert Edges.of(sparse.csr_array(np.eye(2))).forward.dtype == np.float32

    def test_who_took_what_is_divided_by_the_roots_of_both_degrees(self) -> None:
        took = sparse.csr_array(np.array([[1, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]], dtype=np.float32))
        edges = who_took_what(took)
        expected = [[3**-0.5, 3**-0.5, 6**-0.5, 0], [0, 0, 2**-0.5, 0], [0, 0, 0, 0]]
        np.testing.assert_allclose(edges.forward.toarray(), expected, rtol=1e-6)
        np.testing.assert_allclose(edges.backward.toarray(), np.transpose(expected), rtol=1e-6)


class TestCarry:
    def test_it_is_the_product_and_has_its_gradient(self) -> None:
        dense, edges = _random_edges()
        x, wanted = torch.randn(7, 3, requires_grad=True), torch.randn(5, 3)
        torch.testing.assert_close(carry(edges, x), torch.from_numpy(dense) @ x)
        (carry(edges, x) * wanted).sum().backward()
        torch.testing.assert_close(x.grad, torch.from_numpy(dense).T @ wanted)
        torch.testing.assert_close(carry(edges.reversed(), wanted), torch.from_numpy(dense).T @ wanted)

    def test_half_precision_comes_back_whole_and_learns(self) -> None:
        dense, edges = _random_edges()
        x = torch.randn(7, 3).bfloat16().requires_grad_()
        carried = carry(edges, x)
        assert carried.dtype == torch.float32
        carried.sum().backward()
        assert x.grad is not None
        torch.testing.assert_close(x.grad, torch.from_numpy(dense).T.sum(dim=1, keepdim=True).expand(7, 3).bfloat16())


class TestNearest:
    def test_neighbours_are_candidates_that_point_the_same_way(self) -> None:
        angles = np.array([0.0, 0.1, 0.25, 1.5, 1.6])
        rows = np.column_stack([np.cos(angles), np.sin(angles)])
        near = nearest(rows, np.array([True, False, True, True, True]), 1).toarray()
        assert near.argmax(axis=1).tolist() == [2, 0, 0, 4, 3]
        assert (near.sum(axis=1) == 1).all()

    def test_weights_are_shared_among_as_many_as_there_are(self) -> None:
        rows = np.ones((4, 1))
        near = nearest(rows, np.array([True, True, True, False]), 10).toarray()
        expected = [[0, 1 / 2, 1 / 2, 0], [1 / 2, 0, 1 / 2, 0], [1 / 2, 1 / 2, 0, 0], [1 / 3, 1 / 3, 1 / 3, 0]]
        np.testing.assert_allclose(near, expected)

    def test_items_without_content_neither_have_nor_are_neighbours(self) -> None:
        rows = np.array([[1.0, 0], [0, 0], [0, 1.0], [0, 0]])
        near = nearest(rows, np.array([True, True, True, True]), 3).toarray()
        np.testing.assert_array_equal(near, [[0, 0, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]])

    @pytest.mark.parametrize(("candidates", "k"), [(np.zeros(3, dtype=bool), 2), (np.ones(3, dtype=bool), 0)])
    def test_nobody_to_choose_from_gives_no_edges(self, candidates: np.ndarray, k: int) -> None:
        near = nearest(np.eye(3), candidates, k)
        assert near.nnz == 0
        assert near.shape == (3, 3)

    def test_in_parts_it_is_the_same(self, monkeypatch: pytest.MonkeyPatch) -> None:
        rows = np.random.default_rng(0).normal(size=(11, 3))
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        rows[[2, 7]] = 0
        candidates = np.arange(11) % 4 != 0
        whole = nearest(rows, candidates, 3).toarray()
        monkeypatch.setattr(graph, "_ITEMS_AT_ONCE", 4)
        np.testing.assert_array_equal(nearest(rows, candidates, 3).toarray(), whole)


class TestPredictors:
    def test_what_is_taken_together_foretells_each_other(self) -> None:
        # 0 and 1 go together, so do 2 and 3; nobody took 4, which looks like 2.
        took = sparse.csr_array(np.array([[1, 1, 0, 0, 0], [0, 0, 1, 1, 0]] * 200, dtype=np.float32))
        looks = np.array([[1.0, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 0]])
        found = predictors(took, looks, 1).toarray()
        expected = np.zeros((5, 5))
        expected[[0, 1, 2, 3, 4], [1, 0, 3, 2, 2]] = 1
        np.testing.assert_allclose(found, expected)

    def test_weights_are_those_of_ease_above_none(self) -> None:
        random = np.random.default_rng(0)
        took = (random.random((2000, 6)) < 0.3).astype(np.float32)
        took[:, 1] = took[:, 0] * (random.random(2000) < 0.8)
        took[:, 2] = np.maximum(took[:, 0] * (random.random(2000) < 0.5), took[:, 2])
        inverse = np.linalg.inv(took.T @ took + 300 * np.eye(6))
        ease = np.maximum(-inverse / np.diag(inverse), 0)
        np.fill_diagonal(ease, 0)
        expected = ease[:, 0] / ease[:, 0].sum()
        found = predictors(sparse.csr_array(took), np.zeros((6, 1)), 6).toarray()
        np.testing.assert_allclose(found[0], expected, rtol=1e-4)
        assert (found >= 0).all()

    def test_nothing_to_choose_from_gives_no_edges(self) -> None:
        took = sparse.csr_array(np.zeros((3, 4), dtype=np.float32))
        assert predictors(took, np.eye(4), 2).nnz == 0
        assert predictors(sparse.csr_array(np.ones((3, 4))), np.eye(4), 0).shape == (4, 4)
