"""Collaborative scores in a recommender: trained beside the model, weighed on validation, stored, saved and loaded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from multimodal_rec.catalogue import Catalogue
from multimodal_rec.collaborative.content_map import ContentMap
from multimodal_rec.collaborative.score import ContentBlock
from multimodal_rec.collaborative.settings import GraphConfig, ItemItemConfig, SequenceConfig, TasteConfig
from multimodal_rec.config import RecommenderConfig, TowerConfig
from multimodal_rec.errors import CatalogueError, ConfigError
from multimodal_rec.people import Person
from multimodal_rec.recommender import Recommender
from multimodal_rec.retrieval import Query
from multimodal_rec.scorer import Scorer
from tests.multimodal_rec.tiny import CPU, NUM_ITEMS, tiny_config, without_interactions, write_catalogue

SMALL = {
    "sequence": SequenceConfig(dim=8, epochs=3, window=6, events_a_step=64),
    "graph": GraphConfig(dim=8, epochs=4, every=1, num_neighbours=2),
    "item_item": ItemItemConfig(rank=4, strength=5.0),
    "taste": TasteConfig(dim=2, num_unexplained=2, epochs=3, every=1, events_a_step=64, window=6, num_alternatives=16),
}
IDS = [f"i{item}" for item in range(NUM_ITEMS)]
WIDTH = 8 + 2 * 8 + (2 * 4 + 1) + (3 * 2 + 2 + 1)


@pytest.fixture(scope="module")
def parts(catalogue: Catalogue) -> tuple[Catalogue, Catalogue, Catalogue]:
    return catalogue.split("last")


@pytest.fixture(scope="module")
def blended(bert: Path, parts: tuple[Catalogue, Catalogue, Catalogue]) -> Iterator[Recommender]:
    """Only to be read."""
    config = tiny_config(bert, collaborative=SMALL)
    recommender = Recommender(config).fit(parts[0], valid=parts[1], training=replace(CPU, epochs=1))
    yield recommender
    recommender.close()


def part_scores(recommender: Recommender, weights: list[list[float]], people: list[str]) -> np.ndarray:
    """Scores of all items, in the order of `IDS`, under these weights of the blend."""
    known, trained = recommender._ready(), recommender._fitted()
    model, table = trained.model, known.table
    assert model.blend is not None
    kept = model.blend.weights.clone()
    arrays = (table.tokens, table.present, table.content[:, :-1], table.vectors)
    tokens, present, content, learned = map(torch.from_numpy, arrays)
    try:
        model.blend.weights.copy_(torch.tensor(weights))
        embeddings = model.embeddings(tokens, present, model.item_vectors(content, present, learned))
        scorer = Scorer(model, replace(table, embeddings=embeddings.detach().numpy()), known.people)
        contexts = trained.vocabulary.contexts(None, num_rows=len(people))
        return scorer.rank(people, contexts, [scorer.item_rows[item_id] for item_id in IDS])
    finally:
        model.blend.weights.copy_(kept)


def test_a_blended_score_is_the_weighed_sum_of_its_parts(blended: Recommender) -> None:
    people = ["u0", "u3", "u7"]
    alone = [part_scores(blended, [[float(column == own) for column in range(5)]] * 2, people) for own in range(5)]
    for first, second in [(0, 1), (1, 2), (2, 3), (3, 4)]:
        assert not np.allclose(alone[first], alone[second], atol=1e-2)
    together = part_scores(blended, [[0.5, 2.0, 1.0, 0.25, 0.5]] * 2, people)
    expected = 0.5 * alone[0] + 2 * alone[1] + alone[2] + 0.25 * alone[3] + 0.5 * alone[4]
    np.testing.assert_allclose(together, expected, atol=1e-3)


def test_new_items_and_known_ones_have_weights_of_their_own(bert: Path, catalogue: Catalogue) -> None:
    train, valid, test = catalogue.split("cold_items", valid=0.2, test=0.2, seed=1)
    config = tiny_config(bert, collaborative={"item_item": ItemItemConfig(rank=4)})
    recommender = Recommender(config).fit(train, valid=valid, training=replace(CPU, epochs=1))
    recommender.embed(test.items)
    scorer = recommender._ready()
    new = ~scorer.taken.numpy()[[scorer.item_rows[item_id] for item_id in IDS]]
    assert 0 < new.sum() < NUM_ITEMS
    before = part_scores(recommender, [[1, 1], [1, 1]], ["u0", "u1"])
    after = part_scores(recommender, [[1, 3], [1, 1]], ["u0", "u1"])
    np.testing.assert_allclose(after[:, ~new], before[:, ~new], atol=1e-4)
    assert (np.abs(after - before)[:, new] > 1e-4).any()
    recommender.close()


def test_an_item_that_nobody_took_is_what_its_content_lets_expect(bert: Path, tmp_path: Path) -> None:
    catalogue = write_catalogue(tmp_path)
    recommender = Recommender(tiny_config(bert, collaborative=SMALL)).fit(catalogue, training=replace(CPU, epochs=1))
    model = recommender._fitted().model
    assert model.blend is not None
    items = pd.DataFrame(catalogue.items.iloc[[2, 2, 2, 5]])
    items["item_id"] = ["twin", "same", "rock", "dear"]
    items.loc[items["item_id"] == "rock", "genre"] = "rock"
    items.loc[items["item_id"] == "dear", "price"] = 90.0
    recommender.embed(items)
    table = recommender.store.read_items(model=recommender._fitted().job.fingerprint)
    rows = {item_id: row for row, item_id in enumerate(table.ids)}
    assert table.content.shape == (NUM_ITEMS + 4, 4, model.blend.content.rank)
    assert table.vectors.shape == (NUM_ITEMS + 4, WIDTH)
    assert not table.vectors[[rows["twin"], rows["rock"]]].any()
    assert table.vectors[rows["i2"]].any()
    twin, same, rock, dear = (
        recommender.score(["u0", "u1"], [name])[:, 0] for name in ("twin", "same", "rock", "dear")
    )
    np.testing.assert_array_equal(twin, same)
    assert not np.allclose(twin, rock, atol=1e-4)
    assert np.isfinite(dear).all()
    # Only the text runs again where only the text has changed, and what the others said is still there.
    items.loc[items["item_id"] == "same", "title"] = "the loud drum"
    assert recommender.embed(items).embedded == 1
    again = recommender.store.read_items(model=recommender._fitted().job.fingerprint)
    text, image = 0, 1
    row = rows["same"]
    np.testing.assert_array_equal(again.content[row, image], table.content[row, image])
    assert not np.allclose(again.content[row, text], table.content[row, text])
    recommender.close()


def test_maps_read_likeness_and_believe_an_item_by_how_many_took_it(
    bert: Path, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[set[str], np.ndarray]] = []
    fit = ContentMap.fit

    def told(
        content: dict[str, ContentBlock], vectors: np.ndarray, known: np.ndarray, *, trust: np.ndarray, alone: object
    ) -> ContentMap:
        asked.append((set(content), trust))
        return fit(content, vectors, known, trust=trust)

    monkeypatch.setattr(ContentMap, "fit", told)
    config = tiny_config(bert, collaborative={"item_item": ItemItemConfig(rank=4)})
    recommender = Recommender(config).fit(catalogue, training=replace(CPU, epochs=1))
    blend = recommender._fitted().model.blend
    assert blend is not None
    assert {"text", "attributes"} <= set(blend.content.landmarks)
    ((blocks, trust),) = asked
    assert {"text", "text, likeness", "attributes, likeness", "curves of price"} <= blocks
    assert "attribute details" not in blocks
    took = catalogue.interactions.loc[catalogue.event_weights > 0]
    pairs = set(zip(took["user_id"].tolist(), took["item_id"].tolist(), strict=True))
    counts = [sum(item_id == taken for _, taken in pairs) for item_id in catalogue.item_ids]
    np.testing.assert_allclose(trust, np.sqrt(np.array(counts) + 5))
    recommender.close()


def test_hiding_behaviour_leaves_what_content_says(blended: Recommender) -> None:
    scorer = blended._ready()
    contexts = blended._fitted().vocabulary.contexts(None, num_rows=1)
    shown, hidden, nobody = (
        scorer.rank(["u0"], contexts, without=without) for without in ([], ["behaviour"], ["behaviour", "history"])
    )
    assert not np.allclose(shown, hidden, atol=1e-3)
    assert not np.allclose(hidden, nobody, atol=1e-3)
    assert np.isfinite(hidden).all()
    explanation = blended.explain("u0", "i3")
    # Scores read embeddings of 16 bits, explanations what they were made of.
    assert explanation.score == pytest.approx(float(shown[0, scorer.item_rows["i3"]]), abs=1e-3)
    assert explanation.contributions["behaviour"] != 0


def test_a_stored_embedding_is_made_of_what_is_stored_beside_it(blended: Recommender) -> None:
    scorer = blended._ready()
    table, model = scorer.table, blended._fitted().model
    tokens, present, content, learned, stored = (
        torch.from_numpy(array)
        for array in (table.tokens, table.present, table.content, table.vectors, table.embeddings)
    )
    made = model.embeddings(tokens, present, model.item_vectors(content[:, :-1], present, learned))
    # The last number places new items among known ones.
    assert stored.shape[1] == 4 * 8 + 8 + 8 + 4 + (3 * 2 + 2 + 1) + 1
    torch.testing.assert_close(stored, made, atol=1e-2, rtol=1e-2)


def test_what_content_says_of_a_taste_goes_with_the_part_that_says_it(bert: Path, catalogue: Catalogue) -> None:
    recommender = Recommender(tiny_config(bert, collaborative={"taste": SMALL["taste"]}))
    recommender.fit(catalogue, training=replace(CPU, epochs=1))
    scorer, model = recommender._ready(), recommender._fitted().model
    assert model.blend is not None
    # Two numbers of each part, of which nothing is stored that was not learned beside content.
    assert not scorer.table.vectors[:, : 3 * 2].any()
    assert scorer.table.vectors[:, 3 * 2 :].any()
    vectors = {"all": scorer.item_vectors}
    content, learned = torch.from_numpy(scorer.table.content[:, :-1]), torch.from_numpy(scorer.table.vectors)
    for part, name in enumerate(("text", "image", "attributes")):
        shown = torch.from_numpy(scorer.table.present).clone()
        shown[:, part] = False
        vectors[name] = model.item_vectors(content, shown, learned).numpy()
        gone = vectors["all"] - vectors[name]
        others = [column for column in range(3 * 2) if column // 2 != part]
        assert np.abs(gone[:, 2 * part : 2 * part + 2]).max() > 0.01
        assert np.abs(gone[:, others]).max() < 1e-2
    recommender.close()


def test_a_taste_is_turned_by_the_context_of_the_question_and_of_the_history(blended: Recommender) -> None:
    alone = [[0.0, 0.0, 0.0, 0.0, 1.0]] * 2
    model = blended._fitted().model
    assert model.blend is not None
    kept = model.blend.weights.clone()
    model.blend.weights.copy_(torch.tensor(alone))
    try:
        scorer = blended._ready()
        asked = [scorer.ask(["u0"], blended._contexts([{"hour": hour}], 1)).sides for hour in (23, 9)]
        assert asked[0] is not None
        assert asked[1] is not None
        assert not torch.allclose(asked[0], asked[1], atol=1e-3)
        untold = blended._fitted().vocabulary.contexts(None, num_rows=1)
        told, hidden = (scorer.rank(["u0"], untold, without=without) for without in ([], ["context"]))
        assert not np.allclose(told, hidden, atol=1e-4)
    finally:
        model.blend.weights.copy_(kept)


def test_an_index_serves_the_blended_retrieval_score(blended: Recommender) -> None:
    scorer = blended._ready()
    people, contexts = ["u0", "u4"], blended._fitted().vocabulary.contexts(None, num_rows=2)
    asked = scorer.search_queries(people, contexts)
    np.testing.assert_allclose(
        asked @ scorer.search_embeddings.T, scorer.rank(people, contexts, retrieval=True), atol=1e-4
    )
    everything = blended.recommend(people, k=3)
    shortlisted = blended.recommend(people, k=3, query=Query(shortlist=NUM_ITEMS))
    assert shortlisted.ids == everything.ids


def test_people_by_history_are_scored_as_those_who_did_the_same(blended: Recommender) -> None:
    long = [f"i{item}" for item in (1, 3, 5, 7, 9, 11, 13, 0, 2)]
    scores = blended.score([Person(long), Person(long[-8:]), Person([])], IDS, on_unknown="cold")
    # Whole histories count, though the sequence score reads only the last six.
    assert not np.allclose(scores[0], scores[1], atol=1e-4)
    assert np.isfinite(scores).all()


def test_saved_and_loaded_it_scores_the_same(blended: Recommender, tmp_path: Path) -> None:
    loaded = Recommender.load(blended.save(tmp_path / "model"), device="cpu")
    people = ["u0", "u5"]
    np.testing.assert_array_equal(loaded.score(people, IDS), blended.score(people, IDS))
    new = pd.DataFrame({"item_id": ["new"], "title": ["slow rain"], "genre": ["jazz"], "price": [3.0]})
    new["cover"] = [None]
    for recommender in (loaded, blended):
        recommender.embed(new)
    np.testing.assert_allclose(loaded.score(people, ["new"]), blended.score(people, ["new"]), atol=1e-5)
    blended.store.delete_items(["new"])
    blended._scorer = None
    loaded.close()


def test_weights_and_epochs_are_validations_and_stay_for_the_second_fit(
    bert: Path, parts: tuple[Catalogue, Catalogue, Catalogue], blended: Recommender
) -> None:
    first = blended._choice
    assert first is not None
    assert set(first.epochs) == set(SMALL)
    assert 1 <= first.epochs["sequence"] <= 3
    again = Recommender(tiny_config(bert, collaborative=SMALL))
    again.fit(parts[0], valid=parts[1], training=replace(CPU, epochs=1), refit=True)
    model = again._fitted().model
    assert model.blend is not None
    assert torch.equal(model.blend.weights, first.weights)
    assert not np.allclose(again.score(["u0"], IDS), blended.score(["u0"], IDS), atol=1e-4)
    again.close()


def test_without_validation_all_count_alike(bert: Path, catalogue: Catalogue) -> None:
    config = tiny_config(bert, collaborative={"graph": SMALL["graph"]})
    recommender = Recommender(config).fit(catalogue, training=replace(CPU, epochs=1))
    model = recommender._fitted().model
    assert model.blend is not None
    assert model.blend.weights.tolist() == [[1.0, 1.0], [1.0, 1.0]]
    recommender.close()


def test_before_anybody_did_anything_there_is_nothing_to_blend(
    bert: Path, catalogue: Catalogue, tmp_path: Path
) -> None:
    recommender = Recommender(tiny_config(bert, collaborative=SMALL)).fit(without_interactions(catalogue), training=CPU)
    assert recommender._fitted().model.blend is None
    loaded = Recommender.load(recommender.save(tmp_path / "model"), device="cpu")
    person = [Person(["i1"])]
    np.testing.assert_array_equal(loaded.score(person, IDS), recommender.score(person, IDS))
    for each in (loaded, recommender):
        each.close()


def test_texts_apart_are_told_apart(bert: Path, tmp_path: Path) -> None:
    catalogue = write_catalogue(tmp_path)
    items = catalogue.items.assign(plot=[f"rain {'drum ' * (item % 4)}" for item in range(NUM_ITEMS)])
    schema = replace(catalogue.schema, text=("title", "plot"))
    catalogue = Catalogue.from_frames(items, catalogue.interactions, catalogue.users, schema=schema)
    text = TowerConfig(f"hf:{bert}", max_tokens=16, columns_apart=True)
    config = RecommenderConfig({"text": text}, embedding_dim=8, behaviour_rank=4, collaborative=SMALL)
    recommender = Recommender(config).fit(catalogue, training=replace(CPU, epochs=1))
    model = recommender._fitted().model
    assert model.blend is not None
    assert model.blend.content.block_widths["text"] == 2 * model.tower("text").feature_dim
    new = pd.DataFrame(items.iloc[[3, 3]])
    new["item_id"] = ["as it is", "turned"]
    new["genre"], new["price"], new["cover"] = None, None, None
    new.loc[new["item_id"] == "turned", ["title", "plot"]] = new.loc[
        new["item_id"] == "turned", ["plot", "title"]
    ].to_numpy()
    recommender.embed(new)
    table = recommender.store.read_items(model=recommender._fitted().job.fingerprint)
    first, second = (table.ids.index(name) for name in ("as it is", "turned"))
    # The mean over windows is the same; what title and plot say is not.
    np.testing.assert_allclose(table.tokens[first, 0], table.tokens[second, 0], atol=2e-2)
    assert np.abs(table.content[first, 0] - table.content[second, 0]).max() > 0.05
    recommender.close()


def test_what_cannot_be_is_told_before_anything_is_trained(bert: Path, catalogue: Catalogue) -> None:
    unordered = Catalogue.from_frames(
        catalogue.items,
        catalogue.interactions.drop(columns=["timestamp"]),
        schema=replace(catalogue.schema, user_attributes={}),
    )
    with pytest.raises(CatalogueError, match=r"blends in a sequence score, and interactions have no order"):
        Recommender(tiny_config(bert, collaborative=SMALL)).fit(unordered, training=CPU)
    with pytest.raises(ConfigError, match=r"collaborative score 'sequences' is unknown.*Did you mean 'sequence'"):
        tiny_config(bert, collaborative={"sequences": SequenceConfig()})
    with pytest.raises(ConfigError, match=r"collaborative\['graph'\] is a SequenceConfig. Expected a GraphConfig"):
        tiny_config(bert, collaborative={"graph": SequenceConfig()})
    with pytest.raises(ConfigError, match="behaviour=False says not to"):
        tiny_config(bert, collaborative=SMALL, behaviour=False)


def test_settings_are_read_from_plain_values_and_back(bert: Path) -> None:
    config = RecommenderConfig.from_dict({"collaborative": {"sequence": {"window": 20}, "item_item": {}}})
    assert config.collaborative == {"sequence": SequenceConfig(window=20), "item_item": ItemItemConfig()}
    config = tiny_config(bert, collaborative=SMALL)
    assert RecommenderConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ConfigError, match=r"SequenceConfig has no setting 'windows'. Did you mean 'window'"):
        RecommenderConfig.from_dict({"collaborative": {"sequence": {"windows": 20}}})
