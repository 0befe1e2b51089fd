"""What somebody takes, from everything they took and how it lies in the graph of who took what."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F

from multimodal_rec.collaborative.bag import weighed_sums
from multimodal_rec.collaborative.score import CollaborativeScore
from multimodal_rec.history import HistoryBatch


@final
class GraphScore(CollaborativeScore):
    """Score = cos(u, v_i) / `temperature`, with u = Σ h_j over the different items j of a person's history.

    An item is `dim` numbers as part of a history (h) and `dim` as what is asked about (v, of length 1 for the items of
    the log). An empty history scores 0 everywhere. `taking`: float (kind,), what an event of each kind counts in the
    sum: 1 where it says that something was taken, 0 where it does not; kinds beyond count as the first.
    """

    taking: Tensor

    def __init__(self, num_items: int, dim: int, *, temperature: float, taking: Tensor) -> None:
        super().__init__()
        self.dim, self.temperature = dim, temperature
        self.register_buffer("vectors", torch.zeros(num_items, 2 * dim))
        self.register_buffer("taking", taking)

    def items(self, vectors: Tensor) -> Tensor:
        """The side of items, (item, dim): v."""
        return vectors[:, self.dim :]

    def people(self, history: HistoryBatch, vectors: Tensor, person: Tensor) -> Tensor:
        """The side of people, (person, dim): u of length 1 / temperature; 0 where nothing was taken."""
        del person
        if history.present.shape[1] == 0:
            return vectors.new_zeros(len(history.present), self.dim)
        kind = torch.where(history.kind < len(self.taking), history.kind, 0)
        counts = (self.taking[kind] * (history.present & _first_of_each(history))).to(vectors.dtype)
        total = weighed_sums(vectors[:, : self.dim], history.item_index, counts)
        return F.normalize(total, dim=1) / self.temperature


def _first_of_each(history: HistoryBatch) -> Tensor:
    """Bool (person, event): whether the item is there for the first time; what is taken twice is liked once."""
    # Padding goes behind all items, so that it is never what came first.
    item = history.item_index.where(history.present, torch.iinfo(torch.int64).max)
    # ONNX knows one way to sort, which is stable.
    ordered, place = item.sort(dim=1) if torch.compiler.is_exporting() else item.sort(dim=1, stable=True)
    is_first = torch.ones_like(history.present)
    is_first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    return torch.zeros_like(is_first).scatter(1, place, is_first)
