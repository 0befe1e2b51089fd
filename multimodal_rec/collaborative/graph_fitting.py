"""Training of the graph score: rounds through the graph, a share of the asked people's edges hidden from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import final

import numpy as np
import torch
from scipy import sparse
from torch import Tensor
from torch.nn import functional as F

from multimodal_rec.collaborative.fitting import Fitted, Learner, candidates, fit
from multimodal_rec.collaborative.graph import Edges, carry, nearest, predictors, who_took_what
from multimodal_rec.collaborative.graph_score import GraphScore
from multimodal_rec.collaborative.item_side import ItemSide, block_directions
from multimodal_rec.collaborative.score import CollaborativeScore, Log
from multimodal_rec.collaborative.settings import GraphConfig

_LEAST_STEPS = 4
"""Fewer steps of more people learn less in an epoch; of lastfm-2k's 1,858 people, each then asks 465."""


def fit_graph(
    log: Log,
    config: GraphConfig | None = None,
    *,
    validate: Callable[[CollaborativeScore], float] | None = None,
    on_epoch: Callable[[int, float, float | None], None] | None = None,
    stop_after: int | None = None,
) -> Fitted:
    """The graph score of a log, as `fit` trains it."""
    chosen = GraphConfig() if config is None else config
    return fit(lambda: GraphLearner(log, chosen), chosen, validate=validate, on_epoch=on_epoch, stop_after=stop_after)


@final
class GraphLearner(Learner[GraphScore]):
    """What items are in histories and what they are when asked about, learned through the graph:

        h = D^(−½) (id' + Σ W'x)    z = id + Σ W x    r = Σ over rounds l ≤ L of (ÂᵀÂ)ˡ z    v = unit(r + Σ_g K_g r)

    with Â the degree-normalised matrix of who took what, D the items' degrees, K_g the mean over an item's neighbours
    in one content block, all blocks together weighing 1, and the weighted mean over those that foretell it best. Loss:
    softmax of ⟨unit(Σ h), v⟩ / temperature over all items that somebody took, at everything a person took; a share of
    those edges is hidden from the graph and from the history. Sources: LightGCN (arXiv:2002.02126) for the rounds,
    FREEDOM (arXiv:2211.06924) for the neighbours in content. An h of its own does what an id embedding of people does:
    recall@20 on validation of lastfm-2k is .451 with it, .454 with ids, and .429 with h = z.
    """

    def __init__(self, log: Log, config: GraphConfig) -> None:
        super().__init__()
        self._config, events = config, log.events
        did = log.weights > 0
        self._took = took = log.took()
        counts = np.asarray(took.sum(axis=0))
        self._share = counts / max(float(counts.sum()), 1.0)
        self.side = ItemSide(log.content, counts > 0, config.dim, scale=0.1)
        self.history_side = ItemSide(log.content, counts > 0, config.dim, scale=0.1)
        self._edges, self._alike = who_took_what(took), _alike(log, took, config)
        self._turn = _turned(self._edges.forward)
        self._root = torch.from_numpy(np.maximum(counts, 1) ** -0.5).float()
        num_kinds = int(events.kind.max(initial=0)) + 1
        told = np.bincount(events.kind, minlength=num_kinds)
        # A kind counts in histories where most of its events say that something was taken.
        taking = torch.from_numpy(2 * np.bincount(events.kind[did], minlength=num_kinds) >= told).float()
        self.score = GraphScore(log.num_items, config.dim, temperature=config.temperature, taking=taking)

    def num_steps(self) -> int:
        """How many losses an epoch has."""
        num_people = int(np.count_nonzero(np.diff(self._took.indptr)))
        return min(num_people, max(_LEAST_STEPS, math.ceil(num_people / self._config.people_a_step)))

    def refresh(self) -> None:
        """None; writes the taken items' vectors."""
        history = self.history_side() * self._root[:, None]
        vectors = torch.cat([history, self._asked_about(self._edges)], dim=1)
        self.score.vectors.copy_(vectors * self.side.taken[:, None])

    def losses(self, random: np.random.Generator) -> Iterator[Tensor]:
        """One epoch: a loss for each `people_a_step` people."""
        config, lengths = self._config, np.diff(self._took.indptr)
        people = random.permutation(np.flatnonzero(lengths))
        for batch in np.array_split(people, self.num_steps()) if len(people) else []:
            asked = np.repeat(np.isin(np.arange(len(lengths)), batch), lengths)
            edges = self._shown(~(asked & (random.random(len(asked)) < config.hidden)))
            items = self._asked_about(edges)
            users = F.normalize(carry(edges, self.history_side())[torch.from_numpy(batch)], dim=1)
            person, item = (part.astype(np.int64) for part in sparse.coo_array(self._took[batch]).coords)
            chosen = candidates(item, self._share, config.max_candidates, random)
            logits = users @ items[chosen.item_index].T / config.temperature - chosen.log_share
            right = logits[torch.from_numpy(person), chosen.places(torch.from_numpy(item))]
            counts = torch.from_numpy(np.bincount(person, minlength=len(batch))).float()
            yield (counts @ logits.logsumexp(dim=1) - right.sum()) / len(item)

    def _asked_about(self, edges: Edges) -> Tensor:
        state = total = self.side()
        for _ in range(self._config.num_rounds):
            state = carry(edges.reversed(), carry(edges, state))
            total = total + state
        around = total
        for share, alike in self._alike:
            around = around + share * carry(alike, total)
        return F.normalize(around, dim=1)

    def _shown(self, shown: np.ndarray) -> Edges:
        """The graph of who took what without some edges; degrees stay what they are. `shown`: bool (edge,)."""
        forward, backward = self._edges
        data = forward.data * shown
        return Edges(
            sparse.csr_array((data, forward.indices, forward.indptr), shape=forward.shape),
            sparse.csr_array((data[self._turn], backward.indices, backward.indptr), shape=backward.shape),
        )


def _alike(log: Log, took: sparse.csr_array, config: GraphConfig) -> list[tuple[float, Edges]]:
    """Graphs between items and how much each counts."""
    if config.num_neighbours == 0:
        return []
    taken = np.asarray(took.sum(axis=0)) > 0
    blocks = [block for block in map(block_directions, log.content.values()) if block.any()]
    found = [(1 / len(blocks), Edges.of(nearest(block, taken, config.num_neighbours))) for block in blocks]
    if log.num_items <= config.max_predicted:
        content = np.hstack([np.zeros((log.num_items, 1), np.float32), *blocks]) / max(len(blocks), 1) ** 0.5
        found.append((1.0, Edges.of(predictors(took, content, config.num_neighbours))))
    return found


def _turned(forward: sparse.csr_array) -> np.ndarray:
    """Int64 (edge,): which edge of a graph each edge of its transpose is."""
    number = sparse.csr_array((np.arange(forward.nnz), forward.indices, forward.indptr), shape=forward.shape)
    return sparse.csr_array(number.T).data
