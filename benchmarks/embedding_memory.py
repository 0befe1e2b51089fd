"""Memory of the embedding job over many short texts: flat, whatever their number.

    python benchmarks/embedding_memory.py --items 1000000 --out runs/embedding_memory

Writes a parquet file of items (id, title of 4 to 12 words, one category), trains a recommender with a BERT of two
layers and 32 dimensions on 200 of them, and embeds the file into a store on disk, in a process of its own, whose
resident memory is sampled every half second. Prints what the model alone takes, the peak above it, items a second,
and draws the samples as `memory.svg`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers import BertConfig, BertModel

from multimodal_rec import Catalogue, Recommender, RecommenderConfig, Schema, TowerConfig, TrainingConfig

WORDS = [f"word{index}" for index in range(2000)]
SCHEMA = Schema("many", kind="product", text=("title",), attributes={"kind": "category"})
EVERY_SECONDS = 0.5


def frames(num_items: int, size: int = 50_000) -> Iterator[pd.DataFrame]:
    """Frames of items, one after another, so that whoever writes them never holds them all."""
    random = np.random.default_rng(0)
    for start in range(0, num_items, size):
        count = min(size, num_items - start)
        lengths = random.integers(4, 13, count)
        titles = [" ".join(WORDS[word] for word in random.integers(0, len(WORDS), length)) for length in lengths]
        ids = [f"item-{start + row:08d}" for row in range(count)]
        yield pd.DataFrame({"item_id": ids, "title": titles, "kind": random.choice(["a", "b", "c"], count)})


def write_items(path: Path, num_items: int) -> None:
    writer: pq.ParquetWriter | None = None
    for frame in frames(num_items):
        table = pa.Table.from_pandas(frame, preserve_index=False)
        writer = pq.ParquetWriter(path, table.schema) if writer is None else writer
        writer.write_table(table)
    if writer is not None:
        writer.close()


def write_bert(folder: Path) -> Path:
    config = BertConfig(
        vocab_size=len(WORDS) + 5,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=40,
    )
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    return folder


def write_model(folder: Path) -> Path:
    items = next(iter(frames(200)))
    random = np.random.default_rng(1)
    log = pd.DataFrame(
        [(f"u{user}", item) for user in range(40) for item in random.choice(items["item_id"], 8, replace=False)],
        columns=["user_id", "item_id"],
    )
    config = RecommenderConfig({"text": TowerConfig(f"hf:{write_bert(folder / 'bert')}")}, embedding_dim=32)
    training = TrainingConfig(device="cpu", epochs=1, progress=False)
    Recommender(config).fit(Catalogue.from_frames(items, log, schema=SCHEMA), training=training).save(folder / "model")
    return folder / "model"


def embed(model: Path, items: Path, store: Path, out: Path) -> None:
    """The measured process: seconds and resident bytes are written to `out` every half second."""
    recommender = Recommender.load(model, store=store, device="cpu")
    # One text first, so that libraries which load late count as the model's.
    recommender.embed(next(iter(frames(1))).assign(item_id="first"))
    process, done = psutil.Process(), threading.Event()
    begun = time.perf_counter()

    def watch() -> None:
        # Line by line, so that a run that is cut off has its samples, too.
        with out.open("w", encoding="utf-8") as file:
            while not done.is_set():
                file.write(f"{time.perf_counter() - begun:.2f} {process.memory_info().rss}\n")
                file.flush()
                done.wait(EVERY_SECONDS)

    watcher = threading.Thread(target=watch)
    watcher.start()
    report = recommender.embed(items, progress=True)
    seconds = time.perf_counter() - begun
    done.set()
    watcher.join()
    found = {"embedded": report.embedded, "failed": len(report.failed), "seconds": seconds}
    found["processor_seconds"] = sum(process.cpu_times()[:2])
    out.with_suffix(".json").write_text(json.dumps(found))


def draw(samples: list[tuple[float, float]], path: Path, *, num_items: int) -> None:
    """A line of resident megabytes above the model over minutes."""
    width, height, left, bottom = 640, 260, 60, 36
    base = samples[0][1]
    longest = max(second for second, _ in samples) or 1.0
    most = max(1600.0, *[(rss - base) / 1e6 for _, rss in samples])
    thin = samples[:: max(1, len(samples) // 300)]

    def place(second: float, megabytes: float) -> tuple[float, float]:
        x = left + second / longest * (width - left - 16)
        return x, height - bottom - megabytes / most * (height - bottom - 20)

    points = " ".join("{:.1f},{:.1f}".format(*place(second, (rss - base) / 1e6)) for second, rss in thin)
    bound = place(0, 1500)[1]
    ticks = "".join(
        f'<text x="{left - 6}" y="{place(0, mark)[1] + 4:.1f}" text-anchor="end">{mark}</text>'
        for mark in (0, 500, 1000, 1500)
    )
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="12"><rect width="100%" height="100%" fill="white"/>'
        f'<line x1="{left}" y1="{height - bottom}" x2="{width - 16}" y2="{height - bottom}" stroke="black"/>'
        f'<line x1="{left}" y1="{bound:.1f}" x2="{width - 16}" y2="{bound:.1f}" stroke="#b00" stroke-dasharray="4"/>'
        f'<polyline points="{points}" fill="none" stroke="#06c" stroke-width="1.5"/>{ticks}'
        f'<text x="{left}" y="14">MB above the model while {num_items:,} texts are embedded</text>'
        f'<text x="{width - 16}" y="{height - 12}" text-anchor="end">{longest / 60:.1f} minutes</text></svg>\n'
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, default=Path("runs/embedding_memory"))
    parser.add_argument("--measured", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    out: Path = arguments.out
    items = out / "items.parquet"
    if arguments.measured:
        embed(out / "model", items, out / "store", out / "samples.txt")
        return
    out.mkdir(parents=True, exist_ok=True)
    write_items(items, arguments.items)
    write_model(out)
    command = [sys.executable, __file__, "--measured", "--out", str(out)]
    subprocess.run(command, check=True)
    found = json.loads((out / "samples.json").read_text())
    lines = [line.split() for line in (out / "samples.txt").read_text().splitlines()]
    samples = [(float(second), float(rss)) for second, rss in lines]
    base = samples[0][1]
    above = [(rss - base) / 1e6 for _, rss in samples]
    half = len(above) // 2
    print("| items | model, MB | peak above it, MB | at half time, MB | items/s | processor seconds |")
    print("|---|---|---|---|---|---|")
    print(
        f"| {found['embedded']:,} | {base / 1e6:,.0f} | {max(above):,.0f} | {above[half]:,.0f} | "
        f"{found['embedded'] / found['seconds']:,.0f} | {found['processor_seconds']:,.0f} |"
    )
    draw(samples, out / "memory.svg", num_items=found["embedded"])


if __name__ == "__main__":
    main()
