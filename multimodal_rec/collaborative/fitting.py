"""The loop that trains a collaborative score: epochs, a falling rate, early stopping, the best weights kept."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from multimodal_rec.collaborative.content_map import ContentMap
from multimodal_rec.collaborative.score import CollaborativeScore
from multimodal_rec.collaborative.settings import CollaborativeConfig

_Score = TypeVar("_Score", bound=CollaborativeScore)


class Learner(nn.Module, ABC, Generic[_Score]):
    """What is needed to learn a score and not to use it: the log, and what the items' vectors are made of."""

    score: _Score

    @abstractmethod
    def losses(self, random: np.random.Generator) -> Iterator[Tensor]:
        """One epoch: the loss of each step, computed when it is asked for, with the weights of that moment."""

    @abstractmethod
    def num_steps(self) -> int:
        """About how many losses an epoch has."""

    @abstractmethod
    def refresh(self) -> None:
        """None; writes what the weights make of the log's items into `score.vectors`."""

    def content_map(self) -> ContentMap | None:
        """What content says of an item's vectors, where that is learned with them; None where it is to be found out."""
        return None


class Fitted(NamedTuple):
    """A trained score and how it came about."""

    score: CollaborativeScore
    epochs: int
    """Passes after which the weights were what they are."""
    value: float | None
    """What validation said of them; None where nobody validated."""
    content: ContentMap | None = None
    """As of `Learner.content_map`."""


def fit(
    build: Callable[[], Learner[_Score]],
    config: CollaborativeConfig,
    *,
    validate: Callable[[CollaborativeScore], float] | None = None,
    on_epoch: Callable[[int, float, float | None], None] | None = None,
    stop_after: int | None = None,
) -> Fitted:
    """A score trained step by step; the same seed gives the same one on the same machine.

    `build`: makes the learner, its weights drawn from torch's seeded generator. `validate`: how good a score is,
    higher is better, asked each `config.every` epochs; the best weights are kept, and training stops after
    `config.patience` answers without a gain. `on_epoch`: told the epoch from 1, its mean loss and validation's answer,
    None where it was not asked. `stop_after`: epochs after which to stop whatever `config.epochs` says, while the rate
    falls as if all were to come: for a second training on more data, as long as the first one's best.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        random = np.random.default_rng(config.seed)
        learner = build()
        optimiser = torch.optim.AdamW(
            learner.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        total, step = config.epochs * learner.num_steps(), 0
        best, best_epoch, epoch = -math.inf, 0, 0
        kept: dict[str, Tensor] = {}
        for epoch in range(1, min(config.epochs, config.epochs if stop_after is None else stop_after) + 1):
            learner.train()
            losses: list[float] = []
            for loss in learner.losses(random):
                step += 1
                rate = config.learning_rate * _share_left(step / max(total, 1), config.last_rate)
                for group in optimiser.param_groups:
                    group["lr"] = rate
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                losses.append(float(loss.detach()))
            value = None
            if validate is not None and epoch % config.every == 0:
                value = validate(_ready(learner))
                if value > best:
                    best, best_epoch = value, epoch
                    kept = {name: weight.clone() for name, weight in learner.state_dict().items()}
            if on_epoch is not None:
                on_epoch(epoch, float(np.mean(losses)) if losses else 0.0, value)
            if best_epoch and epoch - best_epoch >= config.patience * config.every:
                break
        if best_epoch:
            learner.load_state_dict(kept)
        score = _ready(learner).requires_grad_(False)
        return Fitted(score, best_epoch or epoch, best if best_epoch else None, learner.content_map())


def _ready(learner: Learner[_Score]) -> _Score:
    learner.eval()
    with torch.no_grad():
        learner.refresh()
    return learner.score


def _share_left(progress: float, last: float) -> float:
    return last + (1 - last) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


class Candidates(NamedTuple):
    """The items that a step's softmax is over."""

    item_index: Tensor
    """Int64 (candidate,), ascending."""
    log_share: Tensor
    """Float32 (candidate,): log of the chance to be among them, 0 where that is certain."""

    def places(self, item_index: Tensor) -> Tensor:
        """Columns, int64, of items that are all candidates."""
        return torch.searchsorted(self.item_index, item_index)


def candidates(
    targets: np.ndarray, share: np.ndarray, limit: int, random: np.random.Generator, *, per_step: int = 4096
) -> Candidates:
    """Every item that anybody took where these are at most `limit`, else the targets and others drawn evenly.

    `targets`: int64, what is to be found in this step; `share`: float (item,), each item's share of all targets, 0
    for items that nobody took, which are no candidates: as negatives they would learn only that they are new.
    `per_step`: how many are drawn.
    """
    taken = np.flatnonzero(share)
    if len(taken) <= limit:
        return Candidates(torch.from_numpy(taken), torch.zeros(len(taken)))
    drawn = random.choice(taken, min(per_step, len(taken)), replace=False, shuffle=False)
    index = np.unique(np.concatenate([targets, drawn]))
    # Missed both by the step's targets and by the draw.
    missed = (1 - share[index]) ** len(targets) * (1 - len(drawn) / len(taken))
    return Candidates(torch.from_numpy(index), torch.from_numpy(np.log1p(-missed)).float())
