"""The loop: epochs, a falling rate, early stopping, the best weights kept; and what a step's softmax is over."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from multimodal_rec.collaborative.fitting import CollaborativeConfig, Learner, candidates, fit
from multimodal_rec.collaborative.score import CollaborativeScore
from multimodal_rec.errors import ConfigError
from multimodal_rec.history import HistoryBatch


class Constant(CollaborativeScore):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("vectors", torch.zeros(2, 1))

    def items(self, vectors: Tensor) -> Tensor:
        return vectors

    def people(self, history: HistoryBatch, vectors: Tensor, person: Tensor) -> Tensor:
        return vectors[:1]


class Counter(Learner):
    """Its weight falls by Adam's rate in each of two steps an epoch, whatever the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.score = Constant()
        self.weight = torch.nn.Parameter(torch.rand(1))
        self.before = float(self.weight.detach())

    def losses(self, random: np.random.Generator) -> Iterator[Tensor]:
        for _ in range(2):
            yield self.weight.sum() * 3

    def num_steps(self) -> int:
        return 2

    def refresh(self) -> None:
        self.score.vectors.copy_((self.before - self.weight).expand(2, 1))


def gone(score: CollaborativeScore) -> float:
    """How far the weight has fallen."""
    return float(score.vectors[0, 0])


def test_every_epoch_is_run_where_nobody_validates() -> None:
    told: list[tuple[int, float | None]] = []
    config = CollaborativeConfig(epochs=3, learning_rate=0.1, last_rate=1.0)
    found = fit(Counter, config, on_epoch=lambda epoch, loss, value: told.append((epoch, value)))
    assert told == [(1, None), (2, None), (3, None)]
    assert (found.epochs, found.value) == (3, None)
    assert gone(found.score) == pytest.approx(0.6, rel=1e-4)
    assert not found.score.training


def test_the_best_weights_are_kept_and_training_stops() -> None:
    answers = iter([0.1, 0.7, 0.3, 0.7, 0.9])
    asked: list[float] = []

    def validate(score: CollaborativeScore) -> float:
        asked.append(gone(score))
        return next(answers)

    config = CollaborativeConfig(epochs=20, patience=2, learning_rate=0.1, last_rate=1.0)
    found = fit(Counter, config, validate=validate)
    # An equal answer is no gain.
    assert asked == pytest.approx([0.2, 0.4, 0.6, 0.8], rel=1e-4)
    assert (found.epochs, found.value) == (2, 0.7)
    assert gone(found.score) == pytest.approx(0.4, rel=1e-4)


def test_validation_comes_as_often_as_asked() -> None:
    told: list[float | None] = []
    config = CollaborativeConfig(epochs=5, every=2)
    fit(Counter, config, validate=lambda score: 1.0, on_epoch=lambda epoch, loss, value: told.append(value))
    assert told == [None, 1.0, None, 1.0, None]


def test_the_rate_falls_by_a_cosine() -> None:
    config = CollaborativeConfig(epochs=5, learning_rate=0.1, last_rate=0.2)
    found = fit(Counter, config)
    share = 0.2 + 0.8 * (1 + np.cos(np.pi * np.arange(1, 11) / 10)) / 2
    assert gone(found.score) == pytest.approx(0.1 * share.sum(), rel=1e-3)


def test_a_shorter_training_is_the_beginning_of_the_longer() -> None:
    config = CollaborativeConfig(epochs=5, learning_rate=0.1, last_rate=0.2)
    seen: list[float] = []
    fit(Counter, config, validate=lambda score: seen.append(gone(score)) or float(len(seen)))
    short = fit(Counter, config, stop_after=2)
    assert short.epochs == 2
    assert gone(short.score) == pytest.approx(seen[1], rel=1e-6)


def test_the_seed_draws_the_weights_and_nothing_else_is_disturbed() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    starts: list[float] = []

    def build() -> Counter:
        counter = Counter()
        starts.append(counter.before)
        return counter

    for seed in (0, 0, 1):
        fit(build, CollaborativeConfig(epochs=1, seed=seed))
    assert starts[0] == starts[1] != starts[2]
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epochs": 0}, "epochs is 0. Expected at least 1"),
        ({"patience": 0}, "patience is 0"),
        ({"dim": 0}, "dim is 0"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"last_rate": 1.5}, "last_rate 1.5"),
        ({"weight_decay": -1.0}, "weight_decay -1.0"),
    ],
)
def test_numbers_that_cannot_be_are_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CollaborativeConfig(**wrong)  # pyright: ignore[reportArgumentType]


class TestCandidates:
    share = np.array([0.5, 0.0, 0.25, 0.25, 0.0])

    def test_few_items_are_all_candidates_but_those_nobody_took(self) -> None:
        found = candidates(np.array([2]), self.share, 3, np.random.default_rng(0))
        assert found.item_index.tolist() == [0, 2, 3]
        assert not found.log_share.any()
        assert found.places(torch.tensor([[3, 0], [2, 2]])).tolist() == [[2, 0], [1, 1]]

    def test_of_many_items_the_targets_are_always_there(self) -> None:
        share = np.full(1000, 1e-3)
        targets = np.array([5, 999, 5])
        found = candidates(targets, share, 100, np.random.default_rng(0), per_step=50)
        assert set(targets.tolist()) <= set(found.item_index.tolist())
        assert 50 <= len(found.item_index) <= 52
        assert (np.diff(found.item_index.numpy()) > 0).all()

    def test_log_share_is_the_chance_to_be_there(self) -> None:
        random = np.random.default_rng(0)
        share = np.array([0.7, 0.2, 0.05, 0.05])
        times, expected = np.zeros(4), np.zeros(4)
        for _ in range(4000):
            found = candidates(random.choice(4, 3, p=share), share, 1, random, per_step=1)
            times[found.item_index.numpy()] += 1
            expected[found.item_index.numpy()] = found.log_share.exp().numpy()
        np.testing.assert_allclose(times / 4000, expected, atol=0.03)
