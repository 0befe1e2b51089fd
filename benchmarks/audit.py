"""What every part of a catalogue is worth, on the samples, on one whose pictures are shuffled, and on real data.

    python benchmarks/audit.py --only product product-shuffled --data ../shared/data

`product-shuffled` is the product sample with its pictures dealt out anew among the items before anything else: an
audit that finds them useful would be wrong. Each training run is kept in --out; what is there is not run again.
Prints each audit and the README's table.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from real_data import MINILM, POSTER, prepared
from run import KINDS, sample

from multimodal_rec import RecommenderConfig, TowerConfig, TrainingConfig, default_config
from multimodal_rec.evaluation.audit import Audit, audit_parts
from multimodal_rec.evaluation.tampering import shuffled
from multimodal_rec.samples import Kind
from multimodal_rec.splits import Split

REAL = TrainingConfig(epochs=3, batch_size=1024, progress=False)
"""Real logs are ten times as long as the samples': three epochs of larger steps are as many steps."""


def movielens(how: str, data: Path, out: Path) -> tuple[Split, RecommenderConfig]:
    whole = prepared("movielens-100k", data, out)
    split = whole.split("last") if how == "last" else whole.split("cold_items", valid=0.1, test=332 / 1662)
    return split, RecommenderConfig({"text": MINILM, "image": POSTER}, context=False, history_length=30)


def lastfm(data: Path, out: Path) -> tuple[Split, RecommenderConfig]:
    split = prepared("lastfm-2k", data, out).split("label", column="x_label")
    return split, RecommenderConfig({"text": TowerConfig("vectors:"), "audio": TowerConfig("vectors:")})


def run(name: str, data: Path, out: Path, seeds: int) -> Audit:
    """One audit."""
    training = TrainingConfig(progress=False)
    samples: dict[str, Kind] = {"product-shuffled": "product", **{kind: kind for kind in KINDS}}
    if name in samples:
        split = sample(samples[name], out).split("time", valid=0.1, test=0.1)
        config = default_config(split.test.schema)
        if name != samples[name]:
            split = shuffled(split, "image", seed=1)
    elif name == "lastfm-2k":
        (split, config), training = lastfm(data, out), REAL
    else:
        (split, config), training = movielens(name.removeprefix("movielens-"), data, out), REAL
    return audit_parts(
        split,
        config,
        training=training,
        seeds=range(seeds),
        out=out / name,
        report=lambda line: print(line, flush=True),
    )


def main() -> None:
    names = [*KINDS, "product-shuffled", "movielens-last", "movielens-cold", "lastfm-2k"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the real catalogues")
    parser.add_argument("--out", type=Path, default=Path("runs/audit"), help="where runs and catalogues are kept")
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    for name in arguments.only:
        print(f"{name}:", flush=True)
        print(run(name, arguments.data, arguments.out, arguments.seeds), flush=True)


if __name__ == "__main__":
    main()
