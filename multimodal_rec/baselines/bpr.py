"""Matrix factorisation that learns which of two items a person took: BPR."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import cast, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal_rec.baselines.baseline import Log
from multimodal_rec.baselines.trained import Schedule, TrainedBaseline
from multimodal_rec.errors import ConfigError


class Embeddings(nn.Module):
    """One embedding a person and one an item in a single table, `nodes`: float32 (user + item, dim), people first."""

    def __init__(self, num_users: int, num_items: int, dim: int) -> None:
        super().__init__()
        tables = [nn.init.xavier_uniform_(torch.empty(count, dim)) for count in (num_users, num_items)]
        self.num_users = num_users
        self.nodes = nn.Parameter(torch.cat(tables))

    def with_people(self, users: Tensor) -> Tensor:
        """`nodes` with more people, (user, dim), between those there are and the items."""
        return torch.cat([self.nodes[: self.num_users], users, self.nodes[self.num_users :]])


class PairwiseBaseline(TrainedBaseline):
    """Embeddings of people and items, learned by BPR's loss on pairs of an item taken and one not taken.

    Loss = mean of −log σ(⟨u, i⟩ − ⟨u, j⟩) + `regularisation` / 2 · (|u|² + |i|² + |j|²), j uniform among the items
    that u never took, the norms those of the weights before whatever a subclass makes of them. Source: Rendle et al.
    (arXiv:1205.2618).
    """

    def __init__(self, dim: int, *, regularisation: float, schedule: Schedule) -> None:
        super().__init__(schedule)
        if dim < 1 or regularisation < 0:
            raise ConfigError(f"dim is {dim} and regularisation {regularisation}. Expected at least 1 and at least 0.")
        self.dim, self.regularisation = dim, regularisation

    @abstractmethod
    def _embeddings(self, module: Embeddings, log: Log) -> Tensor:
        """What is scored with: embeddings (user + item, dim), people in the order of `log` and then items.

        `log` may hold more people than `module` has weights for.
        """

    def _build(self, log: Log) -> nn.Module:
        return Embeddings(log.num_users, log.num_items, self.dim)

    def _losses(self, module: nn.Module, log: Log, rng: np.random.Generator) -> Iterator[Tensor]:
        module = cast(Embeddings, module)
        user, taken = log.histories.nonzero()
        user, taken = user.astype(np.int64), taken.astype(np.int64)
        refused = _not_taken(user, taken, log.num_items, rng)
        triples = torch.from_numpy(np.stack([user, taken, refused], axis=1)[rng.permutation(len(user))])
        offsets = torch.tensor([0, log.num_users, log.num_users])
        for batch in triples.split(self.schedule.batch_size):
            # One look-up for all three: the gradient of each is a dense table.
            rows = (batch + offsets).T
            person, liked, other = F.embedding(rows, self._embeddings(module, log))
            margin = (person * (liked - other)).sum(dim=1)
            penalty = F.embedding(rows, module.nodes).square().sum() / (2 * len(batch))
            yield -F.logsigmoid(margin).mean() + self.regularisation * penalty

    @torch.no_grad()
    def _read(self, log: Log) -> None:
        nodes = self._embeddings(cast(Embeddings, self._module), log)
        # A copy: the weights go on changing. The row of zeros is for strangers.
        self._user_embeddings = np.pad(nodes[: log.num_users].numpy(), ((0, 1), (0, 0)))
        self._item_embeddings = nodes[log.num_users :].numpy().copy()

    def _score(self, log: Log, user_index: np.ndarray) -> np.ndarray:
        del log
        return self._user_embeddings[user_index] @ self._item_embeddings.T


@final
class BPR(PairwiseBaseline):
    """Matrix factorisation: score = ⟨u, i⟩, as BPR's loss learns it.

    A person whom only `read` brought has no weights, and is the mean of the embeddings of the items in the history;
    the others stay what they learned to be.
    """

    def __init__(self, dim: int = 64, *, regularisation: float = 1e-3, schedule: Schedule | None = None) -> None:
        super().__init__(dim, regularisation=regularisation, schedule=schedule or Schedule())

    def _embeddings(self, module: Embeddings, log: Log) -> Tensor:
        if log.num_users == module.num_users:
            return module.nodes
        new = log.histories[module.num_users : log.num_users]
        counts = np.maximum(np.asarray(new.sum(axis=1)), 1)[:, None]
        sums = new @ module.nodes[module.num_users :].detach().numpy()
        return module.with_people(torch.from_numpy((sums / counts).astype(np.float32)))


def _not_taken(user: np.ndarray, taken: np.ndarray, num_items: int, rng: np.random.Generator) -> np.ndarray:
    """Int64 (pair,): an item for each pair, uniform among those that its person never took.

    `user` and `taken` are sorted by user, then item. Whoever took everything gets any item: there is no other.
    """
    pairs = user * num_items + taken
    everything = np.bincount(user, minlength=int(user[-1]) + 1 if len(user) else 0) >= num_items
    drawn = rng.integers(0, num_items, len(user))
    again = np.flatnonzero(~everything[user])
    while len(again):
        # Only those just drawn need to be looked up, a share that shrinks every time.
        asked = user[again] * num_items + drawn[again]
        place = np.minimum(np.searchsorted(pairs, asked), len(pairs) - 1)
        again = again[pairs[place] == asked]
        drawn[again] = rng.integers(0, num_items, len(again))
    return drawn
