"""How well a model in training ranks what was held out to choose its epoch."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from multimodal_rec.catalogue import Catalogue
from multimodal_rec.evaluation import evaluate_ranking
from multimodal_rec.feature_cache import FeatureCache
from multimodal_rec.model import RecommenderModel
from multimodal_rec.people import People
from multimodal_rec.profiles import ProfileReader
from multimodal_rec.rows import ItemTable
from multimodal_rec.scorer import Scorer
from multimodal_rec.steps import TrainingData
from multimodal_rec.vocabulary import Vocabulary


class Validator:
    """Validation NDCG@10 of the ranking score, over the training items, read from the training memory.

    Interactions with items that first appear in the validation part are left out: their content was not read.
    """

    def __init__(
        self,
        model: RecommenderModel,
        vocabulary: Vocabulary,
        data: TrainingData,
        parts: tuple[Catalogue, Catalogue],
        *,
        length: int,
        cache: FeatureCache,
    ) -> None:
        train, valid = parts
        self._model, self._vocabulary, self._data = model, vocabulary, data
        self._ids = list(train.item_ids)
        rows = {item_id: row for row, item_id in enumerate(self._ids)}
        users = train.interactions[["user_id"]].iloc[:0] if train.users is None else train.users
        given = None if valid.part is None else valid.part.given
        self._known = train.interactions if given is None else pd.concat([train.interactions, given], ignore_index=True)
        profiles = ProfileReader(model.profile, cache)
        self._people = People(
            self._known, users, vocabulary=vocabulary, item_rows=rows, length=length, profiles=profiles
        )
        log = valid.interactions.loc[valid.event_weights > 0]
        # What was taken before is not ranked again: it would be no question.
        known = pd.MultiIndex.from_frame(self._known.loc[:, ["user_id", "item_id"]])
        repeated = pd.MultiIndex.from_frame(log.loc[:, ["user_id", "item_id"]]).isin(known)
        self._log = log.loc[log["item_id"].isin(self._ids).to_numpy() & ~repeated]

    @property
    def usable(self) -> bool:
        """Whether anything is left to rank."""
        return len(self._log) > 0

    def ndcg(self) -> float:
        """Mean NDCG@10 over people, of the model as it is now."""
        with torch.inference_mode():
            tokens, present = self._model.tokens(self._data.items.to(self._model.log_temperature.device))
            embeddings = self._model.fuse(tokens, present)
        arrays = [tensor.float().cpu().numpy() for tensor in (tokens, embeddings)]
        table = ItemTable(self._ids, arrays[0], present.cpu().numpy(), arrays[1], [{}] * len(self._ids))
        scorer = Scorer(self._model, table, self._people)
        columns = list(self._vocabulary.context.columns)

        def score(queries: pd.DataFrame) -> np.ndarray:
            contexts = self._vocabulary.contexts(queries.loc[:, columns], num_rows=len(queries))
            return scorer.rank(queries["user_id"].tolist(), contexts)

        evaluation = evaluate_ranking(score, self._log, known=self._known, item_ids=self._ids, context_columns=columns)
        return evaluation.means()["ndcg@10"]
