"""One training step: what it reads, which items run, and that everything that should learn does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from multimodal_rec.catalogue import Catalogue
from multimodal_rec.config import RecommenderConfig
from multimodal_rec.losses import alignment
from multimodal_rec.model import RecommenderModel
from multimodal_rec.steps import Objective, Step, TrainingData, epoch_steps, num_steps
from tests.multimodal_rec.tiny import CPU, NUM_ITEMS, ready_to_train, tiny_config, without_interactions

NOTHING = np.zeros(0, dtype=np.int64)
EVENTS = np.arange(20)


@pytest.fixture(scope="module")
def config(bert: Path) -> RecommenderConfig:
    return replace(tiny_config(bert), dropout=0.0)


@pytest.fixture
def ready(catalogue: Catalogue, config: RecommenderConfig) -> tuple[RecommenderModel, TrainingData]:
    return ready_to_train(catalogue, config)


def _loss(
    ready: tuple[RecommenderModel, TrainingData], config: RecommenderConfig, step: Step, max_items: int = 1000
) -> torch.Tensor:
    return Objective(*ready, config, replace(CPU, max_softmax_items=max_items)).eval()(step)


def test_an_epoch_tells_every_event_and_runs_every_item_once(ready: tuple[RecommenderModel, TrainingData]) -> None:
    _, data = ready
    data = replace(data, weights=np.where(np.arange(len(data.weights)) == 7, 0, data.weights))
    steps = list(epoch_steps(data, CPU, np.random.default_rng(0)))
    assert len(steps) == num_steps(data, CPU)
    told = [row for row in range(len(data.weights)) if row != 7]
    assert sorted(np.concatenate([s.events for s in steps if not len(s.fresh)])) == told
    assert sorted(np.concatenate([s.events for s in steps if len(s.fresh)])) == told
    assert sorted(np.concatenate([s.fresh for s in steps])) == list(range(NUM_ITEMS))
    for step in steps:
        assert len(step.fresh) <= CPU.items_per_step
        if len(step.fresh):
            assert set(data.events.item_index[step.events]) <= set(step.fresh)
        else:
            assert len(step.events) <= CPU.batch_size


def test_frozen_towers_need_no_items_to_run(ready: tuple[RecommenderModel, TrainingData]) -> None:
    data = replace(ready[1], trained=())
    steps = list(epoch_steps(data, CPU, np.random.default_rng(0)))
    assert sorted(np.concatenate([step.events for step in steps])) == list(range(len(data.weights)))
    assert not any(len(step.fresh) for step in steps)


def test_the_generator_decides_the_order(ready: tuple[RecommenderModel, TrainingData]) -> None:
    orders = [
        [step.events.tolist() for step in epoch_steps(ready[1], CPU, np.random.default_rng(seed))] for seed in (0, 0, 1)
    ]
    assert orders[0] == orders[1] != orders[2]


def test_without_interactions_an_epoch_is_all_items(catalogue: Catalogue, config: RecommenderConfig) -> None:
    _, data = ready_to_train(without_interactions(catalogue), config)
    for trained in (data.trained, ()):
        steps = list(epoch_steps(replace(data, trained=trained), CPU, np.random.default_rng(0)))
        assert sorted(np.concatenate([step.fresh for step in steps])) == list(range(NUM_ITEMS))


def test_without_interactions_the_loss_is_the_alignment(catalogue: Catalogue, config: RecommenderConfig) -> None:
    model, data = ready_to_train(without_interactions(catalogue), config)
    for max_items in (1000, 1):
        step = Step(NOTHING, np.arange(NUM_ITEMS))
        loss = _loss((model, data), config, step, max_items)
        model.eval()
        tokens, present = model.tokens(data.items)
        expected = config.alignment_weight * alignment(model.aligned(tokens), [present[:, part] for part in range(3)])
        torch.testing.assert_close(loss, expected, rtol=1e-3, atol=1e-4)
        assert float(loss.detach()) > 0


def test_without_interactions_what_runs_through_a_tower_is_compared(
    catalogue: Catalogue, config: RecommenderConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two items of a step's four are fresh, and both are among the three that there is room for, every time."""
    monkeypatch.setattr("multimodal_rec.steps._COMPARED", 3)
    model, data = ready_to_train(without_interactions(catalogue), config)
    pool, step = np.array([1, 3, 5, 7]), Step(NOTHING, np.array([5, 3]))
    chosen = [Objective(model, data, config, CPU)._compared(pool, step).tolist() for _ in range(20)]
    assert all(places[:2] == [1, 2] and len(set(places)) == 3 for places in chosen)
    assert {places[2] for places in chosen} == {0, 3}


def test_where_a_log_teaches_attributes_move_no_token(
    ready: tuple[RecommenderModel, TrainingData], config: RecommenderConfig
) -> None:
    model, data = ready
    tokens, present = model.tokens(data.items)
    tokens = tokens.detach().requires_grad_()
    objective = Objective(model, data, config, CPU)
    objective._alignment(tokens, present, taught=True).backward()
    taught, head = tokens.grad, model.aligners["attributes"].weight.grad
    assert taught is not None
    assert head is not None
    assert float(head.abs().sum()) > 0
    again = tokens.detach().requires_grad_()
    alignment(model.aligned(again)[:2], [present[:, 0], present[:, 1]]).backward()
    torch.testing.assert_close(taught, again.grad)
    model.zero_grad()


def test_the_loss_falls_on_the_events_it_is_told(
    ready: tuple[RecommenderModel, TrainingData], config: RecommenderConfig
) -> None:
    model, _ = ready
    objective = Objective(*ready, config, CPU).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    step = Step(EVENTS, NOTHING)
    before = _loss(ready, config, step).detach()
    for _ in range(15):
        optimiser.zero_grad()
        objective(step).backward()
        optimiser.step()
    assert float(_loss(ready, config, step).detach()) < 0.8 * float(before)


def test_a_person_is_told_of_items_as_others_know_them(
    ready: tuple[RecommenderModel, TrainingData], config: RecommenderConfig
) -> None:
    """The loss of an event reads the behaviour of its person's fold, and no other."""
    model, data = ready
    step = Step(np.array([0]), NOTHING)
    own = int(data.behaviour.fold_of_user[data.events.user_index[0]])
    before = _loss(ready, config, step).detach()
    for fold in range(len(data.behaviour.folds)):
        folds = data.behaviour.folds.copy()
        folds[fold] += np.random.default_rng(0).normal(size=folds[fold].shape).astype(np.float32)
        changed = replace(data, behaviour=data.behaviour._replace(folds=folds))
        after = _loss((model, changed), config, step).detach()
        assert torch.equal(before, after) == (fold != own)


def test_steps_over_a_pool_are_finite_and_read_only_the_pool(
    ready: tuple[RecommenderModel, TrainingData], config: RecommenderConfig
) -> None:
    model, data = ready
    config = replace(config, history_length=2)
    objective = Objective(model, data, config, replace(CPU, max_softmax_items=1))
    step = Step(np.array([0, 1]), np.array([3]))
    pool = objective._pool(step)
    assert {3, *data.events.item_index[:2]} <= set(pool)
    loss = objective.train()(step)
    loss.backward()
    assert torch.isfinite(loss)
    everything = replace(CPU, max_softmax_items=NUM_ITEMS)
    assert objective._pool(step).tolist() == pool.tolist()
    assert Objective(model, data, config, everything)._pool(step).tolist() == list(range(NUM_ITEMS))


def test_items_that_run_are_remembered(ready: tuple[RecommenderModel, TrainingData], config: RecommenderConfig) -> None:
    model, data = ready
    before = data.items.modalities["image"].windows.clone()
    with torch.no_grad():
        for weight in model.tower("image").backbone.parameters():
            weight.add_(0.05)
    _loss(ready, config, Step(EVENTS, np.array([0, 2, 5])))
    after = data.items.modalities["image"].windows
    changed = (before != after).flatten(1).any(dim=1)
    assert changed.nonzero().flatten().tolist() == [2, 5]  # item 0 has no picture


def test_hidden_parts_leave_at_least_one(
    ready: tuple[RecommenderModel, TrainingData], config: RecommenderConfig
) -> None:
    objective = Objective(*ready, replace(config, modality_dropout=0.4, behaviour_dropout=0.4), CPU)
    present = torch.rand(500, 4, generator=torch.Generator().manual_seed(0)) < 0.6
    present[:, 0] = True
    torch.manual_seed(0)
    hidden = objective.train()._hide(present)
    assert hidden.any(dim=1).all()
    assert not (hidden & ~present).any()
    assert int(hidden.sum()) < 0.8 * int(present.sum())
    assert torch.equal(objective.eval()._hide(present), present)


@pytest.mark.parametrize("tuning", ["frozen", "adapter", "full"])
def test_every_trainable_tensor_gets_a_gradient_within_two_steps(tuning: str, bert: Path, catalogue: Catalogue) -> None:
    config = tiny_config(bert, tuning=tuning, rating_weight=1.0, task_weights="learned")
    model, data = ready_to_train(catalogue, config)
    assert ("text" in data.trained) == (tuning != "frozen")
    objective = Objective(model, data, config, CPU).train()
    trainable = {name: weight for name, weight in objective.named_parameters() if weight.requires_grad}
    backbone = [name for name in trainable if name.startswith("model.towers.text.backbone")]
    total = len(list(model.tower("text").backbone.parameters()))
    assert len(backbone) == {"frozen": 0, "full": total}.get(tuning, len(backbone))
    assert (0 < len(backbone) < total) == (tuning == "adapter")
    optimiser = torch.optim.AdamW(trainable.values(), lr=1e-2)
    torch.manual_seed(0)
    for _ in range(2):
        optimiser.zero_grad()
        objective(Step(np.arange(len(data.weights)), np.arange(NUM_ITEMS))).backward()
        optimiser.step()
    for name, weight in trainable.items():
        assert weight.grad is not None, f"{name} has no gradient"
        assert torch.isfinite(weight.grad).all(), f"{name} has a gradient that is not finite"
        # Softmax takes away what attention adds to all keys alike: but for rounding, its gradient is 0.
        assert name.endswith("key.bias") or (weight.grad != 0).any(), f"{name} has the gradient 0"
