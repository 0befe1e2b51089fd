"""Weights of several losses: where they settle, and what leaves them alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from multimodal_rec.errors import ConfigError
from multimodal_rec.task_weights import TaskWeights


def test_training_starts_from_the_plain_sum() -> None:
    tasks = TaskWeights(["softmax", "ratings"])
    losses = {"softmax": torch.tensor(3.0), "ratings": torch.tensor(0.5)}
    assert float(tasks(losses).detach()) == 3.5
    assert tasks.weights() == {"softmax": 1.0, "ratings": 1.0}


def test_the_sum_is_the_equation() -> None:
    tasks = TaskWeights(["softmax", "ratings"])
    values = {"log_variance_softmax": torch.tensor(0.7), "log_variance_ratings": torch.tensor(-1.2)}
    tasks.load_state_dict(values)
    total = tasks({"ratings": torch.tensor(0.5), "softmax": torch.tensor(3.0)})
    assert float(total.detach()) == pytest.approx(math.exp(-0.7) * 3 + 0.7 + math.exp(1.2) * 0.5 - 1.2, rel=1e-6)
    assert tasks.weights() == pytest.approx({"softmax": math.exp(-0.7), "ratings": math.exp(1.2)})


def test_weights_of_squared_errors_settle_at_one_over_the_variance() -> None:
    """Two tasks ask for the same number, 2, one with noise of variance 0.25 and one with noise of variance 9."""
    noise = torch.tensor([-1.0, 1.0]).repeat(50)
    quiet, loud = 2 + 0.5 * noise, 2 + 3 * noise
    tasks, answer = TaskWeights(["quiet", "loud"]), nn.Parameter(torch.zeros(()))
    optimiser = torch.optim.Adam([answer, *tasks.parameters()], lr=0.05)
    for _ in range(300):
        optimiser.zero_grad()
        tasks({"quiet": (answer - quiet).square().mean(), "loud": (answer - loud).square().mean()}).backward()
        optimiser.step()
    assert float(answer.detach()) == pytest.approx(2, abs=1e-2)
    assert tasks.weights() == pytest.approx({"quiet": 1 / 0.25, "loud": 1 / 9}, rel=2e-2)


def test_a_task_that_is_absent_is_left_alone() -> None:
    tasks = TaskWeights(["softmax", "ratings"])
    optimiser = torch.optim.AdamW(tasks.parameters(), lr=0.1)
    both = {"softmax": torch.tensor(3.0), "ratings": torch.tensor(0.5)}
    tasks(both).backward()
    optimiser.step()
    before = tasks.weights()
    optimiser.zero_grad()
    tasks({"softmax": torch.tensor(3.0)}).backward()
    gradients = {name: weight.grad for name, weight in tasks.named_parameters()}
    assert gradients["log_variance_ratings"] is None
    assert gradients["log_variance_softmax"] is not None
    optimiser.step()
    after = tasks.weights()
    assert after["ratings"] == before["ratings"] != 1
    assert after["softmax"] < before["softmax"]


def test_gradients_reach_the_losses_by_weight() -> None:
    tasks = TaskWeights(["softmax"])
    tasks.load_state_dict({"log_variance_softmax": torch.tensor(math.log(4))})
    loss = torch.tensor(3.0, requires_grad=True)
    tasks({"softmax": loss}).backward()
    assert loss.grad is not None
    assert float(loss.grad) == pytest.approx(1 / 4)
    assert float(tasks.get_parameter("log_variance_softmax").grad or 0) == pytest.approx(1 - 3 / 4)


@pytest.mark.parametrize("names", [[], ["a", "a"], ["a.b"], ["a b"], "softmax"])
def test_names_that_cannot_be_kept_say_so(names: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"Expected a list of at least one name, each once"):
        TaskWeights(names)


def test_names_of_modules_own_attributes_are_fine() -> None:
    assert TaskWeights(["items", "forward", "weights"]).weights() == {"items": 1, "forward": 1, "weights": 1}


def test_unknown_absent_and_unreduced_losses_say_so() -> None:
    tasks = TaskWeights(["softmax", "ratings"])
    with pytest.raises(ConfigError, match=r"loss 'rating' has no weight. Did you mean 'ratings'\?"):
        tasks({"rating": torch.tensor(1.0)})
    with pytest.raises(ConfigError, match=r"loss 'xyz' has no weight. It has: softmax, ratings\."):
        tasks({"xyz": torch.tensor(1.0)})
    with pytest.raises(ConfigError, match=r"no losses are given. Expected at least one of softmax, ratings"):
        tasks({})
    with pytest.raises(ValueError, match=r"loss 'softmax' is of shape \(2,\). Expected a scalar"):
        tasks({"softmax": torch.ones(2)})
