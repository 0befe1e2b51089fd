"""Names of real products typed as wishes, over an index that has never seen them.

    python benchmarks/search.py --data ../shared/data --seeds 1 2 3

Products of `fashion` that have a photo; a fifth of the names is held out with all products of that name. A model is
fitted on the others, without interactions: names through a frozen MiniLM, photos through a small network from scratch,
and attributes. The index holds the held-out products' photos and attributes, not their names. A query is a held-out
name. recall@10: the share of names of which any product is among the first ten. products@10: the share of a name's
products among them. Equally good products are ordered by chance. Seed 0 chose the weights of words and the sizes here.
"""

from __future__ import annotations

import argparse
import re
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pretraining import read_products

from multimodal_rec import Catalogue, Recommender, RecommenderConfig, Schema, TowerConfig, TrainingConfig
from multimodal_rec.words import WordIndex

ATTRIBUTES = ("gender", "masterCategory", "subCategory", "articleType", "baseColour", "season", "year", "usage")


def bm25(documents: list[str], queries: list[str], *, k1: float = 1.2, b: float = 0.75) -> np.ndarray:
    """Plain BM25 over words, (query, document), written once more so that the product's own is not its own judge."""
    words = [Counter(re.findall(r"\w+", text.lower())) for text in documents]
    length = np.array([sum(each.values()) for each in words], dtype=float)
    scores = np.zeros((len(queries), len(documents)))
    for word in {word for each in words for word in each}:
        times = np.array([each[word] for each in words], dtype=float)
        found = np.count_nonzero(times)
        idf = np.log(1 + (len(documents) - found + 0.5) / (found + 0.5))
        weight = idf * times * (k1 + 1) / (times + k1 * (1 - b + b * length / length.mean()))
        for row, query in enumerate(queries):
            scores[row] += re.findall(r"\w+", query.lower()).count(word) * weight
    return scores


def found(scores: np.ndarray, right: np.ndarray, k: int = 10) -> tuple[float, float]:
    """recall@k and products@k; `right`: bool (query, item)."""
    order = np.random.default_rng(0).permutation(scores.shape[1])
    best = order[np.argsort(-scores[:, order], axis=1, kind="stable")[:, :k]]
    hits = np.take_along_axis(right, best, axis=1)
    return float(hits.any(axis=1).mean()), float((hits.sum(axis=1) / np.minimum(right.sum(axis=1), k)).mean())


def catalogue_of(products: pd.DataFrame) -> Catalogue:
    """Names, photos and attributes as a catalogue in which nobody did anything."""
    items = pd.DataFrame(
        {
            "item_id": products.index,
            "name": products["productDisplayName"].to_numpy(),
            "photo": [[path] for path in products["photo"]],
            **{name: products[name].to_numpy() for name in ATTRIBUTES},
        }
    )
    kinds = dict.fromkeys(ATTRIBUTES, "category")
    schema = Schema("fashion", text=("name",), image=("photo",), attributes=kinds)
    return Catalogue.from_frames(items, schema=schema)


def measured(products: pd.DataFrame, seed: int, arguments: argparse.Namespace) -> dict[str, tuple[float, float]]:
    """Row of the table → recall@10 and products@10 of one split and one training."""
    names = np.array(sorted(set(products["productDisplayName"])))
    held = names[np.random.default_rng(seed).permutation(len(names))[: len(names) // 5]]
    is_held = products["productDisplayName"].isin(list(held)).to_numpy()
    train, test = catalogue_of(products[~is_held]), products[is_held].sort_index()
    config = RecommenderConfig(
        {
            "text": TowerConfig("hf:all-MiniLM-L6-v2", max_tokens=32),
            "image": TowerConfig(
                f"timm:{arguments.net}",
                tuning="full",
                pretrained=False,
                image_size_px=64,
                max_windows=1,
                learning_rate=2e-3,
            ),
        },
        embedding_dim=arguments.dim,
        alignment_weight=1.0,
    )
    training = TrainingConfig(
        seed=seed,
        epochs=arguments.epochs,
        items_per_step=128,
        learning_rate=3e-3,
        weight_decay=0.01,
        progress=False,
        cache_dir=str(arguments.out / "cache"),
        device="cpu",
    )
    start, used = time.perf_counter(), time.process_time()
    recommender = Recommender(config).fit(train, training=training)
    print(f"  seed {seed}: fit {time.perf_counter() - start:.0f} s ({time.process_time() - used:.0f} s of a processor)")
    recommender.store.delete_items(train.item_ids)
    recommender.embed(catalogue_of(test).items.assign(name=None))
    queries, tower = held.tolist(), recommender.towers["text"]
    start, used = time.perf_counter(), time.process_time()
    for query in queries[:50]:
        recommender.search(query, k=10)
    waited, ran = (time.perf_counter() - start) * 20, (time.process_time() - used) * 20
    print(f"  {len(test)} products, {len(queries)} names, {waited:.1f} ms a search ({ran:.1f} ms of a processor)")
    encoded = dict(zip(queries, tower.encode(queries), strict=True))
    # Every row of the table asks the same: each name runs through the tower once.
    vars(tower)["encode"] = lambda texts: np.stack([encoded[text] for text in texts])
    _, search = recommender._searcher()
    ids = recommender._ready().ids
    named = test["productDisplayName"].to_dict()
    right = np.array([[named[item_id] == query for item_id in ids] for query in queries])
    attributes = test.loc[ids, list(ATTRIBUTES)]
    words = [{str(name): value for name, value in row.items()} for row in attributes.to_dict("records")]
    lines = [" ".join(str(value) for value in row.values() if not pd.isna(value)) for row in words]
    scores = {
        "BM25 over the attributes": bm25(lines, queries),
        "BM25, plurals as singulars": WordIndex(words).scores(queries),
        "photo only": search.match(queries, parts=["image"], words=0),
        "attributes only": search.match(queries, parts=["attributes"], words=0),
        "attributes and equal words": search.match(queries, parts=["attributes"]),
        "photo and attributes": search.match(queries, words=0),
        "search: photo, attributes, equal words": search.match(queries),
    }
    if arguments.weights:
        for weight in (0.1, 0.2, 0.3, 0.5, 0.7, 1.0):
            scores[f"search, words {weight}"] = search.match(queries, words=weight)
    out = {name: found(each, right) for name, each in scores.items()}
    for name, (recall, share) in out.items():
        print(f"    {name:<40} {recall:.4f} {share:.4f}", flush=True)
    recommender.close()
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/search"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--net", default="test_byobnet")
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--limit", type=int, help="only this many products, for a trial")
    parser.add_argument("--weights", action="store_true", help="also other weights of equal words")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    products = read_products(arguments.data).dropna(subset=["productDisplayName"])
    products = products.assign(year=products["year"].astype("Int64").astype(str))
    results = [measured(products[: arguments.limit], seed, arguments) for seed in arguments.seeds]
    print("| index, asked by name | recall@10 | products@10 |\n|---|---|---|")
    for name in results[0]:
        columns = np.array([each[name] for each in results])
        spread = columns.std(axis=0)
        cells = [f"{mean:.4f} ± {std:.4f}" for mean, std in zip(columns.mean(axis=0), spread, strict=True)]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
