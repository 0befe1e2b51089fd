"""Whether explanations name what was planted, on the three sample catalogues.

    python benchmarks/explaining.py --out runs/explaining

A sample's utility is a sum over planted parts, so that it is known why a person wants an item here and now. A case is a
person in the context of a test event with an item that they then took (`taken`), or one of the ten that the model
ranks first (`shown`), where one part decides: what it adds beyond the mean item, above 1, is at least twice what all
other parts that speak for the item add together. Beside it the looser `ahead`: at least twice what any other part
adds. Named first is the part with the largest contribution. Two judges: `log`, the learnable oracle, knows what was
planted in the items and infers tastes from the log that the model read; `truth` knows the tastes, some of which
nothing in the log tells. How far the model learned a part is the correlation of its contributions with what is
planted, over all explanations of a catalogue: an explanation can be right about a model that is not.

Additivity: the largest distance between the sum of contributions, or of sources, and the score less the neutral one.
A model is trained as the demo does, once, and kept in `--out`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from multimodal_rec import Catalogue, Explanation, Recommender, TrainingConfig, default_config, write_sample
from multimodal_rec.oracle import Oracle
from multimodal_rec.planting import PARTS, Kind, Planted, context_sign, traits_of
from multimodal_rec.samples import read_planted
from multimodal_rec.splits import Split

KINDS: tuple[Kind, ...] = ("product", "music", "video")
MARGIN, LEAST = 2.0, 1.0
DECIDES = 2 / 3


class Case(NamedTuple):
    """One explanation, and why it should be."""

    kind: str
    population: str
    judge: str
    cause: str
    named: str
    share: float
    """The cause's share of all that speaks for the item."""
    flips_with: str | None
    named_column: str | None


class Measured(NamedTuple):
    """What the explanations of one catalogue were like."""

    cases: list[Case]
    largest_error: float
    milliseconds: list[float]
    learned: dict[str, float]
    """Part → correlation of contributions with what is planted, by the judge `log`."""


def model_of(kind: Kind, out: Path, seed: int) -> tuple[Recommender, Split, Planted]:
    """The sample's recommender, trained as the demo trains it, or as it was kept."""
    sample, folder = out / "samples" / kind, out / "models" / kind
    catalogue = Catalogue.read(sample) if sample.exists() else write_sample(kind, sample, seed=seed)
    split = catalogue.split("time", valid=0.1, test=0.1)
    if folder.exists():
        return Recommender.load(folder, device="cpu"), split, read_planted(sample)
    recommender = Recommender(default_config(catalogue.schema))
    training = TrainingConfig(seed=seed, cache_dir=str(out / "cache"), progress=False)
    recommender.fit(split.train, valid=split.valid, training=training)
    recommender.embed(split.test.items)
    recommender.save(folder)
    return recommender, split, read_planted(sample)


def planted_parts(planted: Planted, tastes: dict[str, np.ndarray], queries: pd.DataFrame) -> dict[str, np.ndarray]:
    """Part → what it adds to each utility beyond the mean item that has it, (query, item), NaN where absent."""
    people = [planted.user_ids.index(user_id) for user_id in queries["user_id"]]
    added: dict[str, np.ndarray] = {}
    for part in PARTS[planted.kind]:
        wish = part.weight * context_sign(queries, part)[:, None] * tastes[part.name][people]
        values = wish @ traits_of(planted.items, part).T
        if part.name == "co-consumption":
            # What everybody likes and what a community takes is told by behaviour alone.
            values = np.where(planted.items["late"], np.nan, values + planted.items["popularity"].to_numpy())
            added["behaviour"] = values - np.nanmean(values, axis=1, keepdims=True)
            continue
        has = planted.items.get(f"has_{part.name}")
        values = values if has is None else np.where(has, values, np.nan)
        added[part.name] = values - np.nanmean(values, axis=1, keepdims=True)
    return added


def measure(kind: Kind, out: Path, *, seed: int, events: int) -> Measured:
    """Explanations of a catalogue's test events beside what was planted."""
    recommender, split, planted = model_of(kind, out, seed)
    queries = split.test.interactions.iloc[:events].reset_index(drop=True)
    log = pd.concat([split.train.interactions, split.valid.interactions], ignore_index=True)
    judges = {"log": Oracle.learnable(planted, log).tastes, "truth": Oracle.true(planted).tastes}
    added = {judge: planted_parts(planted, tastes, queries) for judge, tastes in judges.items()}
    flips = {part.name: part.flips_with for part in PARTS[kind]}
    columns = {item_id: column for column, item_id in enumerate(planted.items["item_id"])}
    cases: list[Case] = []
    errors: list[float] = []
    spent: list[float] = []
    pairs: list[tuple[str, float, float]] = []
    for row, query in enumerate(queries.to_dict("records")):
        context = {name: query[name] for name in split.test.schema.context}
        shown, _ = recommender.recommend([query["user_id"]], k=10, context=context)
        asked = [query["item_id"], *(item_id for item_id in shown[0] if item_id is not None)]
        begun = time.perf_counter()
        explanations = recommender.explain(query["user_id"], asked, context=context)
        spent.append((time.perf_counter() - begun) * 1000 / len(asked))
        for place, explanation in enumerate(explanations):
            distance = explanation.score - explanation.neutral
            sums = (sum(explanation.contributions.values()), sum(explanation.sources.values()))
            errors += [abs(total - distance) for total in sums]
            for judge, parts in added.items():
                values = {name: value[row, columns[asked[place]]] for name, value in parts.items()}
                if judge == "log":
                    there = [name for name in explanation.similar if not np.isnan(values[name])]
                    pairs += [(name, explanation.contributions[name], values[name]) for name in there]
                cause = deciding(values)
                if cause is not None:
                    population = "taken" if place == 0 else "shown"
                    share = values[cause] / sum(value for value in values.values() if value > 0)
                    cases.append(_case((kind, population, judge, cause), share, explanation, flips.get(cause)))
    learned: dict[str, float] = {}
    for part in dict.fromkeys(pair[0] for pair in pairs):
        found, wished = (np.array([pair[column] for pair in pairs if pair[0] == part], float) for column in (1, 2))
        found, wished = found - found.mean(), wished - wished.mean()
        learned[part] = float((found * wished).sum() / np.sqrt((found**2).sum() * (wished**2).sum()))
    return Measured(cases, max(errors), spent, learned)


def deciding(added: dict[str, float]) -> str | None:
    """The part that is ahead of all others, or None where none is."""
    known = sorted(((value, name) for name, value in added.items() if not np.isnan(value)), reverse=True)
    (first, name), second = known[0], known[1][0]
    return name if first > LEAST and first >= MARGIN * max(second, 0.0) else None


def _case(about: tuple[str, str, str, str], share: float, explanation: Explanation, flips: str | None) -> Case:
    there = {name: explanation.contributions[name] for name in explanation.similar}
    cause = about[-1]
    told = {name: explanation.table[cause][name] for name in explanation.context if cause in explanation.table}
    return Case(
        *about,
        max(there, key=lambda name: there[name]),
        share,
        flips,
        max(told, key=lambda name: told[name], default=None),
    )


def table(cases: pd.DataFrame, judge: str) -> str:
    """Share of the cases in which the planted cause is named first, by catalogue and cause, as markdown."""
    rows = ["| catalogue | cause | taken | shown | ahead: taken | ahead: shown |", "|---|---|---|---|---|---|"]
    of_judge = cases.loc[cases["judge"] == judge]
    for kind in [*KINDS, "all"]:
        of_kind = of_judge if kind == "all" else of_judge.loc[of_judge["kind"] == kind]
        causes = [] if kind == "all" else sorted(of_kind["cause"].unique())
        groups = {cause: of_kind.loc[of_kind["cause"] == cause] for cause in causes}
        modality = ~of_kind["cause"].isin(["attributes", "behaviour"])
        groups |= {"**a modality**": of_kind.loc[modality], "any part": of_kind}
        for name, group in groups.items():
            found = [group.loc[group["population"] == population] for population in ("taken", "shown")]
            strict = [each.loc[each["share"] >= DECIDES] for each in found]
            rows.append(f"| {kind} | {name} | " + " | ".join(map(_share, [*strict, *found])) + " |")
    return "\n".join(rows)


def _share(cases: pd.DataFrame) -> str:
    return f"{(cases['named'] == cases['cause']).mean():.3f} of {len(cases)}" if len(cases) else "none"


def main(arguments: list[str] | None = None) -> None:
    """Train what is not there, explain, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/explaining"))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--events", type=int, default=450, help="test events a catalogue")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    measured = {kind: measure(kind, options.out, seed=options.seed, events=options.events) for kind in options.kinds}
    cases = pd.DataFrame([case for each in measured.values() for case in each.cases], columns=list(Case._fields))
    cases.to_parquet(options.out / "cases.parquet")
    for judge in ("log", "truth"):
        print(f"Judge: {judge}\n{table(cases, judge)}\n")
    turned = cases.loc[(cases["judge"] == "log") & cases["flips_with"].notna() & (cases["named"] == cases["cause"])]
    right = (turned["named_column"] == turned["flips_with"]).mean()
    print(f"of {len(turned)} causes that a context column turns round and that were named: column right {right:.3f}")
    for kind, each in measured.items():
        print(f"{kind}, learned: " + ", ".join(f"{part} {value:.2f}" for part, value in each.learned.items()))
        print(
            f"{kind}: additivity within {each.largest_error:.1e}; {np.median(each.milliseconds):.1f} ms an item "
            f"(median of {len(each.milliseconds)} calls of 11 items)"
        )


if __name__ == "__main__":
    main()
