"""Does content help? The same model trained with each part alone, without it, and with it made meaningless.

Recommenders that read pictures often rank no better with them than with shuffled ones, and nobody looks. The audit
trains the configuration once as it is and once for every way of taking a part away (`ablations.variants`), judges all
of them on the same test part, and says in words what each part was worth.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from multimodal_rec.config import RecommenderConfig, TrainingConfig
from multimodal_rec.errors import ConfigError, SplitError
from multimodal_rec.evaluation.ablations import FULL, IDS_ONLY, Variant, variants
from multimodal_rec.evaluation.significance import compare_runs
from multimodal_rec.recommender import Recommender
from multimodal_rec.splits import Split

METRIC = "ndcg@10"
SIGNIFICANT = 0.05
"""A difference whose Holm-adjusted p-value is below this is called one."""

FEWEST_PEOPLE = 20
"""Late items are reported where at least so many people took any: of fewer, an interval over people says nothing."""

_AMONG = {"all": "Among all items", "late": "Among late items"}


class _Reached(NamedTuple):
    """What one variant reached; an instance is a run to `compare_runs`."""

    per_user: pd.DataFrame
    """Index user_id; columns 'all' and, where there are late items, 'late': NDCG@10, mean over seeds."""
    spread: float
    """Standard deviation over seeds of the mean among all items; NaN for one seed."""


@dataclass(frozen=True, eq=False)
class Audit:
    """What every part of a catalogue was worth to one configuration."""

    table: pd.DataFrame
    """Index (among, variant), 'all' items and 'late' ones (where `FEWEST_PEOPLE` took any): NDCG@10 (mean), its spread
    over seeds, the difference to everything with its 95% interval (low, high), p-values as of `compare_runs`."""
    sentences: tuple[str, ...]
    """The same in words, a sentence a part."""

    def rows(self) -> list[dict[str, Any]]:
        """The table as plain rows: among, variant and six numbers, NaN where there is none."""
        columns = ["mean", "spread", "difference", "low", "high", "p_bootstrap_holm"]
        return self.table[columns].reset_index().to_dict("records")

    def to_dict(self) -> dict[str, Any]:
        """Rows and sentences as plain values."""
        return {"rows": self.rows(), "sentences": list(self.sentences)}

    def __str__(self) -> str:
        return "\n".join([pd.DataFrame(self.rows()).round(4).to_string(index=False, na_rep=""), *self.sentences])


def audit_parts(
    split: Split,
    config: RecommenderConfig,
    *,
    training: TrainingConfig | None = None,
    seeds: Sequence[int] = (0,),
    out: str | Path | None = None,
    only: Sequence[str] | None = None,
    report: Callable[[str], None] | None = None,
) -> Audit:
    """Train every variant with every seed and compare all of them with the configuration as it is.

    Epochs are chosen on `split.valid`; the test part is read once a run. `out`: folder in which each run is kept as a
    JSON file, so that an audit that was stopped goes on where it was. `only`: names of variants, to which the whole
    configuration is added. `report` is told each run as it ends. Raises `ConfigError` for an unknown variant.
    """
    training = replace(TrainingConfig() if training is None else training, checkpoint_dir=None)
    known = {variant.name: variant for variant in variants(split, config)}
    for name in only or ():
        if name not in known:
            raise ConfigError(f"there is no variant '{name}'. Expected one of {', '.join(map(repr, known))}.")
    chosen = [each for name, each in known.items() if only is None or name in (FULL, *only)]
    reached: dict[str, _Reached] = {}
    for variant in chosen:
        frames: list[pd.DataFrame] = []
        for seed in seeds:
            path = None if out is None else Path(out) / f"{variant.name.replace(' ', '-')}-seed-{seed}.json"
            frames.append(_run(variant, replace(training, seed=seed), path))
            if report is not None:
                report(f"{variant.name}, seed {seed}: NDCG@10 {frames[-1]['all'].to_numpy().mean():.4f}")
        means = [frame["all"].to_numpy().mean() for frame in frames]
        spread = float(np.std(means, ddof=1)) if len(means) > 1 else float("nan")
        reached[variant.name] = _Reached(pd.DataFrame(pd.concat(frames).groupby(level=0).mean()), spread)
    table = _table(reached)
    return Audit(table, tuple(_sentences(table, chosen)))


def _run(variant: Variant, training: TrainingConfig, path: Path | None) -> pd.DataFrame:
    if path is not None and path.exists():
        return pd.DataFrame(json.loads(path.read_text(encoding="utf-8"))).rename_axis("user_id")
    split, config = variant.make(training.seed)
    # What a variant cannot read stays a candidate: everybody is asked the same questions.
    recommender = Recommender(config).fit(split.train, valid=split.valid, training=training, on_error="quarantine")
    late = sorted(set(split.test.item_ids) - set(split.valid.item_ids))
    columns = {"all": recommender.evaluate(split.test).per_user[METRIC]}
    # Late items that nobody took in the test part give nothing to rank.
    with suppress(SplitError):
        if late:
            columns["late"] = recommender.evaluate(split.test, candidates=late).per_user[METRIC]
    recommender.close()
    values = pd.DataFrame(columns)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Whole or not at all: a run that was cut off while writing is run again.
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps({name: column.dropna().to_dict() for name, column in columns.items()}))
        partial.replace(path)
    return values


def _table(reached: Mapping[str, _Reached]) -> pd.DataFrame:
    # Late items are what content is for, so both questions are asked, each with its own correction for many tests.
    tables = {
        among: compare_runs(reached, against=FULL, metrics=(among,)).droplevel("metric")
        for among in reached[FULL].per_user.columns
        if among == "all" or reached[FULL].per_user[among].notna().to_numpy().sum() >= FEWEST_PEOPLE
    }
    table = pd.concat(tables, names=["among", "variant"])
    spread = [reached[str(name)].spread if among == "all" else float("nan") for among, name in table.index]
    table.insert(1, "spread", spread)
    return table


def _sentences(table: pd.DataFrame, chosen: Sequence[Variant]) -> list[str]:
    sentences: list[str] = []
    for among in dict.fromkeys(table.index.get_level_values("among")):
        rows = table.xs(among, level="among").to_dict("index")
        for part in dict.fromkeys(variant.part for variant in chosen if variant.part):
            said = _verdict(part, rows)
            if said is not None:
                sentences.append(f"{_AMONG[str(among)]}: {said}")
    return sentences


def _verdict(part: str, rows: Mapping[str, Mapping[str, float]]) -> str | None:
    """What a part's rows say against everything; None where it was never taken away."""
    if part == "content":
        # The part of everything that is not behaviour.
        return f"all beside behaviour {_effect(rows[IDS_ONLY])}: {_gain(rows, IDS_ONLY)}." if IDS_ONLY in rows else None
    emptied = [name for name in (f"{part} shuffled", f"{part} noise") if name in rows]
    taken = [name for name in (f"without {part}", *emptied) if name in rows]
    if not taken:
        return None
    said = _effect(rows[taken[0]])
    if said == "helps" and emptied:
        # Shuffled, it would still tell items apart: only what is lost then was in what the content says.
        meant = _effect(rows[emptied[0]]) == "helps"
        said = "really helps" if meant else "helps no more than another item's content in its place would"
    return f"{part} {said}: {', '.join(_gain(rows, name) for name in taken)}."


def _effect(row: Mapping[str, float]) -> str:
    """What everything has beyond a row that lacks something, in a word."""
    if not row["p_bootstrap_holm"] < SIGNIFICANT:
        return "makes no difference that can be told from chance"
    return "helps" if row["difference"] < 0 else "hurts"


def _gain(rows: Mapping[str, Mapping[str, float]], name: str) -> str:
    row = rows[name]
    return f"{-row['difference']:+.4f} ({-row['high']:+.4f} to {-row['low']:+.4f}) over '{name}'"
