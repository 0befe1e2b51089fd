"""New items among known ones: each kind ranked by weights of its own, and known ones not drowned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from multimodal_rec.balance import LOSS, _highest
from multimodal_rec.catalogue import Catalogue
from multimodal_rec.collaborative.settings import ItemItemConfig
from multimodal_rec.config import RecommenderConfig, TowerConfig
from multimodal_rec.evaluation import evaluate_ranking
from multimodal_rec.people import Person
from multimodal_rec.recommender import Recommender
from multimodal_rec.schema import Schema
from tests.multimodal_rec.tiny import CPU

PEOPLE, KNOWN, NEW = 200, 30, 10
GENRES = ("jazz", "rock", "folk", "soul", "punk")
SCHEMA = Schema("shelf", kind="music", text=("title",), attributes={"genre": "category"})


def shelf(seed: int) -> tuple[Catalogue, Catalogue]:
    """People who take what is of their genre. Held out: all that was done with ten items, and each one's last other."""
    random = np.random.default_rng(seed)
    count = KNOWN + NEW
    items = pd.DataFrame(
        {
            "item_id": [f"i{item:02}" for item in range(count)],
            "title": [f"a slow {'drum' if item % 2 else 'piano'}" for item in range(count)],
            "genre": [GENRES[item % 5] for item in range(count)],
        }
    )
    rows: list[dict[str, object]] = []
    for user in range(PEOPLE):
        own = [item for item in range(count) if item % 5 == user % 5]
        known = [int(random.integers(KNOWN)), *random.permutation([i for i in own if i < KNOWN])[:5]]
        taken = dict.fromkeys([*known, *(i for i in own if i >= KNOWN)])
        rows += [
            {"user_id": f"u{user}", "item_id": f"i{item:02}", "timestamp": 1_700_000_000 + 90_000 * place + user}
            for place, item in enumerate(taken)
        ]
    log = pd.DataFrame(rows)
    is_new = log["item_id"] >= f"i{KNOWN:02}"
    last = log.loc[~is_new].groupby("user_id").tail(1).index
    held = is_new | log.index.isin(last)
    train = Catalogue.from_frames(items.iloc[:KNOWN], log.loc[~held].reset_index(drop=True), schema=SCHEMA)
    return train, Catalogue.from_frames(items, log.loc[held].reset_index(drop=True), schema=SCHEMA)


def test_new_items_are_found_among_known_ones_and_known_ones_stay_where_they_were(bert: Path, tmp_path: Path) -> None:
    train, valid = shelf(seed=0)
    config = RecommenderConfig(
        {"text": TowerConfig(f"hf:{bert}", max_tokens=16)},
        embedding_dim=8,
        behaviour_rank=4,
        collaborative={"item_item": ItemItemConfig(rank=8)},
    )
    recommender = Recommender(config).fit(train, valid=valid, training=replace(CPU, epochs=1))
    recommender.embed(valid.items)
    blend = recommender._fitted().model.blend
    assert blend is not None
    assert blend.placement.learned
    is_new = valid.interactions["item_id"] >= f"i{KNOWN:02}"

    # As validation saw them: what people took of its part is not in their histories.
    scorer = recommender._fitted().scorer(train.interactions)

    def ndcg(log: pd.DataFrame, item_ids: Sequence[str]) -> float:
        def score(queries: pd.DataFrame) -> np.ndarray:
            nothing = recommender._fitted().vocabulary.contexts(None, num_rows=len(queries))
            rows = [scorer.item_rows[item_id] for item_id in item_ids]
            return scorer.rank(queries["user_id"].tolist(), nothing, rows)

        return evaluate_ranking(score, log, known=train.interactions, item_ids=item_ids).means()["ndcg@10"]

    everything, known = valid.item_ids, train.item_ids
    others = valid.interactions.loc[~is_new].reset_index(drop=True)
    assert ndcg(others, everything) >= (1 - LOSS) * ndcg(others, known) - 1e-3
    # They compete for the same places with what is known, and yet some are found.
    assert ndcg(valid.interactions.loc[is_new].reset_index(drop=True), everything) > 0.3
    # Of new items the mean stands as high above known ones for a short history as for a long one.
    people = [Person(["i00"]), Person(["i00", "i05", "i10", "i15", "i20"])]
    contexts = recommender._fitted().vocabulary.contexts(None, num_rows=2)
    asked = torch.from_numpy(scorer.search_queries(people, contexts))
    lie = blend.placement.lie(asked[:, :-1])
    torch.testing.assert_close(asked[:, -1], lie.known + blend.placement.height * lie.spread - lie.new)
    assert not torch.isclose(asked[0, -1], asked[1, -1])
    # The index searches what is ranked, the place of new items included.
    retrieved = scorer.rank(people, contexts, retrieval=True)
    np.testing.assert_allclose(asked.numpy() @ scorer.search_embeddings.T, retrieved, atol=1e-4)
    loaded = Recommender.load(recommender.save(tmp_path / "model"), device="cpu")
    np.testing.assert_array_equal(loaded.score(["u1"], everything), recommender.score(["u1"], everything))
    for each in (loaded, recommender):
        each.close()


@pytest.mark.parametrize("holds", [lambda x: x <= 1.3, lambda x: x <= 9, lambda x: x < -9])
def test_the_highest_offset_that_holds(holds: Callable[[float], bool]) -> None:
    expected = max((x for x in np.linspace(-4, 4, 4097) if holds(float(x))), default=-4.0)
    assert _highest(holds, 4.0) == pytest.approx(expected, abs=8 / 2048)
