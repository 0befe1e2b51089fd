"""What people did since training → behaviour features and vectors of the items that they took, in training's units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from multimodal_rec.behaviour import BehaviourScale, folded_in
from multimodal_rec.collaborative.item_item import HALF_KNOWN
from multimodal_rec.model import RecommenderModel
from multimodal_rec.rows import ItemTable
from multimodal_rec.vocabulary import Vocabulary


@dataclass(frozen=True, eq=False, kw_only=True)
class Folding:
    """A trained model's statistics, and how they go on with the log.

    All of it is a function of what training left and of the whole log: however often it is asked, and in however many
    steps the log came, the same log gives the same numbers.
    """

    model: RecommenderModel
    vocabulary: Vocabulary
    behaviour: Mapping[str, np.ndarray]
    """Item id → behaviour features and vectors, as training left them."""
    scale: BehaviourScale
    """Of these features."""
    num_fitted: int
    """Interactions, the first of the log, that they were made from."""

    def taken_since(self, log: pd.DataFrame, start: int) -> list[str]:
        """Ids of items that somebody took in the interactions from `start` on; a dislike takes nothing.

        None where training saw nobody take anything, or was not to read it: such a model has no place for behaviour.
        """
        if not self.behaviour:
            return []
        later = log.iloc[start:]
        taken = self.vocabulary.weights_of(later) > 0
        return list(dict.fromkeys(later["item_id"].to_numpy()[taken].tolist()))

    def updated(self, log: pd.DataFrame, table: ItemTable) -> dict[str, np.ndarray]:
        """Item id → behaviour features and vectors, float32 (width,), of every item taken after training.

        `log`: all interactions; `table`: the stored items. Features are folded in (`behaviour.folded_in`) but for the
        popularity of items that training knew, and their vectors: counted on, everything known would rise above
        everything new as the log grows. An item that nobody had taken is left out until as many did as took a quarter
        of training's items: with fewer, a model would read as unpopular what is only young. From then on its vectors
        are what its content lets expect, and how many take it never less than counted.
        """
        wanted = [item_id for item_id in self.taken_since(log, self.num_fitted) if item_id in table.position]
        if not wanted:
            return {}
        rows = {item_id: row for row, item_id in enumerate(dict.fromkeys([*self.behaviour, *wanted]))}
        user_rows = {user_id: row for row, user_id in enumerate(dict.fromkeys(log["user_id"]))}
        events, weights = self.vocabulary.encode_events(log, user_rows, rows)
        user_index, item_index = events.user_index[weights > 0], events.item_index[weights > 0]
        width = self.model.shape.behaviour_width
        known = np.zeros((len(rows), width), dtype=np.float32)
        for item_id, learned in self.behaviour.items():
            known[rows[item_id]] = learned[:width]
        features = folded_in(user_index, item_index, num_users=len(user_rows), known=known, scale=self.scale)
        old = np.array([item_id in self.behaviour for item_id in rows], dtype=bool)
        features[old, -1] = known[old, -1]
        enough = features[:, -1] >= self.least_popularity
        wanted = [item_id for item_id in wanted if old[rows[item_id]] or enough[rows[item_id]]]
        chosen = [rows[item_id] for item_id in wanted]
        vectors = self._vectors(wanted, table)
        if self.model.blend is not None:
            pairs = np.unique(np.stack([user_index, item_index]), axis=1)
            counted = np.log1p(np.bincount(pairs[1], minlength=len(rows))[chosen] / HALF_KNOWN)
            for column in self.model.blend.popularity_columns:
                raised = np.maximum(vectors[:, column], counted)
                vectors[:, column] = np.where(old[chosen], vectors[:, column], raised)
        whole = np.concatenate([features[chosen], vectors], axis=1).astype(np.float32)
        return dict(zip(wanted, whole, strict=True))

    @property
    def least_popularity(self) -> float:
        """From what popularity on, in training's units, a later item has a behaviour of its own: the lower quartile."""
        column = self.model.shape.behaviour_width - 1
        popularity = [features[column] for features in self.behaviour.values()]
        return float(np.quantile(popularity, 0.25)) - 1e-6 if popularity else np.inf

    def _vectors(self, ids: list[str], table: ItemTable) -> np.ndarray:
        width, blend = self.model.shape.behaviour_width, self.model.blend
        vectors = np.zeros((len(ids), self.model.vector_width), dtype=np.float32)
        if blend is None:
            return vectors
        device = blend.weights.device
        fresh = [place for place, item_id in enumerate(ids) if item_id not in self.behaviour]
        if fresh:
            rows = [table.position[ids[place]] for place in fresh]
            content = torch.from_numpy(table.content[rows, :-1]).to(device)
            present = torch.from_numpy(table.present[rows, :-1]).to(device)
            nobody = torch.zeros(len(rows), dtype=torch.bool, device=device)
            none_learned = torch.zeros(len(rows), vectors.shape[1], device=device)
            with torch.inference_mode():
                expected = blend.vectors(content, present, none_learned, nobody)
            vectors[fresh] = blend.beside_content(expected).float().cpu().numpy()
        for place, item_id in enumerate(ids):
            if item_id in self.behaviour:
                vectors[place] = self.behaviour[item_id][width:]
        return vectors
