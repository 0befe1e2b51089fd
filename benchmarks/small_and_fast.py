"""Int8 towers and ONNX graphs beside float towers in torch: size, speed, and what is left of the order of scores.

    python benchmarks/small_and_fast.py --out runs/small_and_fast --threads 1 2

On the product sample: texts through a frozen MiniLM, pictures through a ViT-tiny at 64 px that is trained on them (a
ViT that was trained elsewhere is not to be had without a network). Both models embed all items; then each of `--people`
people ranks all of them in each of two contexts, and Spearman's rank correlation with the float model's scores is taken
a person and context. Speed: `--pairs` rounds in which all variants take turns on one batch of `--batch` prepared items,
and on one person's scores of `--candidates` stored items; medians, in wall seconds and in seconds of a processor. The
trained model is kept in --out; delete the folder to start over. Prints markdown tables.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import spearmanr

from multimodal_rec import Catalogue, Recommender, TowerConfig, TrainingConfig, default_config, write_sample
from multimodal_rec.item_stream import item_stream
from multimodal_rec.onnx_graphs import TowerGraph
from multimodal_rec.onnx_scorer import OnnxScorer, session
from multimodal_rec.scorer import Scorer
from multimodal_rec.trial_batch import trial_batch
from towers import TowerBatch

TOWERS = {
    "text": TowerConfig("hf:all-MiniLM-L6-v2", tuning="frozen"),
    "image": TowerConfig("timm:vit_tiny_patch16_224", pretrained=False, tuning="full", image_size_px=64, max_windows=1),
}
CONTEXTS = ({"season": "winter", "device": "phone"}, {"season": "summer", "device": "tv"})


class Took(NamedTuple):
    wall: float
    """Median seconds."""
    processor: float
    """Median seconds of a processor, all threads together."""


def turns(run: Mapping[str, Callable[[], object]], pairs: int) -> dict[str, Took]:
    """Medians of each over rounds in which all take turns, after one that does not count."""
    wall: dict[str, list[float]] = {name: [] for name in run}
    processor: dict[str, list[float]] = {name: [] for name in run}
    for _ in range(pairs + 1):
        for name, each in run.items():
            began, used = time.perf_counter(), time.process_time()
            each()
            wall[name].append(time.perf_counter() - began)
            processor[name].append(time.process_time() - used)
    return {name: Took(statistics.median(wall[name][1:]), statistics.median(processor[name][1:])) for name in run}


def fitted(out: Path, epochs: int) -> tuple[Recommender, Catalogue]:
    """The float model, trained once, and its catalogue."""
    folder = out / "product"
    catalogue = (
        Catalogue.read(folder) if (folder / "catalogue.toml").exists() else write_sample("product", folder, seed=0)
    )
    if not (out / "model").exists():
        train, valid, _ = catalogue.split("time", valid=0.1, test=0.1)
        config = replace(default_config(catalogue.schema), towers=TOWERS)
        recommender = Recommender(config).fit(
            train, valid=valid, training=TrainingConfig(device="cpu", epochs=epochs, seed=0, progress=False)
        )
        recommender.embed(catalogue.items)
        recommender.save(out / "model")
    return Recommender.load(out / "model", device="cpu"), catalogue


def correlations(expected: np.ndarray, given: np.ndarray) -> tuple[float, float]:
    """Mean and least Spearman correlation over rows."""
    each = [float(spearmanr(one, other)[0]) for one, other in zip(expected, given, strict=True)]
    return statistics.mean(each), min(each)


def ranked(recommender: Recommender, people: Sequence[str], rank: Callable[..., np.ndarray]) -> np.ndarray:
    """Scores of all items, a row a person and context."""
    contexts = [recommender._contexts(context, len(people)) for context in CONTEXTS]
    return np.concatenate([rank(people, encoded) for encoded in contexts])


def through_onnx(recommender: Recommender, catalogue: Catalogue, folder: Path) -> Scorer:
    """A scorer over tokens that the exported towers gave."""
    scorer, trained = recommender._ready(), recommender._fitted()
    table = scorer.table
    tokens = table.tokens.copy()
    for place, name in enumerate(trained.model.towers):
        tower, running = trained.model.tower(name), session(folder / f"{name}.onnx")
        graph = TowerGraph(trained.model, name)
        for items in item_stream(catalogue.items, trained.schema, chunk_items=32):
            content = trained.model.content_of(items, trained.schema)
            values = {row: value for row in range(len(items)) if (value := content.load(row, name)) is not None}
            feed = graph.inputs(tower.prepare(list(values.values())))
            (numbers,) = running.run(["numbers"], {each: tensor.numpy() for each, tensor in feed.items()})
            rows = [table.position[items["item_id"].iloc[row]] for row in values]
            tokens[rows, place] = numbers.astype(np.float16)
    return Scorer(trained.model, replace(table, tokens=tokens), scorer.people)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/small_and_fast"))
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--people", type=int, default=60)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--candidates", type=int, default=1000)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    exact, catalogue = fitted(options.out, options.epochs)
    small = exact.quantised()
    small.embed(catalogue.items)
    small.save(options.out / "model-int8")
    folders = {"float": options.out / "onnx", "int8": options.out / "onnx-int8"}
    reports = {
        name: recommender.export_onnx(folders[name], items=catalogue.items)
        for name, recommender in (("float", exact), ("int8", small))
    }

    people = exact._ready().people.some(options.people)
    expected = ranked(exact, people, exact._ready().rank)
    onnx_exact, onnx_small = (
        OnnxScorer(folders[name], through_onnx(recommender, catalogue, folders[name]))
        for name, recommender in (("float", exact), ("int8", small))
    )
    given = {
        "int8 towers in torch": ranked(small, people, small._ready().rank),
        "float towers and scores in ONNX": ranked(exact, people, onnx_exact.rank),
        "int8 towers and scores in ONNX": ranked(small, people, onnx_small.rank),
    }
    print(f"| against float towers in torch, {len(expected)} people and contexts | mean | least |\n|---|---|---|")
    for name, scores in given.items():
        mean, least = correlations(expected, scores)
        print(f"| {name} | {mean:.5f} | {least:.5f} |")

    print("\n| on disk | MB |\n|---|---|")
    for name, folder in (("float model", "model"), ("int8 model", "model-int8")):
        print(f"| {name} | {(options.out / folder / 'model.safetensors').stat().st_size / 1e6:.1f} |")
    for name, report in reports.items():
        sizes = ", ".join(f"{graph} {size / 1e6:.2f}" for graph, size in report.sizes.items())
        print(f"| ONNX, {name} | {sizes} |")

    model = exact._fitted().model
    rows = np.resize(np.arange(len(exact._ready().ids)), options.candidates).tolist()
    print("\n| threads | what | variant | a second | wall ms | processor ms |\n|---|---|---|---|---|---|")
    for threads in options.threads:
        torch.set_num_threads(threads)
        for tower in TOWERS:
            batch = tried(exact, catalogue, tower, options.batch)
            graphs = {name: session(folder / f"{tower}.onnx", threads) for name, folder in folders.items()}
            feed = {each: tensor.numpy() for each, tensor in TowerGraph(model, tower).inputs(batch).items()}
            run: dict[str, Callable[[], object]] = {
                "torch, float": partial(exact.towers[tower], batch),
                "torch, int8": partial(small.towers[tower], batch),
                "ONNX, float": partial(graphs["float"].run, None, feed),
                "ONNX, int8": partial(graphs["int8"].run, None, feed),
            }
            with torch.inference_mode():
                show(threads, f"{tower} tower", turns(run, options.pairs), options.batch)
        asked = (people[:1], exact._contexts(CONTEXTS[0], 1), rows)
        graph = exact.onnx_scorer(folders["float"], num_threads=threads)
        both = {"torch": partial(exact._ready().rank, *asked), "ONNX": partial(graph.rank, *asked)}
        show(threads, f"scores of {options.candidates} items for one person", turns(both, 4 * options.pairs), 1)


def tried(recommender: Recommender, catalogue: Catalogue, tower: str, size: int) -> TowerBatch:
    """A prepared batch of real items."""
    trained = recommender._fitted()
    content = trained.model.content_of(catalogue.items, trained.schema)
    return trial_batch(recommender.towers[tower], TOWERS[tower], content, size).batch


def show(threads: int, what: str, took: Mapping[str, Took], count: int) -> None:
    """Print rows of the table of speeds."""
    for name, each in took.items():
        row = (threads, what, name, f"{count / each.wall:.1f}", f"{each.wall * 1e3:.2f}", f"{each.processor * 1e3:.2f}")
        print("| " + " | ".join(map(str, row)) + " |", flush=True)


if __name__ == "__main__":
    main()
