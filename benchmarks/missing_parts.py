"""What context is worth of what it could be worth, and what a model with parts missing at test keeps of one trained so.

On the sample catalogues, all items ranked, NDCG@10 of the test part, of the default configuration with a taste score:

- context: (N(model) − N(model trained without context)) / (N(learnable oracle) − N(learnable oracle without context));
- each modality, and each pair of them: N(model, hidden at test) / N(model trained without them).

    .venv/bin/python benchmarks/missing_parts.py --seeds 0 1 2

Each training run (catalogue, what it is trained without, seed) is kept as a JSON file in --out, so that a run that was
stopped goes on where it was; delete the folder to start over. Prints two markdown tables: means over seeds, with the
standard deviation of the ratio.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from run import KINDS, sample

from multimodal_rec import Recommender, TasteConfig, TrainingConfig, default_config
from multimodal_rec.evaluation.ablations import without_part
from multimodal_rec.evaluation.protocol import RankingTask
from multimodal_rec.oracle import Oracle
from multimodal_rec.planting import MODALITIES
from multimodal_rec.samples import Kind, read_planted


def groups(kind: Kind, at_most: int) -> list[tuple[str, ...]]:
    """One modality or more, never all of them, that are missing at test."""
    modalities = MODALITIES[kind]
    sizes = range(1, min(at_most, len(modalities) - 1) + 1)
    return [group for size in sizes for group in combinations(modalities, size)]


def run(kind: Kind, without: Sequence[str], seed: int, arguments: argparse.Namespace) -> dict[str, float]:
    """Test NDCG@10 of a model trained without some parts; of one trained with everything, also with groups hidden."""
    path = arguments.out / f"{kind}-without-{'+'.join(without) or 'nothing'}-seed-{seed}.json"
    if path.exists():
        return json.loads(path.read_text())
    catalogue = sample(kind, arguments.out)
    train, valid, test = catalogue.split("time", valid=0.1, test=0.1)
    config = replace(default_config(catalogue.schema), collaborative={"taste": TasteConfig()})
    for part in without:
        reduced = without_part(config, part)
        if reduced is None:
            raise SystemExit(f"without {', '.join(without)} nothing is left of the items of '{kind}'")
        config = reduced
    training = TrainingConfig(seed=seed, progress=False, cache_dir=str(arguments.out / "cache"))
    recommender = Recommender(config).fit(train, valid=valid, training=training)
    figures = {"ndcg@10": recommender.evaluate(test).means()["ndcg@10"]}
    if not without:
        for group in groups(kind, arguments.at_most):
            figures["+".join(group)] = recommender.evaluate(test, without=group).means()["ndcg@10"]
    recommender.close()
    path.write_text(json.dumps(figures, indent=1))
    print(path.stem, {name: round(value, 4) for name, value in figures.items()}, flush=True)
    return figures


def oracle(kind: Kind, out: Path, without: Sequence[str] = ()) -> float:
    """The learnable oracle's test NDCG@10."""
    catalogue = sample(kind, out)
    split = catalogue.split("time", valid=0.1, test=0.1)
    known = pd.concat([split.train.interactions, split.valid.interactions], ignore_index=True)
    score = Oracle.learnable(read_planted(out / "samples" / kind), known, without=without).score
    return RankingTask.of_split(split).judge(score).means()["ndcg@10"]


def context_row(kind: Kind, arguments: argparse.Namespace) -> str:
    """One row of the table of context."""
    best, blind = oracle(kind, arguments.out), oracle(kind, arguments.out, ["context"])
    told = np.array([run(kind, (), seed, arguments)["ndcg@10"] for seed in arguments.seeds])
    untold = np.array([run(kind, ("context",), seed, arguments)["ndcg@10"] for seed in arguments.seeds])
    worth = (told - untold) / (best - blind)
    return (
        f"| {kind} | {told.mean():.4f} | {untold.mean():.4f} | {best:.4f} | {blind:.4f} | "
        f"{worth.mean():.3f} ± {_spread(worth):.3f} | {told.mean() / best:.3f} |"
    )


def missing_rows(kind: Kind, arguments: argparse.Namespace) -> list[str]:
    """The rows of the table of what is missing at test."""
    rows = []
    for group in groups(kind, arguments.at_most):
        hidden = np.array([run(kind, (), seed, arguments)["+".join(group)] for seed in arguments.seeds])
        anew = np.array([run(kind, group, seed, arguments)["ndcg@10"] for seed in arguments.seeds])
        kept = hidden / anew
        rows.append(
            f"| {kind} | {', '.join(group)} | {hidden.mean():.4f} | {anew.mean():.4f} | "
            f"{kept.mean():.3f} ± {_spread(kept):.3f} |"
        )
    return rows


def _spread(values: np.ndarray) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/missing"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument(
        "--at-most", type=int, default=2, help="modalities that are missing at once; 0 for context alone"
    )
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows = [context_row(kind, arguments) for kind in arguments.kinds]
    print(
        "\n| catalogue | model | without context | learnable oracle | without context | of its worth | of the oracle |"
    )
    print("|---|---|---|---|---|---|---|", *rows, sep="\n")
    if arguments.at_most > 0:
        rows = [row for kind in arguments.kinds for row in missing_rows(kind, arguments)]
        print("\n| catalogue | missing | hidden at test | trained without | kept |")
        print("|---|---|---|---|---|", *rows, sep="\n")


if __name__ == "__main__":
    main()
