"""Training of the taste score: what each person wants, what each item is, and the maps from content, all at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal_rec.collaborative.content_map import ContentMap
from multimodal_rec.collaborative.details import DETAILS
from multimodal_rec.collaborative.fitting import Fitted, Learner, candidates, fit
from multimodal_rec.collaborative.score import CollaborativeScore, ContentBlock, Log
from multimodal_rec.collaborative.settings import TasteConfig
from multimodal_rec.collaborative.taste_score import TasteScore
from multimodal_rec.context_gates import Gates, context_gates, histories_to_read
from multimodal_rec.history import Events, Histories


def fit_taste(
    log: Log,
    config: TasteConfig | None = None,
    *,
    validate: Callable[[CollaborativeScore], float] | None = None,
    on_epoch: Callable[[int, float, float | None], None] | None = None,
    stop_after: int | None = None,
) -> Fitted:
    """The taste score of a log, as `fit` trains it."""
    chosen = TasteConfig() if config is None else config
    return fit(lambda: TasteLearner(log, chosen), chosen, validate=validate, on_epoch=on_epoch, stop_after=stop_after)


@final
class TasteLearner(Learner[TasteScore]):
    """The most probable tastes t, maps A, unexplained vectors r and popularities b together:

        z_p(i) = A_p x_p(i)
        loss   = −Σ_events log softmax s(person, ·, context) + ½|t|² + ½λ_r|r|² + ½λ_A|A|² + ½λ_b|δ|²

    over items that somebody took, less those that the person took before: what came later was an alternative all the
    same. x_p are the strongest principal directions of a kind of content, and 1, so that having it at all may be
    wanted; b is the logarithm of how many took the item, and what δ adds. Gates of context are solved for beforehand
    (`context_gates`). Tastes are let go of: whoever is asked about has theirs from their history.
    """

    def __init__(self, log: Log, config: TasteConfig) -> None:
        super().__init__()
        self._config = config
        did = log.weights > 0
        self._events = events = Events(*(values[did] for values in log.events))
        counts = np.bincount(events.item_index, minlength=log.num_items)
        self._share = counts / max(float(counts.sum()), 1.0)
        self._before = _taken_before(events)
        blocks = {name: block for name, block in log.content.items() if name != DETAILS}
        known = counts > 0
        self._inputs = {name: _Input.of(block, known, config.num_directions) for name, block in blocks.items()}
        kinds = int(log.events.kind.max(initial=0)) + 1
        speaks = np.bincount(events.kind, minlength=kinds) > 0
        self.score = TasteScore(
            log.num_items,
            config,
            num_parts=len(blocks),
            context_width=events.context.shape[1],
            speaks=torch.from_numpy(speaks),
        )
        gates = _gates(events, list(self._inputs.values()), ordered=log.ordered, window=config.window)
        if gates is not None:
            self.score.gate_weight.copy_(gates.weight)
            self.score.gate_bias.copy_(gates.bias)
        self.register_buffer("_gated", self.score.gates(torch.from_numpy(events.context)), persistent=False)
        self.register_buffer("_known", torch.from_numpy(known), persistent=False)
        log_counts = np.where(known, np.log1p(counts), 0.0)
        mean = log_counts[known].mean() if known.any() else 0.0
        popularity = torch.from_numpy(np.where(known, log_counts - mean, 0.0)).float()
        self.register_buffer("_popularity", popularity, persistent=False)
        self.tastes = nn.Parameter(torch.randn(log.num_people, self.score.width - 1) * 0.1)
        self.maps = nn.ParameterList(
            torch.randn(each.features.shape[1], config.dim) * 0.5 for each in self._inputs.values()
        )
        self.unexplained = nn.Parameter(torch.randn(log.num_items, config.num_unexplained) * 0.3)
        self.more_popular = nn.Parameter(torch.zeros(log.num_items))

    def num_steps(self) -> int:
        """How many losses an epoch has."""
        return math.ceil(len(self._events.user_index) / self._config.events_a_step)

    def losses(self, random: np.random.Generator) -> Iterator[Tensor]:
        """One epoch: a loss for about `events_a_step` events, and the priors, by the event."""
        config, events = self._config, self._events
        num_events = len(events.user_index)
        for rows in np.array_split(random.permutation(num_events), self.num_steps()) if num_events else []:
            users, targets = events.user_index[rows], events.item_index[rows]
            chosen = candidates(targets, self._share, config.max_candidates, random)
            vectors = self._vectors()[chosen.item_index]
            wishes = self.tastes[torch.from_numpy(users)] * self.get_buffer("_gated")[torch.from_numpy(rows)]
            logits = wishes @ vectors[:, :-1].T + vectors[:, -1] - chosen.log_share
            logits = logits.masked_fill(self._had(rows, chosen.item_index, targets), -torch.inf)
            told = F.cross_entropy(logits, chosen.places(torch.from_numpy(targets)))
            yield told + self._prior() / num_events

    @torch.no_grad()
    def refresh(self) -> None:
        """None; writes the taken items' numbers, and draws what people choose among."""
        known = self.get_buffer("_known")
        self.score.vectors.copy_(self._vectors() * known[:, None])
        random = torch.Generator().manual_seed(self._config.seed)
        self.score.keep_alternatives(self.score.vectors[known], random)

    @torch.no_grad()
    def content_map(self) -> ContentMap:
        """What content says of any item's numbers: A itself, and nothing of the rest."""
        made = ContentMap({name: len(each.centre) for name, each in self._inputs.items()}, self.score.width)
        dim = self._config.dim
        for place, (name, learned) in enumerate(zip(self._inputs, self.maps, strict=True)):
            weight, bias = self._inputs[name].composed(learned)
            made.set_block(name, weight, bias, first=place * dim)
        return made

    def _vectors(self) -> Tensor:
        pairs = zip(self._inputs.values(), self.maps, strict=True)
        said = [torch.from_numpy(each.features) @ learned for each, learned in pairs]
        popularity = self.get_buffer("_popularity") + self.more_popular * self.get_buffer("_known")
        return torch.cat([*said, self.unexplained, popularity.unsqueeze(1)], dim=1)

    def _prior(self) -> Tensor:
        config = self._config
        tastes, unexplained = self.tastes.square().sum(), self.unexplained.square().sum()
        maps = torch.stack([each.square().sum() for each in self.maps]).sum() if len(self.maps) else tastes * 0
        more = self.more_popular.square().sum()
        rest = config.unexplained_prior * unexplained + config.content_prior * maps + config.popularity_prior * more
        return (tastes + rest) / 2

    def _had(self, rows: np.ndarray, items: Tensor, targets: np.ndarray) -> Tensor:
        """Bool (event, candidate): what the person had taken before; never the target."""
        place = np.full(len(self._share), -1, dtype=np.int64)
        place[items.numpy()] = np.arange(len(items))
        had = torch.zeros(len(rows), len(items), dtype=torch.bool)
        for row, event in enumerate(rows.tolist()):
            before = place[self._before[event]]
            had[row, torch.from_numpy(before[before >= 0])] = True
        had[torch.arange(len(rows)), torch.from_numpy(place[targets])] = False
        return had


class _Input(NamedTuple):
    """One kind of content as maps read it."""

    features: np.ndarray
    """Float32 (item, direction + 1): principal directions, of rows with a mean square of 1, and whether it is there."""
    directions: np.ndarray
    """Float64 (block width, direction): what a centred row is multiplied by."""
    centre: np.ndarray
    """Float64 (block width,)."""

    @classmethod
    def of(cls, block: ContentBlock, known: np.ndarray, most: int) -> _Input:
        """The input that the known items' content makes; at most so many directions."""
        there = block.present & known
        rows = block.features[there].astype(np.float64)
        centre = rows.mean(axis=0) if len(rows) else np.zeros(block.features.shape[1])
        rows = rows - centre
        _, sizes, axes = np.linalg.svd(rows, full_matrices=False)
        kept = axes[: min(most, int((sizes > 1e-6 * sizes.max(initial=1e-12)).sum()))]
        length = math.sqrt(float(np.square(rows @ kept.T).sum()) / max(len(rows), 1)) or 1.0
        directions = kept.T / length
        read = (block.features.astype(np.float64) - centre) @ directions
        features = np.concatenate([read, np.ones((len(read), 1))], axis=1) * block.present[:, None]
        return cls(features.astype(np.float32), directions, centre)

    def composed(self, learned: Tensor) -> tuple[Tensor, Tensor]:
        """The same map from a block's own features: weights (block width, dim) and biases (dim,)."""
        weight = torch.from_numpy(self.directions) @ learned[:-1].double()
        return weight.float(), (learned[-1].double() - torch.from_numpy(self.centre) @ weight).float()


def _taken_before(events: Events) -> list[np.ndarray]:
    """For each event, the items that its person took in the events before it."""
    order = np.argsort(events.user_index, kind="stable")
    _, starts = np.unique(events.user_index[order], return_index=True)
    found: list[np.ndarray] = [np.zeros(0, dtype=np.int64)] * len(order)
    for rows in np.split(order, starts[1:]) if len(order) else []:
        items = events.item_index[rows]
        for place, row in enumerate(rows.tolist()):
            found[row] = items[:place]
    return found


def _gates(events: Events, inputs: list[_Input], *, ordered: bool, window: int) -> Gates | None:
    """What pairs of one person's events say of contexts, for each kind of content; None where there is none."""
    if not inputs or not events.context.any():
        return None
    batch = histories_to_read(Histories(events, length=window, ordered=ordered), np.unique(events.user_index))
    width = max(each.features.shape[1] for each in inputs) - 1
    tokens = np.stack([np.pad(x[:, :-1], ((0, 0), (0, width + 1 - x.shape[1]))) for x, *_ in inputs], axis=1)
    present = np.stack([each.features[:, -1] > 0 for each in inputs], axis=1)
    return context_gates(batch, torch.from_numpy(tokens), torch.from_numpy(present))
