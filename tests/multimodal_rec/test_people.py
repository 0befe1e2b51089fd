"""People: known by their log, by their attributes, by a history that the caller brings, or not at all."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from multimodal_rec.catalogue import Catalogue
from multimodal_rec.config import RecommenderConfig
from multimodal_rec.errors import ConfigError, UnknownIdError
from multimodal_rec.people import People, Person
from multimodal_rec.schema import Schema
from multimodal_rec.vocabulary import Vocabulary

SCHEMA = Schema("people", text=("title",), context={"device": "category"}, user_attributes={"age": "number"})


@pytest.fixture
def people() -> People:
    items = pd.DataFrame({"item_id": ["a", "b", "c", "d"], "title": ["w", "x", "y", "z"]})
    log = pd.DataFrame(
        {
            "user_id": ["u", "u", "u", "v"],
            "item_id": ["c", "a", "b", "d"],
            "timestamp": [30, 10, 20, 5],
            "device": ["tv", "phone", "tv", "tv"],
        }
    )
    users = pd.DataFrame({"user_id": ["u", "v", "quiet"], "age": [20.0, None, 40.0]})
    catalogue = Catalogue.from_frames(items, log, users, schema=SCHEMA)
    vocabulary = Vocabulary.fit(catalogue, RecommenderConfig({}))
    rows = {item_id: row for row, item_id in enumerate(["a", "b", "c", "d"])}
    return People(log, users, vocabulary=vocabulary, item_rows=rows, length=2)


def test_histories_are_the_latest_events_in_order(people: People) -> None:
    batch = people.histories(["u", "v", "nobody"])
    assert batch.present.tolist() == [[True, True], [True, False], [False, False]]
    assert batch.item_index[0].tolist() == [1, 2]
    assert int(batch.item_index[1, 0]) == 3
    assert batch.context[0].tolist() == [[0, 1], [0, 1]]


def test_a_history_brought_along_is_read_as_given(people: People) -> None:
    batch = people.histories(["v", Person(["d", "c", "a"]), Person(["b"])])
    assert batch.item_index[1].tolist() == [2, 0]  # the latest two
    assert batch.distance[1].tolist() == [1, 0]
    assert batch.present.tolist() == [[True, False], [True, True], [True, False]]
    assert not batch.context[1].any()
    assert not batch.kind[1].any()
    assert not batch.value[1].any()
    alone = people.histories([Person(["d", "c", "a"])])
    for one, other in zip(alone, batch, strict=True):
        assert torch.equal(one[0], other[1])


def test_seen_holds_all_that_was_taken_whatever_the_window(people: People) -> None:
    assert people.seen("u") == {0, 1, 2}
    assert people.seen("nobody") == set()
    assert people.seen(Person(["d", "elsewhere"])) == {3}


def test_attributes_come_from_the_table_or_the_caller(people: People) -> None:
    young, old = people.features(["u"]), people.features(["quiet"])
    assert float(young) < 0 < float(old)
    given = people.features([Person(attributes={"age": 40}), "v", Person(["a"]), "u"])
    assert given.tolist() == [[float(old)], [0], [0], [float(young)]]


def test_known_are_those_with_a_history_or_attributes(people: People) -> None:
    everybody = ["u", "quiet", "nobody", Person(["a"]), Person(attributes={"age": 3}), Person()]
    assert [people.known(person) for person in everybody] == [True, True, False, True, True, False]
    assert people.answered(everybody, "skip") == [True, True, False, True, True, False]
    assert people.answered([*everybody, Person(["elsewhere"])], "cold") == [True] * 7
    assert people.answered(["u", Person(["a", "elsewhere"])], "skip") == [True, False]


def test_strangers_are_refused_by_name_or_place(people: People) -> None:
    with pytest.raises(UnknownIdError, match=r"user 'nobody' is unknown: no interaction.*on_unknown='cold'.*'skip'"):
        people.answered(["u", "nobody"], "raise")
    with pytest.raises(UnknownIdError, match="person 1 has no history, no attributes and no profile"):
        people.answered(["u", Person()], "raise")
    with pytest.raises(UnknownIdError, match="history of person 0 holds 'elsewhere', which is not embedded"):
        people.answered([Person(["a", "elsewhere"])], "raise")


def test_unknown_items_of_a_history_are_passed_over_when_cold(people: People) -> None:
    batch = people.histories([Person(["elsewhere", "a"])])
    assert batch.present.sum() == 1
    assert int(batch.item_index[0, 0]) == 0


def test_nobody_asked_nobody_answered(people: People) -> None:
    assert people.histories([]).present.shape[0] == 0
    assert people.features([]).shape[0] == 0
    assert people.answered([], "raise") == []


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("u", r"people is 'u'\. Expected a list of user ids"),
        ([7], r"people\[0\] is 7, a int\. Expected a user id as str"),
        ([Person(attributes={"aeg": 20})], r"attribute 'aeg', which was never declared\. Expected one of age"),
    ],
)
def test_people_given_wrongly_are_refused(people: People, asked: list[str | Person], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        people.answered(asked, "cold")


def test_features_are_the_same_again_and_in_whatever_company(people: People) -> None:
    asked = ["u", "v", "quiet", "nobody", Person(["a"], attributes={"age": 30}), "u"]
    together = people.features(asked)
    alone = torch.cat([people.features([person]) for person in asked])
    torch.testing.assert_close(together, alone)
    assert float(together[1].abs().sum()) == float(together[3].abs().sum()) == 0
    assert together[[0, 2, 4], 0].tolist() == pytest.approx([-1, 1, 0], abs=1e-6)
