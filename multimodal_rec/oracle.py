"""How well anybody could rank a sample catalogue: the two oracles that results are measured against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from multimodal_rec.planting import (
    CONTEXT_VALUES,
    PARTS,
    Planted,
    context_columns,
    trait_matrix,
    utilities,
    wish_matrix,
)

_STARTS = 2
"""From so many places tastes are sought where a likelihood has several peaks; the best is each person's own."""


class _Situation(NamedTuple):
    """A context that events may have happened in."""

    log_share: float
    """Logarithm of how often it is so."""
    counts: torch.Tensor
    """Float64 (event or 1, trait dimension): how much each dimension of taste counts there."""


class Oracle:
    """Scores from the generator itself.

    The *true* oracle knows each person's taste. The *learnable* oracle knows what is planted in the items and how
    events are drawn, and infers each person's taste from the log that a model is given: the most probable taste
    under the generator's own prior, N(0, I), and its own softmax likelihood.
    """

    def __init__(self, planted: Planted, tastes: dict[str, np.ndarray], *, knows_context: bool = True) -> None:
        self._planted = planted
        self.tastes = tastes
        """Part name → (user, trait dimension), in the order of the planted `user_ids`."""
        self._knows_context = knows_context
        self._rows = {user_id: index for index, user_id in enumerate(planted.user_ids)}

    @classmethod
    def true(cls, planted: Planted) -> Oracle:
        """The oracle that knows each person's taste."""
        return cls(planted, planted.tastes)

    @classmethod
    def learnable(cls, planted: Planted, known: pd.DataFrame, *, without: Sequence[str] = ()) -> Oracle:
        """The oracle that infers taste from `known`, a log with timestamps and its context columns.

        `without` names parts that it must not use, or 'context' for what turns their sign: every context is then as
        likely as the generator makes it, both when it infers and when it scores. Raises `ValueError` for any other
        name.
        """
        names = [*(part.name for part in PARTS[planted.kind]), "context"]
        unknown = [name for name in without if name not in names]
        if unknown:
            raise ValueError(
                f"without names {', '.join(map(repr, unknown))}, and taste in a catalogue of kind '{planted.kind}' "
                f"has no such part. Expected any of {', '.join(map(repr, names))}."
            )
        return cls(planted, _infer_tastes(planted, known, without), knows_context="context" not in without)

    def score(self, queries: pd.DataFrame) -> np.ndarray:
        """Utilities, float64 (query, item), of people in contexts; items in planted order.

        Where it may not know the context: logarithms of the chance to be taken in any.
        """
        rows = [self._rows[user_id] for user_id in queries["user_id"]]
        tastes = {name: taste[rows] for name, taste in self.tastes.items()}
        if self._knows_context:
            return utilities(self._planted, tastes, queries)
        popularity = torch.tensor(self._planted.items["popularity"].to_numpy())
        wishes = torch.from_numpy(np.concatenate([*tastes.values()], axis=1))
        traits = torch.from_numpy(trait_matrix(self._planted))
        unit = {name: np.ones((1, taste.shape[1])) for name, taste in tastes.items()}
        told = [
            log_share + torch.log_softmax(popularity + (counts * wishes) @ traits.T, dim=1)
            for log_share, counts in _any_context(self._planted.kind, unit)
        ]
        return torch.stack(told).logsumexp(dim=0).numpy()


def _infer_tastes(planted: Planted, known: pd.DataFrame, without: Sequence[str]) -> dict[str, np.ndarray]:
    log = known.sort_values("timestamp", kind="stable")
    users = pd.Index(planted.user_ids).get_indexer(pd.Index(log["user_id"]))
    chosen = pd.Index(planted.items["item_id"]).get_indexer(pd.Index(log["item_id"]))
    popularity = planted.items["popularity"].to_numpy()
    offered = torch.from_numpy(np.where(_on_offer(planted, users, chosen), popularity, -np.inf))
    traits = torch.from_numpy(trait_matrix(planted))
    # How much each dimension of taste counts in each event: a part left out never does, and keeps its prior mean, 0.
    counts = {
        part.name: np.full((len(log), planted.tastes[part.name].shape[1]), float(part.name not in without))
        for part in PARTS[planted.kind]
    }
    situations = [_Situation(0.0, torch.from_numpy(wish_matrix(planted.kind, counts, log)))]
    if "context" in without:
        situations = _any_context(planted.kind, {name: each[:1] for name, each in counts.items()})
    rows, targets = torch.from_numpy(users), torch.from_numpy(chosen)
    num_people = len(planted.user_ids)

    def costs(taste: torch.Tensor) -> torch.Tensor:
        """Negative log posteriors (person,)."""
        chances = []
        for log_share, counted in situations:
            logits = torch.addmm(offered, counted * taste[rows], traits.T)
            chances.append(log_share - torch.nn.functional.cross_entropy(logits, targets, reduction="none"))
        told = torch.stack(chances).logsumexp(dim=0)
        return torch.zeros(num_people, dtype=torch.float64).index_add(0, rows, -told) + (taste**2).sum(dim=1) / 2

    # Where the context is known there is one peak. Where it is not, nobody's taste is a saddle: as much speaks for any
    # taste as for its opposite.
    random = torch.Generator().manual_seed(0)
    shape, alone = (num_people, traits.shape[1]), len(situations) == 1
    taste, paid = torch.zeros(shape, dtype=torch.float64), torch.full((num_people,), torch.inf, dtype=torch.float64)
    for _ in range(1 if alone else _STARTS):
        start = torch.randn(shape, generator=random, dtype=torch.float64) * (0.0 if alone else 0.5)
        found = _lowest(start, costs)
        now = costs(found)
        taste, paid = torch.where((now < paid).unsqueeze(1), found, taste), torch.minimum(now, paid)
    edges = np.cumsum([counts[part.name].shape[1] for part in PARTS[planted.kind]])[:-1]
    return dict(zip(counts, np.split(taste.numpy(), edges, axis=1), strict=True))


def _lowest(start: torch.Tensor, costs: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    taste = start.clone().requires_grad_(True)
    optimiser = torch.optim.LBFGS(
        [taste], max_iter=100, tolerance_grad=1e-3, tolerance_change=1e-6, line_search_fn="strong_wolfe"
    )

    def cost() -> torch.Tensor:
        optimiser.zero_grad()
        total = costs(taste).sum()
        total.backward()
        return total

    optimiser.step(cost)
    return taste.detach()


def _any_context(kind: str, unit: dict[str, np.ndarray]) -> list[_Situation]:
    """What a context may make of taste, and how often: the generator draws every value of a column as often.

    `unit`: part name → (1, trait dimension), how much each dimension counts where no context turns it.
    """
    columns = context_columns(kind)
    contexts = pd.DataFrame(list(product(*(CONTEXT_VALUES[name] for name in columns))), columns=list(columns))
    repeated = {name: each.repeat(len(contexts), axis=0) for name, each in unit.items()}
    turned = wish_matrix(kind, repeated, contexts).round(9)
    alike, times = np.unique(turned, axis=0, return_counts=True)
    shares = np.log(times / len(contexts))
    pairs = zip(shares.tolist(), torch.from_numpy(alike), strict=True)
    return [_Situation(share, counts.unsqueeze(0)) for share, counts in pairs]


def _on_offer(planted: Planted, users: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Which items each event of a log in time order was drawn from, bool (event, item).

    Left out are items that the person had before, and late items until anybody takes one.
    """
    late = planted.items["late"].to_numpy()
    not_had = np.ones((len(planted.user_ids), len(late)), dtype=bool)
    offered = np.empty((len(chosen), len(late)), dtype=bool)
    for event, (user, item) in enumerate(zip(users, chosen, strict=True)):
        offered[event] = not_had[user]
        not_had[user, item] = False
    first_late = np.argmax(late[chosen]) if late[chosen].any() else len(chosen)
    offered[:first_late, late] = False
    # Whatever was taken was on offer, also in a log that takes an item twice, as the generator never does.
    offered[np.arange(len(chosen)), chosen] = True
    return offered
