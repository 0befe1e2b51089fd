"""What tuning costs: BERT-base, ViT-B/16 and wav2vec 2.0 base in one model, by tuning, seconds and peak memory.

    python benchmarks/tower_costs.py
    python benchmarks/tower_costs.py --device cuda --batch-size 64 --items 256

The real networks at their real size, with random weights: cost does not depend on what weights are. Each row is a
process of its own, so that its peak memory is its own: on a CPU the peak resident size of the whole process, imports
included; on CUDA what torch's allocator had at most. Items are made up: a text of 64 tokens, a picture of 224 px,
three seconds of sound. A step takes a batch of items through all three towers: forward, sum of squares, backward,
AdamW. `frozen` and `side` come in two rows: filling the cache, once, through `FeatureCache`; and training from it,
with no backbone in memory. Each row is kept as a JSON file in --out, so that a run that was stopped goes on where it
was; delete the folder to measure again. Rows are measured --rounds times in turn, and medians printed.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from multimodal_rec.builders import build_tower
from multimodal_rec.config import TowerConfig
from multimodal_rec.feature_cache import FeatureCache
from towers import Sound
from towers.pooling import MeanPooling
from towers.side import SideNetwork

TUNINGS = ("full", "lora", "dora", "adalora", "bottleneck", "side", "frozen")
KEPT = ("frozen", "side")
ROWS = ("imports", *(f"fill-{name}" for name in KEPT), *TUNINGS)
DIMS, NUM_LAYERS = {"text": 768, "image": 768, "audio": 768}, 12
NUM_TOKENS, PICTURE_PX, CLIP_SECONDS, SAMPLE_RATE_HZ = 64, 224, 3.0, 16_000
EMBEDDING_DIM, RANK = 64, 8


def write_bert(folder: Path) -> None:
    """A folder with BERT-base's architecture and a vocabulary of as many words."""
    # Transformers' defaults are BERT-base. Asking it for them would import it, and its memory, into every row.
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertModel"]}))
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [f"w{index}" for index in range(30_522 - len(special))]
    (folder / "vocab.txt").write_text("\n".join([*special, *words]))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))


def value_of(modality: str, item: int) -> Any:
    """What one tower reads of one made-up item."""
    random = np.random.default_rng([item, len(modality)])
    if modality == "text":
        # Two of the tokens are BERT's own.
        return " ".join(f"w{word}" for word in random.integers(0, 30_000, NUM_TOKENS - 2))
    if modality == "image":
        return Image.fromarray(random.integers(0, 256, (PICTURE_PX, PICTURE_PX, 3), dtype=np.uint8))
    samples = random.uniform(-0.5, 0.5, (1, round(CLIP_SECONDS * SAMPLE_RATE_HZ))).astype(np.float32)
    return Sound(samples, SAMPLE_RATE_HZ)


def tower_of(modality: str, tuning: str, out: Path) -> Any:
    """One tower, tuned. Its weights are random, although the configuration speaks of pretrained ones."""
    backbone = {
        "text": f"hf:{out / 'bert-base'}",
        "image": "timm:vit_base_patch16_224",
        "audio": "torchaudio:WAV2VEC2_BASE",
    }[modality]
    kind: Any = {"full": ("full", "lora"), "frozen": ("frozen", "lora")}.get(tuning, ("adapter", tuning))
    config = TowerConfig(
        backbone, tuning=kind[0], adapter=kind[1], adapter_rank=RANK, max_windows=1, clip_seconds=CLIP_SECONDS
    )
    return build_tower(config, embedding_dim=EMBEDDING_DIM, seed=0, load_weights=False)


class Head(nn.Module):
    """What is left of a kept tower without its backbone: side network, pooling, projection.

    In a recommender the tower's `release_backbone` leaves just these; here the backbone is never built, because the
    peak would otherwise be that of building it.
    """

    def __init__(self, dim: int, tuning: str) -> None:
        super().__init__()
        self.side = SideNetwork(dim, [dim] * NUM_LAYERS, RANK) if tuning == "side" else nn.Identity()
        self.pooling = MeanPooling()
        self.projection = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, EMBEDDING_DIM))

    def forward(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        features, present = batch
        return self.projection(self.pooling(self.side(features), present))


class Seconds(NamedTuple):
    """A moment, or a duration, on two clocks."""

    wall: float
    processor: float
    """This process's own time, which others at work on the same machine disturb less."""

    @classmethod
    def now(cls, device: str) -> Seconds:
        if device != "cpu":
            torch.accelerator.synchronize()
        return cls(time.perf_counter(), time.process_time())

    def since(self, start: Seconds) -> Seconds:
        return Seconds(self.wall - start.wall, self.processor - start.processor)


def cast_on(device: str) -> Callable[[], AbstractContextManager[Any]]:
    """bf16 on a GPU, plain float32 on a CPU."""
    return nullcontext if device == "cpu" else lambda: torch.autocast(device, dtype=torch.bfloat16)


def fill(tuning: str, options: argparse.Namespace) -> dict[str, Any]:
    """Every item once through every backbone, into the cache."""
    cache = FeatureCache(options.out / "cache")
    seconds: list[Seconds] = []
    parameters = 0
    for modality in DIMS:
        tower = tower_of(modality, tuning, options.out).to(options.device).eval()
        parameters += sum(value.numel() for value in tower.parameters())
        batches = [
            (rows, tower.prepare([value_of(modality, row) for row in rows]).to(options.device))
            for rows in rows_of(options)
        ]
        with torch.inference_mode(), cast_on(options.device)():
            tower.features(batches[0][1])  # The first pass of a process is slower.
            start = Seconds.now(options.device)
            for rows, batch in batches:
                features = tower.features(batch)[0].float().cpu().numpy()
                cache.put(f"{tuning}{modality}", {f"{row}": each for row, each in zip(rows, features, strict=True)})
            seconds.append(Seconds.now(options.device).since(start))
        del tower, batches
    epoch = {clock: sum(getattr(each, clock) for each in seconds) for clock in Seconds._fields}
    return {"epoch_seconds": epoch, "parameters": parameters}


def train(tuning: str, options: argparse.Namespace) -> dict[str, Any]:
    """A warm-up step, then the steps of an epoch (or --steps of them)."""
    steps = list(range(len(list(rows_of(options)))))
    if tuning in KEPT:
        modules: dict[str, Any] = {modality: Head(dim, tuning).to(options.device) for modality, dim in DIMS.items()}
        batches = {modality: cached_batches(modality, tuning, options) for modality in DIMS}
        # From the cache an epoch is short: several make a duration that can be told.
        order = steps * max(1, 40 // len(steps))
    else:
        modules = {modality: tower_of(modality, tuning, options.out).to(options.device).train() for modality in DIMS}
        order = steps[: options.steps]
        batches = {
            modality: [
                tower.prepare([value_of(modality, row) for row in rows]).to(options.device)
                for rows in list(rows_of(options))[: options.steps]
            ]
            for modality, tower in modules.items()
        }
    model = nn.ModuleDict(modules)
    learning = [value for value in model.parameters() if value.requires_grad]
    optimiser = torch.optim.AdamW(learning, lr=1e-4)
    cast = cast_on(options.device)

    def step(index: int) -> Seconds:
        start = Seconds.now(options.device)
        optimiser.zero_grad()
        with cast():
            rows = [model[modality](batches[modality][index]) for modality in DIMS]
            loss = torch.stack([each.float().square().sum() for each in rows]).sum()
            if tuning == "adalora":
                loss = loss + sum(tower.penalty() for tower in modules.values())
        loss.backward()
        optimiser.step()
        if tuning == "adalora":
            for tower in modules.values():
                tower.after_step()
        return Seconds.now(options.device).since(start)

    step(0)
    seconds = [step(index) for index in order]
    median = {clock: statistics.median(getattr(each, clock) for each in seconds) for clock in Seconds._fields}
    return {
        "seconds_per_step": median,
        "epoch_seconds": {clock: value * len(steps) for clock, value in median.items()},
        "parameters": sum(value.numel() for value in model.parameters()),
        "trainable": sum(value.numel() for value in learning),
    }


def cached_batches(modality: str, tuning: str, options: argparse.Namespace) -> list[Any]:
    """The batches of an epoch as features and which windows are present, from the cache that `fill` filled."""
    cache = FeatureCache(options.out / "cache")
    batches: list[Any] = []
    for rows in rows_of(options):
        found = cache.get(f"{tuning}{modality}", [f"{row}" for row in rows])
        features = torch.from_numpy(np.stack([found[f"{row}"] for row in rows]).astype(np.float32))
        batches.append(
            (features.to(options.device), torch.ones(features.shape[:2], dtype=torch.bool).to(options.device))
        )
    return batches


def rows_of(options: argparse.Namespace) -> Iterator[range]:
    for start in range(0, options.items, options.batch_size):
        yield range(start, min(start + options.batch_size, options.items))


def one_row(row: str, options: argparse.Namespace) -> dict[str, Any]:
    """One row's figures, in this process."""
    torch.set_num_threads(options.threads)
    figures: dict[str, Any] = {}
    if row.startswith("fill-"):
        figures = fill(row.removeprefix("fill-"), options)
    elif row != "imports":
        figures = train(row, options)
    # Kilobytes on Linux, bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    figures["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    figures["device"] = "CPU" if options.device == "cpu" else torch.cuda.get_device_name()
    if options.device == "cuda":
        figures["peak_bytes"] = torch.cuda.max_memory_allocated()
    return figures


def table(options: argparse.Namespace) -> str:
    """The rows that were measured, medians over rounds."""
    rounds = {
        row: [json.loads(path.read_text()) for path in sorted(options.out.glob(f"{options.device}-{row}-*.json"))]
        for row in ROWS
    }

    def median(row: str, name: str) -> float | None:
        values = [each[name] for each in rounds[row] if name in each]
        return statistics.median(v[options.clock] if isinstance(v, dict) else v for v in values) if values else None

    lines = [f"{'':16} {'trainable':>10} {'s a step':>9} {'s an epoch':>10} {'peak MB':>8} {'faster':>8} {'memory':>7}"]
    slowest, most = median("full", "epoch_seconds"), median("full", "peak_bytes")
    for row in (name for name in ROWS if rounds[name]):
        step, epoch, peak = (median(row, name) for name in ("seconds_per_step", "epoch_seconds", "peak_bytes"))
        # A kept backbone is not among the parameters of the process that trains, but it is of the tower.
        whole = median(f"fill-{row}" if row in KEPT else row, "parameters")
        learn = median(row, "trainable")
        cells = (
            "" if learn is None or whole is None else f"{learn / whole:.3%}",
            "" if step is None else f"{step:.4g}",
            "" if epoch is None else f"{epoch:.4g}",
            "" if peak is None else f"{peak / 1e6:.0f}",
            "" if epoch is None or slowest is None else f"{slowest / epoch:.1f}x",
            "" if peak is None or most is None else f"1/{most / peak:.1f}",
        )
        lines.append(f"{row:16} " + " ".join(map(str.rjust, cells, (10, 9, 10, 8, 8, 7))))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/tower-costs"))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--items", type=int, default=32, help="of each modality, an epoch")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=3, help="at most so many timed steps through backbones")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=Seconds._fields, default="wall", help="of the table; both are kept")
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--row", choices=ROWS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row is not None:
        print(json.dumps(one_row(options.row, options)))
        return
    options.out.mkdir(parents=True, exist_ok=True)
    write_bert(options.out / "bert-base")
    for number in range(options.rounds):
        for row in (name for name in ROWS if name in options.only):
            path = options.out / f"{options.device}-{row}-{number}.json"
            if not path.exists():
                command = [sys.executable, __file__, *sys.argv[1:], "--row", row]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                path.write_text(done.stdout.splitlines()[-1])
                print(row, done.stdout.splitlines()[-1], flush=True)
    print(table(options))


if __name__ == "__main__":
    main()
