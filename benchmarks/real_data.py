"""The whole path on real catalogues, beside simple baselines under the same protocol.

    python benchmarks/real_data.py --data ../shared/data --only movielens-last

`movielens-last`: each person's last film out, the one before for validation. `movielens-cold`: a fifth of the films
lose every rating in training and are ranked among themselves. `emotify`: a fifth of the tracks held out whole, AUC of
liked against disliked. Models are trained on the training part, epochs chosen on the validation part.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from pathlib import Path

import numpy as np
import pandas as pd

from multimodal_rec import Catalogue, Evaluation, Recommender, RecommenderConfig, TowerConfig, TrainingConfig
from multimodal_rec.baselines import EASE, Baseline, ContentKNN, Popularity
from multimodal_rec.evaluation import evaluate_ranking
from multimodal_rec.evaluation.judgements import auc
from multimodal_rec.evaluation.significance import paired_difference

MINILM = TowerConfig("hf:all-MiniLM-L6-v2", tuning="frozen", max_tokens=96)
POSTER = TowerConfig("timm:test_byobnet", pretrained=False, tuning="frozen", image_size_px=64, max_windows=1)
SOUND = TowerConfig("spectrogram:test_byobnet", pretrained=False, tuning="frozen", max_windows=2)


def prepared(name: str, data: Path, out: Path) -> Catalogue:
    """The catalogue that the recipe of `datasets/` makes of the source, made once."""
    folder = out / "catalogues" / name
    if not (folder / "catalogue.toml").exists():
        recipe = Path(__file__).parent.parent / "datasets" / name / "prepare.py"
        spec = importlib.util.spec_from_file_location("recipe", recipe)
        if spec is None or spec.loader is None:
            raise SystemExit(f"no recipe at {recipe}")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.prepare(data / name, folder)
    return Catalogue.read(folder)


def content_of(catalogue: Catalogue, recommender: Recommender) -> np.ndarray:
    """MiniLM embeddings of the texts, (item, 384), zero where there is none."""
    columns = catalogue.items[list(catalogue.schema.text)].fillna("").agg(". ".join, axis=1)
    return recommender.towers["text"].encode(columns.tolist(), project=False)


def ranking_table(name: str, part: tuple[Catalogue, Catalogue, Catalogue], out: Path, *, cold: bool, seed: int) -> None:
    train, valid, test = part
    config = RecommenderConfig({"text": MINILM, "image": POSTER}, context=False, history_length=30)
    training = TrainingConfig(seed=seed, epochs=3, batch_size=1024, progress=False, cache_dir=str(out / "cache"))
    started = time.perf_counter()
    recommender = Recommender(config).fit(train, valid=valid, training=training)
    seconds = time.perf_counter() - started
    candidates = sorted(set(test.interactions["item_id"])) if cold else None
    rows: dict[str, Evaluation] = {"multimodal-rec": recommender.evaluate(test, candidates=candidates)}
    known = pd.concat([train.interactions, valid.interactions], ignore_index=True)
    ids = list(test.item_ids)
    content = content_of(test, recommender)
    baselines: dict[str, Baseline] = {
        "popularity": Popularity(),
        "EASE (100)": EASE(100.0),
        "content k-NN, MiniLM": ContentKNN(),
    }
    for label, baseline in baselines.items():
        fitted = baseline.fit(known, ids, content=content)
        rows[label] = evaluate_ranking(
            fitted.score, test.interactions, known=known, item_ids=ids, candidates=candidates
        )
    table = pd.DataFrame({label: evaluation.means() for label, evaluation in rows.items()}).T
    print(f"{name}, seed {seed}: {len(recommender.epochs)} epochs in {seconds:.0f} s")
    print(table[["recall@10", "ndcg@10", "recall@20", "ndcg@20"]].to_string(float_format=lambda value: f"{value:.4f}"))
    for label in baselines:
        print(f"  ndcg@10 over {label}: {paired_difference(rows['multimodal-rec'], rows[label])}")


def emotify(data: Path, out: Path, seed: int) -> None:
    catalogue = prepared("emotify", data, out)
    train, valid, test = catalogue.split("cold_items", valid=0.1, test=0.2, seed=seed)
    # Weight and epochs chosen by the AUC of the validation tracks, see docs/log.md.
    training = TrainingConfig(seed=seed, epochs=5, progress=False, cache_dir=str(out / "cache"))
    config = RecommenderConfig({"audio": SOUND}, pointwise_weight=50.0)
    recommender = Recommender(config).fit(train, training=training)
    recommender.embed(test.items)
    judged = test.interactions[test.interactions["event"].isin(["like", "dislike"])]
    ids = sorted(set(judged["item_id"]))
    place = {item_id: index for index, item_id in enumerate(ids)}
    scores = recommender.score(
        judged["user_id"].tolist(), ids, context=judged[["mood"]].to_dict("records"), on_unknown="cold"
    )
    own = scores[np.arange(len(judged)), [place[item_id] for item_id in judged["item_id"]]]
    liked = (judged["event"] == "like").to_numpy()
    known = pd.concat([train.interactions, valid.interactions])
    known = known[known["event"].isin(["like", "dislike"])]
    genres = catalogue.items.set_index("item_id")["genre"]
    rate = (known["event"] == "like").groupby(known["item_id"].map(genres)).mean()
    by_genre = judged["item_id"].map(genres).map(rate).to_numpy(dtype=float)
    print(f"emotify, tracks held out whole, seed {seed}: {len(judged)} judgements on {len(ids)} tracks")
    print(f"  AUC of liked against disliked: {auc(own, liked):.4f}; the genre's mean: {auc(by_genre, liked):.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/real"))
    parser.add_argument("--only", nargs="+", default=["movielens-last", "movielens-cold", "emotify"])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if "emotify" in arguments.only:
        emotify(arguments.data, arguments.out, arguments.seed)
    if "movielens-last" in arguments.only:
        films = prepared("movielens-100k", arguments.data, arguments.out)
        ranking_table(
            "movielens-100k, last interaction", films.split("last"), arguments.out, cold=False, seed=arguments.seed
        )
    if "movielens-cold" in arguments.only:
        films = prepared("movielens-100k", arguments.data, arguments.out)
        split = films.split("cold_items", valid=0.1, test=0.2)
        ranking_table("movielens-100k, cold items", split, arguments.out, cold=True, seed=arguments.seed)


if __name__ == "__main__":
    main()
