"""What one training step reads, and the loss it gives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, final

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal_rec.behaviour import ItemBehaviour
from multimodal_rec.config import RecommenderConfig, TrainingConfig
from multimodal_rec.features import ContentFeatures
from multimodal_rec.history import Events, Histories
from multimodal_rec.losses import alignment, bce, bpr, liked_or_not, rating_error, softmax_over_items
from multimodal_rec.model import ItemFeatures, ModalityFeatures, RecommenderModel
from multimodal_rec.negatives import draw_negatives
from multimodal_rec.query import QueryInput
from multimodal_rec.task_weights import TaskWeights

_COMPARED = 256
"""Items of a step that are told apart by their other parts: all against all."""


@dataclass(frozen=True, eq=False, kw_only=True)
class TrainingData:
    """A training catalogue as tensors: items, people, events, in one fixed order each."""

    items: ItemFeatures
    """Backbone features of all items: the memory from which a step reads every item that it does not run."""
    content: ContentFeatures
    behaviour: ItemBehaviour
    events: Events
    weights: np.ndarray
    """Float32 (event,): above 0 = something taken, below 0 = something disliked, 0 = neither; the further from 0, the
    more an event counts."""
    histories: Histories
    people: Tensor
    """(user, person width)."""
    trained: tuple[str, ...]
    """Modalities whose backbones learn."""


class Step(NamedTuple):
    """One step: which events are to be told, and which items run through their towers."""

    events: np.ndarray
    """Rows of the log, all of weight other than 0; may be empty."""
    fresh: np.ndarray
    """Items of this step whatever its events are, to run through the towers that are trained; may be empty."""


@final
class Objective(nn.Module):
    """The loss of a step: both scores' ranking of what was taken, dislikes, ratings, and the alignment of parts."""

    def __init__(
        self, model: RecommenderModel, data: TrainingData, config: RecommenderConfig, training: TrainingConfig
    ) -> None:
        super().__init__()
        self.model = model
        # Held outside of nn.Module's books: neither data nor configuration is a weight.
        self._data, self._config, self._training = data, config, training
        names = ("ranking", "dislikes", "ratings", "alignment")
        self.task_weights = TaskWeights(names) if config.task_weights == "learned" else None
        self._taken = _items_of_users(data)
        self._log_share = _log_share(data)

    def forward(self, step: Step) -> Tensor:
        """The loss of one step, a scalar."""
        data, device = self._data, self.model.log_temperature.device
        pool = self._pool(step)
        features = self._features(pool, step.fresh, device)
        tokens, present = self.model.tokens(features)
        present = self._hide(present)
        losses: dict[str, Tensor] = {}
        if self._config.alignment_weight > 0 and len(self.model.aligners) > 1:
            chosen = self._compared(pool, step).to(device)
            loss = self._alignment(tokens[chosen], present[chosen], taught=len(step.events) > 0)
            losses["alignment"] = self._config.alignment_weight * loss
        tokens = F.dropout(tokens, self._config.dropout, self.training)
        self.model.query.set_centre(tokens.detach(), present)
        folds = data.behaviour.fold_of_user[data.events.user_index[step.events]]
        for fold in np.unique(folds):
            rows = step.events[folds == fold]
            behaviour = torch.from_numpy(data.behaviour.folds[fold][pool]).to(device)
            token = F.dropout(self.model.behaviour_token(behaviour), self._config.dropout, self.training)
            told = torch.cat([tokens[:, :-1], token.unsqueeze(1)], dim=1)
            for name, loss in self._losses_of_events(rows, pool, told, present).items():
                losses[name] = losses.get(name, 0) + loss * (len(rows) / len(step.events))
        # A step that has nothing to say reaches every weight all the same.
        total = tokens.sum() * 0
        if len(step.fresh):
            total = total + sum(self.model.tower(name).penalty() for name in data.trained)
        if not losses:
            return total
        return total + (sum(losses.values()) if self.task_weights is None else self.task_weights(losses))

    def _losses_of_events(
        self, rows: np.ndarray, pool: np.ndarray, tokens: Tensor, present: Tensor
    ) -> dict[str, Tensor]:
        data, device = self._data, tokens.device
        around = [data.histories.around(int(row)) for row in rows]
        history = data.histories.collate(around, moments=[int(row) for row in rows])
        place = np.full(len(data.behaviour.present), 0, dtype=np.int64)
        place[pool] = np.arange(len(pool))
        history = history._replace(item_index=torch.from_numpy(place)[history.item_index]).to(device)
        users = data.events.user_index[rows]
        context = torch.from_numpy(data.events.context[rows])
        inputs = QueryInput(history, data.people[torch.from_numpy(users)].to(device), context.to(device))
        queries = self.model.queries(inputs, tokens, present)
        scores = self.model.scores(queries, tokens, present)
        targets = torch.from_numpy(place[data.events.item_index[rows]]).to(device)
        weights = torch.from_numpy(data.weights[rows]).to(device)
        excluded = torch.from_numpy(~data.behaviour.present[pool] | self._taken[users][:, pool].toarray()).to(device)
        log_share = None
        if len(pool) < len(data.behaviour.present):
            log_share = torch.from_numpy(self._log_share[pool]).to(device)
        losses: dict[str, Tensor] = {}
        liked, believed = weights > 0, weights.abs()
        if bool(liked.any()):
            losses["ranking"] = torch.stack(
                [
                    self._ranking(score[liked], targets[liked], excluded[liked], log_share, believed[liked])
                    for score in scores
                ]
            ).sum()
        of_target = scores.ranking.gather(1, targets.unsqueeze(1)).squeeze(1)
        if bool((weights < 0).any()):
            told = liked_or_not(self.model.like_logits(of_target), liked, weights=believed)
            losses["dislikes"] = self._config.pointwise_weight * told
        if self._config.rating_weight > 0:
            ratings = torch.from_numpy(data.events.value[rows]).to(device)
            # 0 is what a missing value became; a rating that is the mean to the last bit is lost with them.
            told = rating_error(self.model.predicted_rating(of_target), ratings, weights=believed * (ratings != 0))
            losses["ratings"] = self._config.rating_weight * told
        return losses

    def _ranking(
        self, scores: Tensor, targets: Tensor, excluded: Tensor, log_share: Tensor | None, weights: Tensor
    ) -> Tensor:
        config = self._config
        if config.objective == "softmax":
            return softmax_over_items(scores, targets, excluded=excluded, log_share=log_share, weights=weights)
        drawn = draw_negatives(
            scores, config.num_negatives, targets=targets, excluded=excluded, hard_share=config.hard_negatives
        )
        loss = bpr if config.objective == "bpr" else bce
        return loss(scores, targets, drawn.columns, weights=weights * drawn.present)

    def _pool(self, step: Step) -> np.ndarray:
        """Items that this step reads: all, or where they are too many the fresh ones and those of its histories."""
        num_items = len(self._data.behaviour.present)
        if num_items <= self._training.max_softmax_items:
            return np.arange(num_items)
        events = self._data.events
        seen = [events.item_index[self._data.histories.around(int(row))] for row in step.events]
        return np.unique(np.concatenate([step.fresh, events.item_index[step.events], *seen]))

    def _alignment(self, tokens: Tensor, present: Tensor, *, taught: bool) -> Tensor:
        """Loss of the parts of some items; `taught`: whether a log says what tokens are to tell."""
        aligned = self.model.aligned(tokens)
        there = [present[:, index] for index in range(len(aligned))]
        # Plus nothing, so that a part which no item of the step has reaches its weights all the same.
        nothing = sum((each.sum() for each in aligned), tokens.new_zeros(())) * 0
        if not taught:
            return alignment(aligned, there) + nothing
        # Attributes learn to stand beside the modalities, and move neither them nor their own token: where they did,
        # the music sample lost a tenth of its NDCG@10.
        *modalities, _ = aligned
        attributes = self.model.aligners["attributes"](tokens[:, len(modalities)].detach())
        beside = alignment([*(each.detach() for each in modalities), attributes], there)
        return alignment(modalities, there[:-1]) + beside + nothing

    def _compared(self, pool: np.ndarray, step: Step) -> Tensor:
        """Places in the pool of the items whose parts are compared with each other's."""
        drawn = torch.randperm(len(pool), device=self.model.log_temperature.device)[:_COMPARED]
        if len(step.events) or not len(step.fresh):
            return drawn
        # Nothing but the alignment teaches here: a tower that learns is told of the items that run through it.
        fresh = torch.from_numpy(np.flatnonzero(np.isin(pool, step.fresh))).to(drawn.device)
        return torch.cat([fresh, drawn[~torch.isin(drawn, fresh)]])[:_COMPARED]

    def _features(self, pool: np.ndarray, fresh: np.ndarray, device: torch.device) -> ItemFeatures:
        items, index = self._data.items, torch.from_numpy(pool)
        modalities = {
            name: ModalityFeatures(windows[index].to(device), there[index].to(device))
            for name, (windows, there) in items.modalities.items()
        }
        place = {int(item): position for position, item in enumerate(pool)}
        for modality in self._data.trained if len(fresh) else ():
            here, features = self._data.content.fresh([int(item) for item in fresh], modality, device)
            if not here:
                continue
            chosen = fresh[here]
            width = features.windows.shape[1]
            memory = items.modalities[modality]
            memory.windows[chosen, :width] = features.windows.detach().float().cpu()
            rows = torch.tensor([place[int(item)] for item in chosen], device=device)
            windows, there = modalities[modality]
            updated = windows[rows].clone()
            updated[:, :width] = features.windows.float()
            modalities[modality] = ModalityFeatures(windows.index_copy(0, rows, updated), there)
        return ItemFeatures(
            modalities,
            items.attributes[index].to(device),
            items.attributes_present[index].to(device),
            items.behaviour[index].to(device),
            items.behaviour_present[index].to(device),
            None if items.stored is None else items.stored[index].to(device),
        )

    def _hide(self, present: Tensor) -> Tensor:
        """`present` with parts hidden by chance, at least one left of each item: no part may be leaned on alone."""
        if not self.training:
            return present
        chance = torch.full_like(present, self._config.modality_dropout, dtype=torch.float32)
        chance[:, -1] = self._config.behaviour_dropout
        left = present & (torch.rand_like(chance) >= chance)
        return torch.where(left.any(dim=1, keepdim=True), left, present)


def epoch_steps(data: TrainingData, training: TrainingConfig, generator: np.random.Generator) -> Iterator[Step]:
    """The steps of one epoch.

    Every event is told once from memory, `batch_size` a step. Where backbones learn, every item that has something to
    say passes through them once besides, `items_per_step` a step, with all the events that took it.
    """
    events = np.flatnonzero(data.weights != 0)
    nothing = np.zeros(0, dtype=np.int64)
    steps: list[Step] = []
    # One fold of people a step: each fold has its own behaviour tokens, and reading one is cheaper than reading all.
    folds = data.behaviour.fold_of_user[data.events.user_index[events]]
    for fold in np.unique(folds):
        rows = generator.permutation(events[folds == fold])
        steps += [Step(np.sort(part), nothing) for part in np.array_split(rows, -(-len(rows) // training.batch_size))]
    num_items = len(data.behaviour.present)
    if data.trained or not len(events):
        order = generator.permutation(num_items)
        by_item = np.argsort(data.events.item_index[events], kind="stable")
        sorted_items = data.events.item_index[events][by_item]
        for chosen in np.array_split(order, max(1, -(-num_items // training.items_per_step))):
            takes = events[by_item[np.isin(sorted_items, chosen)]]
            steps.append(Step(np.sort(takes), chosen))
    for index in generator.permutation(len(steps)):
        yield steps[index]


def num_steps(data: TrainingData, training: TrainingConfig) -> int:
    """How many steps one epoch has."""
    return sum(1 for _ in epoch_steps(data, training, np.random.default_rng(0)))


def _items_of_users(data: TrainingData) -> sparse.csr_array:
    # What was disliked stays a candidate: it is the best negative there is.
    pairs = (data.weights >= 0, (data.events.user_index, data.events.item_index))
    return sparse.csr_array(pairs, shape=(len(data.people), len(data.behaviour.present)), dtype=bool)


def _log_share(data: TrainingData) -> np.ndarray:
    taken = np.bincount(data.events.item_index, minlength=len(data.behaviour.present)).astype(np.float32)
    return np.log(np.maximum(taken, 1) / max(taken.sum(), 1))
