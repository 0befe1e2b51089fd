"""How well anybody could rank a sample catalogue: the two oracles that results are measured against."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from multimodal_rec.planting import PARTS, Planted, trait_matrix, utilities, wish_matrix


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

        `without` names parts that it must not use, or 'context' for what turns their sign: it then takes every sign
        as 1, both when it infers and when it scores. Raises `ValueError` for any other name.
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
        """Utilities, float64 (query, item), of people in contexts; items in planted order."""
        rows = [self._rows[user_id] for user_id in queries["user_id"]]
        tastes = {name: taste[rows] for name, taste in self.tastes.items()}
        return utilities(self._planted, tastes, queries if self._knows_context else None)


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
    counted = torch.from_numpy(wish_matrix(planted.kind, counts, None if "context" in without else log))
    rows, targets = torch.from_numpy(users), torch.from_numpy(chosen)
    taste = torch.zeros(len(planted.user_ids), traits.shape[1], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [taste], max_iter=100, tolerance_grad=1e-3, tolerance_change=1e-6, line_search_fn="strong_wolfe"
    )

    def negative_log_posterior() -> torch.Tensor:
        optimiser.zero_grad()
        logits = torch.addmm(offered, counted * taste[rows], traits.T)
        loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum") + (taste**2).sum() / 2
        loss.backward()
        return loss

    optimiser.step(negative_log_posterior)
    edges = np.cumsum([counts[part.name].shape[1] for part in PARTS[planted.kind]])[:-1]
    return dict(zip(counts, np.split(taste.detach().numpy(), edges, axis=1), strict=True))


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
