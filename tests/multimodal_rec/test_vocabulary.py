"""What a training catalogue teaches about its columns."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from multimodal_rec.catalogue import Catalogue
from multimodal_rec.config import RecommenderConfig
from multimodal_rec.errors import ContextError
from multimodal_rec.schema import Schema
from multimodal_rec.vocabulary import Vocabulary, wide

SCHEMA = Schema(
    "vocabulary",
    text=("title",),
    attributes={"genre": "category"},
    context={"device": "category"},
    user_attributes={"age": "number"},
    events={"like": 1.0, "skip": -0.5, "view": 0.25},
)
LOG = pd.DataFrame(
    {
        "user_id": ["u", "u", "v", "u"],
        "item_id": ["b", "a", "a", "c"],
        "timestamp": [20, 10, 5, 30],
        "event": ["skip", "like", "view", None],
        "value": [1.0, 3.0, 5.0, None],
        "device": ["tv", "phone", "tv", None],
    }
)
CONFIG = RecommenderConfig({})


@pytest.fixture
def catalogue() -> Catalogue:
    items = pd.DataFrame({"item_id": ["a", "b", "c"], "title": ["x", "y", "z"], "genre": ["jazz", "rock", None]})
    users = pd.DataFrame({"user_id": ["u", "v"], "age": [20.0, 40.0]})
    return Catalogue.from_frames(items, LOG, users, schema=SCHEMA)


@pytest.fixture
def vocabulary(catalogue: Catalogue) -> Vocabulary:
    return Vocabulary.fit(catalogue, CONFIG)


def test_events_are_indexed_from_one_with_their_declared_weight(vocabulary: Vocabulary) -> None:
    assert vocabulary.events == ("like", "skip", "view")
    assert vocabulary.event_weights == (1.0, 1.0, -0.5, 0.25)


def test_a_log_is_encoded_in_order(vocabulary: Vocabulary, catalogue: Catalogue) -> None:
    events, weights = vocabulary.encode_events(catalogue.interactions, {"u": 0, "v": 1}, {"a": 0, "b": 1, "c": 2})
    assert events.user_index.tolist() == [1, 0, 0, 0]
    assert events.item_index.tolist() == [0, 0, 1, 2]
    assert events.seconds.tolist() == [5, 10, 20, 30]
    assert events.kind.tolist() == [3, 1, 2, 0]
    assert weights.tolist() == [0.25, 1.0, -0.5, 1.0]
    deviation = np.std([1, 3, 5])
    np.testing.assert_allclose(events.value, [2 / deviation, 0, -2 / deviation, 0], rtol=1e-6)
    assert events.context.tolist() == [[0, 1], [1, 0], [0, 1], [0, 0]]
    assert events.user_index.dtype == events.item_index.dtype == np.int64
    assert events.context.dtype == events.value.dtype == np.float32


def test_events_of_whoever_has_no_row_are_left_out(vocabulary: Vocabulary, catalogue: Catalogue) -> None:
    events, weights = vocabulary.encode_events(catalogue.interactions, {"u": 0}, {"b": 0, "c": 1})
    assert events.item_index.tolist() == [0, 1]
    assert len(weights) == len(events.context) == 2
    nothing, _ = vocabulary.encode_events(catalogue.interactions, {}, {})
    assert nothing.context.shape == (0, 2)


def test_a_log_with_the_ids_alone_is_encoded(vocabulary: Vocabulary) -> None:
    events, weights = vocabulary.encode_events(LOG[["user_id", "item_id"]], {"u": 0, "v": 1}, {"a": 0, "b": 1, "c": 2})
    assert events.item_index.tolist() == [1, 0, 0, 2]
    assert not events.kind.any()
    assert not events.value.any()
    assert not events.context.any()
    assert weights.tolist() == [1.0] * 4


def test_position_gives_the_order_where_there_is_no_time(vocabulary: Vocabulary) -> None:
    log = LOG[["user_id", "item_id"]].assign(position=[3, 2, 1, 0])
    events, _ = vocabulary.encode_events(log, {"u": 0, "v": 1}, {"a": 0, "b": 1, "c": 2})
    assert events.item_index.tolist() == [2, 0, 0, 1]


def test_attributes_say_whether_anything_is_known(vocabulary: Vocabulary, catalogue: Catalogue) -> None:
    features, known = vocabulary.item_attributes(catalogue.items)
    assert features.tolist() == [[1, 0], [0, 1], [0, 0]]
    assert known.tolist() == [True, True, False]


def test_what_the_configuration_turns_off_is_not_read(catalogue: Catalogue) -> None:
    vocabulary = Vocabulary.fit(catalogue, replace(CONFIG, attributes=False, context=False))
    features, known = vocabulary.item_attributes(catalogue.items)
    assert features.tolist() == [[0], [0], [0]]
    assert not known.any()
    assert vocabulary.contexts(None, num_rows=2).tolist() == [[0], [0]]
    with pytest.raises(ContextError, match="'device' was never declared: this model was trained without context"):
        vocabulary.contexts({"device": "tv"}, num_rows=2)


def test_an_undeclared_context_names_the_nearest(vocabulary: Vocabulary) -> None:
    with pytest.raises(ContextError, match=r"'devise' was never declared. Expected one of 'device'. Did you mean"):
        vocabulary.contexts({"devise": "tv"}, num_rows=1)


def test_it_survives_json(vocabulary: Vocabulary, catalogue: Catalogue) -> None:
    again = Vocabulary.from_dict(json.loads(json.dumps(vocabulary.to_dict())))
    assert again.to_dict() == vocabulary.to_dict()
    rows = {"u": 0, "v": 1}, {"a": 0, "b": 1, "c": 2}
    for one, other in zip(
        vocabulary.encode_events(catalogue.interactions, *rows)[0],
        again.encode_events(catalogue.interactions, *rows)[0],
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


def test_a_catalogue_of_items_alone_teaches_nothing_about_people(catalogue: Catalogue) -> None:
    bare = Vocabulary.fit(Catalogue.from_frames(catalogue.items, schema=SCHEMA), CONFIG)
    assert bare.events == ()
    assert (bare.value_mean, bare.value_std) == (0.0, 1.0)
    assert bare.people.width == 0


def test_wide_is_never_without_a_column() -> None:
    assert wide(np.zeros((3, 0), dtype=np.float32)).shape == (3, 1)
    assert wide(np.ones((3, 2), dtype=np.float32)).shape == (3, 2)
