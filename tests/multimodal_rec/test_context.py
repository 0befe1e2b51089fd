"""Contexts as callers give them, and the mistakes they make."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from multimodal_rec.context import ContextReader
from multimodal_rec.errors import ContextError
from multimodal_rec.fields import FieldEncoder


@pytest.fixture
def reader() -> ContextReader:
    seen = pd.DataFrame({"hour": [0, 12], "device": ["tv", "phone"]})
    return ContextReader(FieldEncoder.fit(seen, {"hour": "cyclic:24", "device": "category"}))


def test_one_dict_is_for_everybody_and_equals_one_a_row(reader: ContextReader) -> None:
    one = reader.read({"hour": 6, "device": "tv"}, num_rows=3)
    assert one.shape == (3, reader.width)
    assert one.dtype == np.float32
    np.testing.assert_allclose(one[0], [1, 0, 0, -1, 0, 1], atol=1e-6)
    np.testing.assert_array_equal(reader.read([{"hour": 6, "device": "tv"}] * 3, num_rows=3), one)
    rows = pd.DataFrame({"user_id": ["a", "b", "c"], "hour": [6] * 3, "device": ["tv"] * 3}, index=[7, 8, 9])
    np.testing.assert_array_equal(reader.read(rows, num_rows=3), one)


def test_rows_may_say_different_things_or_nothing(reader: ContextReader) -> None:
    features = reader.read([{"hour": 6}, None, {"device": "phone"}], num_rows=3)
    np.testing.assert_allclose(features, [[1, 0, 0, -1, 0, 0], [0] * 6, [0, 0, 0, 0, 1, 0]], atol=1e-6)


def test_nothing_said_and_unseen_categories_are_neutral(reader: ContextReader) -> None:
    for context in (None, {}, {"device": "fridge"}, {"hour": None}):
        assert not reader.read(context, num_rows=2).any()
    assert reader.read(None, num_rows=0).shape == (0, reader.width)


def test_an_undeclared_column_names_the_nearest(reader: ContextReader) -> None:
    message = r"context column 'devise' was never declared\. Expected one of 'hour', 'device'\. Did you mean 'device'\?"
    with pytest.raises(ContextError, match=message):
        reader.read({"devise": "tv"}, num_rows=1)
    with pytest.raises(ContextError, match=message):
        reader.read(pd.DataFrame({"devise": ["tv"]}), num_rows=1)


@pytest.mark.parametrize(
    ("context", "message"),
    [
        ({"hour": "late"}, r"context 'hour' is 'late' in row 0\. Expected a number of at least 0 and below 24"),
        ([{"hour": 3}, {"hour": 24}], r"context 'hour' is 24 in row 1\. Expected a number of at least 0 and below 24"),
        ({"device": ["tv"]}, r"context 'device' is \['tv'\] in row 0\. Expected one word or number"),
        ([{"hour": 3}], r"context has 1 rows\. Expected 2"),
        (["tv", "tv"], r"context of row 0 is a str\. Expected a dict"),
        ("tv", r"context is a str\. Expected a dict for all rows"),
    ],
)
def test_a_wrong_value_says_what_was_expected(reader: ContextReader, context: object, message: str) -> None:
    with pytest.raises(ContextError, match=message):
        reader.read(context, num_rows=2)  # pyright: ignore[reportArgumentType]


def test_a_model_without_context_reads_none_and_says_so() -> None:
    reader = ContextReader(None)
    assert reader.read(None, num_rows=2).shape == (2, 0)
    assert (reader.width, reader.columns) == (0, ())
    with pytest.raises(ContextError, match=r"trained without context\. Declare it under \[context\]"):
        reader.read({"hour": 3}, num_rows=2)


def test_plain_values_and_frames_are_read_alike(reader: ContextReader) -> None:
    told = [{"hour": 23.5, "device": "phone"}, None, {"device": "never seen"}, {"hour": 0}]
    frame = pd.DataFrame([{} if entry is None else entry for entry in told], columns=["hour", "device"], dtype=object)
    np.testing.assert_allclose(reader.read(told, num_rows=4), reader.read(frame, num_rows=4), atol=1e-7)
