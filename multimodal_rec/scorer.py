"""Scores of people in contexts over a table of items: no tower runs here."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from multimodal_rec.attribution import Explainer
from multimodal_rec.embedding import EmbeddingJob
from multimodal_rec.errors import ConfigError, StoreError
from multimodal_rec.model import RecommenderModel
from multimodal_rec.people import People, Person
from multimodal_rec.profiles import ProfileReader
from multimodal_rec.query import QueryInput
from multimodal_rec.reranking.candidates import Shelf
from multimodal_rec.rows import ItemTable
from multimodal_rec.store import ItemStore

_BATCH = 256


class Scorer:
    """A model, the items that it may rank, and the people it knows. Items stay in the order of `table.ids`."""

    def __init__(self, model: RecommenderModel, table: ItemTable, people: People) -> None:
        device = model.log_temperature.device
        self.table = table
        self.ids = table.ids
        self.people = people
        self.item_rows = {item_id: row for row, item_id in enumerate(table.ids)}
        self._model = model
        self._tokens = torch.from_numpy(table.tokens).to(device)
        self._present = torch.from_numpy(table.present).to(device)
        self._embeddings = torch.from_numpy(table.embeddings).to(device)
        self._content = torch.from_numpy(table.content[:, :-1]).to(device)
        self._learned = torch.from_numpy(table.vectors).to(device)
        with torch.inference_mode():
            self._vectors = model.item_vectors(self._content, self._present, self._learned)

    @property
    def taken(self) -> Tensor:
        """Bool (item,): whether somebody took the item before the model was trained."""
        return self._present[:, -1]

    @property
    def item_vectors(self) -> np.ndarray:
        """What each item is to the collaborative scores, float32 (item, vector width)."""
        return self._vectors.cpu().numpy()

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits over all weights that turn stored items and people into scores."""
        return self._model.score_fingerprint()

    @classmethod
    def of_store(cls, job: EmbeddingJob, store: ItemStore, *, log: pd.DataFrame, length: int) -> Scorer:
        """A scorer over the rows that this job's model has in a store, with the people kept there.

        `log`: interactions that speak for people, as the store keeps them; `length` of a person's latest are read.
        """
        table = store.read_items(model=job.fingerprint)
        rows = {item_id: row for row, item_id in enumerate(table.ids)}
        profiles = ProfileReader(job.model.profile, job.cache)
        users = store.read_users()
        people = People(log, users, vocabulary=job.vocabulary, item_rows=rows, length=length, profiles=profiles)
        return cls(job.model, table, people)

    def beside(self, table: ItemTable) -> Scorer:
        """A scorer over these items and, behind them, those of `table`, which no history holds.

        An id that both have means the one of `table`.
        """
        return Scorer(self._model, self.table.followed_by(table), self.people)

    @torch.inference_mode()
    def rank(
        self,
        people: Sequence[str | Person],
        contexts: np.ndarray,
        rows: Sequence[int] | None = None,
        *,
        retrieval: bool = False,
        without: Collection[str] = (),
    ) -> np.ndarray:
        """Scores, float32 (person, item), of the items in `rows` (None: all).

        `contexts`: encoded, (person, context width). `retrieval` gives ⟨q, e(i)⟩ instead of the ranking score.
        `without` hides parts of all items, the 'history' or the 'context'; an item with nothing left scores below
        every other. Raises `ConfigError` for a part that the model does not have, `StoreError` where there is no
        item at all.
        """
        if not self.ids:
            raise StoreError(
                "the store holds no items of this model. Expected items that this model embedded. Embed them with "
                "embed(items), or open the store that belongs to the model."
            )
        present = self._shown(without)
        chosen = torch.arange(len(self.ids)) if rows is None else torch.tensor(list(rows), dtype=torch.int64)
        tokens, there = self._tokens[chosen], present[chosen]
        bare = ~there.any(dim=1)
        # A part must be there for the attention to have something to rest on; the score is replaced below.
        there = there | bare.unsqueeze(1)
        vectors, embeddings = self._vectors, self._embeddings[chosen]
        if without:
            vectors = self._model.item_vectors(self._content, present, self._learned)
            embeddings = self._model.embeddings(tokens, there, vectors[chosen])
        # Behind the fused parts stand the items' sides of the collaborative scores, weighed.
        fused_dim = tokens.shape[1] * tokens.shape[2]
        blocks: list[Tensor] = []
        for start in range(0, len(people), _BATCH):
            part = slice(start, start + _BATCH)
            queries, sides = self._queries(people[part], contexts[part], present, vectors, without)
            if retrieval:
                scores = self._flat(queries, sides) @ embeddings.T
            else:
                scores = self._model.rank(queries, tokens, there)
                if sides is not None and self._model.blend is not None:
                    own = self._model.blend.own(there[:, -1])
                    scores = scores * own + sides @ embeddings[:, fused_dim:].T
            blocks.append(scores.masked_fill(bare, float(scores.min()) - 1 if scores.numel() else 0.0))
        if not blocks:
            return np.zeros((0, len(chosen)), dtype=np.float32)
        return torch.cat(blocks).float().cpu().numpy()

    def grid(self, people: Sequence[str], contexts: np.ndarray, items: Sequence[str]) -> np.ndarray:
        """`rank` of items by their ids, all of them stored."""
        return self.rank(people, contexts, [self.item_rows[item_id] for item_id in items])

    @property
    def search_embeddings(self) -> np.ndarray:
        """What an index searches, float32 (item, width)."""
        return self.table.embeddings

    @torch.inference_mode()
    def search_queries(self, people: Sequence[str | Person], contexts: np.ndarray) -> np.ndarray:
        """Float32 (person, width), whose inner products with `search_embeddings` are the retrieval scores."""
        return self._flat(*self._queries(people, contexts, self._present, self._vectors)).float().cpu().numpy()

    @torch.inference_mode()
    def similarity(self, rows: Sequence[int]) -> np.ndarray:
        """Cosines of item embeddings, float32 (row, item)."""
        unit = F.normalize(self._embeddings, dim=1)
        return (unit[list(rows)] @ unit.T).float().cpu().numpy()

    @cached_property
    def explainer(self) -> Explainer:
        """What takes scores of these items apart."""
        return Explainer(
            self._model,
            self.table,
            self.people,
            tokens=self._tokens,
            present=self._present,
            content=self._content,
            vectors=self._vectors,
        )

    @cached_property
    def shelf(self) -> Shelf:
        """What steps after the ranking read of these items."""
        table = self.table
        return Shelf(
            self.ids,
            table.embeddings,
            self.people.item_counts(),
            attributes=table.attributes,
            columns=table.columns,
        )

    def _queries(
        self,
        people: Sequence[str | Person],
        contexts: np.ndarray,
        present: Tensor,
        vectors: Tensor,
        without: Collection[str] = (),
    ) -> tuple[Tensor, Tensor | None]:
        """Queries (person, part, dim), and the people's side of the collaborative scores, (person, score dim), which
        read all that a person did, in whatever context; None without such."""
        device = self._tokens.device
        history = self.people.histories(people).to(device)
        context = torch.from_numpy(contexts).to(device)
        if "history" in without:
            history = history._replace(present=torch.zeros_like(history.present))
        if "context" in without:
            history = history._replace(context=torch.zeros_like(history.context))
            context = torch.zeros_like(context)
        person = self.people.features(people).to(device)
        queries = self._model.queries(QueryInput(history, person, context), self._tokens, present)
        if self._model.blend is None:
            return queries, None
        whole = self.people.histories(people, whole=True).to(device)
        if "history" in without:
            whole = whole._replace(present=torch.zeros_like(whole.present))
        return queries, self._model.blend.people(whole, vectors, person)

    def _flat(self, queries: Tensor, sides: Tensor | None) -> Tensor:
        """What retrieval multiplies with item embeddings, (person, part · dim + score dim)."""
        flat = queries.flatten(start_dim=1) / self._model.log_temperature.exp()[0]
        return flat if sides is None else torch.cat([flat, sides], dim=1)

    def _shown(self, without: Collection[str]) -> Tensor:
        if not without:
            return self._present
        known: Mapping[str, int] = {name: index for index, name in enumerate(self._model.parts)}
        present = self._present.clone()
        for name in without:
            if name in known:
                present[:, known[name]] = False
            elif name not in ("history", "context"):
                raise ConfigError(
                    f"the model has no part '{name}'. Expected one of {', '.join([*known, 'history', 'context'])}."
                )
        return present
