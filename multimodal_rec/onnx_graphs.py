"""What is computed apart from each other at scoring time, as modules of named tensors in and named tensors out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, final

import torch
from torch import Tensor, nn

from multimodal_rec.history import HistoryBatch
from multimodal_rec.model import ModalityFeatures, RecommenderModel
from multimodal_rec.query import QueryInput
from towers import TowerBatch


class Axes(NamedTuple):
    """What the axes of a graph's tensors stand for."""

    inputs: Mapping[str, tuple[str | int, ...]]
    """Input → a name for each axis that may be of any length, a number for each that may not."""
    outputs: Mapping[str, tuple[str | int, ...]]
    """The same of what comes out."""
    least: Mapping[str, int]
    """Axis → the least length that it may have, where that is more than 1."""


@final
class TowerGraph(nn.Module):
    """One modality: media as `Tower.prepare` hands them to the network → what is stored of it.

    `place` int64 (item, slot) says which of the windows stands in each of an item's slots, `present` bool (item, slot)
    which slots are filled. Out comes (item, dim + content rank): the token and what it lets expect.
    """

    def __init__(self, model: RecommenderModel, modality: str) -> None:
        super().__init__()
        tower = model.tower(modality)
        self.tower = tower
        # Another tower's backbone would not be found through this one.
        self.backbone = tower.backbone
        self.content = None if model.blend is None else model.blend.content
        self._modality = modality
        object.__setattr__(self, "_model", model)

    def forward(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """`numbers` of windows, `place` and `present`."""
        windows = {name: tensor for name, tensor in tensors.items() if name not in ("place", "present")}
        present = tensors["present"]
        features = self.tower.rows(windows)[tensors["place"]].where(present.unsqueeze(-1), 0.0)
        model: RecommenderModel = self.__dict__["_model"]
        numbers, _ = model.modality_numbers(self._modality, ModalityFeatures(features, present))
        return {"numbers": numbers}

    @property
    def slots(self) -> int | None:
        """How many slots an item has; None for any number. Where columns of text stay apart, each has its own."""
        model: RecommenderModel = self.__dict__["_model"]
        if self.content is None or self._modality != "text" or not model.shape.texts_apart:
            return None
        width = self.content.block_widths.get("text", 0)
        return width // self.tower.feature_dim or None

    def inputs(self, batch: TowerBatch, *, least_slots: int = 1) -> dict[str, Tensor]:
        """The tensors of a prepared batch."""
        counts = batch.counts.cpu()
        slots = self.slots or max(int(counts.max()), least_slots)
        present = torch.arange(slots) < counts.unsqueeze(1)
        place = torch.where(present, (counts.cumsum(0) - counts).unsqueeze(1) + torch.arange(slots), 0)
        return {**batch.windows, "place": place, "present": present}

    def axes(self, example: Mapping[str, Tensor]) -> Axes:
        """Windows, items, slots and a text's tokens may be of any number; the rest is as the example has it."""
        found: dict[str, tuple[str | int, ...]] = {}
        for name, tensor in example.items():
            rest: list[str | int] = list(tensor.shape[1:])
            if self.tower.backbone.varies and rest:
                rest[0] = "token"
            found[name] = ("window", *rest)
        found["place"] = found["present"] = ("item", self.slots or "slot")
        model: RecommenderModel = self.__dict__["_model"]
        rank = 0 if self.content is None else self.content.rank
        return Axes(found, {"numbers": ("item", model.shape.embedding_dim + rank)}, {})


@final
class ScoreGraph(nn.Module):
    """The scoring path: people, their histories and their context, and stored items → both scores' numbers.

    Histories index `taken_*`, a table of whatever items they hold. `scores` are the context-aware ranking scores
    (person, item); `queries` (person, part · dim + score dim) are what an index of stored item embeddings is searched
    with. Where the model has collaborative scores, `whole_*` are the whole histories, `history_*` the latest events,
    and `item_sides` the end of the stored item embeddings, behind their part · dim numbers.
    """

    def __init__(self, model: RecommenderModel) -> None:
        super().__init__()
        self.query, self.ranking, self.blend = model.query, model.ranking, model.blend
        self.log_temperature = model.log_temperature

    def forward(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """`scores` and `queries`."""
        item_tokens, item_present = tensors["item_tokens"], tensors["item_present"]
        inputs = QueryInput(_history(tensors, "history"), tensors["person"], tensors["context"])
        queries = self.query(inputs, tensors["taken_tokens"], tensors["taken_present"])
        temperature = self.log_temperature.exp()
        scores = self.ranking(queries, item_tokens, item_present) / temperature[1]
        flat = queries.flatten(start_dim=1) / temperature[0]
        if self.blend is None:
            return {"scores": scores, "queries": flat}
        whole = _history(tensors, "whole")
        sides = self.blend.people(whole, tensors["taken_vectors"], tensors["person"])
        sides = self.blend.asked(flat, sides, tensors["context"])
        scores = scores * self.blend.own(item_present[:, -1]) + sides @ tensors["item_sides"].T
        return {"scores": scores, "queries": torch.cat([flat, sides], dim=1)}

    def axes(self, example: Mapping[str, Tensor]) -> Axes:
        """People, events and items may be of any number."""
        named: dict[str, tuple[str, ...]] = {"person": ("person",), "context": ("person",)}
        named |= {name: ("person", "event") for name in example if name.startswith("history_")}
        named |= {name: ("person", "whole_event") for name in example if name.startswith("whole_")}
        named |= {name: (name.partition("_")[0],) for name in example if name.startswith(("item_", "taken_"))}
        inputs = {name: (*named[name], *tensor.shape[len(named[name]) :]) for name, tensor in example.items()}
        _, parts, dim = example["item_tokens"].shape
        width = parts * dim + (0 if self.blend is None else self.blend.dim)
        outputs: dict[str, tuple[str | int, ...]] = {"scores": ("person", "item"), "queries": ("person", width)}
        return Axes(inputs, outputs, {} if self.blend is None else {"whole_event": self.blend.least_events})


def _history(tensors: Mapping[str, Tensor], name: str) -> HistoryBatch:
    """A history of what is given of it; no score reads the rest."""
    nothing = torch.zeros_like(tensors[f"{name}_value"])
    return HistoryBatch(
        tensors[f"{name}_item"],
        tensors[f"{name}_kind"],
        tensors[f"{name}_value"],
        tensors.get(f"{name}_distance", nothing),
        tensors[f"{name}_age_days"],
        tensors.get(f"{name}_context", nothing.unsqueeze(-1)),
        tensors[f"{name}_present"],
    )
