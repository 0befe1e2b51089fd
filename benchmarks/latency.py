"""How long a request takes over a hundred thousand stored items, and how many callers one process serves.

    python benchmarks/latency.py --out runs/latency
    python benchmarks/latency.py --items 20000 --requests 100

Generates a catalogue with vectors in place of media (two towers' worth), attributes, a context of hour and device and
people's attributes; trains on the few thousand items that people took, with both collaborative scores in the blend,
and embeds all the others, which nobody has touched. Then it asks, warm, one person a request, each at an hour of their
own:

- *recommend*: ten items; five hundred candidates by the index, then the context-aware ranking of these;
- *recommend, all ranked*: ten items, the context-aware ranking of everything that is stored;
- *retrieval only*: the ten items with the highest retrieval scores, without any ranking;
- *score*: one person against a thousand items;

by user id and, where it says so, by a history that the request brings along. Milliseconds on the wall, and on the
processor, which others at work on the machine disturb less. Then threads of one process ask at once, with one thread
within each operation: requests a second as a multiple of one caller's, and whether the answers stayed the same. Beside
it what two threads gain on this machine where no Python runs at all: FAISS alone, the same searches.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pandas as pd
import torch
from retrieval import timed, times

from multimodal_rec import Catalogue, Person, Query, Recommender, RecommenderConfig, Schema, TowerConfig, TrainingConfig
from multimodal_rec.collaborative.settings import GraphConfig, ItemItemConfig

DEVICES = ("phone", "tablet", "television")
SCHEMA = Schema(
    "generated",
    kind="product",
    vectors={"text": ("title",), "image": ("cover",)},
    attributes={"genre": "category", "price": "number"},
    user_attributes={"age": "number"},
    context={"hour": "cyclic:24", "device": "category"},
)
WIDTH, THEMES, TAKEN, PEOPLE, EVENTS = 64, 200, 3000, 3000, 30
K, SHORTLIST, CANDIDATES = 10, 500, 1000
WARM = 100


def generated(num_items: int, *, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Items about themes, people who take what is about three of them, and what they took of the first `TAKEN`."""
    random = np.random.default_rng(seed)
    theme = random.integers(0, THEMES, num_items)
    columns = {}
    for name in ("title", "cover"):
        centres = random.normal(size=(THEMES, WIDTH))
        columns[name] = list((centres[theme] + 0.7 * random.normal(size=(num_items, WIDTH))).astype(np.float32))
    ids = [f"i{item:06}" for item in range(num_items)]
    items = pd.DataFrame(
        {
            "item_id": ids,
            **columns,
            "genre": [f"g{each % 40}" for each in theme],
            "price": random.lognormal(3, 1, num_items).round(2),
        }
    )
    users = pd.DataFrame({"user_id": [f"u{user}" for user in range(PEOPLE)], "age": random.integers(16, 80, PEOPLE)})
    of_theme = [np.flatnonzero(theme[:TAKEN] == each) for each in range(THEMES)]
    rows = []
    for user in range(PEOPLE):
        liked = np.concatenate([of_theme[each] for each in random.choice(THEMES, 4, replace=False)])
        some = np.concatenate([random.permutation(liked)[: EVENTS // 2], random.choice(TAKEN, EVENTS // 2)])
        for place, item in enumerate(dict.fromkeys(some.tolist())):
            rows.append(
                (f"u{user}", ids[item], 1_700_000_000 + 5_000 * place + user, (7 * place + user) % 24, place % 3)
            )
    log = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "hour", "device"])
    log["device"] = [DEVICES[index] for index in log["device"]]
    return items, log, users


def trained(items: pd.DataFrame, log: pd.DataFrame, users: pd.DataFrame, out: Path) -> Recommender:
    """A recommender of the items that people took, with all the others embedded beside them and an index built."""
    known = Catalogue.from_frames(items.iloc[:TAKEN], log, users=users, schema=SCHEMA)
    config = RecommenderConfig(
        {"text": TowerConfig("vectors:"), "image": TowerConfig("vectors:")},
        collaborative={"graph": GraphConfig(), "item_item": ItemItemConfig()},
    )
    recommender = Recommender(config, store=out / "store")
    start = time.perf_counter()
    recommender.fit(known, training=TrainingConfig(epochs=2, progress=False))
    print(f"trained on {TAKEN} items, {PEOPLE} people, {len(log)} events in {time.perf_counter() - start:.0f} s")
    start = time.perf_counter()
    recommender.embed(items)
    print(f"embedded {len(items)} items in {time.perf_counter() - start:.0f} s")
    print(recommender.build_index())
    return recommender


def callers(call: Callable[[int], object], count: int, *, threads: int, pairs: int = 5) -> str:
    """Requests a second of `threads` callers at once over those of one, the median of pairs, and if answers agree."""
    one, many, ratios = 0.0, 0.0, []
    for _ in range(pairs):
        start = time.perf_counter()
        alone = [call(place) for place in range(count)]
        one = count / (time.perf_counter() - start)
        with ThreadPoolExecutor(threads) as pool:
            start = time.perf_counter()
            together = list(pool.map(call, range(count)))
            many = count / (time.perf_counter() - start)
        if together != alone:
            raise SystemExit("several callers got other answers than one")
        ratios.append(many / one)
    return f"{np.median(ratios):.2f} times the requests a second of one caller ({one:.0f}; in the last pair {many:.0f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--callers", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1, help="within one operation")
    parser.add_argument("--out", type=Path, default=Path("runs/latency"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    faiss.omp_set_num_threads(arguments.threads)
    items, log, users = generated(arguments.items)
    model = arguments.out / "model"
    if model.exists():
        recommender = Recommender.load(model, store=arguments.out / "store")
    else:
        recommender = trained(items, log, users, arguments.out)
        recommender.save(model)
    everybody = [f"u{user}" for user in np.random.default_rng(1).permutation(PEOPLE)]
    # Whoever was asked for before is remembered; `timed` asks for the first hundred to warm up.
    again, first = everybody[:WARM], everybody[WARM:]
    taken = log.groupby("user_id")["item_id"].agg(list)
    people = [Person(list(taken[user_id]), attributes={"age": 40}) for user_id in first]
    few = items["item_id"].sample(CANDIDATES, random_state=1).tolist()
    query = Query(shortlist=SHORTLIST)

    def context(place: int) -> dict[str, object]:
        return {"hour": place % 24, "device": DEVICES[place % 3]}

    def recommend(who: Sequence[str] | Sequence[Person], query: Query | None) -> Callable[[int], list[str | None]]:
        def request(place: int) -> list[str | None]:
            person = who[place % len(who)]
            return recommender.recommend([person], k=K, context=context(place), query=query).ids[0]

        return request

    def score(place: int) -> np.ndarray:
        return recommender.score([again[place % len(again)]], few, context=context(place))

    rows = {
        "recommend": recommend(again, query),
        "recommend, asked for the first time": recommend(first, query),
        "recommend, history brought along": recommend(people, query),
        "recommend by the retrieval score": recommend(again, replace(query, by="retrieval")),
        "recommend, all ranked": recommend(again, None),
        "score, 1,000 items": score,
    }
    print(f"{arguments.items} items, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}")
    found = {name: timed(call, arguments.requests, None, warm=WARM) for name, call in rows.items()}
    print(pd.DataFrame({name: times(wall, own) for name, (wall, own, _) in found.items()}).T.to_string())
    gained = callers(recommend(again, query), arguments.requests, threads=arguments.callers)
    print(f"{arguments.callers} callers of recommend: {gained}; the same answers")
    index = recommender._searched().index
    queries = index.embeddings[np.random.default_rng(2).integers(0, arguments.items, arguments.requests)]
    assert index.cells is not None, "so few items have no cells: ask for more"
    searched = index.cells.candidates

    def search(place: int) -> list[int]:
        return searched(queries[[place]], SHORTLIST, probes=index.report.probes)[0].tolist()

    print(f"two threads in FAISS alone: {callers(search, arguments.requests, threads=2)}")


if __name__ == "__main__":
    main()
