"""The loop that baselines with weights share: epochs, validation, early stopping, the best weights kept."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from multimodal_rec.baselines.baseline import Baseline, Log
from multimodal_rec.errors import ConfigError, NotFittedError


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How a baseline with weights is trained."""

    epochs: int = 1000
    """At most so many passes; exactly so many where nobody validates."""
    batch_size: int = 2048
    """Training pairs, or people, a step."""
    learning_rate: float = 1e-3
    """Of Adam."""
    patience: int = 20
    """Evaluations without a gain after which training stops."""
    every: int = 1
    """Epochs between evaluations."""
    seed: int = 0
    """Draws the weights, the order of training, the negatives."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "patience", "every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}. Expected at least 1.")
        if not self.learning_rate > 0:
            raise ConfigError(f"learning_rate is {self.learning_rate}. Expected a number above 0, such as 0.001.")


class TrainedBaseline(Baseline):
    """A baseline whose weights are learned in steps. Subclasses build the weights and say what a step's loss is.

    With `validate`, training stops after `schedule.patience` evaluations without a gain and the best weights are
    kept; without it, all `schedule.epochs` are run. The same seed gives the same scores on the same machine.
    """

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.schedule = schedule
        self._module: nn.Module | None = None
        self._best_epoch = 0

    @property
    def best_epoch(self) -> int:
        """Epoch, from 1, whose weights are kept: validation's best, or the last where nobody validated.

        Raises `NotFittedError` before `fit`.
        """
        if self._best_epoch == 0:
            raise NotFittedError(f"{type(self).__name__} has not been trained. Call fit first.")
        return self._best_epoch

    @abstractmethod
    def _build(self, log: Log) -> nn.Module:
        """The module whose parameters are learned; draw them from torch's own generator, which is seeded."""

    @abstractmethod
    def _losses(self, module: nn.Module, log: Log, rng: np.random.Generator) -> Iterator[Tensor]:
        """One epoch: the loss of each step, computed when it is asked for, with the weights of that moment.

        `module` is what `_build` gave, in training mode; `rng` draws the order and the negatives.
        """

    def _optimiser(self, module: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(module.parameters(), lr=self.schedule.learning_rate, fused=True)

    def _learn(self, log: Log, validate: Callable[[Baseline], float] | None) -> None:
        schedule = self.schedule
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(schedule.seed)
            rng = np.random.default_rng(schedule.seed)
            self._module = module = self._build(log)
            optimiser = self._optimiser(module)
            best, best_epoch, epoch = -np.inf, 0, 0
            kept = module.state_dict()
            for epoch in range(1, schedule.epochs + 1):
                module.train()
                for loss in self._losses(module, log, rng):
                    optimiser.zero_grad()
                    loss.backward()
                    optimiser.step()
                module.eval()
                if validate is None or epoch % schedule.every:
                    continue
                with torch.no_grad():
                    self._read(log)
                    value = validate(self)
                if value > best:
                    best, best_epoch = value, epoch
                    kept = {name: weight.clone() for name, weight in module.state_dict().items()}
                elif epoch - best_epoch >= schedule.patience * schedule.every:
                    break
            if best_epoch:
                module.load_state_dict(kept)
            self._best_epoch = best_epoch or epoch
