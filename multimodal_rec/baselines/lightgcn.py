"""Embeddings averaged over rounds of propagation through the graph of who took what: LightGCN."""

from __future__ import annotations

from typing import final

import numpy as np
from scipy import sparse
from torch import Tensor

from multimodal_rec.baselines.baseline import Log
from multimodal_rec.baselines.bpr import Embeddings, PairwiseBaseline
from multimodal_rec.baselines.propagation import Edges, carry
from multimodal_rec.baselines.trained import Schedule
from multimodal_rec.errors import ConfigError


@final
class LightGCN(PairwiseBaseline):
    """Score = ⟨u, i⟩ of embeddings that were propagated `num_layers` times and averaged over all rounds, the first too.

    Round k + 1 = D^-1/2 A D^-1/2 · round k, A the graph of people and items, D its degrees; round 0 is what is
    learned, by BPR's loss. `read` lets the graph grow: a new person starts from zeros and is made of items, and an
    item that somebody took since passes that on. Source: He et al. (arXiv:2002.02126).
    """

    def __init__(
        self,
        dim: int = 64,
        *,
        num_layers: int = 3,
        regularisation: float = 1e-4,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(dim, regularisation=regularisation, schedule=schedule or Schedule())
        if num_layers < 1:
            raise ConfigError(f"num_layers is {num_layers}. Expected at least 1; 0 would be BPR.")
        self.num_layers = num_layers
        self._graph: tuple[Log, Edges] | None = None

    def _embeddings(self, module: Embeddings, log: Log) -> Tensor:
        # One log is asked about in every step of training: its graph is built once.
        if self._graph is None or self._graph[0] is not log:
            self._graph = log, _normalised(log)
        new = log.num_users - module.num_users
        at_round = module.with_people(module.nodes.new_zeros(new, self.dim)) if new else module.nodes
        total = at_round
        for _ in range(self.num_layers):
            at_round = carry(self._graph[1], at_round)
            total = total + at_round
        return total / (self.num_layers + 1)


def _normalised(log: Log) -> Edges:
    """Float32 (node, node), people before items: 1 / sqrt(degree · degree) where a person took an item."""
    taken = log.histories[: log.num_users]
    graph = sparse.csr_array(sparse.block_array([[None, taken], [taken.T, None]], format="csr"))
    degree = np.asarray(graph.sum(axis=1))
    # A node without edges has a row without entries: its factor multiplies nothing.
    factor = 1 / np.sqrt(np.maximum(degree, 1))
    row, column = graph.nonzero()
    graph.data = (factor[row] * factor[column]).astype(np.float32)
    # Who took is taken from: the same seen from either end.
    return Edges(graph, graph)
