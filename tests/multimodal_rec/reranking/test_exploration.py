"""What is known of each item's score, and lists that try what is not."""

from __future__ import annotations

import numpy as np
import pytest

from multimodal_rec.errors import ConfigError
from multimodal_rec.reranking import Explore
from multimodal_rec.reranking.uncertainty import content_uncertainty
from tests.multimodal_rec.reranking.shelves import listed, shown


def posterior_by_inversion(x: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The same model with a one-hot column an item beside the embedding, inverted as a whole."""
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    features = np.concatenate([x, np.eye(len(x))], axis=1)
    precision = np.eye(features.shape[1]) + (features * counts[:, None]).T @ features
    return np.sqrt(np.einsum("if,fg,ig->i", features, np.linalg.inv(precision), features))


def test_the_closed_form_is_the_whole_posterior() -> None:
    random = np.random.default_rng(0)
    x, counts = random.normal(size=(30, 5)), random.integers(0, 6, size=30)
    np.testing.assert_allclose(content_uncertainty(x, counts), posterior_by_inversion(x, counts), rtol=1e-9)


def test_what_others_taught_and_what_they_did_not() -> None:
    x = np.array([[1.0, 0.0]] * 3 + [[0.0, 1.0]])
    much, some, like, unlike = content_uncertainty(x, np.array([400, 5, 0, 0]))
    assert much < some < like < unlike
    assert much == pytest.approx(0.05, abs=0.01)
    assert unlike == pytest.approx(np.sqrt(2))
    # Nothing was taken at all: the prior, 1 of content and 1 of its own.
    np.testing.assert_allclose(content_uncertainty(x, np.zeros(4)), np.sqrt(2))


def test_optimism_lifts_the_unknown() -> None:
    candidates = listed([5, 4, 3, 2], counts=[50, 50, 50, 0])
    assert shown(Explore(0.0, "ucb").apply(candidates, 4), 4) == "abcd"
    assert shown(Explore(1.0, "ucb").apply(candidates, 4), 4) == "abdc"
    assert shown(Explore(5.0, "ucb").apply(candidates, 4), 4) == "dabc"


def test_draws_are_the_seed_s_and_the_person_s() -> None:
    scores = [0.1 * place for place in range(20)]
    first = Explore(2.0, seed=1).apply(listed(scores, counts=[0] * 20, person="u1"), 5).ids
    assert Explore(2.0, seed=1).apply(listed(scores, counts=[0] * 20, person="u1"), 5).ids == first
    assert Explore(2.0, seed=2).apply(listed(scores, counts=[0] * 20, person="u1"), 5).ids != first
    assert Explore(2.0, seed=1).apply(listed(scores, counts=[0] * 20, person="u2"), 5).ids != first
    assert sorted(first) == sorted(listed(scores).ids)


def test_thompson_draws_in_proportion_to_what_is_unknown() -> None:
    """Of two items two standard deviations apart, the worse one, unknown, is first as often as its normal says."""
    wins = 0
    for seed in range(2000):
        candidates = listed([2.0, 0.0], counts=[10**6, 0], embeddings=[[1.0, 0.0], [1.0, 0.0]])
        wins += shown(Explore(1.0, seed=seed).apply(candidates, 1), 1) == "b"
    # Relevances are 1 and -1. What a's events say of their one embedding is told from a's own say no better than by
    # half: the variance of b is 1 + 1/2, and P(N(0, 1) > 2 / √1.5) = .0512.
    assert wins / 2000 == pytest.approx(0.0512, abs=0.015)


def test_the_least_known_may_enter_the_pool() -> None:
    shelf = listed([1.0] * 20, counts=[*range(1, 20), 0]).shelf
    np.testing.assert_array_equal(np.flatnonzero(Explore().wanted(shelf)), [19])


def test_settings_out_of_range() -> None:
    with pytest.raises(ConfigError, match=r"Explore.strength is -1. Expected 0 or more"):
        Explore(-1)
    with pytest.raises(ConfigError, match="Expected 'thompson' or 'ucb'"):
        Explore(rule="greedy")  # type: ignore[arg-type]
