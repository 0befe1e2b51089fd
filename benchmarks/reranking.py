"""What each step after the ranking costs in NDCG@10, and what it gains, on MovieLens 100K.

    python benchmarks/reranking.py --source ../shared/data --out runs/reranking

Each person's last tenth is the test part, as in `benchmarks/ranking.py`; the model is a small one, text and closed-form
weights between items, fitted on train and blended by validation; what is known of people is both. Each row is one step
at one strength on a pool of 100 films. Variety is the mean of 1 - cosine over pairs of a list: of item embeddings,
which the steps read, and of genres, which they do not. Little-known films are those with at most 5 events; their
exposure is the share of 1 / log2(1 + place). Miscalibration is the divergence of a list's genres from those of what
the person took, in nats. Milliseconds are processor time a list once its pool is there, the median of `--runs`. The
plot goes to `--plot`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from curves import Curve, write_curves
from real_data import prepared

from multimodal_rec import Query, Recommender, RecommenderConfig, TowerConfig, TrainingConfig
from multimodal_rec.collaborative.settings import ItemItemConfig
from multimodal_rec.evaluation.list_metrics import intra_list_diversity
from multimodal_rec.reranking import (
    DPP,
    MMR,
    Calibrated,
    Candidates,
    Cap,
    Deduplicate,
    Explore,
    ExposureFloor,
    Group,
    Step,
)
from multimodal_rec.reranking.calibration import divergence, spread_of
from multimodal_rec.reranking.exposure import position_weights
from multimodal_rec.reranking.pool import after_steps, pools_of

K, POOL = 10, 100
LITTLE_KNOWN = Group(max_events=5)

STEPS: Mapping[str, Mapping[float, Step]] = {
    "MMR": {s: MMR(s) for s in (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)},
    "DPP": {s: DPP(s) for s in (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)},
    "calibrated genres": {s: Calibrated("genres", s) for s in (0.1, 0.3, 0.5, 0.7, 0.9)},
    "at most n of a genre": {n: Cap("genres", n) for n in (6, 4, 3)},
    "at most n of a director": {n: Cap("director", n) for n in (2, 1)},
    "no cosine above": {c: Deduplicate(c) for c in (0.95, 0.9, 0.8, 0.7)},
    "floor for little-known": {s: ExposureFloor(LITTLE_KNOWN, s) for s in (0.05, 0.1, 0.2, 0.3, 0.5)},
    "Thompson": {s: Explore(s) for s in (0.25, 0.5, 1.0, 1.5, 2.0)},
    "LinUCB": {s: Explore(s, "ucb") for s in (0.25, 0.5, 1.0, 1.5, 2.0)},
}


class Films(NamedTuple):
    """What lists are measured by; rows are places of items."""

    rows: Mapping[str, int]
    embeddings: np.ndarray
    genres: np.ndarray
    """(item, genre), each item shared out equally."""
    little_known: np.ndarray
    wished: list[np.ndarray]
    """A person's genres, as of what they took."""
    positives: list[set[int]]
    people: list[str]


def fitted(source: Path, out: Path, seed: int) -> tuple[Recommender, Films]:
    """The model, and all that lists are measured by."""
    train, valid, test = prepared("movielens-100k", source, out).split("share")
    config = RecommenderConfig(
        {"text": TowerConfig("hf:all-MiniLM-L6-v2", tuning="frozen", max_tokens=128, columns_apart=True)},
        collaborative={"item_item": ItemItemConfig()},
        context=False,
    )
    if (out / "model").exists():
        recommender = Recommender.load(out / "model", device="cpu")
    else:
        training = TrainingConfig(epochs=1, batch_size=1024, seed=seed, progress=False, cache_dir=str(out / "cache"))
        recommender = Recommender(config).fit(train, valid=valid, training=training)
        recommender.embed(test.items)
        recommender.save(out / "model")
    recommender.export(out / "embeddings.parquet")
    written = pd.read_parquet(out / "embeddings.parquet")
    ids, embeddings = written.iloc[:, 0].tolist(), np.stack(written.iloc[:, 1].tolist())
    rows = {item_id: row for row, item_id in enumerate(ids)}
    log = pd.concat([train.interactions, valid.interactions])
    counts = log["item_id"].value_counts().reindex(ids, fill_value=0).to_numpy()
    attributes = test.items.set_index("item_id").loc[ids, ["genres"]].to_dict("records")
    attributes = [{"genres": None if row["genres"] is None else list(row["genres"])} for row in attributes]
    _, genres = spread_of(attributes, attributes, "genres")
    taken = {str(user): [rows[item_id] for item_id in part["item_id"]] for user, part in log.groupby("user_id")}
    asked = test.interactions.loc[test.interactions["item_id"].isin(rows)]
    positives = {str(user): {rows[item_id] for item_id in part["item_id"]} for user, part in asked.groupby("user_id")}
    people = [user for user in positives if user in taken]
    sums = [genres[taken[user]].sum(axis=0) for user in people]
    wished = [total / total.sum() for total in sums]
    return recommender, Films(
        rows, embeddings, genres, counts <= 5, wished, [positives[user] for user in people], people
    )


def measure(pools: Sequence[Candidates], films: Films, steps: Sequence[Step], runs: int) -> dict[str, float]:
    """What the lists are like, and the processor milliseconds that the steps take a list."""
    spent: list[float] = []
    ids: list[list[str]] = []
    for _ in range(runs):
        begun = time.process_time()
        ids = [after_steps(pool, steps, K).ids for pool in pools]
        spent.append((time.process_time() - begun) * 1000 / len(pools))
    lists = np.array([[films.rows[name] for name in row] + [-1] * (K - len(row)) for row in ids], dtype=np.int32)
    weights = position_weights(K)
    hits = np.array([[row in wanted for row in found] for found, wanted in zip(lists, films.positives, strict=True)])
    ideal = np.array([weights[: min(K, len(wanted))].sum() for wanted in films.positives])
    unknown = np.where(lists >= 0, films.little_known[lists], False)
    mixed = np.where((lists >= 0)[:, :, None], films.genres[lists], 0).sum(axis=1)
    calibration = [float(divergence(w, row[None])[0]) for w, row in zip(films.wished, mixed, strict=True)]
    return {
        "NDCG@10": float(((hits * weights).sum(axis=1) / ideal).mean()),
        "variety": float(np.nanmean(intra_list_diversity(lists, films.embeddings))),
        "of genres": float(np.nanmean(intra_list_diversity(lists, films.genres))),
        "little-known": float((unknown * weights).sum() / weights.sum() / len(lists)),
        "miscalibration": float(np.mean(calibration)),
        "films shown": len(np.unique(lists[lists >= 0])),
        "short lists": int((lists < 0).any(axis=1).sum()),
        "ms": float(np.median(spent)),
    }


def main(arguments: list[str] | None = None) -> None:
    """Fit, measure every step at every strength, print the table and draw the curves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/reranking"))
    parser.add_argument("--plot", type=Path, default=Path("docs/reranking.svg"))
    parser.add_argument("--runs", type=int, default=1, help="timings of each step, of which the median counts")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    recommender, films = fitted(options.source, options.out, options.seed)
    scorer = recommender._ready()  # the ranking is the same for all: once is enough
    scores = recommender.score(films.people, scorer.ids)
    excluded = [scorer.people.seen(person) for person in films.people]
    plain = pools_of(scorer, films.people, scores, k=K, query=Query(pool=POOL), excluded=excluded)
    measured = {("none", 0.0): measure(plain, films, (), options.runs)}
    for name, strengths in STEPS.items():
        for strength, step in strengths.items():
            query = Query(steps=(step,), pool=POOL)
            pools = pools_of(scorer, films.people, scores, k=K, query=query, excluded=excluded)
            measured[name, strength] = measure(pools, films, (step,), options.runs)
            print(name, strength, measured[name, strength], file=sys.stderr, flush=True)
    table = pd.DataFrame(measured).T
    table.to_csv(options.out / "steps.csv")
    print("| step | strength | " + " | ".join(table.columns) + " |\n|" + "---|" * (2 + len(table.columns)))
    for (name, strength), row in measured.items():
        cells = [
            f"{value:.0f}" if key in ("films shown", "short lists") else f"{value:.4f}" for key, value in row.items()
        ]
        cells[-1] = f"{row['ms']:.2f}"
        print(f"| {name} | {strength:g} | " + " | ".join(cells) + " |")
    axes = {"variety": "variety of item embeddings", "little-known": "exposure of little-known films"}
    curves = {
        title: [
            Curve(name, [(row[key], row["NDCG@10"]) for (step, _), row in measured.items() if step in ("none", name)])
            for name in STEPS
        ]
        for key, title in axes.items()
    }
    write_curves(options.plot, curves, vertical="NDCG@10", title="MovieLens 100K: what steps after the ranking cost")
    print(f"{len(films.people)} people, {len(scorer.ids)} films; plot in {options.plot}")


if __name__ == "__main__":
    main()
