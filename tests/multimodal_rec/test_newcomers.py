"""Raw items at scoring time: the same answers as if they had been embedded, and nothing stored."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
import pytest

from multimodal_rec.catalogue import Catalogue
from multimodal_rec.errors import CatalogueError, ConfigError, ItemError
from multimodal_rec.people import Person
from multimodal_rec.recommender import Recommender
from multimodal_rec.reranking import Explore, ExposureFloor, Group
from multimodal_rec.retrieval import Query
from tests.multimodal_rec.tiny import NUM_ITEMS

IDS = [f"i{item}" for item in range(NUM_ITEMS)]


def raw(catalogue: Catalogue, *rows: int) -> pd.DataFrame:
    """Items of the catalogue under ids that nobody has heard of."""
    items = catalogue.items.iloc[list(rows)]
    return items.assign(item_id=[f"n{row}" for row in rows])


def test_scores_are_those_after_embedding(own: Recommender, catalogue: Catalogue) -> None:
    new, context = raw(catalogue, 5, 2, 9), {"hour": 23}
    before = own.store.num_items
    scores = own.score(["u0", "u4"], new, context=context)
    similar = own.similar_items(new, k=3)
    ranked = own.recommend(["u0"], k=20, context=context, new_items=new)
    assert own.store.num_items == before
    assert own.store.failures().empty
    own.embed(new)
    np.testing.assert_allclose(scores, own.score(["u0", "u4"], ["n5", "n2", "n9"], context=context), atol=1e-5)
    assert ranked.ids == own.recommend(["u0"], k=20, context=context).ids
    stored = own.similar_items(["n5"], k=10)
    assert [item_id for item_id in stored.ids[0] if str(item_id)[0] == "i"][:3] == similar.ids[0]


def test_a_row_that_is_stored_already_stands_in_its_place(own: Recommender, catalogue: Catalogue) -> None:
    changed = catalogue.items.iloc[[3]].assign(title="something else entirely", genre="jazz", cover=None)
    query = Query(exclude_seen=False)
    found = own.recommend(["u0"], k=30, query=query, new_items=changed)
    shown = [item_id for item_id in found.ids[0] if item_id is not None]
    assert sorted(shown) == sorted(IDS)
    expected = float(own.score(["u0"], changed)[0, 0])
    assert found.scores[0][shown.index("i3")] == pytest.approx(expected, abs=1e-5)
    assert expected != pytest.approx(float(own.score(["u0"], ["i3"])[0, 0]), abs=1e-3)
    assert "i3" in own.recommend(["u0"], k=30, query=Query(exclude_seen=False, where={"genre": "jazz"}),
                                 new_items=changed).ids[0]  # fmt: skip
    assert "i3" not in own.similar_items(changed, k=14).ids[0]


def test_a_step_reads_that_nobody_took_a_raw_item(own: Recommender, catalogue: Catalogue) -> None:
    query = Query(exclude_seen=False, steps=(Explore(0.3, seed=1), ExposureFloor(Group(max_events=0), 0.5)))
    found = own.recommend(["u0"], k=4, query=query, new_items=raw(catalogue, 5, 3))
    assert {"n5", "n3"} <= set(found.ids[0])
    assert Counter(str(item_id)[0] for item_id in found.ids[0]) == {"n": 2, "i": 2}


def test_one_path_is_as_good_as_a_list_of_one(own: Recommender, catalogue: Catalogue) -> None:
    new = raw(catalogue, 4)
    plain = new.assign(cover=[paths[0] for paths in new["cover"]])
    np.testing.assert_array_equal(own.score(["u1"], plain), own.score(["u1"], new))
    without = own.score(["u1"], new.assign(cover=None))
    assert not np.allclose(without, own.score(["u1"], new), atol=1e-4)


def test_new_people_and_new_items_in_one_call(own: Recommender, catalogue: Catalogue) -> None:
    people = [Person(["i1", "i5"]), Person(attributes={"age": 30.0})]
    scores = own.score(people, raw(catalogue, 6, 7))
    assert scores.shape == (2, 2)
    assert np.isfinite(scores).all()
    assert own.score(people, raw(catalogue)).shape == (2, 0)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda new: new.drop(columns="item_id"), CatalogueError, "raw items need a column 'item_id'; they have title"),
        (lambda new: new.assign(item_id=3), CatalogueError, "item_id of row 0 is 3, a int"),
        (lambda new: pd.concat([new, new]), ItemError, "comes more than once"),
        (lambda new: new.assign(cover="/no/such.png"), ItemError, r"item 'n2': .*no/such.png"),
        (lambda new: new.loc[:, ["item_id"]], ItemError, "has none of this model's modalities"),
    ],
)
def test_what_is_refused(
    fitted: Recommender, catalogue: Catalogue, change, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        fitted.score(["u0"], change(raw(catalogue, 2)))


def test_a_shortlist_knows_no_new_items(fitted: Recommender, catalogue: Catalogue) -> None:
    with pytest.raises(ConfigError, match=r"Query\.shortlist is 12, and new_items are given"):
        fitted.recommend(["u0"], query=Query(shortlist=12), new_items=raw(catalogue, 2))


class TestShortRows:
    def test_a_full_row_needs_no_reason(self, fitted: Recommender) -> None:
        assert fitted.recommend(["u0", "u1"], k=3).reasons == (None, None)

    @pytest.mark.parametrize("shortlist", [None, 14])
    def test_filters_are_named(self, fitted: Recommender, shortlist: int | None) -> None:
        found = fitted.recommend(["u0"], k=9, query=Query(shortlist=shortlist))
        assert found.reasons == (
            "7 of 9 asked for: of 14 items, the query admits 14, and 7 of these the person has taken.",
        )
        nothing = fitted.recommend(["u0"], k=2, query=Query(candidates=(), shortlist=shortlist))
        assert nothing.ids == [[None, None]]
        assert nothing.reasons[0] is not None
        assert nothing.reasons[0].startswith("0 of 2 asked for: of 14 items, the query admits 0")

    def test_a_stranger_who_is_skipped(self, fitted: Recommender) -> None:
        found = fitted.recommend(["nobody", "u0"], k=2, on_unknown="skip")
        assert found.ids[0] == [None, None]
        assert found.reasons == ("nothing is known of this person, and on_unknown='skip' asks for an empty row.", None)

    def test_nobody_gets_an_empty_list(self, fitted: Recommender) -> None:
        people = ["nobody", Person(), Person(["i99"]), Person(["i3"]), Person(attributes={"age": 40.0})]
        found = fitted.recommend(people, k=5, on_unknown="cold")
        assert all(None not in row for row in found.ids)
        assert np.isfinite(found.scores).all()
