"""How well anybody could rank a sample catalogue: the two oracles that results are measured against."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from multimodal_rec.planting import PARTS, Planted, context_sign, traits_of, utilities


class Oracle:
    """Scores from the generator itself.

    The *true* oracle knows each person's taste. The *learnable* oracle knows what is planted in the items and how
    events are drawn, and infers each person's taste from the log that a model is given: the most probable taste
    under the generator's own prior, N(0, I), and its own softmax likelihood.
    """

    def __init__(self, planted: Planted, tastes: dict[str, np.ndarray]) -> None:
        self._planted = planted
        self._tastes = tastes
        self._rows = {user_id: index for index, user_id in enumerate(planted.user_ids)}

    @classmethod
    def true(cls, planted: Planted) -> Oracle:
        """The oracle that knows each person's taste."""
        return cls(planted, planted.tastes)

    @classmethod
    def learnable(cls, planted: Planted, known: pd.DataFrame, *, without: Sequence[str] = ()) -> Oracle:
        """The oracle that infers taste from `known`, a log with its context columns.

        `without` names parts that it must not use, or 'context' for their signs.
        """
        return cls(planted, _infer_tastes(planted, known, without))

    def score(self, queries: pd.DataFrame) -> np.ndarray:
        """Utilities, float64 (query, item), of people in contexts; items in planted order."""
        rows = [self._rows[user_id] for user_id in queries["user_id"]]
        return utilities(self._planted, {name: taste[rows] for name, taste in self._tastes.items()}, queries)


def _infer_tastes(planted: Planted, known: pd.DataFrame, without: Sequence[str]) -> dict[str, np.ndarray]:
    parts = PARTS[planted.kind]
    items = planted.items
    index_of = {item_id: index for index, item_id in enumerate(items["item_id"])}
    row_of = {user_id: index for index, user_id in enumerate(planted.user_ids)}
    chosen = torch.tensor([index_of[item_id] for item_id in known["item_id"]])
    users = torch.tensor([row_of[user_id] for user_id in known["user_id"]])
    # An item could be chosen once it existed: late ones never, in a log that ends before they arrive.
    popularity = torch.tensor(items["popularity"].to_numpy())
    popularity[torch.tensor(items["late"].to_numpy())] = -torch.inf
    features = {part.name: torch.tensor(traits_of(items, part)) for part in parts}
    signs = {part.name: torch.tensor(part.weight * context_sign(known, part)) for part in parts}
    tastes = {
        part.name: torch.zeros(len(planted.user_ids), features[part.name].shape[1], dtype=torch.float64)
        for part in parts
    }
    learned = [tastes[part.name].requires_grad_() for part in parts if part.name not in without]
    if learned:
        optimiser = torch.optim.LBFGS(learned, max_iter=200, line_search_fn="strong_wolfe")

        def negative_log_posterior() -> torch.Tensor:
            optimiser.zero_grad()
            logits = popularity.expand(len(chosen), -1)
            for part in parts:
                logits = logits + (signs[part.name][:, None] * tastes[part.name][users]) @ features[part.name].T
            loss = torch.nn.functional.cross_entropy(logits, chosen, reduction="sum")
            loss = loss + sum((taste**2).sum() / 2 for taste in learned)
            loss.backward()
            return loss

        optimiser.step(negative_log_posterior)
    return {name: taste.detach().numpy() for name, taste in tastes.items()}
