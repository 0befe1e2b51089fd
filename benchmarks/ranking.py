"""Ranking on real data beside the strongest other rows, over seeds, with paired intervals.

    python benchmarks/ranking.py --source ../shared/data --out runs/ranking
    python benchmarks/ranking.py --tasks movielens-last --seeds 0 1 2
    python benchmarks/ranking.py --tasks movielens-cold-1 movielens-cold-2 --seeds 0

Tasks and rivals are those of `benchmarks/baselines.py`, where their protocols stand; `movielens-cold-1` to `-4` have
other cold films than `movielens-cold`. Epochs, weights of the blend and
the rivals' settings are chosen on validation; the test is read once a run. A run is two files in `--out`, one value a
person and what it took; what is there is not run again, delete it to start over.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import pandas as pd
from baselines import METHODS, TASKS, Bench, tuned
from real_data import MINILM, POSTER, prepared

from multimodal_rec import Evaluation, Recommender, RecommenderConfig, TowerConfig, TrainingConfig
from multimodal_rec.baselines import TrainedBaseline
from multimodal_rec.collaborative.settings import GraphConfig, ItemItemConfig, SequenceConfig, TasteConfig
from multimodal_rec.evaluation.significance import paired_difference
from multimodal_rec.splits import Split

IDS_ONLY, NO_CONTEXT = "ids only", "without context"
VARIANTS: Mapping[str, Mapping[str, object]] = {IDS_ONLY: {"towers": {}}, NO_CONTEXT: {"context": False}}
"""The rivals that are our own configuration with something taken away."""
MEASURES = {"R@10": "recall@10", "N@10": "ndcg@10", "R@20": "recall@20", "N@20": "ndcg@20"}
FILM_TEXTS = TowerConfig("hf:all-MiniLM-L6-v2", tuning="frozen", max_tokens=128, columns_apart=True)


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is asked of our model, how it is configured, and whom it is measured against."""

    split: Callable[[Path, Path], Split]
    config: RecommenderConfig
    training: TrainingConfig
    measure: str
    """The measure of the paired difference."""
    rivals: Sequence[str]
    rivals_task: str | None = None
    """The task of `benchmarks/baselines.py` that the rivals are asked; None for the one of the same name."""
    protocol: Literal["full", "mmrec"] = "full"
    cold: bool = False
    """Whether the test's items are ranked among themselves."""


def _labelled(name: str, data: Path, out: Path) -> Split:
    return prepared(name, data, out).split("label", column="x_label")


def _movielens(how: Literal["last", "share"], data: Path, out: Path) -> Split:
    return prepared("movielens-100k", data, out).split(how)


def _cold_films(draw: int, data: Path, out: Path) -> Split:
    """A fifth of the films, drawn with this seed; genres, director and actors are texts of their own beside title and
    plot, in place of one sentence of credits."""
    films = prepared("movielens-100k", data, out)
    films = replace(films, schema=replace(films.schema, text=("title", "plot", "genres", "director", "actors")))
    return films.split("cold_items", valid=0.1, test=0.2, seed=draw)


def _products(which: str, data: Path, out: Path) -> Split:
    return prepared("amazon-titles", data, out, which=which).split("last")


_MOVIES = RecommenderConfig(
    {"text": FILM_TEXTS, "image": POSTER},
    collaborative={"sequence": SequenceConfig(), "item_item": ItemItemConfig()},
    context=False,
)
_BRIEF = TrainingConfig(epochs=2, batch_size=1024)
"""Of the attention over parts, which has little to add where the log says nearly all."""
_PRODUCTS = RecommenderConfig(
    {"text": MINILM},
    collaborative={
        "graph": GraphConfig(
            temperature=0.1,
            hidden=0.3,
            weight_decay=0.3,
            people_a_step=1024,
            max_candidates=4000,
            epochs=16,
            every=2,
            patience=2,
        ),
        "item_item": ItemItemConfig(rank=256, content_weight=30.0),
    },
    context=False,
)
"""Twenty thousand products, of which few took any: softmax over some of them, and titles in the item weights."""

OURS: Mapping[str, Task] = {
    "lastfm-2k": Task(
        split=partial(_labelled, "lastfm-2k"),
        config=RecommenderConfig(
            {"text": TowerConfig("vectors:text_minilm")},
            collaborative={"graph": GraphConfig(), "item_item": ItemItemConfig()},
        ),
        training=_BRIEF,
        measure="recall@20",
        rivals=("EASE", "EASE + content", "graph propagation"),
        protocol="mmrec",
    ),
    "tiktok": Task(
        split=partial(_labelled, "tiktok"),
        config=RecommenderConfig(
            {"image": TowerConfig("vectors:image"), "audio": TowerConfig("vectors:audio")},
            collaborative={"graph": GraphConfig(), "item_item": ItemItemConfig()},
        ),
        training=replace(_BRIEF, epochs=1),
        measure="recall@20",
        rivals=("EASE", "EASE + content", "graph propagation"),
        protocol="mmrec",
    ),
    **{
        f"movielens-{how}": Task(
            split=partial(_movielens, how),
            config=_MOVIES,
            training=_BRIEF,
            measure="ndcg@10",
            rivals=("EASE", "SASRec"),
        )
        for how in ("last", "share")
    },
    "movielens-context": Task(
        split=partial(_movielens, "last"),
        config=replace(
            _MOVIES,
            context=True,
            # Fewer events and alternatives than by default: people of hundreds of events are asked again and again.
            collaborative={"taste": TasteConfig(epochs=10, every=2, window=50, num_alternatives=256)},
        ),
        training=_BRIEF,
        measure="ndcg@10",
        rivals=(NO_CONTEXT,),
    ),
    **{
        f"movielens-cold{suffix}": Task(
            split=partial(_cold_films, draw),
            config=replace(_MOVIES, collaborative={"item_item": ItemItemConfig()}),
            training=_BRIEF,
            measure="ndcg@10",
            rivals=("ridge, λ 5, 32 factors",),
            rivals_task=f"movielens-cold-attributes{suffix}",
            cold=True,
        )
        for draw, suffix in enumerate(("", "-1", "-2", "-3", "-4"))
    },
    **{
        f"amazon-{which}": Task(
            split=partial(_products, which),
            config=_PRODUCTS,
            training=TrainingConfig(epochs=1, max_softmax_items=1000),
            measure="recall@10",
            rivals=(IDS_ONLY, "EASE, λ from 100", "graph propagation, large steps"),
        )
        for which in ("instruments", "scientific")
    },
}


def run(task: Task, split: Split, seed: int, out: Path) -> tuple[Evaluation, dict[str, object]]:
    """What our model reached on a task, and what it took; what frozen backbones give is kept for the next seed."""
    started, used = time.perf_counter(), time.process_time()
    training = replace(task.training, seed=seed, progress=False, cache_dir=str(out / "cache"))
    recommender = Recommender(task.config)
    recommender.fit(split.train, valid=split.valid, training=training, refit=task.protocol == "full")
    seconds, processor_seconds = time.perf_counter() - started, time.process_time() - used
    candidates = sorted(set(split.test.item_ids) - set(split.valid.item_ids)) if task.cold else None
    evaluation = recommender.evaluate(split.test, candidates=candidates, protocol=task.protocol)
    about = {
        "config": task.config.to_dict(),
        "seconds": seconds,
        "processor_seconds": processor_seconds,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    return evaluation, about


def rival(method: str, bench: Bench) -> tuple[Evaluation, dict[str, object]]:
    """What a baseline reached with the setting that validation chose."""
    started = time.perf_counter()
    best = tuned(METHODS[method], bench.task, metric=bench.metric)
    epochs = best.baseline.best_epoch if isinstance(best.baseline, TrainedBaseline) else None
    evaluation = bench.task.judge(best.baseline.score)
    return evaluation, {"setting": best.label, "epochs": epochs, "seconds": time.perf_counter() - started}


def run_missing(name: str, seeds: Sequence[int], source: Path, out: Path) -> None:
    """Write every run of a task that is not in `out`: each seed of ours, and each rival once."""
    task = OURS[name]
    ours = {f"seed {seed}": seed for seed in seeds if not _file(out, name, f"seed {seed}").exists()}
    split = task.split(source, out) if ours else None
    for label, seed in ours.items():
        if split is not None:
            _keep(_file(out, name, label), *run(task, split, seed, out))
    others = [method for method in task.rivals if not _file(out, name, method).exists()]
    for variant in [method for method in others if method in VARIANTS]:
        bare = replace(task, config=replace(task.config, **VARIANTS[variant]))
        _keep(_file(out, name, variant), *run(bare, task.split(source, out), seeds[0], out))
        others.remove(variant)
    bench = TASKS[task.rivals_task or name](source, out) if others else None
    for method in others:
        if bench is not None:
            _keep(_file(out, name, method), *rival(method, bench))


def _keep(file: Path, evaluation: Evaluation, about: dict[str, object]) -> None:
    evaluation.per_user.to_parquet(file)
    means = evaluation.means()
    file.with_suffix(".json").write_text(json.dumps({**about, "test": means}, indent=1))
    print(file.stem, {short: round(means[long], 4) for short, long in MEASURES.items()}, flush=True)


def table(name: str, seeds: Sequence[int], out: Path) -> str:
    """Ours, the mean over seeds, beside the rivals, and the paired difference from the best of them."""
    task = OURS[name]
    values = [pd.read_parquet(_file(out, name, f"seed {seed}")) for seed in seeds]
    ours = pd.DataFrame([value[list(MEASURES.values())].mean() for value in values])
    rows = {f"multimodal-rec, {len(seeds)} seeds": ours.mean()}
    if len(seeds) > 1:
        rows["  standard deviation"] = ours.std(ddof=1)
    others = {method: pd.read_parquet(_file(out, name, method)) for method in task.rivals}
    rows |= {method: value[list(MEASURES.values())].mean() for method, value in others.items()}
    frame = pd.DataFrame(rows).T.rename(columns={long: short for short, long in MEASURES.items()})
    best = max(others, key=lambda method: others[method][task.measure].mean())
    of_all = pd.DataFrame(pd.concat(values).groupby(level=0).mean())
    difference = paired_difference(Evaluation(of_all, 0), Evaluation(others[best], 0), task.measure)
    about = [json.loads(_file(out, name, f"seed {seed}").with_suffix(".json").read_text()) for seed in seeds]
    spent = f"{pd.Series([each['seconds'] for each in about]).median():.0f} s a seed"
    lines = [f"{name}, {spent}", frame.to_string(float_format=lambda value: f"{value:.4f}")]
    return "\n".join([*lines, f"{task.measure} over {best}: {difference}"])


def _file(out: Path, task: str, label: str) -> Path:
    return out / f"{task}_{label.replace(',', '').replace(' ', '-')}.parquet"


def main(arguments: list[str] | None = None) -> None:
    """Run what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/ranking"))
    parser.add_argument("--tasks", nargs="+", choices=list(OURS), default=list(OURS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.tasks:
        run_missing(name, options.seeds, options.source, options.out)
        print(table(name, options.seeds, options.out))


if __name__ == "__main__":
    main()
