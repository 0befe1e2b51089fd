"""Does tuning pay? Each way of tuning a tower, on things that its backbone was not trained for.

    python benchmarks/tuning.py --source ../shared/data --out runs/tuning

`photos`: a ViT that knows `subCategory` from one half of the `fashion` photos (`benchmarks/pretraining.py`) learns
`articleType` and `baseColour` of the other half, both at once; accuracy on held-out products. `music`: a ViT that
knows genres from one half of the `emotify` tracks learns which of nine feelings the other half gave its listeners, and
whether they liked it; AUC on held-out tracks, in four folds. `titles`: MiniLM learns from all co-purchases of 2,240
titles which of 915 others a person buys next, given what MiniLM as it is makes of what they bought before; NDCG@10,
each title counting once (`title_lessons.py`).

`frozen` trains the projection and the head until validation is best. All others start from there, so that what they
add is the backbone's doing. Learning rate (first seed) and epoch (every seed) are chosen on a validation part, which is
the same in every fold; the test part is read once a run. A run is a JSON file in `--out`; what is there is not run
again, delete it to start over.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tuning_tasks import FEELINGS, MAX_TOKENS, TASKS, Part, Task

from multimodal_rec.builders import build_tower
from multimodal_rec.config import TowerConfig
from towers import Tower

TUNINGS = ("frozen", "side", "lora", "dora", "adalora", "bottleneck", "full")
HEAD_RATE = 1e-3
MEASURES = {
    "photos: articleType, accuracy": ("photos", ("articleType",)),
    "photos: baseColour, accuracy": ("photos", ("baseColour",)),
    "music: nine feelings, AUC": ("music", FEELINGS),
    "music: liked, AUC": ("music", ("liked",)),
    "titles: next item, NDCG@10": ("titles", ("next",)),
}
"""Columns of the table: of which task, the mean of which of its measures."""


class Bench:
    """One task's inputs, prepared once, and what a kept backbone makes of them, computed once."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self._prepared: list[dict[str, Tensor]] = []
        self._kept: dict[str, tuple[Tensor, Tensor]] = {}

    def tower(self, tuning: str, seed: int) -> Tower:
        """A fresh tower over the task's backbone; its projection changes nothing at first where no head follows."""
        task = self.task
        kind: dict[str, Any] = {"tuning": tuning}
        if tuning not in ("frozen", "full"):
            kind = {"tuning": "adapter", "adapter": tuning}
        config = TowerConfig(task.backbone, max_windows=task.max_windows, max_tokens=MAX_TOKENS, **kind)
        tower = build_tower(config, embedding_dim=task.embedding_dim, seed=seed)
        if task.num_outputs is None:
            linear = tower.projection[-1]
            nn.init.eye_(linear.get_parameter("weight"))
            nn.init.zeros_(linear.get_parameter("bias"))
        return tower

    def embed(self, tower: Tower, items: Tensor) -> Tensor:
        """Embeddings (..., dim) of inputs (...), each distinct one computed once."""
        distinct, where = items.unique(return_inverse=True)
        if not self._prepared:
            self._prepared = [tower.prepare_one(value) for value in self.task.inputs]
        if not tower.keeps_backbone:
            batch = tower.collate([self._prepared[index] for index in distinct.tolist()])
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.task.bfloat16 and tower.training):
                embeddings = tower(batch)
            return embeddings.float()[where]
        kind = tower.adapter or tower.tuning
        if kind not in self._kept:
            with torch.no_grad():
                pieces = [
                    tower.features(tower.collate(self._prepared[start : start + 64]))
                    for start in range(0, len(self._prepared), 64)
                ]
            features, present = zip(*pieces, strict=True)
            self._kept[kind] = torch.cat(features), torch.cat(present)
        features, present = self._kept[kind]
        return tower.project(features[distinct], present[distinct])[where]

    @torch.no_grad()
    def measure(self, tower: Tower, head: nn.Module, part: Part) -> dict[str, float]:
        """The task's measures on one part, in evaluation mode."""
        tower.eval()
        items, labels = part
        distinct, where = items.unique(return_inverse=True)
        embeddings = torch.cat([self.embed(tower, piece) for piece in distinct.split(64)])
        return self.task.score(head(embeddings)[where], labels)


class Fitted(NamedTuple):
    """What training on one fold reached."""

    valid: float
    """Mean of the measures on the validation part."""
    epoch: int
    """After which validation was best; the rest was for nothing."""
    trained: int
    """Weights of the backbone, or beside it, that learned."""
    test: dict[str, float]
    """Measures by name, with the weights of that epoch."""


def run(bench: Bench, tuning: str, rate: float, seed: int, start: Path) -> dict[str, Any]:
    """What a way of tuning reached, the mean over folds. `start`: as in `fit`, of the first fold."""
    started = time.perf_counter()
    starts = [start, *(start.with_stem(f"{start.stem}-{fold}") for fold in range(1, len(bench.task.folds)))]
    fits = [
        fit(bench, parts, tuning=tuning, rate=rate, seed=seed, start=own)
        for parts, own in zip(bench.task.folds, starts, strict=True)
    ]
    return {
        "task": bench.task.name,
        "tuning": tuning,
        "rate": rate,
        "seed": seed,
        "valid": float(np.mean([each.valid for each in fits])),
        "epoch": float(np.mean([each.epoch for each in fits])),
        "trained": fits[0].trained,
        "test": {name: float(np.mean([each.test[name] for each in fits])) for name in fits[0].test},
        "seconds": time.perf_counter() - started,
    }


def fit(bench: Bench, parts: dict[str, Part], *, tuning: str, rate: float, seed: int, start: Path) -> Fitted:
    """Train on one fold. `start`: the file of the head that `frozen` found, which `frozen` itself writes."""
    task = bench.task
    tower = bench.tower(tuning, seed)
    torch.manual_seed(seed)
    head = nn.Identity() if task.num_outputs is None else nn.Linear(task.embedding_dim, task.num_outputs)
    ends = nn.ModuleDict({"projection": tower.projection, "head": head})
    groups = [{"params": list(ends.parameters()), "lr": rate if tuning == "frozen" else HEAD_RATE}]
    if tuning != "frozen":
        ends.load_state_dict(load_file(start))
        groups.append({"params": tower.backbone_parameters(), "lr": rate})
    optimiser = torch.optim.AdamW(groups, weight_decay=0.01)
    train = parts["train"]
    epochs = {"frozen": task.frozen_epochs, "side": task.side_epochs}.get(tuning, task.epochs)
    steps = epochs * -(-len(train.items) // task.batch_size)
    # A tenth of the steps up, the rest down towards zero.
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / (0.1 * steps + 1), (steps - step) / (0.9 * steps))
    )
    tower.set_total_steps(steps)
    learned = [each for group in groups for each in group["params"]]
    best, best_epoch, kept = -1.0, -1, [each.detach().clone() for each in learned]
    for epoch in range(epochs):
        tower.train()
        for rows in torch.randperm(len(train.items)).split(task.batch_size):
            items = train.items[rows]
            if task.one_slot:
                items = items.gather(1, torch.randint(items.shape[1], (len(items), 1)))
            loss = task.loss(head(bench.embed(tower, items)), train.labels[rows]) + tower.penalty()
            loss.backward()
            optimiser.step()
            tower.after_step()
            optimiser.zero_grad()
            schedule.step()
        if (epoch + 1) % task.measured_every:
            continue
        valid = float(np.mean(list(bench.measure(tower, head, parts["valid"]).values())))
        if valid > best:
            best, best_epoch, kept = valid, epoch + 1, [each.detach().clone() for each in learned]
    with torch.no_grad():
        for weight, value in zip(learned, kept, strict=True):
            weight.copy_(value)
    if tuning == "frozen":
        save_file(ends.state_dict(), start)
    trained = sum(each.numel() for each in tower.backbone_parameters())
    return Fitted(best, best_epoch, trained, bench.measure(tower, head, parts["test"]))


def run_all(task: Task, out: Path, tunings: list[str], seeds: int) -> None:
    """Write every run of a task that is not in `out` yet: all rates with the first seed, the best one with the rest."""
    bench = Bench(task)
    rates: dict[str, float] = {}
    tried = {"frozen": task.frozen_rates, "side": task.side_rates, "full": task.full_rates}
    for tuning in tunings:
        found: dict[float, float] = {}
        for seed in range(seeds):
            for rate in tried.get(tuning, task.adapter_rates) if seed == 0 else (max(found, key=found.__getitem__),):
                file = out / f"{task.name}-{tuning}-{rate:g}-{seed}.json"
                if not file.is_file():
                    own = rate if tuning == "frozen" else rates["frozen"]
                    start = out / f"{task.name}-head-{own:g}-{seed}.safetensors"
                    file.write_text(json.dumps(run(bench, tuning, rate, seed, start)))
                result = json.loads(file.read_text())
                found[rate] = result["valid"] if seed == 0 else found[rate]
                print(file.stem, {name: round(value, 4) for name, value in result["test"].items()}, flush=True)
        rates[tuning] = max(found, key=found.__getitem__)


def table(out: Path) -> str:
    """Every measure by tuning, mean ± standard deviation over seeds, and below it the differences from `frozen`."""
    results = [json.loads(file.read_text()) for file in sorted(out.glob("*.json"))]
    rates: dict[tuple[str, str], float] = {}
    # Ascending, so that the best stays; of equals the smaller rate, as in `run_all`.
    for each in sorted(results, key=lambda each: (each["valid"], -each["rate"])):
        if each["seed"] == 0:
            rates[each["task"], each["tuning"]] = each["rate"]
    values: dict[tuple[str, str], dict[int, float]] = {}
    for each in results:
        # The rate that validation chose; of the others only the first seed was run.
        if each["rate"] == rates.get((each["task"], each["tuning"])):
            for column, (task, names) in MEASURES.items():
                if each["task"] == task:
                    value = float(np.mean([each["test"][name] for name in names]))
                    values.setdefault((each["tuning"], column), {})[each["seed"]] = value
    columns = [column for column in MEASURES if ("frozen", column) in values]
    lines = [f"| tuning | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for tuning in TUNINGS:
        cells = [_cell(list(values.get((tuning, column), {}).values())) for column in columns]
        lines.append(f"| {tuning} | {' | '.join(cells)} |")
    for tuning in TUNINGS[1:]:
        cells = []
        for column in columns:
            frozen = values["frozen", column]
            cells.append(_cell([v - frozen[s] for s, v in values.get((tuning, column), {}).items() if s in frozen]))
        lines.append(f"| {tuning} - frozen | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(values: list[float]) -> str:
    if not values:
        return "-"
    spread = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
    return f"{np.mean(values):.4f}{spread}"


def main(arguments: list[str] | None = None) -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=Path("../shared/data"), help="folder of the three catalogues")
    parser.add_argument("--out", type=Path, default=Path("runs/tuning"), help="where runs and networks are kept")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--tunings", nargs="+", choices=TUNINGS, default=list(TUNINGS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--share", type=float, default=1.0, help="of inputs and epochs: below 1 for a trial")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    # Whatever else is asked for starts from what frozen found.
    tunings = [tuning for tuning in TUNINGS if tuning == "frozen" or tuning in options.tunings]
    for name in options.tasks:
        task = TASKS[name](options.source, options.out / "pretrained", options.share)
        if options.share < 1:
            task = task._replace(epochs=2, side_epochs=2, frozen_epochs=2, measured_every=1)
        run_all(task, options.out, tunings, options.seeds)
    print(table(options.out))


if __name__ == "__main__":
    main()
