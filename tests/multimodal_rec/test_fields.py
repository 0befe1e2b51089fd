"""Fields: known features, neutral missing values, and what is refused."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal_rec.errors import CatalogueError, ConfigError
from multimodal_rec.fields import FieldEncoder, category_key, parse_field_type, tag_keys

SPEC = {"genre": "category", "tags": "tags", "price": "number", "hour": "cyclic:24"}


def frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "genre": ["jazz", "rock", None],
            "tags": ["slow|piano", ["slow"], None],
            "price": [1.0, 3.0, None],
            "hour": [6, 0, None],
        }
    )


def test_known_answers() -> None:
    encoder = FieldEncoder.fit(frame(), SPEC)
    assert encoder.names == (
        *("genre=jazz", "genre=rock", "tags=piano", "tags=slow", "price"),
        *("hour:sin1", "hour:cos1", "hour:sin2", "hour:cos2"),
    )
    half = 1 / math.sqrt(2)
    expected = [
        [1, 0, half, half, -1, 1, 0, 0, -1],  # 6 o'clock is a quarter of the day, and half of half a day
        [0, 1, 0, 1, 1, 0, 1, 0, 1],
        [0, 0, 0, 0, 0, 0, 0, 0, 0],
    ]
    features = encoder.transform(frame())
    assert features.dtype == np.float32
    assert features.shape == (3, encoder.width)
    np.testing.assert_allclose(features, expected, atol=1e-6)


def test_unseen_missing_and_absent_are_all_neutral() -> None:
    encoder = FieldEncoder.fit(frame(), SPEC)
    unseen = pd.DataFrame({"genre": ["polka"], "tags": ["loud"], "price": [np.nan], "hour": [None]})
    assert not encoder.transform(unseen).any()
    assert not encoder.transform(pd.DataFrame(index=range(2))).any()
    assert encoder.transform(pd.DataFrame(index=range(2))).shape == (2, encoder.width)


def test_an_unseen_tag_does_not_thin_the_known_ones() -> None:
    encoder = FieldEncoder.fit(frame(), {"tags": "tags"})
    np.testing.assert_allclose(encoder.transform(pd.DataFrame({"tags": ["slow|loud"]})), [[0, 1]])


def test_max_categories_keeps_the_most_frequent_and_breaks_ties_by_alphabet() -> None:
    values = pd.DataFrame({"c": ["z", "z", "b", "a", "c"]})
    assert FieldEncoder.fit(values, {"c": "category"}, max_categories=2).names == ("c=a", "c=z")


def test_numbers_are_cut_and_constants_are_zero() -> None:
    encoder = FieldEncoder.fit(pd.DataFrame({"p": [0.0, 2.0], "q": [7.0, 7.0]}), {"p": "number", "q": "number"})
    np.testing.assert_allclose(encoder.transform(pd.DataFrame({"p": [1e9, -1e9], "q": [7, 8]})), [[5, 0], [-5, 1]])


def test_midnight_is_next_to_eleven_at_night() -> None:
    encoder = FieldEncoder.fit(frame(), {"hour": "cyclic:24"})
    late, midnight, noon = encoder.transform(pd.DataFrame({"hour": [23.99, 0, 12]}))
    assert np.linalg.norm(late - midnight) < 0.02
    assert np.linalg.norm(noon - midnight) == pytest.approx(2)


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("price", "dear", "Expected a finite number"),
        ("price", math.inf, "Expected a finite number"),
        ("hour", 24, "Expected a number of at least 0 and below 24"),
        ("hour", -1, "Expected a number of at least 0 and below 24"),
        ("genre", ["jazz", "rock"], "Expected one word or number a row"),
        ("tags", {"slow": 1}, "Expected a list of words"),
    ],
)
def test_a_value_of_the_wrong_type_is_named(column: str, value: object, expected: str) -> None:
    encoder = FieldEncoder.fit(frame(), SPEC)
    bad = pd.DataFrame({column: pd.Series([None, value], dtype=object)})
    with pytest.raises(CatalogueError, match=expected) as caught:
        encoder.transform(bad)
    assert [(problem.row, problem.column) for problem in caught.value.problems] == [(1, column)]
    with pytest.raises(CatalogueError, match=expected):
        FieldEncoder.fit(bad, SPEC)


@pytest.mark.parametrize(
    ("field_type", "expected"),
    [
        ("categry", "Did you mean 'category'"),
        ("number:3", "Expected 'category', 'tags', 'number' or 'cyclic:PERIOD'"),
        ("cyclic", "Expected a period above 0"),
        ("cyclic:0", "Expected a period above 0"),
        ("cyclic:day", "Expected a period above 0"),
    ],
)
def test_an_unknown_type_is_refused(field_type: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        parse_field_type("hour", field_type)


def test_a_category_read_as_a_float_is_the_same_category() -> None:
    encoder = FieldEncoder.fit(pd.DataFrame({"mood": [1, 2]}), {"mood": "category"})
    np.testing.assert_array_equal(
        encoder.transform(pd.DataFrame({"mood": [2.0, np.nan]})), encoder.transform(pd.DataFrame({"mood": ["2", None]}))
    )


def test_keys() -> None:
    assert [category_key(v) for v in (3, 3.0, "3", 2.5, True, None, math.nan, "", pd.NA)] == (
        ["3", "3", "3", "2.5", "True", None, None, None, None]
    )
    assert tag_keys("a| b |a||") == ("a", "b")
    assert tag_keys(["a|b", None, 3.0]) == ("a|b", "3")
    assert tag_keys(None) == ()


def test_json_round_trip_gives_equal_features() -> None:
    encoder = FieldEncoder.fit(frame(), SPEC)
    again = FieldEncoder.from_dict(json.loads(json.dumps(encoder.to_dict())))
    assert again == encoder
    np.testing.assert_array_equal(again.transform(frame()), encoder.transform(frame()))


def test_no_columns_give_no_features() -> None:
    assert FieldEncoder.fit(frame(), {}).transform(frame()).shape == (3, 0)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False)), min_size=1, max_size=20))
def test_numbers_are_always_finite_and_rows_independent(values: list[float | None]) -> None:
    numbers = pd.DataFrame({"price": pd.Series(values, dtype="float64")})
    encoder = FieldEncoder.fit(numbers, {"price": "number"})
    features = encoder.transform(numbers)
    assert np.isfinite(features).all()
    assert np.abs(features).max() <= 5
    np.testing.assert_array_equal(encoder.transform(numbers.iloc[-1:]), features[-1:])


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "genre": st.sampled_from(["jazz", "rock", "", "never seen", 3, True, None]),
            "price": st.one_of(st.floats(width=32), st.integers(), st.none(), st.just("12.5")),
            "hour": st.one_of(st.floats(-1, 25), st.integers(-1, 25), st.none()),
            "moods": st.sampled_from([None, "a|b", ["a"]]),
            "other": st.just(1),
        },
    )
)
def test_a_plain_row_is_what_a_frame_of_it_is(row: dict[str, object]) -> None:
    learned = pd.DataFrame(
        {"genre": ["jazz", "rock", "3"], "price": [1.0, 2.0, 6.0], "hour": [0, 8, 23], "moods": ["a", "b", "a|c"]}
    )
    spec = {"genre": "category", "price": "number", "hour": "cyclic:24", "moods": "tags"}
    encoder = FieldEncoder.fit(learned, spec)
    found = encoder.plain_row(row)
    frame = pd.DataFrame({name: pd.Series([value], dtype=object) for name, value in row.items()}, index=[0])
    if found is not None:
        np.testing.assert_allclose(found, encoder.transform(frame)[0], rtol=1e-6, atol=1e-7)
    else:
        plain = row.get("moods") is None and not isinstance(row.get("genre"), bool)
        price, hour = row.get("price"), row.get("hour")
        plain &= price is None or (isinstance(price, (int, float)) and (math.isnan(price) or abs(price) < 1e15))
        plain &= hour is None or (isinstance(hour, (int, float)) and 0 <= hour < 24)
        assert not plain, "it could have been read without a frame"
