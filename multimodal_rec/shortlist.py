"""Candidates found by their retrieval score, then ranked by the context-aware one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from threading import Lock
from typing import NamedTuple, final

import numpy as np

from multimodal_rec.combining import Combined
from multimodal_rec.errors import ConfigError, StoreError
from multimodal_rec.index import EXACT_UP_TO, ItemIndex
from multimodal_rec.index_folder import index_fingerprint
from multimodal_rec.index_table import index_at
from multimodal_rec.people import Person
from multimodal_rec.retrieval import Query, TopK, best_rows, top_k
from multimodal_rec.scorer import Scorer

# People whose queries choose how many cells are read, and measure what is found.
_ASKED = 256


class _Request(NamedTuple):
    """What one person asks for."""

    person: str | Person
    context: np.ndarray
    """Float32 (context width,)."""
    k: int
    query: Query


@final
class Shortlist:
    """A scorer's items behind an index: the one beside the store, or one that looks at all where they are few."""

    def __init__(self, scorer: Scorer, place: Path | str | None, *, model: str) -> None:
        """`place`: folder or URI of the index, None for nowhere; `model`: fingerprint of the model of these items."""
        self.scorer = scorer
        self._folder = index_at(place)
        self._model = model
        self._index: ItemIndex | None = None
        self._looked = False
        # Of several threads that ask at once, one looks for the index and the others wait for what it finds.
        self._lock = Lock()
        self._one = Combined(self._each)
        self._missing = "there is no index of this store in memory. Build it with recommender.build_index()."

    @property
    def index(self) -> ItemIndex:
        """The index. Raises `StoreError` where many items have none, or one that was built for others."""
        index = self._find()
        if index is None:
            raise StoreError(self._missing)
        return index

    def build(self, contexts: np.ndarray, *, exact_up_to: int = EXACT_UP_TO) -> ItemIndex:
        """The index of these items, measured with their people's queries, and kept in its place.

        `contexts`: one encoded context, (1, context width), in which the people ask.
        """
        people = self.scorer.people.some(_ASKED)
        queries = self.scorer.search_queries(people, np.repeat(contexts, len(people), axis=0)) if people else None
        embeddings = self.scorer.search_embeddings
        index = ItemIndex.build(embeddings, queries=queries, exact_up_to=exact_up_to)
        if self._folder is not None:
            self._folder.write(index, index_fingerprint(self.scorer.ids, embeddings, self._model))
        self._index = index
        return index

    def best(
        self, people: Sequence[str | Person], contexts: np.ndarray, answered: Sequence[bool], *, k: int, query: Query
    ) -> TopK:
        """The k best a person of the `query.shortlist` items with the highest retrieval scores, ranked.

        `contexts`: encoded, (person, context width); whoever is not `answered` gets an empty row.
        """
        if len(people) == 1 and answered[0]:
            return self._one(_Request(people[0], contexts[0], k, query))
        return self._best(people, contexts, answered, k=k, query=query)

    def _each(self, requests: Sequence[_Request]) -> list[TopK]:
        """The answers to single people, those together that ask for the same."""
        answers: dict[int, TopK] = {}
        while len(answers) < len(requests):
            first = next(place for place in range(len(requests)) if place not in answers)
            k, query = requests[first].k, requests[first].query
            same = [place for place, each in enumerate(requests) if (each.k, each.query) == (k, query)]
            people = [requests[place].person for place in same]
            contexts = np.stack([requests[place].context for place in same])
            found = self._best(people, contexts, [True] * len(same), k=k, query=query)
            answers |= {place: TopK(found.ids[row : row + 1], found.scores[[row]]) for row, place in enumerate(same)}
        return [answers[place] for place in range(len(requests))]

    def _best(
        self, people: Sequence[str | Person], contexts: np.ndarray, answered: Sequence[bool], *, k: int, query: Query
    ) -> TopK:
        scorer, length = self.scorer, query.shortlist
        if length is None or length < k:
            raise ConfigError(f"Query.shortlist is {length}, and k is {k}. Expected a shortlist of at least k items.")
        allowed = (
            None
            if query.candidates is None and not query.where and not query.never
            else query.allowed_mask(scorer.table)
        )
        left_out = {scorer.item_rows[item_id] for item_id in query.exclude if item_id in scorer.item_rows}
        ids: list[list[str | None]] = [[None] * k for _ in people]
        scores = np.full((len(people), k), -np.inf, dtype=np.float32)
        places = np.flatnonzero(answered).tolist()
        asking = [people[place] for place in places]
        excluded = [left_out | scorer.people.seen(p) if query.exclude_seen else left_out for p in asking]
        if not asking:
            return TopK(ids, scores)
        scorer.check_filled()
        asked = scorer.ask(asking, contexts[places])
        depth = length if query.by == "ranking" else k
        found = self.index.search(scorer.search_queries_of(asked), depth, allowed=allowed, excluded=excluded)
        rows, ranked = found
        if query.by == "ranking":
            # In the order of the items, so that equal scores are shown as they are when every item is ranked.
            rows = np.sort(found.rows, axis=1)
            ranked = np.where(rows < 0, -np.inf, scorer.rank_own(asked, np.maximum(rows, 0)))
        for place, candidates, each in zip(places, rows, ranked, strict=True):
            # What the index found is in its order already.
            order = best_rows(each, k) if query.by == "ranking" else np.flatnonzero(each > -np.inf)
            scores[place, : len(order)] = each[order]
            ids[place][: len(order)] = [scorer.ids[row] for row in candidates[order].tolist()]
        return TopK(ids, scores)

    def similar(self, rows: Sequence[int], *, k: int) -> TopK:
        """The k items with the highest cosines of item embeddings a row, itself left out; exact without an index."""
        scorer = self.scorer
        index = self._find()
        if index is None or index.cells is None:
            excluded: list[Collection[int]] = [{row} for row in rows]
            return top_k(scorer.similarity(rows), scorer.ids, k=k, excluded=excluded)
        found = index.similar(rows, k)
        ids = [[None if row < 0 else scorer.ids[int(row)] for row in each] for each in found.rows]
        return TopK(ids, found.scores)

    def _find(self) -> ItemIndex | None:
        with self._lock:
            if self._index is None and not self._looked:
                self._looked = True
                embeddings = self.scorer.search_embeddings
                if self._folder is not None and self._folder.exists:
                    try:
                        fingerprint = index_fingerprint(self.scorer.ids, embeddings, self._model)
                        self._index = self._folder.read(embeddings, fingerprint)
                    except StoreError as error:
                        self._missing = str(error)
                if self._index is None and len(embeddings) <= EXACT_UP_TO:
                    self._index = ItemIndex.exact(embeddings)
            return self._index
