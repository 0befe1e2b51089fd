"""The items of the highest inner products with a query: exact where there are few, through cells where many."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import NamedTuple, final

import numpy as np

from multimodal_rec.cells import Cells
from multimodal_rec.errors import ConfigError
from multimodal_rec.index_report import MEASURED_K, IndexReport
from multimodal_rec.recall import exact_rows, mixed_queries, recall
from multimodal_rec.retrieval import best_rows

EXACT_UP_TO = 50_000
"""Items up to which every one of them is looked at: 25 MiB to read at 128 numbers each."""

_QUERIES = 128
# Up to this many allowed items are all looked at: no slower than the cells, and exact.
_FEW = 8192
_LADDER = 1.4
_FILTERED = 1.5


class Found(NamedTuple):
    """Rows of items, best first."""

    rows: np.ndarray
    """Int64 (query, k); -1 where there are no more."""
    scores: np.ndarray
    """Float32 (query, k), descending; -inf where the row is -1."""


@final
class ItemIndex:
    """A search over embeddings that are in memory; scores are exact, and what is missed is measured.

    `embeddings`: float32 (item, dim), which the index reads and does not copy. `cells` None looks at every item.
    """

    def __init__(self, embeddings: np.ndarray, cells: Cells | None, report: IndexReport) -> None:
        self.embeddings = embeddings
        self.cells = cells
        self.report = report

    @classmethod
    def exact(cls, embeddings: np.ndarray) -> ItemIndex:
        """An index that looks at every item: nothing to build."""
        _check_embeddings(embeddings)
        num_items, dim = embeddings.shape
        report = IndexReport(
            num_items=num_items,
            dim=dim,
            cells=0,
            probes=0,
            recall=1.0,
            recall_filtered=1.0,
            num_queries=0,
            seconds=0.0,
            num_bytes=0,
        )
        return cls(embeddings, None, report)

    @classmethod
    def build(
        cls,
        embeddings: np.ndarray,
        *,
        queries: np.ndarray | None = None,
        exact_up_to: int = EXACT_UP_TO,
        target: float = 0.99,
        seed: int = 0,
    ) -> ItemIndex:
        """An exact index up to `exact_up_to` items; beyond, cells, of which as many are read as reach the target.

        `queries`: float32 (query, dim) as people will ask (None: made of pairs of items); one half chooses how many
        cells are read, the other measures recall@100. `target`: the recall to reach, 0 to 1. Raises `ConfigError`
        where the target is no recall, `ValueError` where shapes disagree or a number is not finite.
        """
        if not 0 < target <= 1:
            raise ConfigError(f"target is {target}. Expected a recall above 0 and at most 1, such as 0.99.")
        _check_embeddings(embeddings)
        if len(embeddings) <= exact_up_to or len(embeddings) < 2:
            return cls.exact(embeddings)
        start = time.perf_counter()
        cells = Cells.build(embeddings, count=max(1, round(2 * math.sqrt(len(embeddings)))), seed=seed)
        seconds = time.perf_counter() - start
        asked = mixed_queries(embeddings, _QUERIES, seed=seed) if queries is None or len(queries) < 2 else queries
        index = cls(embeddings, cells, cls.exact(embeddings).report)
        index._check(asked, k=1)
        chosen = index._choose_probes(asked[::2], target)
        judged = asked[1::2]
        some = np.random.default_rng(seed).random(len(embeddings)) < 0.05
        index.report = replace(index.report, cells=cells.count, probes=chosen, num_bytes=cells.num_bytes)
        index.report = replace(
            index.report,
            recall=recall(index.search(judged, MEASURED_K).rows, exact_rows(embeddings, judged, MEASURED_K)),
            recall_filtered=recall(
                index.search(judged, MEASURED_K, allowed=some).rows,
                exact_rows(embeddings, judged, MEASURED_K, allowed=some),
            ),
            num_queries=len(judged),
            seconds=seconds,
        )
        return index

    def search(
        self,
        queries: np.ndarray,
        k: int,
        *,
        allowed: np.ndarray | None = None,
        excluded: Sequence[Collection[int]] | None = None,
    ) -> Found:
        """The k items of the highest inner products a query, among those that are allowed and not excluded.

        `queries`: float32 (query, dim); `allowed`: bool (item,), None = all; `excluded`: rows to leave out, a
        collection a query. Equal scores keep the order of rows. k items are found wherever there are k: cells are read
        until there are. Raises `ConfigError` where k is below 1, `ValueError` where shapes disagree or a query is not
        finite.
        """
        self._check(queries, k=k, allowed=allowed, excluded=excluded)
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        found = Found(
            np.full((len(queries), k), -1, dtype=np.int64), np.full((len(queries), k), -np.inf, dtype=np.float32)
        )
        num_allowed = len(self.embeddings) if allowed is None else int(np.count_nonzero(allowed))
        if len(queries) == 0 or num_allowed == 0:
            return found
        if self.cells is None or num_allowed <= max(_FEW, 2 * k):
            self._search_all(queries, allowed, excluded, found)
            return found
        # The next best lie mostly in the same cells: those alone found .998 of 500 where they found .998 of 100.
        probes = math.ceil(self.report.probes * max(1.0, k / MEASURED_K) ** 0.25)
        if allowed is not None:
            # Half as many again as there would be items without a filter, wherever they lie: the hundred best that
            # are allowed reach farther out than the hundred best.
            wanted = _FILTERED * probes * self.cells.num_items / self.cells.count
            probes = max(probes, self.cells.probes_for(queries, allowed, wanted=wanted))
        self._search_cells(queries, allowed, excluded, found, probes=probes)
        return found

    def similar(self, rows: Sequence[int], k: int) -> Found:
        """The k items whose embeddings have the highest cosine with each item's, itself left out; scores are cosines.

        Through cells, those of the nearest cells: twice as many as a search reads.
        """
        asked = self.embeddings[list(rows)]
        self._check(asked, k=k)
        found = Found(np.full((len(rows), k), -1, dtype=np.int64), np.full((len(rows), k), -np.inf, dtype=np.float32))
        for place, (row, query) in enumerate(zip(rows, asked, strict=True)):
            probes = 2 * self.report.probes
            near = np.arange(len(self.embeddings))
            if self.cells is not None:
                near = self.cells.members(query, probes=probes)
                while len(near) <= k and probes < self.cells.count:
                    probes *= 4
                    near = self.cells.members(query, probes=probes)
            near = np.sort(near[near != row])
            others = self.embeddings[near]
            norms = np.linalg.norm(others, axis=1) * np.linalg.norm(query)
            _keep(found, place, near, np.divide(others @ query, norms, out=np.zeros_like(norms), where=norms > 0))
        return found

    def _search_all(
        self,
        queries: np.ndarray,
        allowed: np.ndarray | None,
        excluded: Sequence[Collection[int]] | None,
        found: Found,
    ) -> None:
        # A copy of many rows costs more than the products that it saves.
        rows = None if allowed is None else np.flatnonzero(allowed)
        if rows is not None and len(rows) >= len(self.embeddings) // 8:
            rows = None
        embeddings = self.embeddings if rows is None else self.embeddings[rows]
        for place, query in enumerate(queries):
            scores = embeddings @ query
            if rows is None and allowed is not None:
                scores[~allowed] = -np.inf
            if excluded is not None and len(excluded[place]):
                left_out = np.fromiter(excluded[place], dtype=np.int64)
                scores[left_out if rows is None else np.isin(rows, left_out)] = -np.inf
            _keep(found, place, rows, scores)

    def _search_cells(
        self,
        queries: np.ndarray,
        allowed: np.ndarray | None,
        excluded: Sequence[Collection[int]] | None,
        found: Found,
        *,
        probes: int,
    ) -> None:
        cells = self.cells
        assert cells is not None
        k = found.rows.shape[1]
        num_excluded = 0 if excluded is None else max(map(len, excluded))
        # Rounded embeddings order the last of the list by chance: more are looked at again as they are.
        count = min(cells.num_items, k + min(k, MEASURED_K) + num_excluded)
        open_places = np.arange(len(queries))
        while len(open_places):
            near = cells.candidates(queries[open_places], count, probes=probes, allowed=allowed)
            for place, seen in zip(open_places.tolist(), near, strict=True):
                rows = np.sort(seen[seen >= 0])
                if excluded is not None and len(excluded[place]):
                    rows = _without(rows, np.fromiter(excluded[place], dtype=np.int64))
                _keep(found, place, rows, self.embeddings.take(rows, axis=0) @ queries[place])
            if probes >= cells.count:
                return
            open_places = open_places[(found.rows[open_places] < 0).any(axis=1)]
            probes *= 4

    def _choose_probes(self, queries: np.ndarray, target: float) -> int:
        assert self.cells is not None
        truth = exact_rows(self.embeddings, queries, MEASURED_K)
        # Half of what may be missed is kept for queries that are not among these.
        wanted = target + (1 - target) / 2
        probes = 1
        while probes < self.cells.count:
            self.report = replace(self.report, probes=probes)
            if recall(self.search(queries, MEASURED_K).rows, truth) >= wanted:
                return probes
            probes = math.ceil(probes * _LADDER)
        return self.cells.count

    def _check(
        self,
        queries: np.ndarray,
        *,
        k: int,
        allowed: np.ndarray | None = None,
        excluded: Sequence[Collection[int]] | None = None,
    ) -> None:
        num_items, dim = self.embeddings.shape
        if k < 1:
            raise ConfigError(f"k is {k}. Expected at least 1.")
        if queries.ndim != 2 or queries.shape[1] != dim:
            raise ValueError(f"queries have shape {queries.shape}. Expected (query, {dim}).")
        if not np.isfinite(queries).all():
            raise ValueError("queries hold NaN or infinite numbers. Expected finite ones: look at what made them.")
        if allowed is not None and (allowed.shape != (num_items,) or allowed.dtype != np.bool_):
            raise ValueError(f"allowed is {allowed.dtype} {allowed.shape}. Expected bool ({num_items},), one an item.")
        if excluded is not None and len(excluded) != len(queries):
            raise ValueError(f"excluded has {len(excluded)} rows. Expected {len(queries)}, one a query.")


def _check_embeddings(embeddings: np.ndarray) -> None:
    if embeddings.ndim != 2 or embeddings.dtype != np.float32:
        raise ValueError(f"embeddings are {embeddings.dtype} {embeddings.shape}. Expected float32 (item, dim).")
    # The sum of a row is finite where its numbers are, but for sums that leave float32; it reads them once, as bytes.
    if not np.isfinite(embeddings.sum(axis=1, dtype=np.float64)).all():
        raise ValueError("embeddings hold NaN or infinite numbers. Expected finite ones: embed those items again.")


def _without(rows: np.ndarray, left_out: np.ndarray) -> np.ndarray:
    """Sorted rows but for those to leave out: a few look-ups, where a comparison of all would take longer."""
    places = np.searchsorted(rows, left_out)
    there = places[places < len(rows)]
    keep = np.ones(len(rows), dtype=bool)
    keep[there[rows[there] == left_out[places < len(rows)]]] = False
    return rows[keep]


def _keep(found: Found, place: int, rows: np.ndarray | None, scores: np.ndarray) -> None:
    best = best_rows(scores, found.rows.shape[1])
    found.rows[place, : len(best)] = best if rows is None else rows[best]
    found.scores[place, : len(best)] = scores[best]
