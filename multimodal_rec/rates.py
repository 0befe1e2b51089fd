"""How fast each weight learns."""

from __future__ import annotations

from typing import Any

from torch import nn

from multimodal_rec.config import RecommenderConfig, TowerConfig, TrainingConfig
from multimodal_rec.steps import Objective

_GATE_RATE = 0.1


def parameter_groups(objective: Objective, config: RecommenderConfig, training: TrainingConfig) -> list[dict[str, Any]]:
    """AdamW's groups: those of each tower's tuning, at its own rate, and one for everything else."""
    groups: list[dict[str, Any]] = []
    taken: set[int] = set()
    for name, tower in config.towers.items():
        rate = _usual_rate(tower) if tower.learning_rate is None else tower.learning_rate
        # From the output to the input, each block at the rate of the one after it times the decay.
        for depth, parameters in enumerate(objective.model.tower(name).parameters_by_depth()):
            groups += _tower_groups(parameters, rate * tower.layer_decay**depth, tower.weight_decay)
            taken |= {id(parameter) for parameter in parameters}
    if objective.task_weights is not None:
        # Decay would pull them back to the plain sum.
        noise = list(objective.task_weights.parameters())
        groups.append({"params": noise, "lr": training.learning_rate, "weight_decay": 0.0})
        taken |= {id(parameter) for parameter in noise}
    # Read from pairs of events before training: to be mended, not to be forgotten.
    gates = list(objective.model.query.gate.parameters())
    groups.append({"params": gates, "lr": training.learning_rate * _GATE_RATE, "weight_decay": 0.0})
    taken |= {id(parameter) for parameter in gates}
    rest = [p for p in objective.parameters() if p.requires_grad and id(p) not in taken]
    return [{"params": rest, "lr": training.learning_rate, "weight_decay": training.weight_decay}, *groups]


def _tower_groups(parameters: list[nn.Parameter], rate: float, decay: float) -> list[dict[str, Any]]:
    # Decay shrinks directions; of a bias or a norm's scale there is only one.
    matrices = [parameter for parameter in parameters if parameter.ndim > 1]
    others = [parameter for parameter in parameters if parameter.ndim <= 1]
    groups = ({"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0})
    return [{**group, "lr": rate} for group in groups if group["params"]]


def _usual_rate(tower: TowerConfig) -> float:
    if not tower.pretrained or (tower.tuning == "adapter" and tower.adapter in ("bottleneck", "side")):
        return 1e-3
    return 2e-4 if tower.tuning == "adapter" else 2e-5
