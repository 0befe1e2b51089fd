"""Why an item: what each part and each thing known contributed, and the reason in words."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch

from multimodal_rec.collaborative.settings import ItemItemConfig
from multimodal_rec.errors import UnknownIdError
from multimodal_rec.explanation import Explanation
from multimodal_rec.people import Person
from multimodal_rec.recommender import Recommender
from tests.multimodal_rec.tiny import CPU, tiny_config, write_catalogue

PARTS = ["text", "image", "attributes", "behaviour"]
NIGHT = {"hour": 23, "device": "tv"}


@pytest.fixture(scope="module")
def blended(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    catalogue = write_catalogue(tmp_path_factory.mktemp("blended"))
    config = tiny_config(bert, collaborative={"item_item": ItemItemConfig(rank=4)})
    return Recommender(config).fit(catalogue, training=CPU)


@pytest.mark.parametrize("name", ["fitted", "blended"])
@pytest.mark.parametrize("item", ["i0", "i1", "i3"])
def test_parts_and_sources_sum_to_the_distance_from_the_neutral_item(
    name: str, item: str, request: pytest.FixtureRequest
) -> None:
    recommender: Recommender = request.getfixturevalue(name)
    found = recommender.explain("u1", item, context=NIGHT)
    assert (found.user_id, found.item_id, found.context) == ("u1", item, NIGHT)
    # Collaborative scores read item embeddings, which the store rounds to 16 bits; what is left out is never stored.
    assert found.score == pytest.approx(float(recommender.score(["u1"], [item], context=NIGHT)[0, 0]), abs=1e-3)
    distance = found.score - found.neutral
    assert distance != 0
    assert sum(found.contributions.values()) == pytest.approx(distance, abs=1e-6)
    assert sum(found.sources.values()) == pytest.approx(distance, abs=1e-6)
    assert list(found.contributions) == PARTS
    assert list(found.sources) == ["general", "history", "hour", "device"]
    for part, row in found.table.items():
        assert sum(row.values()) == pytest.approx(found.contributions[part], abs=1e-6)
    assert found.of_context == pytest.approx(found.sources["hour"] + found.sources["device"])


def test_a_contribution_is_the_mean_over_all_orders(fitted: Recommender) -> None:
    """Recomputed one subset at a time, by hiding what is left out in the store's own numbers."""
    scorer, contexts = fitted._ready(), fitted._contexts(NIGHT, 1)
    explainer, row = scorer.explainer, scorer.item_rows["i3"]
    queries = scorer.ask(["u1"], contexts).queries
    centre, own = explainer._centre, scorer._tokens[row]

    def worth(shown: frozenset[int]) -> float:
        tokens = torch.stack([own[part] if part in shown else centre[part] for part in range(4)])
        if 3 not in shown:
            told = torch.stack([own[p] - centre[p] if p in shown else torch.zeros(8) for p in range(3)])
            tokens[3] = centre[3] + told.flatten() @ explainer._expectation
        return float(scorer._model.rank(queries, tokens[None], torch.ones(1, 4, dtype=torch.bool))[0, 0])

    added = np.zeros(4)
    with torch.inference_mode():
        for order in permutations(range(4)):
            for place, part in enumerate(order):
                added[part] += worth(frozenset(order[: place + 1])) - worth(frozenset(order[:place]))
    found = fitted.explain("u1", "i3", context=NIGHT)
    np.testing.assert_allclose(list(found.contributions.values()), added / 24, atol=1e-5)
    assert explainer._expectation.shape == (24, 8)


def test_behaviour_that_content_foretells_is_the_content_s(blended: Recommender) -> None:
    """The neutral item is the mean one, with what its content lets expect for the collaborative scores."""
    scorer = blended._ready()
    explainer, row = scorer.explainer, scorer.item_rows["i3"]
    asked = explainer._ask("u1", blended._contexts(NIGHT, 1))
    with torch.inference_mode():
        worth = explainer._worth(row, [0, 1, 2, 3], asked)
        model, blend = scorer._model, scorer._model.blend
        assert blend is not None
        there = torch.ones(1, 4, dtype=torch.bool)
        vectors = blend.content.expand(explainer._mean_content.sum(dim=0, keepdim=True))
        taken = torch.ones(1, dtype=torch.bool)
        queries, sides = scorer.ask(["u1"], blended._contexts(NIGHT, 1))
        assert sides is not None
        neutral = model.rank(queries, explainer._centre[None], there) * blend.own(taken)
        neutral = neutral + sides @ blend.items(vectors, taken).T
    assert worth[0, -1] == pytest.approx(float(neutral[0, 0]), abs=1e-5)


def test_what_is_not_there_contributes_nothing(fitted: Recommender) -> None:
    found = fitted.explain("u1", "i1")
    assert found.contributions["text"] == 0
    assert found.attention["text"] == 0
    assert found.contributions["image"] != 0
    assert found.of_context == 0
    stranger = fitted.explain(Person(attributes={"age": 30}), "i3")
    assert stranger.sources["history"] == pytest.approx(0, abs=1e-6)
    assert stranger.sources["general"] == pytest.approx(stranger.score - stranger.neutral, abs=1e-6)
    assert set(stranger.similar.values()) == {None}
    assert (stranger.user_id, stranger.shared) == ("", {})


def test_a_context_column_that_is_not_told_does_not_play(fitted: Recommender) -> None:
    found = fitted.explain("u1", "i3", context={"hour": 23, "device": None})
    assert found.sources["device"] == 0
    assert found.sources["hour"] != 0
    assert found.context == {"hour": 23}


def test_attention_is_the_model_s_own_weights(fitted: Recommender) -> None:
    found = fitted.explain("u1", "i3", context=NIGHT)
    assert sum(found.attention.values()) == pytest.approx(1, abs=1e-5)
    assert list(found.attention) == PARTS


def test_several_items_are_explained_at_once_as_one_by_one(fitted: Recommender) -> None:
    together = fitted.explain("u1", ["i3", "i1"], context=NIGHT)
    for explanation, item in zip(together, ["i3", "i1"], strict=True):
        alone = fitted.explain("u1", item, context=NIGHT)
        assert explanation.item_id == item
        assert explanation.similar == alone.similar
        assert explanation.contributions == pytest.approx(alone.contributions, abs=1e-6)
    assert fitted.explain("u1", []) == []


def test_what_events_pull_is_all_of_the_taste(fitted: Recommender) -> None:
    """Each event's pull, summed, is the query's distance from that of nobody, but for the habits in its offset."""
    scorer = fitted._ready()
    asked = scorer.explainer._ask("u1", fitted._contexts(NIGHT, 1))
    encoder = scorer._model.query
    item = scorer._tokens[scorer.item_rows["i3"]]
    with torch.inference_mode():
        pulls = encoder.pulls(asked.full, scorer._tokens, scorer._present, item).sum(dim=1)[0]
        weight, bias = encoder.offset.weight.clone(), encoder.offset.bias.clone()
        encoder.offset.weight.zero_()
        encoder.offset.bias.zero_()
        taste = encoder(asked.full, scorer._tokens, scorer._present)[0]
        encoder.offset.weight.copy_(weight)
        encoder.offset.bias.copy_(bias)
    torch.testing.assert_close(pulls, (taste * item).sum(dim=1), atol=1e-4, rtol=1e-4)


def test_the_item_itself_is_no_reason_for_itself(fitted: Recommender) -> None:
    assert set(fitted.explain(Person(["i3"]), "i3").similar.values()) == {None}


CONTRIBUTIONS = {"text": 0.1, "image": 0.5, "attributes": 0.0, "behaviour": -1.0}


def explanation(**changes: object) -> Explanation:
    contributions = {**CONTRIBUTIONS, **{name: value for name, value in changes.items() if name in CONTRIBUTIONS}}
    table = {part: {"general": 0.0, "history": value, "device": 0.0} for part, value in contributions.items()}
    similar: dict[str, str | None] = {"text": "i1", "image": "i2", "attributes": "i4", "behaviour": None}
    shared = {"genre": "jazz", "label": "Blue"}
    found = Explanation("u", "i", 1.0, 0.0, contributions, {}, table, {}, similar, shared, {"device": "tv"})
    return found._replace(**{name: value for name, value in changes.items() if name not in CONTRIBUTIONS})


class TestBecause:
    def test_the_strongest_part_and_what_it_is_like(self) -> None:
        assert explanation().because() == "its picture, like i2"
        assert explanation().because({"i2": "“Tide”"}) == "its picture, like “Tide”"
        assert explanation(behaviour=2.0).because() == "who else took it"

    def test_attributes_in_the_item_s_own_words(self) -> None:
        assert explanation(attributes=2.0).because() == "its genre jazz and label Blue, like i4"
        assert explanation(attributes=2.0, shared={}).because() == "its attributes, like i4"

    def test_the_context_where_it_mattered(self) -> None:
        table = {"image": {"general": 0.0, "history": 0.3, "device": 0.2}}
        assert explanation(table=table).because() == "its picture, like i2, with device tv"
        table["image"] = {"general": 0.0, "history": 0.4, "device": 0.1}
        assert explanation(table=table).because() == "its picture, like i2"

    def test_nothing_speaks_for_it(self) -> None:
        against = explanation(text=-1.0, image=-1.0, attributes=-1.0)
        assert against.because() == "nothing about it speaks for it more than about others"
        assert against.deciding() is None


def test_unknown_ids_are_named(fitted: Recommender) -> None:
    with pytest.raises(UnknownIdError, match="item 'i99' is not embedded"):
        fitted.explain("u1", ["i1", "i99"])
    with pytest.raises(UnknownIdError, match="user 'nobody' is unknown"):
        fitted.explain("nobody", "i1")
