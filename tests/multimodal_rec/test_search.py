"""Wishes in words: what is compared with what, how it is blended with taste, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from multimodal_rec.catalogue import Catalogue
from multimodal_rec.config import RecommenderConfig, TowerConfig
from multimodal_rec.errors import ConfigError, ContextError, UnknownIdError
from multimodal_rec.people import OnUnknown, Person
from multimodal_rec.recommender import Recommender
from multimodal_rec.reranking import Cap
from multimodal_rec.retrieval import Query
from multimodal_rec.search import WishSearch, blended, standardised
from multimodal_rec.words import WordIndex
from tests.multimodal_rec.tiny import CPU, NUM_ITEMS, tiny_config
from tests.towers.tiny import write_clip_config

WISH = "slow piano in the rain"


@pytest.fixture(scope="module")
def search(fitted: Recommender) -> WishSearch:
    return fitted._searcher()[1]


def test_one_scale() -> None:
    rows = standardised(np.array([[1.0, 3.0, 9.0], [2.0, 2.0, 2.0]]), np.array([True, True, False]))
    np.testing.assert_allclose(rows, [[-1, 1, 0], [0, 0, 0]])
    assert standardised(np.ones((2, 3)), np.zeros(3, dtype=bool)).tolist() == [[0] * 3] * 2


def test_a_part_says_what_its_cosine_with_the_wish_says(fitted: Recommender, search: WishSearch) -> None:
    """The evidence of one part, from the stored tokens and the weights, is what `match` standardises."""
    model, table = fitted._fitted().model, fitted._ready().table
    with torch.inference_mode():
        said = torch.from_numpy(model.tower("text").encode([WISH]))
        wish = F.normalize(model.aligners["text"](F.layer_norm(said, (8,))), dim=1)
        for part, name in enumerate(("text", "image", "attributes")):
            items = F.normalize(model.aligners[name](torch.from_numpy(table.tokens[:, part])), dim=1)
            logits = (wish @ items.T).numpy() / 0.1
            here = table.present[:, part]
            evidence = np.where(here, logits - np.log(np.exp(logits[:, here]).mean()), 0)
            np.testing.assert_allclose(
                search.match([WISH], parts=[name], words=0), standardised(evidence), rtol=1e-3, atol=1e-4
            )


def test_who_took_an_item_has_no_say(fitted: Recommender, search: WishSearch) -> None:
    table = fitted._ready().table
    assert search.parts == ("text", "image", "attributes")
    before, rng = table.tokens[:, -1].copy(), np.random.default_rng(0)
    table.tokens[:, -1] = rng.normal(size=before.shape)
    try:
        other = WishSearch(fitted._fitted().model, table)
        np.testing.assert_array_equal(other.match([WISH]), search.match([WISH]))
    finally:
        table.tokens[:, -1] = before


def test_equal_words_lift_an_item(search: WishSearch) -> None:
    is_rock = np.array([int(item_id[1:]) % 2 == 1 for item_id in sorted(f"i{item}" for item in range(NUM_ITEMS))])

    def gap(words: float) -> float:
        scores = search.match(["rock"], words=words)[0]
        return float(scores[is_rock].min() - scores[~is_rock].max())

    assert gap(5.0) > max(0.0, gap(0.0))


def test_the_best_matches_in_their_order_one_row_a_wish(fitted: Recommender, search: WishSearch) -> None:
    found = fitted.search([WISH, "loud drum"], k=4)
    scores, ids = search.match([WISH, "loud drum"]), fitted._ready().ids
    for row in range(2):
        order = np.argsort(-scores[row], kind="stable")[:4]
        assert found.ids[row] == [ids[place] for place in order]
        np.testing.assert_allclose(found.scores[row], scores[row, order], rtol=1e-5)
    assert found.reasons == (None, None)
    assert fitted.search(WISH, k=4).ids == found.ids[:1]
    assert fitted.search([], k=4).ids == []


def test_taste_is_blended_on_one_scale(fitted: Recommender, search: WishSearch) -> None:
    context, everything = {"hour": 23}, Query(exclude_seen=False)
    ids = fitted._ready().ids
    taste = standardised(fitted.score(["u0"], ids, context=context))[0]
    match = search.match([WISH])[0]
    for share in (0.0, 0.3, 1.0):
        found = fitted.search(WISH, k=NUM_ITEMS, user="u0", context=context, query=everything, taste=share)
        expected = dict(zip(ids, (1 - share) * match + share * taste, strict=True))
        np.testing.assert_allclose(found.scores[0], [expected[str(name)] for name in found.ids[0]], atol=1e-4)
    np.testing.assert_allclose(blended(match[None], taste[None], 0), match[None])
    other = fitted.search(WISH, k=3, context=context, taste=1.0)
    assert other.ids[0] == fitted.recommend([Person()], k=3, context=context, on_unknown="cold").ids[0]


def test_a_query_filters_and_what_was_taken_is_left_out(fitted: Recommender, catalogue: Catalogue) -> None:
    log = catalogue.interactions
    taken = set(log["item_id"][log["user_id"] == "u0"])
    found = fitted.search(WISH, k=NUM_ITEMS, user="u0", query=Query(where={"genre": "jazz"}))
    shown = [item_id for item_id in found.ids[0] if item_id is not None]
    jazz = {f"i{item}" for item in range(0, NUM_ITEMS, 2)}
    assert set(shown) == jazz - taken
    assert found.reasons[0] == (
        f"{len(shown)} of 14 asked for: of 14 items, the query admits 7, and {7 - len(shown)} of these the person has "
        "taken."
    )
    few = fitted.search(WISH, k=2, query=Query(candidates=("i3", "i5")))
    assert sorted(map(str, few.ids[0])) == ["i3", "i5"]
    whole = dict(zip(*(each[0] for each in fitted.search(WISH, k=NUM_ITEMS)), strict=True))
    np.testing.assert_allclose(few.scores[0], [whole[name] for name in few.ids[0]])


def test_steps_reorder_what_a_wish_finds(fitted: Recommender) -> None:
    plain = fitted.search([WISH, "loud drum"], k=NUM_ITEMS)
    capped = fitted.search([WISH, "loud drum"], k=4, query=Query(steps=(Cap("genre", 1),)))
    for row in range(2):
        first: dict[int, str | None] = {}
        for item_id in plain.ids[row]:
            first.setdefault(int(str(item_id)[1:]) % 2, item_id)
        assert capped.ids[row] == [*first.values(), None, None]
    by = {by: fitted.search(WISH, user="u0", taste=1.0, query=Query(by=by)).ids for by in ("ranking", "retrieval")}
    assert by["retrieval"] == fitted.recommend(["u0"], query=Query(by="retrieval")).ids
    assert by["ranking"] == fitted.recommend(["u0"]).ids


@pytest.mark.parametrize("user", ["nobody", Person(), Person(["i2", "never embedded"])])
def test_somebody_unknown_under_each_policy(fitted: Recommender, user: str | Person) -> None:
    context = {"hour": 23}
    with pytest.raises(UnknownIdError, match=r"Pass on_unknown='cold'"):
        fitted.search(WISH, k=3, user=user, context=context)
    skipped = fitted.search([WISH, "loud drum"], k=3, user=user, context=context, on_unknown="skip")
    assert skipped.ids == [[None] * 3] * 2
    assert np.isneginf(skipped.scores).all()
    assert skipped.reasons == ("nothing is known of this person, and on_unknown='skip' asks for an empty row.",) * 2
    cold = fitted.search(WISH, k=NUM_ITEMS, user=user, context=context, on_unknown="cold", taste=1.0)
    asked = fitted.recommend([user], k=NUM_ITEMS, context=context, on_unknown="cold")
    assert cold.ids == asked.ids
    assert cold.reasons == asked.reasons


@pytest.mark.parametrize("policy", ["raise", "skip", "cold"])
def test_policies_change_nothing_for_whoever_is_known(fitted: Recommender, policy: OnUnknown) -> None:
    known = fitted.search(WISH, k=4, user="u0", on_unknown=policy)
    assert known.ids == fitted.search(WISH, k=4, user="u0").ids
    nobody = fitted.search(WISH, k=4, context={"hour": 9}, on_unknown=policy)
    assert nobody.ids == fitted.search(WISH, k=4, context={"hour": 9}).ids
    with pytest.raises(UnknownIdError, match="'i99'"):
        fitted.search(WISH, query=Query(candidates=("i99",)), on_unknown=policy)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"wishes": "  "}, ConfigError, "wish 0 is '  '. Expected text with a word in it"),
        ({"wishes": ["fine", 3]}, ConfigError, "wish 1 is 3"),
        ({"wishes": WISH, "user": "nobody"}, UnknownIdError, "user 'nobody' is unknown"),
        ({"wishes": WISH, "context": {"hours": 3}}, ContextError, "Did you mean 'hour'"),
        ({"wishes": WISH, "user": "u0", "taste": 1.5}, ConfigError, "taste is 1.5. Expected a share from 0"),
        ({"wishes": WISH, "user": "nobody", "taste": -1, "on_unknown": "skip"}, ConfigError, "taste is -1"),
        ({"wishes": WISH, "query": Query(shortlist=5)}, ConfigError, "Query.shortlist is 5: an index finds"),
        ({"wishes": WISH, "query": Query(candidates=("i99",))}, UnknownIdError, "'i99'"),
        ({"wishes": WISH, "k": 0}, ConfigError, "k is 0"),
    ],
)
def test_what_is_refused(fitted: Recommender, arguments: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fitted.search(**arguments)


def test_a_part_that_is_not_there(search: WishSearch) -> None:
    with pytest.raises(ConfigError, match=r"'behaviour' cannot be searched\. Expected some of text, image, attributes"):
        search.match([WISH], parts=["behaviour"])


def test_a_model_that_reads_no_text_says_so(bert: Path, catalogue: Catalogue) -> None:
    pictures = {"image": tiny_config(bert).towers["image"]}
    config = RecommenderConfig(pictures, embedding_dim=8, behaviour_rank=4)
    recommender = Recommender(config).fit(catalogue, training=CPU)
    with pytest.raises(ConfigError, match=r"this model reads no text: its towers are for image. Expected a text tower"):
        recommender.search(WISH)
    recommender.close()


def test_words_find_nothing_where_there_are_no_attributes() -> None:
    assert WordIndex([{"tags": None}] * 3).scores([WISH]).tolist() == [[0, 0, 0]]


def test_clip_compares_a_wish_with_pictures_in_its_own_space(catalogue: Catalogue, tmp_path: Path) -> None:
    """The only tower reads pictures, and its text half reads the wish, before a save and after it."""
    config = json.loads(write_clip_config(tmp_path, "tiny-clip-search").read_text())
    config["text_cfg"]["vocab_size"] = 49408
    (tmp_path / "tiny-clip-search.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "tiny-clip-search.json")
    folder = tmp_path / "clip"
    folder.mkdir()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_file(open_clip.create_model("tiny-clip-search").state_dict(), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    towers = {"image": TowerConfig(f"open_clip:{folder}", max_windows=1)}
    recommender = Recommender(RecommenderConfig(towers, embedding_dim=8, behaviour_rank=4)).fit(catalogue, training=CPU)
    search, table = recommender._searcher()[1], recommender._ready().table
    assert search.parts == ("image",)
    tower = recommender.towers["image"]
    rows = tower.backbone.encode_query([WISH])  # pyright: ignore[reportCallIssue]
    with torch.inference_mode():
        wish = F.normalize(F.layer_norm(tower.projection(rows), (8,)), dim=1).numpy()
    tokens = table.tokens[:, 0] / np.maximum(np.linalg.norm(table.tokens[:, 0], axis=1, keepdims=True), 1e-9)
    expected = standardised(wish @ tokens.T, table.present[:, 0])
    np.testing.assert_allclose(search.match([WISH], words=0), standardised(expected), atol=1e-3)
    found = recommender.search(WISH, k=5)
    recommender.save(tmp_path / "model")
    again = Recommender.load(tmp_path / "model", device="cpu")
    assert again.search(WISH, k=5).ids == found.ids
    recommender.close()
    again.close()
