"""Exact Shapley values by hand, and against all orders."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from multimodal_rec.shapley import shapley_values, subsets


def test_subsets_begin_with_nobody_and_end_with_everybody() -> None:
    np.testing.assert_array_equal(subsets(2), [[False, False], [False, True], [True, False], [True, True]])
    assert subsets(0).shape == (1, 0)


def test_by_hand() -> None:
    # Nobody 0, second alone 1, first alone 3, both 8: the first adds 3 or 7, the second 1 or 5.
    np.testing.assert_allclose(shapley_values(np.array([0.0, 1.0, 3.0, 8.0])), [5, 3])


def test_the_mean_over_all_orders() -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=(16, 3))
    place = {tuple(row): number for number, row in enumerate(subsets(4).tolist())}
    added = np.zeros((4, 3))
    for order in permutations(range(4)):
        there = [False] * 4
        for player in order:
            before = values[place[tuple(there)]]
            there[player] = True
            added[player] += values[place[tuple(there)]] - before
    np.testing.assert_allclose(shapley_values(values), added / 24)
    np.testing.assert_allclose(shapley_values(values).sum(axis=0), values[-1] - values[0])


def test_what_players_add_whoever_else_is_there_is_theirs() -> None:
    """A planted utility is such a sum: its own parts are named, whatever they are."""
    added = np.array([2.0, -1.0, 0.0, 0.5, 3.0])
    np.testing.assert_allclose(shapley_values(7 + subsets(5) @ added), added, atol=1e-12)


def test_nobody_plays() -> None:
    assert shapley_values(np.ones((1, 4))).shape == (0, 4)


def test_a_subset_is_missing() -> None:
    with pytest.raises(ValueError, match=r"values has 3 rows. Expected a power of 2"):
        shapley_values(np.ones(3))
