"""What feedback is worth: a model left as it was, updated, updated and trained on, and trained anew, period by period.

    python benchmarks/updating.py --catalogues product music video --seeds 0 1 2
    python benchmarks/updating.py --catalogues movielens-100k --periods 60 --tune-every 15 --anew 1

A model is trained on what was done before a cut, its epochs and blend chosen on the last tenth of that, which is then
told by `update`: it is known, and not learned from. Time goes on by periods. Before each, the events of the period
before it are told: to nobody (*stale*: histories end at the cut), by `update`, by `update(fine_tune=FineTune())`, or by
training anew on all there is, in the same way as at the cut. Then every item but what a person took before is ranked
for each person and context of the period (NDCG@10). With `--tune-every` n the fine-tune comes after every n-th period,
and plain updates after the others. All items are embedded from the start, for all alike. *Returning*
are those who did something between the cut and the period. Differences from the stale model are paired over people,
each with the mean of their periods; seconds are of one period, wall and processor, medians over periods and seeds.
*Old* is the NDCG@10 of interactions from before the cut that the fine-tune held back, before and after it. Prints
markdown tables.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from real_data import prepared

from multimodal_rec import (
    Catalogue,
    Evaluation,
    FineTune,
    Recommender,
    RecommenderConfig,
    SequenceConfig,
    TowerConfig,
    TrainingConfig,
    default_config,
    evaluate_ranking,
    paired_difference,
    write_sample,
)
from multimodal_rec.collaborative.settings import ItemItemConfig
from multimodal_rec.demo import KINDS
from multimodal_rec.planting import Kind

STALE, UPDATED, TUNED, ANEW = "stale", "update", "update, fine-tune", "trained anew"
FILMS = RecommenderConfig(
    {"text": TowerConfig("hf:all-MiniLM-L6-v2", tuning="frozen", max_tokens=128, columns_apart=True)},
    collaborative={"sequence": SequenceConfig(dim=32, epochs=4), "item_item": ItemItemConfig()},
    context=False,
)


@dataclass(frozen=True, kw_only=True)
class Course:
    """A catalogue and how its time is cut."""

    catalogue: Catalogue
    config: RecommenderConfig
    training: TrainingConfig
    cut: float
    """Unix seconds: what was done before is trained on."""
    days: float
    """Of a period."""
    num_periods: int


class Told(NamedTuple):
    """What a method reached in one period, and what it cost to tell it of the one before."""

    period: int
    per_user: pd.DataFrame
    seconds: float
    processor_seconds: float


def course(name: str, source: Path, out: Path, num_periods: int) -> Course:
    """A sample catalogue, its last 30% of events in equal periods; or films, from the twentieth week day by day."""
    if name == "movielens-100k":
        films, week = prepared(name, source, out), 7 * 86_400
        first = int(films.interactions["timestamp"].to_numpy().min())
        training = TrainingConfig(epochs=2, batch_size=1024, progress=False, cache_dir=str(out / "cache"))
        return Course(
            catalogue=films,
            config=FILMS,
            training=training,
            cut=first + 20 * week,
            days=1,
            num_periods=num_periods,
        )
    folder = out / "samples" / name
    kind: Kind = next(kind for kind in KINDS if kind == name)
    catalogue = Catalogue.read(folder) if (folder / "catalogue.toml").exists() else write_sample(kind, folder)
    stamps = catalogue.interactions["timestamp"].to_numpy()
    cut = float(np.quantile(stamps, 0.7))
    return Course(
        catalogue=catalogue,
        config=default_config(catalogue.schema),
        training=TrainingConfig(progress=False, cache_dir=str(out / "cache")),
        cut=cut,
        days=(stamps.max() - cut) / 86_400 / (num_periods + 1),
        num_periods=num_periods,
    )


def trained(course: Course, until: float, seed: int) -> Recommender:
    """A recommender trained on all that was done before a moment, every item embedded."""
    catalogue, log = course.catalogue, course.catalogue.interactions
    past = replace(catalogue, interactions=log.loc[log["timestamp"] < until].reset_index(drop=True))
    # A test part of nothing: the last tenth chooses.
    train, valid, _ = past.split("time", valid=0.1, test=0)
    recommender = Recommender(course.config)
    recommender.fit(train, valid=valid, training=replace(course.training, seed=seed))
    recommender.embed(catalogue.items)
    recommender.update(valid.interactions)
    return recommender


def asked(recommender: Recommender, course: Course, since: float, until: float) -> pd.DataFrame:
    """One row of measures a person, over what was taken in a period."""
    catalogue, log = course.catalogue, course.catalogue.interactions
    columns = list(catalogue.schema.context) if course.config.context else []
    liked = catalogue.event_weights > 0
    moments = log["timestamp"]

    def score(queries: pd.DataFrame) -> np.ndarray:
        contexts = pd.DataFrame(queries[columns]).to_dict("records") if columns else None
        people = queries["user_id"].tolist()
        return recommender.score(people, catalogue.item_ids, context=contexts, on_unknown="cold")

    return evaluate_ranking(
        score,
        log.loc[liked & (moments >= since) & (moments < until)],
        known=log.loc[moments < since],
        item_ids=catalogue.item_ids,
        context_columns=columns,
    ).per_user


def follow(
    course: Course, seed: int, out: Path, *, anew: int, tune_every: int
) -> tuple[dict[str, list[Told]], list[float]]:
    """Method → what it reached, period by period; and what each fine-tune did to the old (after less before).

    `anew`: how many of the last periods are also asked of a model that is trained anew.
    """
    start = time.process_time(), time.perf_counter()
    first = trained(course, course.cut, seed)
    used, wall = time.process_time() - start[0], time.perf_counter() - start[1]
    print(f"trained at the cut in {wall:.0f} s ({used:.0f} s of a processor)", flush=True)
    folder = first.save(out / "model")
    updated, tuned = (Recommender.load(folder, device="cpu") for _ in range(2))
    log = course.catalogue.interactions
    forgotten: list[float] = []

    def tune(batch: pd.DataFrame, period: int) -> Recommender:
        report = tuned.update(batch, fine_tune=None if period % tune_every else FineTune(seed=seed)).fine_tune
        if report is not None and report.ndcg_before is not None and report.ndcg_after is not None:
            forgotten.append(report.ndcg_after - report.ndcg_before)
        return tuned

    def update(batch: pd.DataFrame) -> Recommender:
        updated.update(batch)
        return updated

    found: dict[str, list[Told]] = {}
    for period in range(1, course.num_periods + 1):
        since = course.cut + period * course.days * 86_400
        before, until = since - course.days * 86_400, since + course.days * 86_400
        batch = log.loc[(log["timestamp"] >= before) & (log["timestamp"] < since)]
        ways: Mapping[str, Callable[[], Recommender]] = {
            STALE: lambda: first,
            UPDATED: lambda batch=batch: update(batch),
            TUNED: lambda batch=batch, period=period: tune(batch, period),
            ANEW: lambda since=since: trained(course, since, seed),
        }
        for name, tell in ways.items():
            if name == ANEW and period <= course.num_periods - anew:
                continue
            start = time.process_time(), time.perf_counter()
            recommender = tell()
            spent = time.perf_counter() - start[1], time.process_time() - start[0]
            # On a day when nobody did anything there is nobody to ask.
            is_quiet = log.loc[(log["timestamp"] >= since) & (log["timestamp"] < until)].empty
            per_user = pd.DataFrame(columns=["ndcg@10"]) if is_quiet else asked(recommender, course, since, until)
            found.setdefault(name, []).append(Told(period, per_user, *spent))
            print(f"period {period}, {len(batch)} events, {name}: NDCG@10 {per_user['ndcg@10'].mean():.4f}", flush=True)
            if name == ANEW:
                recommender.close()
    return found, forgotten


def returning(course: Course) -> list[list[str]]:
    """Of each period, who did something between the cut and its beginning."""
    log = course.catalogue.interactions
    ends = [course.cut + period * course.days * 86_400 for period in range(1, course.num_periods + 1)]
    return [sorted(set(log["user_id"][(log["timestamp"] >= course.cut) & (log["timestamp"] < end)])) for end in ends]


def table(course: Course, runs: Sequence[tuple[dict[str, list[Told]], list[float]]], *, tune_every: int) -> str:
    """A row a method; seconds of the fine-tune's are of those updates that had one."""
    back = returning(course)
    lines = [
        "| | NDCG@10 | over stale | NDCG@10, returning | over stale | seconds | of a processor |",
        "|---|---|---|---|---|---|---|",
    ]
    sizes: list[int] = []
    for name in runs[0][0]:
        told = [each for found, _ in runs for each in found[name]]
        periods = {each.period for each in told}
        stale = [each for found, _ in runs for each in found[STALE] if each.period in periods]
        label = name if len(periods) == course.num_periods else f"{name}, last of {course.num_periods} periods only"
        cells: list[str] = []
        for only in (None, back):
            mine, theirs = _people(told, only), _people(stale, only)
            sizes.append(len(mine))
            cells.append(f"{mine['ndcg@10'].mean():.4f}")
            difference = paired_difference(Evaluation(mine, 0), Evaluation(theirs, 0), "ndcg@10")
            cells.append("" if name == STALE else str(difference))
        paid = [each for each in told if name != TUNED or each.period % tune_every == 0]
        spent = [np.median([each.seconds for each in paid]), np.median([each.processor_seconds for each in paid])]
        cells += ["" if name == STALE else f"{each:.1f}" for each in spent]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    forgotten = [each for _, own in runs for each in own]
    lines.append(
        f"\n{sizes[0]} people, {sizes[1]} of them returning; {course.num_periods} periods of {course.days:.0f} days, "
        f"{len(runs)} seeds. Old, after less before: {np.mean(forgotten):+.4f}."
    )
    return "\n".join(lines)


def _people(told: Sequence[Told], back: Sequence[Sequence[str]] | None) -> pd.DataFrame:
    """Each person's mean over periods and seeds; of those only who came back, where they are given."""
    frames = [
        each.per_user if back is None else each.per_user.loc[each.per_user.index.isin(list(back[each.period - 1]))]
        for each in told
    ]
    return pd.DataFrame(pd.concat(frames).groupby(level=0).mean())


def main(arguments: list[str] | None = None) -> None:
    """Follow each catalogue and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/updating"))
    names = ["product", "music", "video", "movielens-100k"]
    parser.add_argument("--catalogues", nargs="+", choices=names, default=names)
    parser.add_argument("--periods", type=int, default=4)
    parser.add_argument("--anew", type=int, default=4, help="train anew for so many of the last periods")
    parser.add_argument("--tune-every", type=int, default=1, help="periods from one fine-tune to the next")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.catalogues:
        chosen = course(name, options.source, options.out, options.periods)
        runs = [
            follow(chosen, seed, options.out / f"{name}-{seed}", anew=options.anew, tune_every=options.tune_every)
            for seed in options.seeds
        ]
        print(f"\n{name}\n\n{table(chosen, runs, tune_every=options.tune_every)}\n", flush=True)


if __name__ == "__main__":
    main()
