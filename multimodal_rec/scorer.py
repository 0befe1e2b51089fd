"""Scores of people in contexts over a table of items: no tower runs here."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from multimodal_rec.asking import Asked, PeopleReader
from multimodal_rec.attribution import Explainer
from multimodal_rec.embedding import EmbeddingJob
from multimodal_rec.errors import ConfigError, StoreError
from multimodal_rec.model import RecommenderModel
from multimodal_rec.people import People, Person
from multimodal_rec.profiles import ProfileReader
from multimodal_rec.reranking.candidates import Shelf
from multimodal_rec.rows import ItemTable
from multimodal_rec.store import ItemStore

_BATCH = 256
# So many items pass at a time: what is written of them on the way stays within the processor's cache.
_BATCH_OF_ITEMS = 4096
# Each person's own items are copied: a few people at a time stay within the processor's cache.
_BATCH_OF_OWN = 16


class _Chosen(NamedTuple):
    """Some of a scorer's items."""

    chosen: Tensor | None
    """Their rows; None for all."""
    tokens: Tensor
    present: Tensor
    """Bool (item, part), at least one an item."""
    embeddings: Tensor
    bare: Tensor | None
    """Bool (item,): True where nothing is left to score by; None where that is so of none."""


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
        self._reader = self._reader_over(self._present, self._vectors)

    @property
    def model(self) -> RecommenderModel:
        """What scores."""
        return self._model

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
        self.check_filled()
        present = self._shown(without)
        items = self._items(rows, present)
        reader = self._reader
        if without:
            vectors = self._model.item_vectors(self._content, present, self._learned)
            own = vectors if items.chosen is None else vectors[items.chosen]
            items = items._replace(embeddings=self._model.embeddings(items.tokens, items.present, own))
            reader = self._reader_over(present, vectors, without)
        blocks: list[Tensor] = []
        for part in _slices(len(people), _BATCH):
            blocks.append(self._scores(reader.ask(people[part], contexts[part]), items, retrieval=retrieval))
        if not blocks:
            return np.zeros((0, len(items.present)), dtype=np.float32)
        return torch.cat(blocks).float().cpu().numpy()

    def check_filled(self) -> None:
        """Raise `StoreError` where there is no item at all."""
        if not self.ids:
            raise StoreError(
                "the store holds no items of this model. Expected items that this model embedded. Embed them with "
                "embed(items), or open the store that belongs to the model."
            )

    def ask(self, people: Sequence[str | Person], contexts: np.ndarray) -> Asked:
        """These people in these contexts, (person, context width), once for both scores."""
        return self._reader.ask(people, contexts)

    @torch.inference_mode()
    def rank_own(self, asked: Asked, rows: np.ndarray) -> np.ndarray:
        """The scores of `rank`, float32 (person, item), of items that each person has of their own: int64 `rows`."""
        blocks = [self._own_scores(asked.of(part), rows[part]) for part in _slices(len(rows), _BATCH_OF_OWN)]
        return torch.cat(blocks).float().cpu().numpy()

    def _own_scores(self, asked: Asked, rows: np.ndarray) -> Tensor:
        items = self._items(rows.ravel(), self._present)
        tokens, present = (numbers.unflatten(0, rows.shape) for numbers in (items.tokens, items.present))
        scores = self._model.rank_own(asked.queries, tokens, present)
        if asked.sides is not None and self._model.blend is not None:
            sides = items.embeddings[:, -asked.sides.shape[1] :].unflatten(0, rows.shape)
            own = self._model.blend.own(items.present[:, -1]).unflatten(0, rows.shape)
            scores = scores * own + torch.einsum("qd,qid->qi", asked.sides, sides)
        return _below(scores, None if items.bare is None else items.bare.unflatten(0, rows.shape))

    def _reader_over(self, present: Tensor, vectors: Tensor, hidden: Collection[str] = ()) -> PeopleReader:
        return PeopleReader(
            self._model, self.people, tokens=self._tokens, present=present, vectors=vectors, hidden=hidden
        )

    def _items(self, rows: Sequence[int] | np.ndarray | None, present: Tensor) -> _Chosen:
        if rows is None:
            chosen, tokens, there, embeddings = None, self._tokens, present, self._embeddings
        else:
            chosen = torch.as_tensor(np.asarray(rows, dtype=np.int64), device=self._tokens.device)
            # Rows are copied whole: several times as fast as indexing them.
            tokens, there, embeddings = (
                numbers.index_select(0, chosen) for numbers in (self._tokens, present, self._embeddings)
            )
        bare = ~there.any(dim=1)
        # A part must be there for the attention to have something to rest on; such scores are replaced.
        return _Chosen(chosen, tokens, there | bare.unsqueeze(1), embeddings, bare if bool(bare.any()) else None)

    def _scores(self, asked: Asked, items: _Chosen, *, retrieval: bool = False) -> Tensor:
        if retrieval:
            scores = self._flat(asked) @ items.embeddings.T
        else:
            parts = _slices(max(1, len(items.present)), _BATCH_OF_ITEMS)
            ranked = [self._model.rank(asked.queries, items.tokens[part], items.present[part]) for part in parts]
            scores = torch.cat(ranked, dim=1)
            if asked.sides is not None and self._model.blend is not None:
                own = self._model.blend.own(items.present[:, -1])
                # Behind the fused parts stand the items' sides of the collaborative scores, weighed.
                sides = items.embeddings[:, -asked.sides.shape[1] :]
                scores = torch.addmm(scores * own, asked.sides, sides.T)
        return _below(scores, items.bare)

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
        return self.search_queries_of(self.ask(people, contexts))

    @torch.inference_mode()
    def search_queries_of(self, asked: Asked) -> np.ndarray:
        """`search_queries` of people who were read already."""
        return self._flat(asked).float().cpu().numpy()

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
        table, known = self.table, self.people.item_counts()
        # Behind what is stored, raw items may stand, which nobody took.
        counts = np.zeros(len(self.ids), dtype=np.int64)
        counts[: len(known)] = known
        return Shelf(
            self.ids,
            table.embeddings,
            counts,
            attributes=table.attributes,
            columns=table.columns,
        )

    def _flat(self, asked: Asked) -> Tensor:
        """What retrieval multiplies with item embeddings, (person, part · dim + score dim)."""
        flat = self._model.fused_side(asked.queries)
        return flat if asked.sides is None else torch.cat([flat, asked.sides], dim=1)

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


def _below(scores: Tensor, bare: Tensor | None) -> Tensor:
    """The scores, those of items that have nothing to show below every other."""
    return scores if bare is None else scores.masked_fill(bare, float(scores.min()) - 1 if scores.numel() else 0.0)


def _slices(count: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, count, size)]
