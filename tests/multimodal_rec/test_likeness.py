"""The nearest thing taken that speaks for an item, and the words that both carry."""

from __future__ import annotations

import torch

from multimodal_rec.likeness import nearest, shared_words, word_shares, words_of

TAKEN = torch.tensor([[1.0, 0.0], [0.8, 0.6], [-1.0, 0.0]])


def test_the_nearest_is_named() -> None:
    assert nearest(torch.tensor([1.0, 0.1]), TAKEN, torch.ones(3)) == 0


def test_what_speaks_against_the_item_is_not_named() -> None:
    assert nearest(torch.tensor([1.0, 0.1]), TAKEN, torch.tensor([-1.0, 1.0, 1.0])) == 1


def test_the_opposite_is_not_like_it() -> None:
    assert nearest(torch.tensor([1.0, 0.1]), TAKEN, torch.tensor([-1.0, -1.0, 1.0])) is None
    assert nearest(torch.tensor([1.0, 0.1]), TAKEN[:0], torch.ones(0)) is None


def test_the_words_that_the_history_has_most_beyond_the_catalogue() -> None:
    catalogue = [{"genre": "jazz", "label": "x"}, {"genre": "rock", "label": "x"}, {"genre": "folk", "label": "x"}]
    taken = [{"genre": "jazz", "label": "x"}, {"genre": "jazz", "label": "x"}, {"genre": "rock", "label": "x"}]
    shares = word_shares(catalogue)
    # Everything is of label x, and rock was taken no oftener than there is rock.
    assert shared_words({"genre": "jazz", "label": "x"}, taken, shares) == {"genre": "jazz"}
    assert shared_words({"genre": "rock", "label": "x"}, taken, shares) == {}


def test_words_are_no_numbers() -> None:
    assert words_of({"tags": ["a", "b", "a"], "year": 1999, "none": None, "genre": "jazz"}) == [
        ("tags", "a"),
        ("tags", "b"),
        ("genre", "jazz"),
    ]
