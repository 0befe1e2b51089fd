"""New films among known ones: does one ranking serve both, and what do the known ones lose by it?

    python benchmarks/cold_and_warm.py --source ../shared/data --out runs/ranking --seeds 0

A fifth of the films (the cold ones of `movielens-cold`) lose every interaction, and each person's last film that is not
among them is held out. Both are asked for in one ranking of all films. To choose, the same is done once more with what
is left, a fifth of its films cold again: what known films lose grows with how many new ones there are. NDCG@10: of the
cold films beside content k-NN's, of the others beside what the same model gives them where no cold film is ranked.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from ranking import OURS
from real_data import prepared

from multimodal_rec import Catalogue, Recommender, paired_difference
from multimodal_rec.baselines import ContentKNN
from multimodal_rec.builders import build_tower
from multimodal_rec.evaluation import evaluate_ranking


def held_out(part: Catalogue, share: float) -> tuple[Catalogue, Catalogue]:
    """What is left to learn from, and the interactions with a share of the items and each person's last other one."""
    log = part.interactions
    ids = np.array(sorted(part.item_ids, key=int))
    cold = ids[np.random.default_rng(0).permutation(len(ids))[: round(share * len(ids))]]
    is_cold = log["item_id"].isin(cold)
    last = log.loc[~is_cold].sort_values("timestamp", kind="stable").drop_duplicates("user_id", keep="last").index
    is_out = is_cold | log.index.isin(last)
    items = part.items.loc[~part.items["item_id"].isin(cold)].reset_index(drop=True)
    train = replace(part, items=items, interactions=log.loc[~is_out].reset_index(drop=True))
    return train, replace(part, interactions=log.loc[is_out].reset_index(drop=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/ranking"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    options = parser.parse_args()
    rest, test = held_out(prepared("movielens-100k", options.source, options.out), 0.2)
    train, valid = held_out(rest, 0.2)
    task, ids, warm = OURS["movielens-last"], list(test.item_ids), list(rest.item_ids)
    is_warm = test.interactions["item_id"].isin(warm)
    of_cold, of_warm = (
        replace(test, interactions=test.interactions.loc[rows].reset_index(drop=True)) for rows in (~is_warm, is_warm)
    )
    texts = test.items[list(test.schema.text)].fillna("").agg(". ".join, axis=1).tolist()
    content = build_tower(replace(task.config.towers["text"], columns_apart=False)).encode(texts, project=False)
    nearest = ContentKNN().fit(rest.interactions, ids, content=content)
    beside = evaluate_ranking(nearest.score, of_cold.interactions, known=rest.interactions, item_ids=ids)
    print(f"cold films among all: content k-NN {beside.means()['ndcg@10']:.4f}", flush=True)
    for seed in options.seeds:
        training = replace(task.training, seed=seed, progress=False, cache_dir=str(options.out / "cache"))
        recommender = Recommender(task.config).fit(train, valid=valid, training=training, refit=True)
        cold, among_all = recommender.evaluate(of_cold), recommender.evaluate(of_warm).means()["ndcg@10"]
        alone = recommender.evaluate(of_warm, candidates=warm).means()["ndcg@10"]
        print(f"seed {seed}, cold films among all: {cold.means()['ndcg@10']:.4f}, {paired_difference(cold, beside)}")
        print(f"seed {seed}, other films: {among_all:.4f} among all, {alone:.4f} among themselves", flush=True)


if __name__ == "__main__":
    main()
