"""The library's training loop against a bare PyTorch loop over the same network and batches: items a second.

BERT-base, ViT-B/16 and wav2vec 2.0 base, one after the other.

    python benchmarks/throughput.py
    python benchmarks/throughput.py --only text --pairs 9 --threads 2

Both loops train all weights of the same network from scratch on the same tensors: forward, mean over tokens, a linear
head, a loss, backward, gradient clipping, AdamW. Ours is `multimodal_rec.training.train` as `fit` calls it, with all
that it does besides: batches put together from prepared items, a memory of every item's features, people and their
histories, two scores, their losses, the learning-rate schedule, and further steps in which events are told from
memory. An epoch of ours and one of the bare loop take turns in one process, because the machine's speed drifts; the
first pair warms up, and the figure is the median ratio of the others. Seconds are counted twice: on the wall, and as
this process's own time on the processor, which others at work on the same machine disturb less.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import pandas as pd
import timm
import torch
import torchaudio
from av.audio.frame import AudioFrame
from PIL import Image
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from multimodal_rec import Catalogue, RecommenderConfig, Schema, TowerConfig, TrainingConfig
from multimodal_rec.builders import build_model
from multimodal_rec.feature_cache import FeatureCache
from multimodal_rec.preparation import training_data
from multimodal_rec.steps import TrainingData
from multimodal_rec.training import train
from multimodal_rec.vocabulary import Vocabulary
from towers import Tower

# Eight events an item, as in the sample catalogues: they decide how many steps there are that pass no tower.
NUM_ITEMS, NUM_PEOPLE, EVENTS_EACH = 16, 16, 8
CLIP_SECONDS = 3.0
WORDS = [f"word{index}" for index in range(500)]
EMBEDDING_DIM = 32


class Seconds(NamedTuple):
    """What one epoch took."""

    wall: float
    processor: float

    @classmethod
    def now(cls) -> Seconds:
        return cls(time.perf_counter(), time.process_time())

    def since(self, start: Seconds) -> Seconds:
        return Seconds(self.wall - start.wall, self.processor - start.processor)


class Pairs(NamedTuple):
    """One modality's epochs, ours and the bare loop's by turns."""

    modality: str
    backbone: str
    batch_size: int
    ours: list[Seconds]
    bare: list[Seconds]

    def ratios(self, clock: str) -> list[float]:
        """Our items a second divided by the bare loop's, pair by pair."""
        return [getattr(bare, clock) / getattr(ours, clock) for ours, bare in zip(self.ours, self.bare, strict=True)]


def catalogue_of(modality: str, folder: Path) -> Catalogue:
    """16 items of one modality, with files of noise where it has files, and what 16 people took of them."""
    random = np.random.default_rng(0)
    media = folder / "media"
    media.mkdir(parents=True)
    cells: list[str] = []
    for item in range(NUM_ITEMS):
        if modality == "text":
            # All of one length, so that both loops pad nothing however items are shuffled.
            cells.append(" ".join(random.choice(WORDS, 62)))
        elif modality == "image":
            cells.append(f"{item}.png")
            Image.fromarray(random.integers(0, 256, (224, 224, 3), dtype=np.uint8)).save(media / cells[-1])
        else:
            cells.append(f"{item}.wav")
            write_sound(media / cells[-1], random.integers(-9000, 9000, round(CLIP_SECONDS * 16_000), dtype=np.int16))
    items = pd.DataFrame({"item_id": [f"i{item}" for item in range(NUM_ITEMS)], modality: cells})
    rows = [
        {"user_id": f"u{user}", "item_id": f"i{item}", "timestamp": 1_700_000_000 + 1000 * place + user}
        for user in range(NUM_PEOPLE)
        for place, item in enumerate(random.permutation(NUM_ITEMS)[:EVENTS_EACH])
    ]
    declared: dict[str, Any] = {modality: (modality,)}
    return Catalogue.from_frames(
        items, pd.DataFrame(rows), schema=Schema("bench", kind="music", **declared), media=media
    )


def write_sound(path: Path, samples: np.ndarray) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        frame = AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = 16_000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


def write_bert(folder: Path) -> Path:
    """A folder with BERT-base's architecture, Transformers' default, and a vocabulary of whole words."""
    BertConfig(vocab_size=len(WORDS) + 5).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    return folder


def tower_of(modality: str, folder: Path) -> TowerConfig:
    backbone = {
        "text": f"hf:{folder / 'bert'}",
        "image": "timm:vit_base_patch16_224",
        "audio": "torchaudio:WAV2VEC2_BASE",
    }[modality]
    return TowerConfig(backbone, tuning="full", pretrained=False, clip_seconds=CLIP_SECONDS, max_windows=1)


class Bare(nn.Module):
    """A network straight from its library, the mean over its tokens, and a linear head."""

    def __init__(self, modality: str, folder: Path) -> None:
        super().__init__()
        self.modality = modality
        net: Any
        if modality == "text":
            net, dim = BertModel(BertConfig.from_pretrained(folder / "bert"), add_pooling_layer=False), 768
        elif modality == "image":
            net, dim = timm.create_model("vit_base_patch16_224", num_classes=0), 768
        else:
            # As the library builds it: without letters, and without dropping whole layers by chance.
            parameters = {**torchaudio.pipelines.WAV2VEC2_BASE._params, "aux_num_out": None}
            net, dim = torchaudio.models.wav2vec2_model(**{**parameters, "encoder_layer_drop": 0.0}), 768
        self.net = net
        self.head = nn.Linear(dim, EMBEDDING_DIM)

    def forward(self, windows: dict[str, Tensor]) -> Tensor:
        if self.modality == "text":
            rows = self.net(**windows).last_hidden_state.mean(dim=1)
        elif self.modality == "image":
            rows = self.net(windows["pixels"])
        else:
            rows = self.net.extract_features(windows["waveform"])[0][-1].mean(dim=1)
        return self.head(rows)


def bare_epoch(model: Bare, batches: Sequence[dict[str, Tensor]], optimiser: torch.optim.Optimizer) -> None:
    for windows in batches:
        loss = model(windows).square().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()


def batches_of(tower: Tower, data: TrainingData, modality: str, size: int) -> list[dict[str, Tensor]]:
    """The tensors of which our loop puts its batches together, put together once."""
    prepared = [data.content._ready(row, modality) for row in range(NUM_ITEMS)]
    known = [item for item in prepared if item is not None]
    return [tower.collate(known[start : start + size]).windows for start in range(0, NUM_ITEMS, size)]


def alternate(
    run_ours: Callable[[Callable[[], float]], object], run_bare: Callable[[], None]
) -> tuple[list[Seconds], list[Seconds]]:
    """What our epochs and the bare ones took, a bare one after each of ours, the first of both left out."""
    ours: list[Seconds] = []
    bare: list[Seconds] = []
    started = Seconds.now()

    def between_epochs() -> float:
        nonlocal started
        ours.append(Seconds.now().since(started))
        start = Seconds.now()
        run_bare()
        bare.append(Seconds.now().since(start))
        started = Seconds.now()
        # Always worse than before, so that our loop does not copy its best weights.
        return -float(len(ours))

    run_ours(between_epochs)
    return ours[1:], bare[1:]


def measure(modality: str, folder: Path, *, batch_size: int, pairs: int) -> Pairs:
    """The pairs of one modality."""
    write_bert(folder / "bert")
    config = RecommenderConfig({modality: tower_of(modality, folder)}, embedding_dim=EMBEDDING_DIM)
    training = TrainingConfig(
        device="cpu", epochs=pairs + 1, patience=pairs + 2, items_per_step=batch_size, progress=False
    )
    catalogue = catalogue_of(modality, folder)
    vocabulary = Vocabulary.fit(catalogue, config)
    model = build_model(config, vocabulary)
    data = training_data(catalogue, vocabulary, model, config=config, training=training, cache=FeatureCache())
    bare = Bare(modality, folder).train()
    optimiser = torch.optim.AdamW(bare.parameters(), lr=1e-4)
    batches = batches_of(model.tower(modality), data, modality, batch_size)
    ours, plain = alternate(
        lambda validate: train(model, data, config=config, training=training, validate=validate),
        lambda: bare_epoch(bare, batches, optimiser),
    )
    return Pairs(modality, config.towers[modality].backbone.rpartition("/")[2], batch_size, ours, plain)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/throughput"))
    parser.add_argument("--only", nargs="+", choices=("text", "image", "audio"), default=["text", "image", "audio"])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    print(f"{'':6} {'clock':>9} {'batch':>6} {'ours items/s':>13} {'bare items/s':>13} {'median ratio':>13}")
    for modality in arguments.only:
        with tempfile.TemporaryDirectory() as folder:
            found = measure(modality, Path(folder), batch_size=arguments.batch_size, pairs=arguments.pairs)
        (arguments.out / f"{modality}.json").write_text(json.dumps(found._asdict(), indent=1))
        for clock in Seconds._fields:
            rates = [NUM_ITEMS / statistics.median(getattr(each, clock) for each in side) for side in found[3:]]
            ratios = found.ratios(clock)
            each = " ".join(f"{ratio:.3f}" for ratio in ratios)
            columns = f"{rates[0]:13.2f} {rates[1]:13.2f} {statistics.median(ratios):13.3f}   {each}"
            print(f"{modality:6} {clock:>9} {found.batch_size:6} {columns}", flush=True)


if __name__ == "__main__":
    main()
