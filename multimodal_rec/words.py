"""Which items have the words of a wish among their attributes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import final

import numpy as np

from multimodal_rec.fields import category_key, tag_keys

_WORD = re.compile(r"\w+")


@final
class WordIndex:
    """BM25 over the words of items' attributes: how often a word of the wish stands there, and how rare it is.

    Categories, tags and whole numbers speak (a year does, a price of 12.5 does not). `k1` bounds what repetition adds,
    `b` says how far long descriptions are discounted; the defaults are the usual ones. Source: Robertson & Zaragoza
    2009, "The probabilistic relevance framework", with the idf that is never below 0.
    """

    def __init__(self, attributes: Sequence[Mapping[str, object]], *, k1: float = 1.2, b: float = 0.75) -> None:
        counts = [Counter(word for value in row.values() for word in _words_of(value)) for row in attributes]
        self._columns: dict[str, int] = {}
        entries = [
            (row, self._columns.setdefault(word, len(self._columns)), times)
            for row, words in enumerate(counts)
            for word, times in words.items()
        ]
        rows, columns, times = np.array(entries, dtype=np.int64).reshape(-1, 3).T
        num_items, num_words = len(counts), len(self._columns)
        length = np.bincount(rows, weights=times, minlength=num_items)
        found_in = np.bincount(columns, minlength=num_words)
        idf = np.log1p((num_items - found_in + 0.5) / (found_in + 0.5))
        usual = max(float(length.mean()), 1.0) if num_items else 1.0
        weights = times * (k1 + 1) / (times + k1 * (1 - b + b * length[rows] / usual)) * idf[columns]
        # By word, so that a wish reads only the items that have one of its words.
        order = np.lexsort((rows, columns))
        self._num_items = num_items
        self._rows, self._weights = rows[order], weights[order].astype(np.float32)
        self._starts = np.searchsorted(columns[order], np.arange(num_words + 1))

    def scores(self, wishes: Sequence[str]) -> np.ndarray:
        """Float32 (wish, item), at least 0; 0 where no word of the wish is there."""
        scores = np.zeros((len(wishes), self._num_items), dtype=np.float32)
        for place, wish in enumerate(wishes):
            for word, times in Counter(words_in(wish)).items():
                column = self._columns.get(word)
                if column is not None:
                    found = slice(self._starts[column], self._starts[column + 1])
                    scores[place, self._rows[found]] += times * self._weights[found]
        return scores


def words_in(text: str) -> list[str]:
    """The words of a text in their order, without regard to case, a plural s taken off: 'Shirts' is 'shirt'."""
    return [_singular(word) for word in _WORD.findall(text.casefold())]


def _singular(word: str) -> str:
    # The weakest of stemmers, Harman's (1991): it errs on few words and joins most of what people write two ways.
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us")):
        return word
    return word[:-3] + "y" if word.endswith("ies") and not word.endswith(("eies", "aies")) else word[:-1]


def _words_of(value: object) -> list[str]:
    if isinstance(value, float) and not value.is_integer():
        return []
    keys = tag_keys(value) if isinstance(value, (list, tuple)) else [category_key(value)]
    return [word for key in keys if key is not None for word in words_in(key)]
