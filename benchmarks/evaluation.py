"""What judging costs beside scoring: many people over a large catalogue, every metric.

    python benchmarks/evaluation.py --people 6000 --items 100000 --threads 2

Scores are products of random embeddings, made a batch at a time as a recommender makes them. `scores alone` makes
them and throws them away; `every metric` makes them again for `evaluate_ranking`, then takes intervals, coverage,
Gini, novelty, diversity of content of 64 dimensions, and a table by hot, warm and cold items. Peak memory is that of
the whole process, ids and embeddings included; `before` is what it held when the first score was made.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << (20 if sys.platform == "darwin" else 10))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=6_000)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--positives", type=int, default=10, help="mean number a person")
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2, help="of the product that makes scores; judging uses one")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = str(arguments.threads)
    # Only now, for NumPy reads the number of threads when it is first imported.
    import numpy as np  # noqa: PLC0415
    import pandas as pd  # noqa: PLC0415

    from multimodal_rec.evaluation import evaluate_ranking  # noqa: PLC0415
    from multimodal_rec.evaluation.segments import popularity_labels  # noqa: PLC0415

    rng = np.random.default_rng(0)
    item_ids = [f"i{index}" for index in range(arguments.items)]
    user_ids = [f"u{index}" for index in range(arguments.people)]
    content = rng.standard_normal((arguments.items, 64), dtype=np.float32)
    people = rng.standard_normal((arguments.people, 64), dtype=np.float32)
    popularity = rng.zipf(1.3, arguments.items).clip(max=10_000) / 1.0

    def log(each: int) -> pd.DataFrame:
        user = np.repeat(np.arange(arguments.people), rng.poisson(each, arguments.people).clip(1))
        item = rng.choice(arguments.items, user.size, p=popularity / popularity.sum())
        return pd.DataFrame({"user_id": np.take(user_ids, user), "item_id": np.take(item_ids, item)})

    known, test = log(20), log(arguments.positives)
    row = pd.Index(user_ids)

    def score(queries: pd.DataFrame) -> np.ndarray:
        return people[row.get_indexer(pd.Index(queries["user_id"]))] @ content.T

    before = _peak_mib()
    queries = pd.DataFrame({"user_id": user_ids})
    started = time.perf_counter()
    for start in range(0, len(queries), arguments.batch_size):
        score(queries.iloc[start : start + arguments.batch_size])
    scoring = time.perf_counter() - started
    after_scoring = _peak_mib()

    started = time.perf_counter()
    evaluation = evaluate_ranking(score, test, known=known, item_ids=item_ids, batch_size=arguments.batch_size)
    ranking = time.perf_counter() - started
    evaluation.intervals()
    lists = evaluation.list_metrics(10, known=known, content=content)
    segments = evaluation.by_item(popularity_labels(known, item_ids))
    seconds = time.perf_counter() - started
    load = f"{os.getloadavg()[0]:.1f} jobs ready to run" if hasattr(os, "getloadavg") else "load unknown"

    print(f"{len(evaluation.per_user)} people, {len(test)} positives, {arguments.items} items; {load}")
    print(f"scores alone       {scoring:6.1f} s  {arguments.people / scoring:7.0f} people/s")
    print(f"every metric       {seconds:6.1f} s  {arguments.people / seconds:7.0f} people/s (ranking {ranking:.1f} s)")
    print(f"peak memory        {_peak_mib():6.0f} MiB; {after_scoring:.0f} with scores alone, {before:.0f} before")
    print(evaluation)
    for table in (lists, segments):
        print(table.to_string(float_format=lambda value: f"{value:.4f}"))


if __name__ == "__main__":
    main()
