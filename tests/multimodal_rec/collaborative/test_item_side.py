"""What items start from: ids of those that were taken, maps of the content that is there."""

from __future__ import annotations

import numpy as np
import torch

from multimodal_rec.collaborative.item_side import ItemSide, block_directions
from multimodal_rec.collaborative.score import ContentBlock

BLOCK = ContentBlock(
    np.array([[3.0, 1.0], [1.0, 1.0], [np.nan, np.inf], [2.0, 7.0]], dtype=np.float32),
    np.array([True, True, False, True]),
)


def test_directions_are_centred_over_what_is_there_and_of_length_one() -> None:
    found = block_directions(BLOCK)
    # The mean of the three that are there is (2, 3).
    expected = np.array([[1, -2], [-1, -2], [0, 0], [0, 4]]) / np.array([[5**0.5], [5**0.5], [1], [4]])
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_what_is_all_alike_points_nowhere() -> None:
    block = ContentBlock(np.full((5, 3), 0.1, dtype=np.float32), np.ones(5, dtype=bool))
    assert not block_directions(block).any()
    nobody = ContentBlock(np.ones((2, 3), dtype=np.float32), np.zeros(2, dtype=bool))
    assert not block_directions(nobody).any()


def test_an_item_is_its_id_and_its_content() -> None:
    taken = np.array([True, True, True, False])
    side = ItemSide({"a": BLOCK, "b": BLOCK}, taken, 3, scale=0.1)
    rows = torch.from_numpy(block_directions(BLOCK))
    first, second = side.maps
    expected = side.item * torch.tensor([[1.0], [1], [1], [0]]) + rows @ first + rows @ second
    torch.testing.assert_close(side(), expected)


def test_an_untaken_item_has_no_id_and_teaches_none() -> None:
    side = ItemSide({}, np.array([True, False]), 3, scale=0.1)
    found = side()
    assert not found[1].any()
    found.sum().backward()
    assert side.item.grad is not None
    assert side.item.grad.any(dim=1).tolist() == [True, False]
