"""`make bench`: what every part of the sample catalogues is worth, measured by training without it.

Each run (catalogue, variant, seed) is kept as a JSON file in --out, so that a bench that was stopped goes on where it
was; delete the folder to start over. Prints the table of the README.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd

from multimodal_rec import Catalogue, Recommender, TrainingConfig, default_config, write_sample
from multimodal_rec.evaluation.ablations import without_part
from multimodal_rec.evaluation.protocol import RankingTask
from multimodal_rec.oracle import Oracle
from multimodal_rec.planting import PARTS
from multimodal_rec.samples import Kind, read_planted

KINDS: tuple[Kind, ...] = ("product", "music", "video")


def sample(kind: Kind, out: Path) -> Catalogue:
    """The sample catalogue, written once."""
    folder = out / "samples" / kind
    return Catalogue.read(folder) if (folder / "catalogue.toml").exists() else write_sample(kind, folder)


def run(kind: Kind, without: str, seed: int, out: Path) -> dict[str, float]:
    """One training run and its test figures, from the file where it was run before."""
    path = out / f"{kind}-without-{without}-seed-{seed}.json"
    if path.exists():
        return json.loads(path.read_text())
    catalogue = sample(kind, out)
    train, valid, test = catalogue.split("time", valid=0.1, test=0.1)
    config = default_config(catalogue.schema)
    reduced = config if without == "nothing" else without_part(config, without)
    if reduced is None:
        raise SystemExit(f"without {without} nothing is left of the items of '{kind}'")
    started = time.perf_counter()
    training = TrainingConfig(seed=seed, progress=False, cache_dir=str(out / "cache"))
    recommender = Recommender(reduced).fit(train, valid=valid, training=training)
    seconds = time.perf_counter() - started
    late = sorted(set(test.items["item_id"]) - set(valid.items["item_id"]))
    figures = {
        "ndcg@10": recommender.evaluate(test).means()["ndcg@10"],
        "late ndcg@10": recommender.evaluate(test, candidates=late).means()["ndcg@10"],
        "retrieval ndcg@10": recommender.evaluate(test, score="retrieval").means()["ndcg@10"],
        "train seconds": seconds,
    }
    recommender.close()
    path.write_text(json.dumps(figures, indent=1))
    print(path.stem, {name: round(value, 4) for name, value in figures.items()}, flush=True)
    return figures


def oracle(kind: Kind, out: Path) -> dict[str, float]:
    """The learnable oracle's test figures."""
    catalogue = sample(kind, out)
    split = catalogue.split("time", valid=0.1, test=0.1)
    planted = read_planted(out / "samples" / kind)
    known = pd.concat([split.train.interactions, split.valid.interactions], ignore_index=True)
    score = Oracle.learnable(planted, known).score
    everything, late = RankingTask.of_split(split), RankingTask.of_split(split, among="late")
    return {
        "ndcg@10": everything.judge(score).means()["ndcg@10"],
        "late ndcg@10": late.judge(score).means()["ndcg@10"],
    }


def table(kind: Kind, seeds: list[int], out: Path) -> pd.DataFrame:
    """Mean and spread over seeds of the model and of the model trained without each part."""
    best = oracle(kind, out)
    parts = [part.name for part in PARTS[kind] if part.name != "co-consumption"]
    rows = []
    for without in ["nothing", *parts, "behaviour", "context"]:
        figures = pd.DataFrame([run(kind, without, seed, out) for seed in seeds])
        rows.append(
            {
                "catalogue": kind,
                "trained without": without,
                "NDCG@10": figures["ndcg@10"].mean(),
                "spread": float(np.std(figures["ndcg@10"], ddof=1)) if len(seeds) > 1 else np.nan,
                "of learnable": figures["ndcg@10"].mean() / best["ndcg@10"],
                "late NDCG@10": figures["late ndcg@10"].mean(),
                "late of learnable": figures["late ndcg@10"].mean() / best["late ndcg@10"],
                "retrieval NDCG@10": figures["retrieval ndcg@10"].mean(),
                "seconds": figures["train seconds"].median(),
            }
        )
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    tables = [table(kind, arguments.seeds, arguments.out) for kind in arguments.kinds]
    text = pd.concat(tables).to_string(index=False, float_format=lambda value: f"{value:.3f}")
    print(text)
    (arguments.out / "table.txt").write_text(text + "\n")


if __name__ == "__main__":
    main()
