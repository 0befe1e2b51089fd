"""What a configuration's towers will cost in memory and time, measured on one batch before anyone waits an epoch."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from multimodal_rec.builders import build_tower
from multimodal_rec.config import MODALITIES, RecommenderConfig, TowerConfig, TrainingConfig
from multimodal_rec.content import ItemContent
from multimodal_rec.errors import ConfigError
from multimodal_rec.trial_batch import TrialBatch, trial_batch, trial_vectors
from towers import Tower

_STEPS = 3
_SHORTEST_SECONDS = 0.1
_MOST_STEPS = 30


class StepMemory(NamedTuple):
    """Bytes that one training step holds at once."""

    weights: int
    """Parameters and buffers."""
    gradients: int
    optimiser: int
    """AdamW's two moments of everything that learns."""
    activations: int
    """What autograd keeps from forward to backward, each storage counted once; grows with the batch."""

    @property
    def total(self) -> int:
        """All four together."""
        return sum(self)


@dataclass(frozen=True, kw_only=True)
class TowerCost:
    """What one tower costs on this machine."""

    modality: str
    backbone: str
    tuning: str
    """`frozen`, `full`, or which adapter: `lora`, `dora`, `adalora`, `bottleneck`, `side`."""
    device: str
    precision: str
    batch_size: int
    """Items of the batch that everything below was measured on."""
    parameters: int
    """Of backbone, pooling and projection; of the last two where the backbone is another tower's."""
    trainable: int
    """Of these, how many learn."""
    memory: StepMemory
    """Of a training step; where `cached`, one that reads the cache and no longer holds a pretrained backbone."""
    seconds_per_step: float
    """Median of a training step: forward, backward, clipping, AdamW."""
    embedding_items_per_second: float
    """Items through backbone and projection without gradients: what `embed` does, and the filling of the cache."""
    reading_items_per_second: float
    """Items from their files (from memory for synthetic ones) to tensors that the tower takes."""
    cached: bool
    """Whether no gradient passes the backbone: each item runs through it once, and steps read its output."""
    backbone_bytes: int
    """Weights of the backbone, held while the cache is filled and when new items are embedded."""

    @property
    def trainable_share(self) -> float:
        """Share of the parameters that learn, 0 to 1."""
        return self.trainable / self.parameters

    @property
    def items_per_second(self) -> float:
        """Items that training passes through the tower; from the cache where `cached`."""
        return self.batch_size / self.seconds_per_step


class CatalogueSeconds(NamedTuple):
    """How long a catalogue's items take, towers alone."""

    once: float
    """Reading every item and running it through every backbone, before the first epoch."""
    epoch: float
    """Passing every item through every tower in training, once an epoch."""


def tower_costs(
    config: RecommenderConfig,
    *,
    items: ItemContent | None = None,
    batch_size: int = 8,
    device: str = "auto",
    precision: str = "auto",
    progress: bool = False,
) -> list[TowerCost]:
    """What each tower of `config` costs, in the order of `MODALITIES`: one warm-up step, then the median of a few.

    `items`: the batch is drawn from these, where they have the modality; else it is made up of what is usual (a text of
    64 words, one picture of 224 px, sound for all windows, four frames, a vector of 512 numbers). `device` and
    `precision` as in `TrainingConfig`. No weight file is read, because costs do not depend on what the weights are; the
    towers are built one after another, and nothing of them stays. `progress`: a bar on standard error.
    Raises `ConfigError` for a tower that cannot be built, or whose batch does not fit into the device's memory.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}. Expected at least 1.")
    if not config.towers:
        raise ConfigError("the configuration has no towers, so there is nothing to measure. Name one in 'towers'.")
    where, kind = _place(TrainingConfig(device=device, precision=precision))  # pyright: ignore[reportArgumentType]
    chosen = [name for name in MODALITIES if name in config.towers]
    costs: list[TowerCost] = []
    image: Tower | None = None
    # Dropout in a step draws random numbers; the caller's come as if nothing had been measured.
    with torch.random.fork_rng(devices=[]):
        for modality in track(chosen, "measure", console=Console(stderr=True), transient=True, disable=not progress):
            chose = config.towers[modality]
            tower = build_tower(
                chose,
                modality=modality,
                embedding_dim=config.embedding_dim,
                shared=image,
                seed=0,
                load_weights=False,
                vectors=trial_vectors(modality, items) if chose.backbone.startswith("vectors:") else None,
            ).to(where)
            try:
                trial = trial_batch(tower, chose, items, batch_size).to(where)
                costs.append(_measured(tower, modality, chose, trial, kind))
            except torch.OutOfMemoryError as error:
                raise ConfigError(
                    f"{batch_size} items of the {modality} tower '{chose.backbone}' do not fit into the memory of "
                    f"'{where}'. Take a smaller batch, an adapter, or gradient_checkpointing=True."
                ) from error
            if modality == "image" and "video" in config.towers:
                # Its backbone may be the video tower's too.
                image = tower
            del tower
            gc.collect()
    return costs


def step_memory(costs: Sequence[TowerCost], *, items_per_step: int | None = None) -> StepMemory:
    """Memory of one step of all towers together; activations scaled to `items_per_step`, None for what was measured."""
    scaled = (
        cost.memory._replace(
            activations=round(cost.memory.activations * (items_per_step or cost.batch_size) / cost.batch_size)
        )
        for cost in costs
    )
    return StepMemory(*(sum(column) for column in zip(*scaled, strict=True)))


def catalogue_seconds(costs: Sequence[TowerCost], num_items: Mapping[str, int]) -> CatalogueSeconds:
    """What a catalogue takes, from `num_items`: modality → items that have it. Heads, fusion and scores come on top."""
    once = epoch = 0.0
    for cost in costs:
        count = num_items.get(cost.modality, 0)
        once += count / cost.reading_items_per_second + count / cost.embedding_items_per_second
        epoch += count / cost.items_per_second
    return CatalogueSeconds(once, epoch)


def _measured(tower: Tower, modality: str, config: TowerConfig, trial: TrialBatch, precision: str) -> TowerCost:
    batch = trial.batch
    device = next(tower.projection.parameters()).device
    cast = _autocast(device, precision)
    cached = tower.keeps_backbone
    learning = [value for value in tower.parameters() if value.requires_grad]
    constant = [*_tensors(tower), *_tensors(tower.backbone)]

    def embed() -> None:
        with torch.no_grad(), cast():
            tower(batch)

    tower.eval()
    embedding = _median_seconds(embed, device)
    tower.train()
    with torch.no_grad(), cast():
        kept, present = tower.features(batch) if cached else (torch.zeros(0), torch.zeros(0))
    kept = kept.float()
    optimiser = torch.optim.AdamW(learning, lr=1e-4)

    def step() -> None:
        optimiser.zero_grad()
        with cast():
            rows = tower.project(kept, present) if cached else tower(batch)
            loss = rows.float().square().sum()
            if not cached:
                loss = loss + tower.penalty()
        loss.backward()
        nn.utils.clip_grad_norm_(learning, 1.0)
        optimiser.step()
        if not cached:
            tower.after_step()

    with _saved_bytes(constant) as saved:
        step()
    # Training frees a kept backbone once the cache is full, if there are files to read it from again.
    freed = cached and tower.owns_backbone and config.pretrained and not tower.columns
    released = _num_bytes(tower.backbone) if freed else 0
    return TowerCost(
        modality=modality,
        backbone=config.backbone,
        tuning=str(tower.backbone.adapter or tower.backbone.tuning),
        device=str(device),
        precision=precision,
        batch_size=len(batch.counts),
        parameters=sum(value.numel() for value in tower.parameters()),
        trainable=sum(value.numel() for value in learning),
        memory=StepMemory(
            weights=_num_bytes(tower) - released,
            gradients=sum(_size(value.grad) for value in learning),
            optimiser=sum(_size(value) for state in optimiser.state.values() for value in state.values()),
            activations=sum(saved.values()),
        ),
        seconds_per_step=_median_seconds(step, device),
        embedding_items_per_second=len(batch.counts) / embedding,
        reading_items_per_second=trial.reading_items_per_second,
        cached=cached,
        backbone_bytes=_num_bytes(tower.backbone),
    )


@contextmanager
def _saved_bytes(constant: Sequence[Tensor]) -> Iterator[dict[int, int]]:
    """Address → bytes of every storage that autograd saves inside; weights are not activations, although saved."""
    known = {value.untyped_storage().data_ptr() for value in constant}
    saved: dict[int, int] = {}

    def pack(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in known:
            saved[storage.data_ptr()] = storage.nbytes()
        # Held until backward like the original, so that no later storage gets the same address.
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        yield saved


def _median_seconds(run: Callable[[], None], device: torch.device) -> float:
    """Median duration after one warm-up; what is quick is repeated until the clock can tell it."""
    run()
    seconds: list[float] = []
    while len(seconds) < _STEPS or (sum(seconds) < _SHORTEST_SECONDS and len(seconds) < _MOST_STEPS):
        _wait(device)
        start = time.perf_counter()
        run()
        _wait(device)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _place(training: TrainingConfig) -> tuple[torch.device, str]:
    """Device and precision that training with this configuration takes."""
    found = torch.accelerator.current_accelerator(check_available=True)
    if training.device not in ("auto", "cpu") and (found is None or found.type != training.device):
        raise ConfigError(
            f"device '{training.device}' is asked for, and torch finds no such accelerator on this machine. "
            "Take device='auto' or 'cpu'."
        )
    device = torch.device("cpu") if training.device == "cpu" or found is None else found
    precision = training.precision
    if precision == "auto":
        precision = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    return device, precision


def _autocast(device: torch.device, precision: str) -> Callable[[], AbstractContextManager[Any]]:
    if precision == "fp32":
        return nullcontext
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    return lambda: torch.autocast(device.type, dtype=dtype)


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def _num_bytes(module: nn.Module) -> int:
    return sum(_size(value) for value in _tensors(module))


def _size(value: Any) -> int:
    return value.numel() * value.element_size() if isinstance(value, Tensor) else 0
