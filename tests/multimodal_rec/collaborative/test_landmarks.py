"""Likeness to landmarks: the kernel that it stands for, items that point nowhere, what pairs of features tell."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from multimodal_rec.collaborative import landmarks
from multimodal_rec.collaborative.content_map import ContentMap
from multimodal_rec.collaborative.landmarks import Landmarks
from multimodal_rec.collaborative.score import ContentBlock


def block(features: np.ndarray) -> ContentBlock:
    return ContentBlock(features.astype(np.float32), (features != 0).any(axis=1))


def kernel(features: np.ndarray, known: np.ndarray) -> np.ndarray:
    """((1 + cos) / 2)² between all items, as seen from the mean of the known ones that have the block."""
    present = (features != 0).any(axis=1)
    directions = features - features[known & present].mean(axis=0)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return (0.5 + 0.5 * directions @ directions.T) ** 2


def test_inner_products_are_the_kernel() -> None:
    random = np.random.default_rng(0)
    features = random.standard_normal((60, 8)) + 3
    features[7] = 0
    known = np.arange(60) < 40
    marks = Landmarks.of(block(features), known)
    assert len(marks.points) == 39  # not the one that lacks the block, nor those that the log does not know
    found = marks(torch.from_numpy(features).float()).numpy()
    taught, wanted = known & (features != 0).any(axis=1), kernel(features, known)
    # Between a landmark and anything else, new items included, nothing is lost.
    np.testing.assert_allclose(found @ found[taught].T, wanted[:, taught], atol=1e-4)


def test_many_items_are_likened_to_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landmarks, "NUM_LANDMARKS", 30)
    features = np.random.default_rng(0).standard_normal((200, 2))
    known = np.ones(200, dtype=bool)
    marks, again = (Landmarks.of(block(features), known, seed=1) for _ in range(2))
    assert marks.points.shape == (30, 2)
    assert torch.equal(marks.points, again.points)
    found = marks(torch.from_numpy(features).float()).numpy()
    # Two dimensions have no more than nine pairs to tell: thirty landmarks hold them all.
    assert found.shape[1] <= 9
    np.testing.assert_allclose(found @ found.T, kernel(features, known), atol=1e-3)


def test_an_item_like_the_mean_points_nowhere() -> None:
    features = np.random.default_rng(0).standard_normal((20, 3)) + 1000
    marks = Landmarks.of(block(features), np.ones(20, dtype=bool))
    middle = torch.from_numpy(features.mean(axis=0, keepdims=True)).float()
    near = marks(middle + torch.tensor([[1e-4, 0, 0]]))
    torch.testing.assert_close(near, marks(middle), atol=0.2, rtol=0)
    constant = Landmarks.of(block(np.ones((5, 2))), np.ones(5, dtype=bool))
    assert torch.isfinite(constant(torch.ones(1, 2))).all()
    assert Landmarks.of(block(np.zeros((5, 2))), np.ones(5, dtype=bool))(torch.ones(3, 2)).shape == (3, 0)


def test_what_only_pairs_of_features_tell_is_learned() -> None:
    random = np.random.default_rng(0)
    features = random.choice([-1.0, 1.0], size=(300, 4)) + 0.1 * random.standard_normal((300, 4))
    vectors = features[:, [0]] * features[:, [1]]
    known = np.arange(300) < 200
    plain = {"text": block(features)}
    like = {"text": block(Landmarks.of(plain["text"], known)(torch.from_numpy(plain["text"].features)).numpy())}
    errors: list[float] = []
    for content in (plain, like):
        learned = ContentMap.fit(content, vectors, known)
        found = learned.offset + learned.block("text", torch.from_numpy(content["text"].features))
        errors.append(float(((found.numpy() - vectors)[~known] ** 2).mean()))
    assert errors[0] > 0.9
    assert errors[1] < 0.1
