"""What an index finds, against every item looked at: unfiltered, filtered, with items left out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal_rec import index as index_module
from multimodal_rec.errors import ConfigError
from multimodal_rec.index import ItemIndex
from multimodal_rec.recall import exact_rows, recall

DIM, NUM_ITEMS, NUM_THEMES = 16, 20_000, 100


@pytest.fixture(scope="module")
def items() -> np.ndarray:
    """Themes of 200 items each, of lengths that vary."""
    rng = np.random.default_rng(0)
    themes = rng.normal(size=(NUM_THEMES, DIM))[theme_of()]
    lengths = rng.uniform(0.5, 1.5, size=(NUM_ITEMS, 1))
    return ((themes + 0.5 * rng.normal(size=(NUM_ITEMS, DIM))) * lengths).astype(np.float32)


@pytest.fixture(scope="module")
def queries(items: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(1)
    return (items[rng.integers(0, NUM_ITEMS, 40)] + 0.3 * rng.normal(size=(40, DIM))).astype(np.float32)


@pytest.fixture(scope="module")
def cells(items: np.ndarray) -> ItemIndex:
    return ItemIndex.build(items, exact_up_to=0)


def theme_of() -> np.ndarray:
    return np.arange(NUM_ITEMS) % NUM_THEMES


def test_few_items_are_all_looked_at(items: np.ndarray) -> None:
    index = ItemIndex.build(items[:3], exact_up_to=3)
    assert index.cells is None
    assert index.report.recall == 1.0
    assert "every one looked at" in str(index.report)
    assert ItemIndex.build(items[:3], exact_up_to=2).cells is not None


@settings(deadline=None, max_examples=50)
@given(data=st.data(), k=st.integers(1, 9))
def test_exact_equals_a_stable_sort(data: st.DataObject, k: int) -> None:
    # Few distinct numbers, so that ties are the rule.
    embeddings = np.array(data.draw(st.lists(st.tuples(*[st.integers(0, 2)] * 2), min_size=1, max_size=12)), np.float32)
    num_items = len(embeddings)
    allowed = np.array(data.draw(st.lists(st.booleans(), min_size=num_items, max_size=num_items)))
    excluded = [data.draw(st.sets(st.integers(0, num_items - 1)))]
    found = ItemIndex.exact(embeddings).search(
        np.array([[1.0, 2.0]], np.float32), k, allowed=allowed, excluded=excluded
    )
    scores = embeddings @ [1.0, 2.0]
    shown = [row for row in range(num_items) if allowed[row] and row not in excluded[0]]
    expected = sorted(shown, key=lambda row: (-scores[row], row))[:k]
    padding = k - len(expected)
    assert found.rows[0].tolist() == expected + [-1] * padding
    assert found.scores[0].tolist() == [scores[row] for row in expected] + [-np.inf] * padding


def test_cells_find_what_they_say_they_find(cells: ItemIndex, items: np.ndarray, queries: np.ndarray) -> None:
    report = cells.report
    assert 0 < report.probes < report.cells == 283
    assert report.recall >= 0.99
    assert f"recall@100 {report.recall:.4f}" in str(report)
    found = cells.search(queries, 100)
    assert recall(found.rows, exact_rows(items, queries, 100)) >= 0.99
    np.testing.assert_allclose(found.scores[3], items[found.rows[3]] @ queries[3], rtol=1e-5)
    assert (np.diff(found.scores, axis=1) <= 0).all()


@pytest.mark.parametrize("share", [0.7, 0.5, 0.05, 0.001])
def test_filters_keep_recall(cells: ItemIndex, items: np.ndarray, queries: np.ndarray, share: float) -> None:
    allowed = np.random.default_rng(2).random(NUM_ITEMS) < share
    found = cells.search(queries, 100, allowed=allowed)
    truth = exact_rows(items, queries, 100, allowed=allowed)
    assert recall(found.rows, truth) >= 0.99
    assert allowed[found.rows[found.rows >= 0]].all()
    assert (found.rows >= 0).sum(axis=1).tolist() == [min(100, np.count_nonzero(allowed))] * 40


def test_more_is_read_where_a_filter_keeps_whole_themes(cells: ItemIndex, queries: np.ndarray) -> None:
    assert cells.cells is not None
    together, apart = theme_of() % 7 == 0, np.random.default_rng(3).random(NUM_ITEMS) < 0.15
    for query in queries[:5]:
        read = [
            np.count_nonzero(
                kept[cells.cells.members(query, probes=cells.cells.probes_for(query[None], kept, wanted=300))]
            )
            for kept in (together, apart)
        ]
        assert 300 <= read[1] <= 450, "what is wanted, and the rest of the last cell"
        assert 1200 <= read[0] <= 1500, "four times as many"


def test_a_filter_of_other_themes_than_the_persons(items: np.ndarray, cells: ItemIndex) -> None:
    # The farther half of all items: nothing in the cells that would be read without a filter, and what the order of
    # cells says least about.
    query = items[theme_of() == 7].mean(axis=0, keepdims=True)
    allowed = np.ones(NUM_ITEMS, dtype=bool)
    allowed[exact_rows(items, query, 11_000)[0]] = False
    found = cells.search(query, 100, allowed=allowed)
    assert np.count_nonzero(allowed) > index_module._FEW, "else every allowed item is looked at"
    assert allowed[found.rows].all()
    assert (found.rows >= 0).all()
    assert recall(found.rows, exact_rows(items, query, 100, allowed=allowed)) >= 0.75


def test_excluded_items_are_left_out_and_replaced(cells: ItemIndex, items: np.ndarray, queries: np.ndarray) -> None:
    best = cells.search(queries, 50).rows
    found = cells.search(queries, 50, excluded=[set(rows.tolist()) for rows in best[:-1]] + [set()])
    assert (found.rows >= 0).all()
    assert all(np.intersect1d(ours, left).size == 0 for ours, left in zip(found.rows[:-1], best[:-1], strict=True))
    np.testing.assert_array_equal(found.rows[-1], best[-1])
    hundred = np.argsort(-(queries[:-1] @ items.T), axis=1)[:, 50:100]
    assert recall(found.rows[:-1], hundred) >= 0.97


def test_cells_are_read_until_there_are_enough(cells: ItemIndex, queries: np.ndarray) -> None:
    assert cells.cells is not None
    held = cells.cells.members(queries[0], probes=cells.report.probes)
    found = cells.search(queries[:1], NUM_ITEMS // 2, excluded=[held.tolist()])
    assert (found.rows >= 0).all()
    everything = cells.search(queries[:1], NUM_ITEMS + 5)
    assert sorted(everything.rows[0, :NUM_ITEMS]) == list(range(NUM_ITEMS))
    assert everything.rows[0, NUM_ITEMS:].tolist() == [-1] * 5


def test_a_batch_equals_its_people(cells: ItemIndex, queries: np.ndarray) -> None:
    together = cells.search(queries[:5], 20)
    for place in range(5):
        np.testing.assert_array_equal(cells.search(queries[place : place + 1], 20).rows[0], together.rows[place])
    assert cells.search(queries[:0], 20).rows.shape == (0, 20)
    assert (cells.search(queries[:2], 3, allowed=np.zeros(NUM_ITEMS, dtype=bool)).rows == -1).all()


def test_similar_items_are_those_of_the_highest_cosine(cells: ItemIndex, items: np.ndarray) -> None:
    rows = [5, 17, 4000]
    found = cells.similar(rows, 10)
    unit = items / np.linalg.norm(items, axis=1, keepdims=True)
    cosines = unit[rows] @ unit.T
    cosines[np.arange(3), rows] = -np.inf
    truth = np.argsort(-cosines, axis=1)[:, :10]
    assert recall(found.rows, truth) >= 0.95
    np.testing.assert_allclose(found.scores[0], cosines[0][found.rows[0]], rtol=1e-5)
    np.testing.assert_array_equal(ItemIndex.exact(items).similar(rows, 10).rows, truth)
    # By inner product the longest would come first.
    assert recall(exact_rows(items, items[rows], 10), truth) < 0.8


def test_the_same_seed_gives_the_same_index(cells: ItemIndex, items: np.ndarray, queries: np.ndarray) -> None:
    again = ItemIndex.build(items, exact_up_to=0)
    assert again.report.probes == cells.report.probes
    np.testing.assert_array_equal(again.search(queries, 10).rows, cells.search(queries, 10).rows)


def test_a_higher_target_reads_more_cells(cells: ItemIndex, items: np.ndarray, queries: np.ndarray) -> None:
    low = ItemIndex.build(items, queries=queries, exact_up_to=0, target=0.5)
    assert low.report.probes < cells.report.probes
    assert low.report.num_queries == 20
    assert low.report.recall < cells.report.recall


def test_arguments_that_disagree(cells: ItemIndex, items: np.ndarray, queries: np.ndarray) -> None:
    with pytest.raises(ConfigError, match=r"k is 0. Expected at least 1"):
        cells.search(queries, 0)
    with pytest.raises(ValueError, match=r"queries have shape \(40, 3\). Expected \(query, 16\)"):
        cells.search(queries[:, :3], 1)
    with pytest.raises(ValueError, match=r"queries hold NaN or infinite numbers"):
        cells.search(queries * np.nan, 1)
    with pytest.raises(ValueError, match=r"allowed is int64 \(2,\). Expected bool \(20000,\)"):
        cells.search(queries, 1, allowed=np.array([0, 1]))
    with pytest.raises(ValueError, match=r"excluded has 1 rows. Expected 40"):
        cells.search(queries, 1, excluded=[[]])
    with pytest.raises(ConfigError, match=r"target is 99. Expected a recall above 0 and at most 1"):
        ItemIndex.build(items, target=99)
    with pytest.raises(ValueError, match=r"embeddings are float64 \(20000, 16\). Expected float32"):
        ItemIndex.build(items.astype(np.float64))
    with pytest.raises(ValueError, match=r"embeddings hold NaN"):
        ItemIndex.build(np.array([[0.0, np.nan]], dtype=np.float32))


@pytest.mark.parametrize("dim", [5, 16, 17])
def test_any_width_is_searched(dim: int) -> None:
    items = np.random.default_rng(0).normal(size=(400, dim)).astype(np.float32)
    index = ItemIndex.build(items, exact_up_to=0)
    assert index.cells is not None
    assert index.cells.width % 16 == 0
    found = index.search(items[:20], 5)
    np.testing.assert_allclose(found.scores, np.take_along_axis(items[:20] @ items.T, found.rows, axis=1), rtol=1e-4)
    assert recall(found.rows, exact_rows(items, items[:20], 5)) > 0.9
    assert index.cells.probes_for(items[:2], np.ones(400, dtype=bool), wanted=50) >= 1
    assert len(index.similar([3], 4).rows[0]) == 4
