"""Keys are found where they were put, in little memory."""

from __future__ import annotations

import numpy as np

from multimodal_rec.key_index import KeyIndex


def test_keys_are_found_where_they_were_put() -> None:
    index = KeyIndex()
    assert index.find(["a"]).tolist() == [-1]
    random = np.random.default_rng(0)
    places: dict[str, int] = {}
    for place in range(60):
        keys = [f"key-{number}" for number in random.integers(0, 3000, random.integers(0, 50))]
        index.add(keys, place)
        places.update(dict.fromkeys(keys, place))
    asked = [f"key-{number}" for number in range(3000)]
    assert index.find(asked).tolist() == [places.get(key, -1) for key in asked]
    assert index.find([]).tolist() == []


def test_a_place_that_is_forgotten_is_found_no_more() -> None:
    index = KeyIndex()
    index.add(["a", "b"], 0)
    index.add(["c", "\ud83d"], 1)
    index.forget(1)
    assert index.find(["a", "c", "\ud83d"]).tolist() == [0, -1, -1]
    assert len(index) == 2


def test_a_million_keys_take_twelve_bytes_each() -> None:
    index = KeyIndex()
    for start in range(0, 200_000, 5000):
        index.add([f"item-{row}" for row in range(start, start + 5000)])
    assert sum(run.keys.nbytes + run.places.nbytes for run in index._runs) == 12 * 200_000
    assert len(index._runs) <= 10
    assert (index.find([f"item-{row}" for row in range(0, 200_000, 7)]) == 0).all()
