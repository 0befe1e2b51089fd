"""Why an item: each part's contribution, and the reason in words."""

from __future__ import annotations

import numpy as np
import pytest

from multimodal_rec.errors import UnknownIdError
from multimodal_rec.explanation import Explanation
from multimodal_rec.people import Person
from multimodal_rec.recommender import Recommender

PARTS = ["text", "image", "attributes", "behaviour"]


def test_a_contribution_is_the_score_less_the_score_without(fitted: Recommender) -> None:
    context = {"hour": 23, "device": "tv"}
    found = fitted.explain("u1", "i3", context=context)
    assert (found.user_id, found.item_id) == ("u1", "i3")
    assert found.score == pytest.approx(float(fitted.score(["u1"], ["i3"], context=context)[0, 0]), rel=1e-5)
    assert list(found.contributions) == [*PARTS, "history", "context"]
    scorer, contexts = fitted._ready(), fitted._contexts(context, 1)
    row = scorer.item_rows["i3"]
    for name, contribution in found.contributions.items():
        without = float(scorer.rank(["u1"], contexts, [row], without=[name])[0, 0])
        assert contribution == pytest.approx(found.score - without, abs=1e-5)
        assert contribution != 0


def test_parts_that_are_not_there_contribute_nothing(fitted: Recommender) -> None:
    contributions = fitted.explain("u1", "i1").contributions
    assert contributions["text"] == 0
    assert contributions["image"] != 0
    attributes_only = fitted.explain(Person(attributes={"age": 30}), "i3")
    assert attributes_only.contributions["history"] == pytest.approx(0, abs=1e-6)
    assert attributes_only.contributions["context"] == pytest.approx(0, abs=1e-6)
    assert set(attributes_only.similar.values()) == {None}
    assert attributes_only.user_id == ""


def test_the_most_similar_thing_taken_is_named(fitted: Recommender) -> None:
    person = Person(["i2", "i5", "i9"])
    similar = fitted.explain(person, "i3").similar
    assert set(similar) == set(PARTS)
    scorer = fitted._ready()
    for index, name in enumerate(PARTS):
        tokens = scorer.table.tokens[:, index]
        own = tokens[scorer.item_rows["i3"]]
        cosines = {
            item_id: float(own @ tokens[row] / np.linalg.norm(own) / np.linalg.norm(tokens[row]))
            for item_id in person.history
            for row in [scorer.item_rows[item_id]]
        }
        assert similar[name] == max(cosines, key=lambda item_id: cosines[item_id])
    # The item itself is no reason for itself.
    assert set(fitted.explain(Person(["i3"]), "i3").similar.values()) == {None}


def test_the_reason_in_words() -> None:
    contributions = {"text": 0.1, "image": 0.5, "behaviour": -1.0, "history": 3.0}
    similar: dict[str, str | None] = {"text": "i1", "image": "i2", "behaviour": None}
    explanation = Explanation("u", "i", 1.0, contributions, similar)
    assert explanation.because() == "its picture, like i2"
    alone = explanation._replace(contributions=contributions | {"behaviour": 2.0})
    assert alone.because() == "who else took it"
    against = explanation._replace(contributions=dict.fromkeys(contributions, -1.0))
    assert against.because() == "nothing about it speaks for it more than about others"


def test_unknown_ids_are_named(fitted: Recommender) -> None:
    with pytest.raises(UnknownIdError, match="item 'i99' is not embedded"):
        fitted.explain("u1", "i99")
    with pytest.raises(UnknownIdError, match="user 'nobody' is unknown"):
        fitted.explain("nobody", "i1")
