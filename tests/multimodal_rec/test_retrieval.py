"""The best k of a row of scores, and the conditions that an item must meet to be among them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from multimodal_rec.errors import ConfigError, ItemError, UnknownIdError
from multimodal_rec.retrieval import Query, top_k
from multimodal_rec.rows import ItemTable


def table(ids: list[str], attributes: list[dict] | None = None) -> ItemTable:
    n = len(ids)
    return ItemTable(
        ids,
        np.zeros((n, 2, 3)),
        np.ones((n, 2), bool),
        np.zeros((n, 3)),
        attributes or [{} for _ in ids],
        content=np.zeros((n, 2, 0)),
        vectors=np.zeros((n, 0)),
    )


def test_known_answer() -> None:
    best = top_k(np.array([[0.1, 0.9, 0.5, 0.9], [3.0, 2.0, 1.0, 0.0]]), ["a", "b", "c", "d"], k=3)
    assert best.ids == [["b", "d", "c"], ["a", "b", "c"]]
    np.testing.assert_allclose(best.scores, [[0.9, 0.9, 0.5], [3.0, 2.0, 1.0]])
    assert best.scores.dtype == np.float32


def test_short_rows_end_in_none_and_minus_infinity() -> None:
    best = top_k(
        np.array([[1.0, 2.0, 3.0], [1.0, 2.0, -np.inf]], dtype=np.float32), ["a", "b", "c"], k=4, excluded=[{2}, []]
    )
    assert best.ids == [["b", "a", None, None], ["b", "a", None, None]]
    np.testing.assert_array_equal(best.scores[:, 2:], -np.inf)


def test_allowed_for_all_or_for_each() -> None:
    scores = np.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]], dtype=np.float32)
    assert top_k(scores, ["a", "b", "c"], k=1, allowed=np.array([False, True, True])).ids == [["b"], ["b"]]
    each = np.array([[True, True, True], [False, False, True]])
    assert top_k(scores, ["a", "b", "c"], k=1, allowed=each, excluded=[[0], []]).ids == [["b"], ["c"]]
    assert scores[0, 0] == 3.0, "the caller's scores stay as they were"


def test_nobody_and_nothing() -> None:
    assert top_k(np.zeros((0, 2)), ["a", "b"], k=2).scores.shape == (0, 2)
    assert top_k(np.zeros((1, 0)), [], k=2).ids == [[None, None]]


# Few distinct values, so that ties are the rule.
@given(
    scores=hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=12),
        elements=st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 2.0]),
    ),
    k=st.integers(1, 14),
    data=st.data(),
)
def test_equals_a_stable_sort(scores: np.ndarray, k: int, data: st.DataObject) -> None:
    num_users, num_items = scores.shape
    excluded = [data.draw(st.sets(st.integers(0, num_items - 1))) for _ in range(num_users)]
    allowed = data.draw(hnp.arrays(bool, (num_items,)))
    ids = [f"i{n}" for n in range(num_items)]
    best = top_k(scores, ids, k=k, excluded=excluded, allowed=allowed)
    for user in range(num_users):
        open_items = [
            n for n in range(num_items) if allowed[n] and n not in excluded[user] and scores[user, n] > -np.inf
        ]
        expected = sorted(open_items, key=lambda n: (-scores[user, n], n))[:k]
        padding = k - len(expected)
        assert best.ids[user] == [ids[n] for n in expected] + [None] * padding
        assert best.scores[user].tolist() == [scores[user, n] for n in expected] + [-np.inf] * padding


def test_nan_scores_name_their_items() -> None:
    scores = np.array([[1.0, np.nan], [1.0, np.nan]])
    with pytest.raises(ItemError, match=r"(?s)scores of 1 of 2 items are NaN.*item 'b': NaN for 2 of 2 people"):
        top_k(scores, ["a", "b"], k=1)


def test_arguments_that_disagree() -> None:
    with pytest.raises(ConfigError, match=r"k is 0. Expected at least 1"):
        top_k(np.zeros((1, 1)), ["a"], k=0)
    with pytest.raises(ValueError, match=r"scores have shape \(1, 2\). Expected \(user, 1\)"):
        top_k(np.zeros((1, 2)), ["a"], k=1)
    with pytest.raises(ValueError, match=r"excluded has 2 rows. Expected 1"):
        top_k(np.zeros((1, 1)), ["a"], k=1, excluded=[[], []])
    with pytest.raises(ValueError, match=r"allowed has shape \(2,\). Expected \(1,\) or \(1, 1\)"):
        top_k(np.zeros((1, 1)), ["a"], k=1, allowed=np.ones(2, bool))


def test_a_query_admits_all_unless_told() -> None:
    assert Query().allowed_mask(table(["a", "b"])).tolist() == [True, True]
    assert Query().exclude_seen


def test_candidates_and_exclusions() -> None:
    items = table(["a", "b", "c"])
    assert Query(candidates=("c", "a"), exclude=("a", "gone")).allowed_mask(items).tolist() == [False, False, True]
    assert Query(candidates=()).allowed_mask(items).tolist() == [False, False, False]
    with pytest.raises(UnknownIdError, match=r"1 of 2 candidates are not among the 3 embedded items: 'x'. Embed them"):
        Query(candidates=("a", "x")).allowed_mask(items)


def test_where_takes_a_value_or_one_of_several() -> None:
    items = table(
        ["a", "b", "c", "d"],
        [
            {"genre": "folk", "tags": ["slow", "piano"], "year": 1999},
            {"genre": "rock", "tags": ["loud"], "year": 2004},
            {"genre": "jazz", "tags": ["slow"], "year": None},
            {"genre": None, "tags": [], "year": 1999.0},
        ],
    )
    assert Query(where={"genre": "folk"}).allowed_mask(items).tolist() == [True, False, False, False]
    assert Query(where={"genre": ("folk", "jazz")}).allowed_mask(items).tolist() == [True, False, True, False]
    assert Query(where={"tags": "slow"}).allowed_mask(items).tolist() == [True, False, True, False]
    assert Query(where={"tags": "slow", "year": 1999}).allowed_mask(items).tolist() == [True, False, False, False]
    assert Query(where={"year": 1999}).allowed_mask(items).tolist() == [True, False, False, True]
    with pytest.raises(ConfigError, match=r"attribute 'gener', which no embedded item has. Did you mean 'genre'?"):
        Query(where={"gener": "folk"}).allowed_mask(items)


def test_a_bare_id_is_not_taken_for_a_tuple_of_letters() -> None:
    with pytest.raises(ConfigError, match=r"Query.candidates is the text 'i1'. Expected a tuple of ids"):
        Query(candidates="i1")  # type: ignore[arg-type]
