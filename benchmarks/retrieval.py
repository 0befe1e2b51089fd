"""Candidates among a million items: our index beside FAISS, filters included, on generated embeddings.

    OMP_NUM_THREADS=2 python benchmarks/retrieval.py
    python benchmarks/retrieval.py --items 50000

*index* is `ItemIndex.search` for one person; *found* is all of `recommender.recommend([user_id], k=100,
query=Query(by="retrieval", shortlist=..., where=...))` on a small model over the same number of generated rows:
history, context and attributes encoded, filter, candidates, ids; *found, first time* is of people who were not asked
for before, whose histories are read then; *found and ranked* has the candidates' context-aware scores besides. FAISS
gets the filters as bit sets, and our number of cells. Everything that is measured takes turns in one process; recall is
that of the exact 100 best among what the filter keeps. Memory is what the process grew by.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import faiss
import numpy as np
import pandas as pd
import psutil
import torch

from multimodal_rec import Catalogue, Query, Recommender, RecommenderConfig, Schema, TowerConfig, TrainingConfig
from multimodal_rec.index import ItemIndex
from multimodal_rec.people import People
from multimodal_rec.recall import exact_rows, recall
from multimodal_rec.rows import ItemTable
from multimodal_rec.scorer import Scorer

K, DIM = 100, 128
KEPT = {"100%": 1.0, "50%": 0.5, "5%": 0.05, "0.1%": 0.001}


class Clustered(NamedTuple):
    """Generated embeddings, and people who ask for them."""

    items: np.ndarray
    """Float32 (item, dim)."""
    queries: np.ndarray
    """Float32 (query, dim)."""
    cluster: np.ndarray
    """Int64 (item,): which theme an item belongs to."""


def clustered(num_items: int, num_queries: int, *, dim: int = DIM, seed: int = 0) -> Clustered:
    """Items as a store holds them: themes whose sizes differ up to a hundredfold (log-normal, σ 1), spread about each
    with .6 of a theme's own size, of lengths that vary by 30%. A person asks for two of them at once, .6 of the
    second, and noise.
    """
    rng = np.random.default_rng(seed)
    num_themes = max(2, min(2000, num_items // 50))
    themes = rng.normal(size=(num_themes, dim)).astype(np.float32)
    shares = rng.lognormal(sigma=1.0, size=num_themes)
    cluster = rng.choice(num_themes, num_items, p=shares / shares.sum())
    items = themes[cluster]
    items += 0.6 * rng.standard_normal(size=(num_items, dim), dtype=np.float32)
    items *= rng.uniform(0.7, 1.3, size=(num_items, 1)).astype(np.float32)
    first, second = rng.integers(0, num_items, size=(2, num_queries))
    noise = 0.5 * rng.standard_normal(size=(num_queries, dim), dtype=np.float32)
    return Clustered(items, items[first] + 0.6 * items[second] + noise, cluster)


def times(milliseconds: list[float], own: list[float]) -> dict[str, str]:
    """Median and 99th percentile, on the wall and of this process on the processor."""
    (median, late), (own_median, own_late) = (np.quantile(each, [0.5, 0.99]) for each in (milliseconds, own))
    return {
        "median ms": f"{median:.2f}",
        "p99 ms": f"{late:.2f}",
        "own median": f"{own_median:.2f}",
        "own p99": f"{own_late:.2f}",
    }


class Row(NamedTuple):
    """One line of the table."""

    what: str
    kept: str
    milliseconds: list[float]
    """On the wall."""
    own: list[float]
    """This process's milliseconds on the processor, which others at work on the machine disturb less."""
    recall: float | None

    def cells(self) -> dict[str, str]:
        found = "" if self.recall is None else f"{self.recall:.4f}"
        return {
            "search": self.what,
            "kept": self.kept,
            **times(self.milliseconds, self.own),
            "recall@100": found,
        }


def shown(row: Row) -> Row:
    """The row, printed as soon as it is there."""
    print("  " + "  ".join(row.cells().values()), flush=True)
    return row


def timed(
    call: Callable[[int], object], num_queries: int, truth: np.ndarray | None, *, warm: int = 10
) -> tuple[list[float], list[float], float | None]:
    """Milliseconds of each call after `warm` others, and the recall of what they found."""
    for place in range(min(warm, num_queries)):
        call(place)
    milliseconds, own, found = [], [], []
    for place in range(num_queries):
        start, processor = time.perf_counter(), time.process_time()
        rows = call(place)
        milliseconds.append((time.perf_counter() - start) * 1e3)
        own.append((time.process_time() - processor) * 1e3)
        found.append(rows)
    return milliseconds, own, None if truth is None else recall(np.array(found), truth)


def filters(data: Clustered, seed: int = 1) -> dict[str, np.ndarray]:
    """Which items each filter keeps: by chance, and whole themes, which lie far from most people."""
    rng = np.random.default_rng(seed)
    kept = {name: rng.random(len(data.items)) < share for name, share in KEPT.items()}
    themes = rng.random(int(data.cluster.max()) + 1) < 0.05
    return {**kept, "5%, themes": themes[data.cluster]}


def resident() -> float:
    """Memory of this process in MiB."""
    return psutil.Process(os.getpid()).memory_info().rss / 2**20


def faiss_indices(items: np.ndarray, cells: int) -> dict[str, tuple[Any, float, float]]:
    """FAISS flat, and its inverted file with 8-bit numbers and refinement: index, seconds to build, MiB."""
    built = {}
    for name, described in {"FAISS flat": "Flat", f"FAISS IVF{cells},SQ8": f"IVF{cells},SQ8,RFlat"}.items():
        before, start = resident(), time.perf_counter()
        index = faiss.index_factory(items.shape[1], described, faiss.METRIC_INNER_PRODUCT)
        if isinstance(index, faiss.IndexRefineFlat):
            # As ours are trained; its own settings take longer.
            inverted = faiss.downcast_index(index.base_index)
            inverted.cp.niter, inverted.cp.max_points_per_centroid = 8, 48
        index.train(items)
        index.add(items)
        built[name] = (index, time.perf_counter() - start, resident() - before)
    return built


def search_faiss(index: Any, query: np.ndarray, allowed: np.ndarray | None, *, probes: int, threads: int) -> np.ndarray:
    """The rows that FAISS finds for one query."""
    # A query of one person is too small to share: two threads that wait for each other take longer than one.
    faiss.omp_set_num_threads(threads if isinstance(index, faiss.IndexFlat) else 1)
    selector = bits = None
    if allowed is not None:
        bits = np.packbits(allowed, bitorder="little")
        selector = faiss.IDSelectorBitmap(len(allowed), faiss.swig_ptr(bits))
    if isinstance(index, faiss.IndexFlat):
        parameters = faiss.SearchParameters(sel=selector) if selector is not None else None
    else:
        within = faiss.SearchParametersIVF(nprobe=probes, **({} if selector is None else {"sel": selector}))
        parameters = faiss.IndexRefineSearchParameters(k_factor=2, base_index_params=within)
    return index.search(query[None], K, params=parameters)[1][0]


def compare(data: Clustered, *, threads: int) -> tuple[ItemIndex, list[Row]]:
    """Our index and FAISS's, each filter."""
    before = resident()
    start = time.perf_counter()
    index = ItemIndex.build(data.items, exact_up_to=0)
    print(f"our index: {index.report}")
    print(f"  {time.perf_counter() - start:.1f} s with measuring; process grew by {resident() - before:.0f} MiB")
    others = faiss_indices(data.items, index.report.cells)
    for name, (_, seconds, grown) in others.items():
        print(f"{name}: built in {seconds:.1f} s; process grew by {grown:.0f} MiB, embeddings included")
    rows = []
    queries = data.queries
    for kept, mask in filters(data).items():
        allowed = None if kept == "100%" else mask
        truth = exact_rows(data.items, queries, K, allowed=allowed)

        def ours(place: int, allowed: np.ndarray | None = allowed) -> np.ndarray:
            return index.search(queries[place : place + 1], K, allowed=allowed).rows[0]

        rows.append(shown(Row("multimodal-rec, index", kept, *timed(ours, len(queries), truth))))
        for name, (other, _, _) in others.items():

            def theirs(place: int, allowed: np.ndarray | None = allowed, other: Any = other) -> np.ndarray:
                return search_faiss(other, queries[place], allowed, probes=index.report.probes, threads=threads)

            few = min(30, len(queries)) if "flat" in name else len(queries)
            rows.append(shown(Row(name, kept, *timed(theirs, few, truth[:few]))))
    return index, rows


def asked_recommender(data: Clustered) -> Recommender:
    """A recommender over the generated rows, as if it had embedded them.

    Its model was trained for a moment on sixty others: what a request costs does not depend on what it learned.
    """
    rng = np.random.default_rng(0)
    few = 60
    items = pd.DataFrame(
        {
            "item_id": [f"a{i}" for i in range(few)],
            "title": list(rng.normal(size=(few, 16)).astype(np.float32)),
            "cover": list(rng.normal(size=(few, 16)).astype(np.float32)),
            "genre": [f"g{i % 5}" for i in range(few)],
        }
    )
    log = pd.DataFrame(
        [
            {"user_id": f"u{u}", "item_id": f"a{i}", "timestamp": 1_700_000_000 + 3600 * step, "hour": (7 * step) % 24}
            for u in range(30)
            for step, i in enumerate(rng.permutation(few)[:10])
        ]
    )
    schema = Schema(
        "generated",
        kind="product",
        vectors={"text": ("title",), "image": ("cover",)},
        attributes={"genre": "category"},
        context={"hour": "cyclic:24"},
    )
    config = RecommenderConfig(
        {"text": TowerConfig("vectors:"), "image": TowerConfig("vectors:")}, embedding_dim=DIM // 4
    )
    recommender = Recommender(config).fit(
        Catalogue.from_frames(items, log, schema=schema), training=TrainingConfig(epochs=1, progress=False)
    )
    trained = recommender._trained
    assert trained is not None
    num_items = len(data.items)
    kept = filters(data)
    attributes = [dict(zip(kept, row, strict=True)) for row in np.stack(list(kept.values()), axis=1).tolist()]
    table = ItemTable(
        ids=[f"i{i:07}" for i in range(num_items)],
        tokens=data.items.reshape(num_items, 4, DIM // 4),
        present=np.ones((num_items, 4), dtype=bool),
        embeddings=data.items,
        attributes=attributes,
        content=np.zeros((num_items, 4, 0), dtype=np.float32),
        vectors=np.zeros((num_items, 0), dtype=np.float32),
    )
    people = People(
        histories(table.ids, len(data.queries)),
        pd.DataFrame(),
        vocabulary=trained.vocabulary,
        item_rows=table.position,
        length=50,
    )
    recommender._scorer = Scorer(trained.model, table, people)
    return recommender


def histories(ids: list[str], num_people: int) -> pd.DataFrame:
    """Twenty events each."""
    rng = np.random.default_rng(2)
    rows = [
        (f"p{person}", ids[item], 1_700_000_000 + 60 * place, (5 * place) % 24)
        for person in range(num_people)
        for place, item in enumerate(rng.integers(0, len(ids), 20))
    ]
    return pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "hour"])


def ask(data: Clustered, index: ItemIndex) -> list[Row]:
    """Whole requests: a person's id, an hour and a filter in, the ids of a hundred items out."""
    recommender = asked_recommender(data)
    shortlist = recommender._searched()
    shortlist._index = index
    people = [f"p{person}" for person in range(len(data.queries))]
    rows = []
    plain = Query(shortlist=K, by="retrieval")

    def request(place: int, query: Query = plain) -> None:
        recommender.recommend([people[place]], k=K, context={"hour": place % 24}, query=query)

    # The last of them warm the way up, and are known by then.
    first = len(people) - min(10, len(people) // 2)
    for place in range(first, len(people)):
        request(place)
    rows.append(shown(Row("multimodal-rec, found, first time", "100%", *timed(request, first, None, warm=0))))
    orders: dict[str, Literal["ranking", "retrieval"]] = {"found": "retrieval", "found and ranked": "ranking"}
    for what, by in orders.items():
        for kept in filters(data):
            query = Query(shortlist=K, by=by, where=None if kept == "100%" else {kept: True})
            asked = partial(request, query=query)
            rows.append(shown(Row(f"multimodal-rec, {what}", kept, *timed(asked, len(people), None))))
    recommender.close()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=["index", "request"], help="leave out the other half")
    arguments = parser.parse_args()
    faiss.omp_set_num_threads(arguments.threads)
    # A request is too small to share, as is FAISS's for one person.
    torch.set_num_threads(1)
    data = clustered(arguments.items, arguments.queries)
    print(f"{arguments.items} items of {DIM} numbers, {arguments.queries} people, load {os.getloadavg()[0]:.1f}")
    rows: list[Row] = []
    if arguments.only == "request":
        index = ItemIndex.build(data.items, exact_up_to=0)
    else:
        index, rows = compare(data, threads=arguments.threads)
    if arguments.only != "index":
        rows += ask(data, index)
    print()
    print(pd.DataFrame([row.cells() for row in rows]).to_string(index=False))
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
