"""Embeddings carried through two graphs, who took what and which items are alike in content, compared by cosine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast, final

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal_rec.baselines.baseline import Log
from multimodal_rec.baselines.trained import Schedule, TrainedBaseline
from multimodal_rec.collaborative.graph import Edges, carry, nearest, who_took_what
from multimodal_rec.errors import ConfigError


@final
class GraphPropagation(TrainedBaseline):
    """Score = cos(u, i), learned by softmax over all items; ids and content share one graph.

    Round 0 of an item is its id embedding plus a linear projection of its content, that of a person an id embedding.
    Each of `num_layers` rounds replaces every node by the sum of its neighbours over √(degree · degree), and the
    rounds are averaged (LightGCN). Then each item adds the mean of its `num_neighbours` nearest in content (cosine of
    the centred rows) among the items that anybody took. Loss: −log softmax(cos / `temperature`) at each item taken,
    over all items that anybody took; a step reads everything that `schedule.batch_size` people took. AdamW.

    An item that nobody took has no id embedding and no edges: it is its content and its neighbours', and that is
    trained too, for a share `as_new` of the items drawn in every step. Without content it scores 0, as strangers do.
    Without any content this is LightGCN with another loss. `read` lets the graph of who took what grow.

    Sources: He et al. (arXiv:2002.02126) for the rounds; the graph of likeness is that of Zhou and Shen
    (arXiv:2211.06924).
    """

    def __init__(
        self,
        dim: int = 128,
        *,
        num_layers: int = 2,
        num_neighbours: int = 10,
        temperature: float = 0.15,
        weight_decay: float = 0.1,
        as_new: float = 0.0,
        schedule: Schedule | None = None,
    ) -> None:
        default = Schedule(epochs=50, batch_size=256, learning_rate=3e-3, patience=4, every=5)
        super().__init__(default if schedule is None else schedule)
        if dim < 1 or num_layers < 1 or num_neighbours < 0:
            raise ConfigError(
                f"dim is {dim}, num_layers {num_layers} and num_neighbours {num_neighbours}. Expected at least 1, 1 "
                "and 0; 0 neighbours leave the graph of likeness out."
            )
        if not temperature > 0 or not weight_decay >= 0 or not 0 <= as_new < 1:
            raise ConfigError(
                f"temperature is {temperature}, weight_decay {weight_decay} and as_new {as_new}. Expected a "
                "temperature above 0, a weight_decay of at least 0, a share as_new from 0 to below 1."
            )
        self.dim, self.num_layers, self.num_neighbours = dim, num_layers, num_neighbours
        self.temperature, self.weight_decay, self.as_new = temperature, weight_decay, as_new
        self._graph: tuple[Log, Edges] | None = None

    def _build(self, log: Log) -> nn.Module:
        taken = np.asarray(log.histories.sum(axis=0)) > 0
        self._taken = torch.from_numpy(taken)
        self._content = self._alike = None
        content_dim = 0
        if log.content is not None:
            content = log.directions("GraphPropagation").astype(np.float32)
            content_dim = content.shape[1]
            self._content = torch.from_numpy(content)
            if self.num_neighbours and taken.any():
                self._alike = Edges.of(nearest(content, taken, self.num_neighbours))
        return _Weights(log.num_users, log.num_items, self.dim, content_dim)

    def _optimiser(self, module: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW(module.parameters(), lr=self.schedule.learning_rate, weight_decay=self.weight_decay)

    def _losses(self, module: nn.Module, log: Log, rng: np.random.Generator) -> Iterator[Tensor]:
        people = rng.permutation(np.flatnonzero(np.asarray(log.histories.sum(axis=1))))
        for start in range(0, len(people), self.schedule.batch_size):
            batch = people[start : start + self.schedule.batch_size]
            is_new = torch.from_numpy(rng.random(log.num_items) < self.as_new)
            users, items = self._embeddings(cast(_Weights, module), log, is_new)
            logits = users[torch.from_numpy(batch)] @ items.T / self.temperature
            # As negatives, items that nobody could take would learn only that they are new.
            logits = logits.masked_fill(~self._taken, -torch.inf)
            person, item = sparse.coo_array(log.histories[batch]).coords
            chosen = logits[torch.from_numpy(person.astype(np.int64)), torch.from_numpy(item.astype(np.int64))]
            counts = torch.from_numpy(np.bincount(person, minlength=len(batch)).astype(np.float32))
            yield (counts @ logits.logsumexp(dim=1) - chosen.sum()) / len(item)

    def _embeddings(self, module: _Weights, log: Log, is_new: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """People's and items' embeddings, L2-normalised; items of `is_new` as if nobody had taken them yet."""
        if self._graph is None or self._graph[0] is not log:
            self._graph = log, who_took_what(sparse.csr_array(log.histories[: log.num_users]))
        to_people = self._graph[1]
        item = torch.where(self._taken[:, None], module.item, 0.0)
        content = 0.0
        if self._content is not None and module.projection is not None:
            content = module.projection(self._content)
            item = item + content
        user = torch.cat([module.user, module.user.new_zeros(log.num_users - len(module.user), self.dim)])
        users, items = user, item
        for _ in range(self.num_layers):
            user, item = carry(to_people, item), carry(to_people.reversed(), user)
            users, items = users + user, items + item
        rounds = self.num_layers + 1
        users, items = users / rounds, items / rounds
        carried = 0.0 if self._alike is None else carry(self._alike, items)
        if is_new is not None and self._content is not None:
            items = torch.where(is_new[:, None], content / rounds, items)
        return F.normalize(users, dim=1), F.normalize(items + carried, dim=1)

    @torch.no_grad()
    def _read(self, log: Log) -> None:
        users, items = self._embeddings(cast(_Weights, self._module), log)
        self._user_embeddings = torch.cat([users, users.new_zeros(1, self.dim)]).numpy()
        self._item_embeddings = items.numpy()

    def _score(self, log: Log, user_index: np.ndarray) -> np.ndarray:
        del log
        return self._user_embeddings[user_index] @ self._item_embeddings.T


class _Weights(nn.Module):
    def __init__(self, num_users: int, num_items: int, dim: int, content_dim: int) -> None:
        super().__init__()
        self.user = nn.Parameter(0.1 * torch.randn(num_users, dim))
        self.item = nn.Parameter(0.1 * torch.randn(num_items, dim))
        self.projection = nn.Linear(content_dim, dim, bias=False) if content_dim else None
