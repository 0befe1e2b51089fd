"""BM25 over attributes: against the formula written out, and what counts as a word."""

import math
from collections import Counter

import numpy as np
import pytest

from multimodal_rec.words import WordIndex, words_in

ITEMS = [
    {"type": "Shirts", "colour": "Navy Blue", "year": 2012.0, "price": 12.5, "tags": ["casual", "summer"]},
    {"type": "Track Pants", "colour": "Navy Blue", "year": None, "price": 8.0, "tags": []},
    {"type": "Dress", "colour": None, "year": 2011.0, "price": None, "tags": None},
]
WORDS = ["shirt navy blue 2012 casual summer", "track pant navy blue 8", "dress 2011"]


def test_scores_are_the_formula() -> None:
    documents = [Counter(text.split()) for text in WORDS]
    usual = sum(sum(each.values()) for each in documents) / 3
    expected = np.zeros((2, 3))
    for row, wish in enumerate((["navy", "shirt"], ["dress", "dress"])):
        for column, document in enumerate(documents):
            for word in wish:
                found = sum(word in each for each in documents)
                idf = math.log(1 + (3 - found + 0.5) / (found + 0.5))
                tf, length = document[word], sum(document.values())
                expected[row, column] += idf * tf * 2.2 / (tf + 1.2 * (0.25 + 0.75 * length / usual))
    scores = WordIndex(ITEMS).scores(["a NAVY shirt!", "dress, dress"])
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


def test_a_year_speaks_and_a_broken_price_does_not() -> None:
    index = WordIndex(ITEMS)
    assert np.flatnonzero(index.scores(["2012"])[0]).tolist() == [0]
    assert not index.scores(["12.5", "nothing of the kind"]).any()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Men's Shirts", ["men", "s", "shirt"]),
        ("dress class bus accessories", ["dress", "class", "bus", "accessory"]),
        ("T-Shirts 2011", ["t", "shirt", "2011"]),
        ("蓝色 衬衫", ["蓝色", "衬衫"]),
        ("", []),
    ],
)
def test_words_have_no_case_and_no_plural(text: str, words: list[str]) -> None:
    assert words_in(text) == words


def test_nothing_to_find_among() -> None:
    assert WordIndex([]).scores(["red"]).shape == (1, 0)
    assert WordIndex([{}, {}]).scores(["red"]).tolist() == [[0, 0]]
