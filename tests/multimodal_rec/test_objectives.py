"""What a model may be trained for: every objective, ratings, learned weights of tasks, and every kind of fusion."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from fusion import FUSIONS
from multimodal_rec.catalogue import Catalogue
from multimodal_rec.config import FusionKind, RecommenderConfig
from multimodal_rec.errors import CatalogueError, ConfigError
from multimodal_rec.model import RecommenderModel
from multimodal_rec.recommender import Recommender
from multimodal_rec.steps import Objective, Step, TrainingData
from tests.multimodal_rec.tiny import CPU, ready_to_train, tiny_config

NOTHING = np.zeros(0, dtype=np.int64)
EVERYTHING = np.arange(40)


@pytest.fixture(scope="module")
def config(bert: Path) -> RecommenderConfig:
    return replace(tiny_config(bert), dropout=0.0, modality_dropout=0.0, behaviour_dropout=0.0)


@pytest.fixture
def ready(catalogue: Catalogue, config: RecommenderConfig) -> tuple[RecommenderModel, TrainingData]:
    return ready_to_train(catalogue, config)


def _loss(ready: tuple[RecommenderModel, TrainingData], config: RecommenderConfig, events: np.ndarray) -> float:
    torch.manual_seed(0)
    return float(Objective(*ready, config, CPU).eval()(Step(events, NOTHING)).detach())


@pytest.mark.parametrize("hard_negatives", [0.0, 0.5])
@pytest.mark.parametrize("objective", ["softmax", "bpr", "bce"])
def test_each_objective_lifts_what_was_taken(
    objective: str, hard_negatives: float, ready: tuple[RecommenderModel, TrainingData], config: RecommenderConfig
) -> None:
    model, data = ready
    config = replace(config, objective=objective, num_negatives=4, hard_negatives=hard_negatives, alignment_weight=0.0)
    liked = np.flatnonzero(data.weights > 0)
    training = Objective(model, data, config, CPU)
    optimiser = torch.optim.AdamW(training.parameters(), lr=1e-2)
    torch.manual_seed(0)
    before = _loss(ready, replace(config, objective="softmax"), liked)
    for _ in range(20):
        optimiser.zero_grad()
        training.train()(Step(liked, NOTHING)).backward()
        optimiser.step()
    assert _loss(ready, replace(config, objective="softmax"), liked) < before - 0.3


def test_objectives_differ(ready: tuple[RecommenderModel, TrainingData], config: RecommenderConfig) -> None:
    losses = {name: _loss(ready, replace(config, objective=name), EVERYTHING) for name in ("softmax", "bpr", "bce")}
    assert len({round(loss, 4) for loss in losses.values()}) == 3


def test_an_event_counts_by_its_weight(ready: tuple[RecommenderModel, TrainingData], config: RecommenderConfig) -> None:
    model, data = ready
    config = replace(config, alignment_weight=0.0)
    # Of one person, so that both are told with the same behaviour tokens.
    liked = np.flatnonzero((data.weights > 0) & (data.events.user_index == data.events.user_index[0]))
    first, second = liked[:2]
    alone = [_loss((model, data), config, np.array([row])) for row in (first, second)]
    weights = data.weights.copy()
    weights[[first, second]] = [3.0, 1.0]
    heavier = _loss((model, replace(data, weights=weights)), config, np.array([first, second]))
    assert heavier == pytest.approx((3 * alone[0] + alone[1]) / 4, rel=1e-4)


def test_a_rating_is_learned_from_the_score(
    ready: tuple[RecommenderModel, TrainingData], config: RecommenderConfig
) -> None:
    without, with_ratings = (_loss(ready, replace(config, rating_weight=weight), EVERYTHING) for weight in (0.0, 2.0))
    # Predictions start at 0, the mean: what is added is twice the mean square of the standardised ratings.
    values = ready[1].events.value[EVERYTHING]
    assert with_ratings - without == pytest.approx(2 * float(np.mean(values**2)), rel=1e-3)


def test_ratings_need_values(catalogue: Catalogue, config: RecommenderConfig) -> None:
    bare = replace(catalogue, interactions=catalogue.interactions.drop(columns="value"))
    with pytest.raises(CatalogueError, match=r"rating_weight is 1\.0, and no interaction has a value"):
        Recommender(replace(config, rating_weight=1.0)).fit(bare, training=CPU)


def test_learned_weights_start_at_the_plain_sum_and_move(
    catalogue: Catalogue, ready: tuple[RecommenderModel, TrainingData], config: RecommenderConfig
) -> None:
    learned = replace(config, task_weights="learned", rating_weight=1.0)
    fixed = replace(learned, task_weights="fixed")
    assert _loss(ready, learned, EVERYTHING) == pytest.approx(_loss(ready, fixed, EVERYTHING), rel=1e-5)
    objective = Objective(*ready, learned, CPU).train()
    assert objective.task_weights is not None
    optimiser = torch.optim.SGD(objective.task_weights.parameters(), lr=0.1)
    objective(Step(EVERYTHING, NOTHING)).backward()
    optimiser.step()
    # Ranking two scores costs far more than 1 a step, so that its weight falls; none is 1 any longer.
    weights = objective.task_weights.weights()
    assert weights["ranking"] < 1
    assert all(weight != 1 for weight in weights.values())


def test_the_configuration_names_the_fusions_there_are() -> None:
    assert get_args(FusionKind) == FUSIONS


@pytest.mark.parametrize("kind", FUSIONS)
def test_every_fusion_trains_ranks_and_comes_back(
    kind: str, catalogue: Catalogue, config: RecommenderConfig, tmp_path: Path
) -> None:
    recommender = Recommender(replace(config, fusion=kind)).fit(catalogue, training=replace(CPU, epochs=1))
    ids = list(catalogue.item_ids)
    scores = recommender.score(["u0", "u1"], ids, context={"hour": 9})
    assert np.isfinite(scores).all()
    again = Recommender.load(recommender.save(tmp_path / kind), device="cpu")
    assert again.config.fusion == kind
    np.testing.assert_allclose(again.score(["u0", "u1"], ids, context={"hour": 9}), scores, atol=1e-5)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"fusion": "gate"}, "fusion 'gate' is unknown.*Did you mean 'gating'"),
        ({"objective": "brp"}, "objective 'brp' is unknown.*Did you mean 'bpr'"),
        ({"task_weights": "learn"}, "task_weights 'learn' is unknown"),
        ({"num_negatives": 0}, "num_negatives is 0"),
        ({"hard_negatives": 1.5}, r"hard_negatives is 1\.5"),
        ({"rating_weight": -1.0}, r"rating_weight is -1\.0. Expected a number of at least 0"),
        ({"pointwise_weight": -0.5}, r"pointwise_weight is -0\.5"),
        ({"alignment_weight": float("nan")}, "alignment_weight is nan"),
    ],
)
def test_settings_that_cannot_be_are_refused(setting: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(RecommenderConfig({}), **setting)
