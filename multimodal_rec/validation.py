"""How well a model in training ranks what was held out to choose its epoch, and what is blended with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import pandas as pd
import torch

from multimodal_rec.catalogue import Catalogue
from multimodal_rec.evaluation import evaluate_ranking
from multimodal_rec.feature_cache import FeatureCache
from multimodal_rec.features import ContentFeatures, PreparedMemory
from multimodal_rec.model import ItemFeatures, ModalityFeatures, RecommenderModel, ScoredItems
from multimodal_rec.people import People
from multimodal_rec.profiles import ProfileReader
from multimodal_rec.rows import ItemTable
from multimodal_rec.scorer import Scorer
from multimodal_rec.steps import TrainingData
from multimodal_rec.vocabulary import Vocabulary

MOST_SCORES = 1 << 25
"""Up to so many scores everybody in the validation part is asked, beyond as many people as they allow: what is chosen
is asked dozens of times, and of 20,000 items 1,700 people tell it as well."""

Kind = Literal["new", "known"]
"""Items that nobody took in the training part, and the others."""
ScoreOfScorer = Callable[[Scorer, Sequence[str], np.ndarray], np.ndarray]
"""A scorer, people and their contexts → scores (person, item) in the order of the scorer's items."""


class Validator:
    """Validation NDCG@10 of the ranking score.

    Items of the training part are read from the training memory. Items that first come up in the validation part are
    ranked where `late` says so, and then read by the towers as they are; those of a split by cold items are always
    ranked, among themselves as at test.
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
        late: bool = False,
    ) -> None:
        train, valid = parts
        self._model, self._vocabulary, self._data = model, vocabulary, data
        cold = valid.part is not None and valid.part.how == "cold_items"
        known_ids = set(train.item_ids)
        ids = [item_id for item_id in valid.item_ids if item_id not in known_ids] if cold or late else []
        self._late = LateItems(model, vocabulary, valid, ids, cache=cache)
        self._ids = [*train.item_ids, *self._late.ids]
        self._candidates = self._late.ids if cold else None
        self._taken = {item_id for item_id, taken in zip(train.item_ids, data.behaviour.present, strict=True) if taken}
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
        before = pd.MultiIndex.from_frame(self._known.loc[:, ["user_id", "item_id"]])
        repeated = pd.MultiIndex.from_frame(log.loc[:, ["user_id", "item_id"]]).isin(before)
        asked = self._ids if self._candidates is None else self._candidates
        log = log.loc[log["item_id"].isin(asked).to_numpy() & ~repeated]
        self._log = _of_some(log, most=max(1, MOST_SCORES // max(len(asked), 1)))

    @property
    def usable(self) -> bool:
        """Whether anything is left to rank."""
        return len(self._log) > 0

    def people_of(self, kind: Kind) -> int:
        """How many people took something of this kind."""
        return len(set(self._of(kind)["user_id"]))

    def ndcg(self) -> float:
        """Mean NDCG@10 over people, of the model as it is now."""
        return self.ndcg_of(Scorer.rank)

    def ndcg_of(self, score: ScoreOfScorer, scorer: Scorer | None = None, *, kind: Kind | None = None) -> float:
        """Mean NDCG@10 over people of any scores over the model's items; `scorer`: None makes one of the model.

        `kind`: only items of this kind are to be found; all are ranked.
        """
        scorer = self.scorer() if scorer is None else scorer
        columns = list(self._vocabulary.context.columns)

        def score_queries(queries: pd.DataFrame) -> np.ndarray:
            contexts = self._vocabulary.contexts(queries.loc[:, columns], num_rows=len(queries))
            return score(scorer, queries["user_id"].tolist(), contexts)

        evaluation = evaluate_ranking(
            score_queries,
            self._log if kind is None else self._of(kind),
            known=self._known,
            item_ids=self._ids,
            context_columns=columns,
            candidates=self._candidates,
        )
        return evaluation.means()["ndcg@10"]

    def _of(self, kind: Kind) -> pd.DataFrame:
        return self._log.loc[self._log["item_id"].isin(list(self._taken)).to_numpy() == (kind == "known")]

    def scorer(self) -> Scorer:
        """A scorer over all items that are ranked, by the model as it is now."""
        model, device = self._model, self._model.log_temperature.device
        with torch.inference_mode():
            known = self._data.items.to(device)
            learned = torch.zeros(len(known.attributes), 0) if model.blend is None else model.blend.learned
            items = model.scored(known, learned.to(device))
            if self._late.ids:
                late = self._late.features().to(device)
                nothing = torch.zeros(len(self._late.ids), model.vector_width, device=device)
                pairs = zip(items, model.scored(late, nothing), strict=True)
                items = ScoredItems(*(torch.cat(pair) for pair in pairs))
        tokens, content, vectors, embeddings = (
            tensor.float().cpu().numpy() for tensor in (items.tokens, items.content, items.vectors, items.embeddings)
        )
        present, attributes = items.present.cpu().numpy(), [{} for _ in self._ids]
        table = ItemTable(self._ids, tokens, present, embeddings, attributes, content, vectors)
        return Scorer(model, table, self._people)


def _of_some(log: pd.DataFrame, *, most: int) -> pd.DataFrame:
    """What `most` people did, the same ones each time, or everybody where there are not as many."""
    people = sorted(set(log["user_id"]))
    if len(people) <= most:
        return log
    drawn = np.random.default_rng(0).permutation(len(people))[:most]
    return log.loc[log["user_id"].isin([people[place] for place in drawn])]


class LateItems:
    """Items that first come up in the validation part; those that cannot be read, or show nothing, are left out."""

    def __init__(
        self,
        model: RecommenderModel,
        vocabulary: Vocabulary,
        valid: Catalogue,
        ids: list[str],
        *,
        cache: FeatureCache,
    ) -> None:
        self._model = model
        towers = {name: model.tower(name) for name in model.towers}
        items = valid.items.loc[valid.items["item_id"].isin(ids)]
        content = model.content_of(items, valid.schema)
        self._content = ContentFeatures(towers, content, cache=cache, prepared=PreparedMemory())
        attributes, known = vocabulary.item_attributes(items)
        here = [known]
        self._kept: dict[str, ModalityFeatures] = {}
        for name, tower in towers.items():
            found = self._content.features(range(len(items)), name)
            here.append(found.present.any(dim=1).numpy())
            if tower.keeps_backbone:
                self._kept[name] = found
                tower.release_backbone()
        shown = np.any(here, axis=0) & ~np.isin(np.arange(len(items)), list(self._content.reasons))
        self._rows = np.flatnonzero(shown)
        self.ids: list[str] = items["item_id"].iloc[self._rows].tolist()
        self._attributes, self._known = torch.from_numpy(attributes[self._rows]), torch.from_numpy(known[self._rows])

    def features(self) -> ItemFeatures:
        """What is known of them now; nobody has taken them."""
        index = torch.from_numpy(self._rows)
        modalities: dict[str, ModalityFeatures] = {}
        for name in self._model.towers:
            if name in self._kept:
                modalities[name] = ModalityFeatures(*(tensor[index] for tensor in self._kept[name]))
            else:
                modalities[name] = self._content.features(self._rows.tolist(), name)
        nobody = torch.zeros(len(index), dtype=torch.bool)
        behaviour = torch.zeros(len(index), self._model.shape.behaviour_width)
        return ItemFeatures(modalities, self._attributes, self._known, behaviour, nobody)
