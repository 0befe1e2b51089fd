"""What known items are expected to lose to new ones."""

from __future__ import annotations

import numpy as np
import pytest

from multimodal_rec.displacement import Displacement, first

SCORES = np.array([[3.0, 2.0, 1.0, 0.0, -np.inf]])
WORTH = 1 / np.log2(np.arange(2, 6))


def expected(sharpness: float) -> np.ndarray:
    chances = np.exp(SCORES[0, :4] * sharpness)
    return chances / chances.sum()


def test_chances_are_as_sharp_as_what_was_measured() -> None:
    chances = expected(0.7)
    found = Displacement(SCORES, ndcg=float(chances @ WORTH))
    np.testing.assert_allclose(found._chances[0, :4], chances, atol=1e-4)
    assert not found._chances[0, 4:].any()


def test_what_is_kept_is_what_stands_where_it_stood() -> None:
    chances = expected(1.0)
    found = Displacement(SCORES, ndcg=float(chances @ WORTH))
    assert found.kept(np.array([[-1.0, -np.inf]])) == pytest.approx(1.0)
    # One new item between the first and the second.
    worth = 1 / np.log2([2, 4, 5, 6])
    assert found.kept(np.array([[2.5]])) == pytest.approx(chances @ worth / (chances @ WORTH), abs=1e-4)
    # Ten new items before all others leave nothing.
    assert found.kept(np.full((1, 10), 4.0)) == 0


def test_who_has_been_through_everything_has_nothing_to_lose() -> None:
    scores = np.concatenate([SCORES, np.full_like(SCORES, -np.inf)])
    found = Displacement(scores, ndcg=0.3)
    assert np.isfinite(found._chances).all()
    assert found.kept(np.array([[-1.0], [9.0]])) == pytest.approx(1.0)


def test_the_first_ten() -> None:
    random = np.random.default_rng(0).standard_normal((3, 40))
    np.testing.assert_array_equal(first(random), -np.sort(-random, axis=1)[:, :10])
    np.testing.assert_array_equal(first(random[:, :1])[:, 1:], np.full((3, 9), -np.inf))
