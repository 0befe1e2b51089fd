"""What the context-aware ranking costs over the retrieval score alone, and what it buys.

    python benchmarks/both_scores.py --seeds 0 1 2 --out runs/both_scores

For each sample catalogue and seed: one model, trained with both scores as `fit` does, judged on its test part by
either; the difference is paired over people. Then lists of ten for these people in their contexts by either score, one
request after another in turns on the same model: milliseconds of the processor with one thread, medians. The samples
have four hundred items, all of which are scored; `latency.py` has a hundred thousand.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd
import torch
from run import KINDS, sample

from multimodal_rec import Query, Recommender, TrainingConfig, default_config, paired_difference
from multimodal_rec.samples import Kind

Score = Literal["ranking", "retrieval"]
SCORES: tuple[Score, ...] = get_args(Score)
REQUESTS, WARM = 300, 50


def judged(kind: Kind, seed: int, out: Path) -> dict[str, str]:
    """One line of the table."""
    catalogue = sample(kind, out)
    train, valid, test = catalogue.split("time", valid=0.1, test=0.1)
    training = TrainingConfig(seed=seed, progress=False, cache_dir=str(out / "cache"))
    recommender = Recommender(default_config(catalogue.schema)).fit(train, valid=valid, training=training)
    found = {score: recommender.evaluate(test, score=score) for score in SCORES}
    log = test.interactions.sample(REQUESTS + WARM, replace=True, random_state=seed)
    columns = [name for name in catalogue.schema.context if name in log]
    milliseconds: dict[str, list[float]] = {score: [] for score in SCORES}
    for user_id, context in zip(log["user_id"], log.loc[:, columns].to_dict("records"), strict=True):
        told = {str(name): value for name, value in context.items()}
        for score in SCORES:
            start = time.process_time()
            recommender.recommend([user_id], context=told, query=Query(by=score), on_unknown="cold")
            milliseconds[score].append((time.process_time() - start) * 1e3)
    recommender.close()
    cost = {score: f"{np.median(milliseconds[score][WARM:]):.2f}" for score in SCORES}
    return {
        "catalogue": f"{kind}, seed {seed}",
        **{f"NDCG@10, {score}": f"{found[score].means()['ndcg@10']:.4f}" for score in SCORES},
        "bought": str(paired_difference(found["ranking"], found["retrieval"])),
        **{f"ms, {score}": cost[score] for score in SCORES},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--catalogues", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=Path("runs/both_scores"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for kind in arguments.catalogues:
        for seed in arguments.seeds:
            rows.append(judged(kind, seed, arguments.out))
            print(*rows[-1].values(), sep="  ", flush=True)
    print(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    main()
