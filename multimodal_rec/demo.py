"""The whole path on three sample catalogues: made, checked, trained on, judged, recommended from, and shown."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from multimodal_rec.catalogue import Catalogue
from multimodal_rec.config import TrainingConfig
from multimodal_rec.content import ItemContent
from multimodal_rec.content_statistics import content_statistics
from multimodal_rec.defaults import default_config
from multimodal_rec.evaluation.comparison import Comparison, compare
from multimodal_rec.feature_cache import FeatureCache
from multimodal_rec.features import ContentFeatures
from multimodal_rec.oracle import Oracle
from multimodal_rec.planting import Kind
from multimodal_rec.recommender import Recommender
from multimodal_rec.report import CatalogueSection, RecommendationRow, write_report
from multimodal_rec.samples import read_planted, write_sample
from multimodal_rec.showcase import Showcase
from multimodal_rec.splits import Split

KINDS: tuple[Kind, ...] = ("product", "music", "video")
"""The catalogues, in the order in which they are shown."""

CONTEXTS: Mapping[Kind, tuple[Mapping[str, object], ...]] = {
    "music": ({"hour": 21, "device": "phone"}, {"hour": 9, "device": "tv"}),
    "product": ({"season": "winter", "device": "phone"}, {"season": "summer", "device": "tv"}),
    "video": ({"hour": 21, "device": "phone"}, {"hour": 9, "device": "tv"}),
}
"""Two situations a catalogue, in which the planted tastes have opposite signs."""


class DemoSize(NamedTuple):
    """How much the demo does, where that is not what `write_sample` and `TrainingConfig` do by themselves."""

    num_items: int
    num_users: int
    epochs: int
    """At most; fewer where validation stops gaining."""


def run_demo(out: Path, *, seed: int, console: Console, size: DemoSize | None = None) -> int:
    """0, once `out/report.html` shows three sample catalogues, how they were ranked, and what was recommended.

    Figures, recommendations and the wall time of each stage go to `console`. The samples are written ahead by two
    processes of their own (spawned, so a script that calls this needs the usual `if __name__ == "__main__"`). `seed`
    is that of the samples and of training; `size` is for those in a hurry. Raises what the stages raise.
    """
    out = Path(out)
    start = time.perf_counter()
    sections: list[CatalogueSection] = []
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        # Products are written soonest and wanted first; beside them begin the videos, which take longest.
        order = sorted(KINDS, key=("product", "video", "music").index)
        waiting = {kind: pool.submit(_write, kind, out / "samples" / kind, size, seed) for kind in order}
        try:
            for kind in KINDS:
                console.print(f"[bold]{kind}[/]")
                _await(waiting[kind], console)
                sections.append(run_catalogue(kind, out, seed=seed, console=console, size=size))
                console.print()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    report = write_report(
        out / "report.html",
        sections,
        title="Three catalogues, and what was recommended from them",
        introduction=(
            "Sample catalogues with planted taste: invented items with real files, and people whose wishes are known, "
            f"so that it is known how well anybody could rank. Written by multimodal-rec demo --seed {seed}."
        ),
    )
    console.print(f"{time.perf_counter() - start:.0f} s in all. Open {escape(str(report))}")
    return 0


def run_catalogue(
    kind: Kind, out: Path, *, seed: int, console: Console, size: DemoSize | None = None
) -> CatalogueSection:
    """The section on the sample that `write_sample` made in `out/samples/<kind>`: check, train, judge, recommend."""
    folder = out / "samples" / kind
    stages = _Stages(console)
    with stages("check"):
        catalogue = Catalogue.read(folder)
    console.print(f"  {escape(repr(catalogue))}")
    split = catalogue.split("time", valid=0.1, test=0.1)
    training = TrainingConfig(
        seed=seed,
        epochs=TrainingConfig.epochs if size is None else size.epochs,
        cache_dir=str(out / "cache"),
        # The bar goes to standard output, which belongs to the result where the console is standard error.
        progress=not console.stderr,
    )
    recommender = Recommender(default_config(catalogue.schema))
    with stages("train"):
        recommender.fit(split.train, valid=split.valid, training=training)
    with stages("embed what came later"):
        report = recommender.embed(split.test.items)
    console.print(f"  {report.embedded} items embedded, {report.unchanged} were already")
    with stages("judge, beside baselines and oracles"):
        comparison = _compared(recommender, split, folder, cache_dir=str(out / "cache"))
    _print_comparison(comparison, console)
    with stages("recommend and explain"):
        showcase = Showcase(recommender, catalogue)
        rows = showcase.rows(showcase.people(3), CONTEXTS[kind])
    _print_recommendations(rows, console)
    recommender.close()
    facts = {
        "items": str(catalogue.num_items),
        "of them late": str(catalogue.num_items - split.valid.num_items),
        "people": str(catalogue.num_users),
        "events": str(len(catalogue.interactions)),
        "modalities": ", ".join(catalogue.schema.modalities),
        "epochs": str(len(recommender.epochs)),
        "training": f"{stages.seconds['train']:.0f} s",
    }
    return CatalogueSection(
        kind.capitalize(),
        facts,
        comparison.table,
        notes=["Late items first appear in the test period; they are ranked among each other.", *comparison.notes()],
        recommendations=rows,
        references=comparison.references,
    )


class _Stages:
    """Wall time of what is done, printed as it is done."""

    def __init__(self, console: Console) -> None:
        self.seconds: dict[str, float] = {}
        self._console = console

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[stage] = time.perf_counter() - start
        _print_stage(stage, self.seconds[stage], self._console)


def _print_stage(stage: str, seconds: float, console: Console) -> None:
    console.print(f"  {stage:<40} {seconds:6.1f} s")


def _write(kind: Kind, folder: Path, size: DemoSize | None, seed: int) -> float:
    """Write one sample, in a process of its own; the seconds it took."""
    start = time.perf_counter()
    if size is None:
        write_sample(kind, folder, seed=seed)
    else:
        write_sample(kind, folder, num_items=size.num_items, num_users=size.num_users, seed=seed)
    return time.perf_counter() - start


def _await(written: Future[float], console: Console) -> None:
    start = time.perf_counter()
    seconds = written.result()
    _print_stage("write the sample, beside the rest", seconds, console)
    _print_stage("of that, waited for", time.perf_counter() - start, console)


def _compared(recommender: Recommender, split: Split, folder: Path, *, cache_dir: str) -> Comparison:
    planted, test = read_planted(folder), split.test
    known = pd.concat([split.train.interactions, split.valid.interactions], ignore_index=True)
    oracles = {
        "learnable": Oracle.learnable(planted, known).score,
        "true": Oracle.true(planted).score,
    }
    content = content_statistics(test.items, test.schema, text=_text_features(recommender, test, cache_dir))
    return compare(recommender, split, content=content, oracles=oracles)


def _text_features(recommender: Recommender, catalogue: Catalogue, cache_dir: str) -> np.ndarray | None:
    """The frozen text backbone's output for every item, from the cache where training has left it there."""
    tower = recommender.towers.get("text")
    if tower is None or not tower.keeps_backbone:
        return None
    content = ItemContent(catalogue.items, catalogue.schema)
    reader = ContentFeatures({"text": tower}, content, cache=FeatureCache(cache_dir))
    # A text has one window; absent ones are zero.
    return reader.features(range(catalogue.num_items), "text").windows[:, 0, : tower.backbone_dim].numpy()


def _print_comparison(comparison: Comparison, console: Console) -> None:
    table = Table("method", title="The test period, every item ranked", title_justify="left")
    frame = comparison.table
    for name in frame.columns:
        table.add_column(str(name), justify="right")
    for name, values in zip(frame.index, frame.to_numpy(), strict=True):
        cells = ("–" if np.isnan(value) else f"{value:.3f}" for value in values)  # noqa: RUF001 (nothing measured)
        table.add_row(escape(str(name)), *cells, style="dim" if name in comparison.references else None)
    console.print(table, soft_wrap=False)
    for note in comparison.notes():
        console.print(f"  {escape(note)}")


def _print_recommendations(rows: list[RecommendationRow], console: Console) -> None:
    table = Table("person", "context", "first three", "why the first", title="Recommended", title_justify="left")
    for row in rows:
        context = ", ".join(f"{name} {value}" for name, value in row.context.items())
        items = "\n".join(f"{place}. {card.title}" for place, card in enumerate(row.items[:3], start=1))
        table.add_row(*map(escape, (row.user_id, context, items, row.reason)), end_section=True)
    console.print(table, soft_wrap=False)
