"""Whom the validation part is asked about, while a model learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from multimodal_rec import validation
from multimodal_rec.catalogue import Catalogue
from multimodal_rec.evaluation import Evaluation, evaluate_ranking
from multimodal_rec.recommender import Recommender
from tests.multimodal_rec.tiny import CPU, NUM_ITEMS, tiny_config


@pytest.mark.parametrize(("most_scores", "num_people"), [(3 * NUM_ITEMS, 3), (1, 1), (10**6, None)])
def test_some_people_are_asked_where_all_would_be_too_many_scores(
    most_scores: int, num_people: int | None, bert: Path, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[set[str]] = []

    def ranked(score: Any, log: pd.DataFrame, **options: Any) -> Evaluation:
        asked.append(set(log["user_id"]))
        return evaluate_ranking(score, log, **options)

    monkeypatch.setattr(validation, "evaluate_ranking", ranked)
    monkeypatch.setattr(validation, "MOST_SCORES", most_scores)
    train, valid, _ = catalogue.split("last")
    recommender = Recommender(tiny_config(bert)).fit(train, valid=valid, training=replace(CPU, epochs=2))
    assert len(asked) == 2
    assert asked[0] == asked[1]
    assert asked[0] <= set(valid.interactions["user_id"])
    if num_people is None:
        assert len(asked[0]) > 3
    else:
        assert len(asked[0]) == num_people
    recommender.close()
