"""Filters on attributes as columns: the same answers as a look at every item."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from multimodal_rec.attributes import AttributeColumns

VALUES = st.one_of(
    st.none(),
    st.sampled_from(["jazz", "rock", "1", 1, 1.0, 2, True, 0, ""]),
    st.lists(st.sampled_from(["jazz", "rock", 1, 2.0, None]), max_size=3),
)


@given(values=st.lists(VALUES, max_size=8), wanted=st.lists(st.sampled_from(["jazz", "1", 1, 2, "none"]), max_size=3))
def test_equals_a_look_at_every_item(values: list, wanted: list) -> None:
    columns = AttributeColumns([{"a": value} for value in values])
    expected = [
        value is not None and any(v in wanted for v in (value if isinstance(value, list) else [value]))
        for value in values
    ]
    assert columns.mask("a", wanted).tolist() == expected
    assert columns.mask("a", wanted).tolist() == expected, "the second time from the column"


def test_names_and_items_without_the_attribute() -> None:
    columns = AttributeColumns([{"a": 1}, {}, {"b": [2], "a": None}])
    assert columns.names == ("a", "b")
    assert columns.mask("a", [1, 2]).tolist() == [True, False, False]
    assert columns.mask("b", [2]).tolist() == [False, False, True]
    assert not columns.mask("c", [2]).any()


def test_values_that_cannot_be_hashed_are_themselves() -> None:
    columns = AttributeColumns([{"a": {"x": 1}}, {"a": {"x": 2}}])
    assert columns.mask("a", [{"x": 2}]).tolist() == [False, True]
    assert columns.mask("a", []).dtype == np.bool_
