"""Judgements of real music, tracks held out whole, with the mood that listeners were in and without it.

    python benchmarks/real_data.py --data ../shared/data --seeds 0 1 2

A fifth of `emotify`'s tracks is held out, another tenth left out for choosing; AUC of liked against disliked on the
held-out ones. Rankings on real catalogues are `benchmarks/ranking.py`'s; what its like prepares is here.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd

from multimodal_rec import Catalogue, Recommender, RecommenderConfig, TowerConfig, TrainingConfig
from multimodal_rec.evaluation.judgements import auc

MINILM = TowerConfig("hf:all-MiniLM-L6-v2", tuning="frozen", max_tokens=96)
POSTER = TowerConfig("timm:test_byobnet", pretrained=False, tuning="frozen", image_size_px=64, max_windows=1)
SOUND = TowerConfig("spectrogram:test_byobnet", pretrained=False, tuning="frozen", max_windows=2)


def prepared(name: str, data: Path, out: Path, *, which: str | None = None) -> Catalogue:
    """The catalogue that the recipe of `datasets/` makes of the source, made once; `which`: of a recipe of several."""
    folder = out / "catalogues" / (name if which is None else f"{name}-{which}")
    if not (folder / "catalogue.toml").exists():
        recipe = Path(__file__).parent.parent / "datasets" / name / "prepare.py"
        spec = importlib.util.spec_from_file_location("recipe", recipe)
        if spec is None or spec.loader is None:
            raise SystemExit(f"no recipe at {recipe}")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.prepare(data / name, folder, **({} if which is None else {"which": which}))
    return Catalogue.read(folder)


def emotify(catalogue: Catalogue, out: Path, seed: int, *, context: bool) -> tuple[float, float]:
    """AUC of our scores, and of the mean of a track's genre."""
    train, valid, test = catalogue.split("cold_items", valid=0.1, test=0.2, seed=seed)
    # Weight and epochs chosen by the AUC of the validation tracks, see docs/log.md.
    training = TrainingConfig(seed=seed, epochs=5, progress=False, cache_dir=str(out / "cache"))
    config = RecommenderConfig({"audio": SOUND}, pointwise_weight=50.0, context=context)
    recommender = Recommender(config).fit(train, training=training)
    recommender.embed(test.items)
    judged = test.interactions[test.interactions["event"].isin(["like", "dislike"])]
    ids = sorted(set(judged["item_id"]))
    place = {item_id: index for index, item_id in enumerate(ids)}
    moods = judged[["mood"]].to_dict("records") if context else None
    scores = recommender.score(judged["user_id"].tolist(), ids, context=moods, on_unknown="cold")
    own = scores[np.arange(len(judged)), [place[item_id] for item_id in judged["item_id"]]]
    liked = (judged["event"] == "like").to_numpy()
    known = pd.concat([train.interactions, valid.interactions])
    known = known[known["event"].isin(["like", "dislike"])]
    genres = catalogue.items.set_index("item_id")["genre"]
    rate = (known["event"] == "like").groupby(known["item_id"].map(genres)).mean()
    by_genre = judged["item_id"].map(genres).map(rate).to_numpy(dtype=float)
    return auc(own, liked), auc(by_genre, liked)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/real"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    arguments = parser.parse_args()
    catalogue = prepared("emotify", arguments.data, arguments.out)
    rows = []
    for seed in arguments.seeds:
        with_mood, by_genre = emotify(catalogue, arguments.out, seed, context=True)
        without, _ = emotify(catalogue, arguments.out, seed, context=False)
        rows.append({"seed": seed, "with mood": with_mood, "without": without, "genre's mean": by_genre})
        print({name: round(value, 4) for name, value in rows[-1].items()}, flush=True)
    table = pd.DataFrame(rows).set_index("seed")
    table["difference"] = table["with mood"] - table["without"]
    print(table.agg(["mean", "std"]).to_string(float_format=lambda value: f"{value:.4f}"))


if __name__ == "__main__":
    main()
