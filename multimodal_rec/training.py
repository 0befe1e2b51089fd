"""The training loop."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from multimodal_rec.checkpoint import Checkpoint
from multimodal_rec.config import RecommenderConfig, TrainingConfig
from multimodal_rec.context_gates import context_gates, histories_to_read
from multimodal_rec.errors import ConfigError
from multimodal_rec.model import ModalityFeatures, RecommenderModel
from multimodal_rec.rates import parameter_groups
from multimodal_rec.steps import Objective, Step, TrainingData, epoch_steps, num_steps


class Epoch(NamedTuple):
    """What one epoch gave."""

    loss: float
    """Mean over its steps."""
    valid: float | None
    """The validation metric, None without validation data."""


def train(
    model: RecommenderModel,
    data: TrainingData,
    *,
    config: RecommenderConfig,
    training: TrainingConfig,
    validate: Callable[[], float] | None = None,
) -> list[Epoch]:
    """Train `model` in place on `data`; what each epoch gave.

    With `validate`, which measures the model as it is then (higher is better), the best epoch's weights are kept and
    training stops after `training.patience` epochs without a better one. With `training.checkpoint_dir`, the state
    of model, optimiser, schedule, sampler and random generators is written after each epoch, and a run that was cut
    off goes on from there.
    """
    accelerator = make_accelerator(training)
    objective = Objective(model, data, config, training)
    optimiser = torch.optim.AdamW(parameter_groups(objective, config, training))
    total = training.epochs * -(-num_steps(data, training) // training.gradient_accumulation)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser,
        [group["lr"] for group in optimiser.param_groups],
        total_steps=total + 1,
        # A little more than a tenth: of 10 steps in all, a tenth is a warm-up of no length, by which torch divides.
        pct_start=0.1 + 1e-6,
    )
    objective, optimiser, schedule = accelerator.prepare(objective, optimiser, schedule)
    trained = [model.tower(name) for name in data.trained]
    for tower in trained:
        tower.set_total_steps(training.epochs * _num_tower_updates(data, training))
    progress = LoopState(training.seed)
    checkpoint = _checkpoint(accelerator, data, config, training)
    best = None if checkpoint is None else resume(checkpoint, progress, model, data)

    with progress_bar(training) as bar:
        task = bar.add_task("train", total=training.epochs, completed=len(progress.epochs), note="")
        while len(progress.epochs) < training.epochs and progress.waited < training.patience:
            objective.train()
            losses: list[float] = []
            for part in _parts(epoch_steps(data, training, progress.generator), training.gradient_accumulation):
                for index, step in enumerate(part):
                    last = index == len(part) - 1
                    # Gradients of several processes are joined once, with the last of the steps that are averaged.
                    with nullcontext() if last else accelerator.no_sync(objective):
                        loss = objective(step)
                        accelerator.backward(loss / len(part))
                    losses.append(float(loss.detach()))
                accelerator.clip_grad_norm_(objective.parameters(), 1.0)
                optimiser.step()
                schedule.step()
                if any(len(step.fresh) for step in part):
                    for tower in trained:
                        tower.after_step()
                optimiser.zero_grad()
            objective.eval()
            settle(model, data)
            measured = None if validate is None else validate()
            progress.add(Epoch(float(np.mean(losses)), measured))
            if measured is not None and progress.waited == 0:
                best = copy.deepcopy(model.state_dict())
            note = f"loss {losses[-1]:.3f}" if measured is None else f"loss {losses[-1]:.3f}  valid {measured:.4f}"
            bar.update(task, advance=1, note=note)
            if checkpoint is not None:
                checkpoint.save(progress.state_dict(), _tensors(model, data, best))
    if best is not None:
        model.load_state_dict(best)
    model.eval()
    refresh(data)
    settle(model, data)
    accelerator.free_memory()
    return progress.epochs


class LoopState:
    """Where the loop stands, in a form that a checkpoint holds."""

    def __init__(self, seed: int) -> None:
        self.generator = np.random.default_rng(seed)
        self.epochs: list[Epoch] = []

    @property
    def waited(self) -> int:
        """Epochs since the best one; 0 without validation."""
        values = [epoch.valid for epoch in self.epochs if epoch.valid is not None]
        return len(values) - 1 - int(np.argmax(values)) if values else 0

    def add(self, epoch: Epoch) -> None:
        """Note what an epoch gave."""
        self.epochs.append(epoch)

    def state_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {"epochs": [list(epoch) for epoch in self.epochs], "generator": self.generator.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.epochs = [Epoch(*epoch) for epoch in state["epochs"]]
        self.generator.bit_generator.state = state["generator"]


def resume(
    checkpoint: Checkpoint, progress: LoopState, model: RecommenderModel, data: TrainingData
) -> dict[str, Tensor] | None:
    """Go on from a checkpoint, if there is one, in place; the best epoch's weights, None without validation."""
    found = checkpoint.load()
    if found is None:
        return None
    values, tensors = found
    progress.load_state_dict(values)
    for modality in data.trained:
        data.items.modalities[modality].windows.copy_(tensors[f"memory.{modality}"])
        model.tower(modality).load_schedule_state(_under(f"schedule.{modality}.", tensors))
    return _under("best.", tensors) or None


def _tensors(model: RecommenderModel, data: TrainingData, best: dict[str, Tensor] | None) -> dict[str, Tensor]:
    tensors = {f"best.{name}": tensor for name, tensor in (best or {}).items()}
    for modality in data.trained:
        # The memory too: what a step reads of an item was written when the item last ran through its tower.
        tensors[f"memory.{modality}"] = data.items.modalities[modality].windows
        state = model.tower(modality).schedule_state()
        tensors |= {f"schedule.{modality}.{name}": tensor for name, tensor in state.items()}
    return tensors


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _checkpoint(
    accelerator: Accelerator, data: TrainingData, config: RecommenderConfig, training: TrainingConfig
) -> Checkpoint | None:
    if training.checkpoint_dir is None:
        return None
    names = (
        "epochs",
        "batch_size",
        "gradient_accumulation",
        "items_per_step",
        "learning_rate",
        "weight_decay",
        "max_softmax_items",
        "seed",
    )
    run = {
        "configuration": config.to_dict(),
        "training": {name: getattr(training, name) for name in names},
        "data": [len(data.behaviour.present), len(data.people), len(data.weights), data.trained],
    }
    return Checkpoint(training.checkpoint_dir, accelerator, run)


def make_accelerator(training: TrainingConfig) -> Accelerator:
    """Accelerate's engine for this device and precision, with the seed set.

    Raises `ConfigError` where the machine lacks the device asked for.
    """
    if training.device not in ("auto", "cpu") and not torch.accelerator.is_available():
        raise ConfigError(
            f"device '{training.device}' is asked for, and torch finds no accelerator on this machine. "
            "Take device='auto' or 'cpu'."
        )
    set_seed(training.seed)
    cpu = training.device == "cpu" or not torch.accelerator.is_available()
    precision = training.precision
    if precision == "auto":
        precision = "bf16" if not cpu and torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "fp32"
    precision = "no" if precision == "fp32" else precision
    try:
        accelerator = Accelerator(cpu=cpu, mixed_precision=precision)
        if cpu == (accelerator.device.type == "cpu"):
            return accelerator
    except ValueError:
        # Accelerate keeps one device and one precision a process; an earlier fit may have taken others.
        pass
    AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(cpu=cpu, mixed_precision=precision)


def _parts(steps: Iterable[Step], size: int) -> Iterator[list[Step]]:
    """`size` steps at a time, of which the optimiser makes one."""
    rest = iter(steps)
    while part := list(islice(rest, size)):
        yield part


def _num_tower_updates(data: TrainingData, training: TrainingConfig) -> int:
    """How many of an epoch's updates hold a step through the backbones (about, where steps are put together)."""
    parts = _parts(epoch_steps(data, training, np.random.default_rng(0)), training.gradient_accumulation)
    return sum(any(len(step.fresh) for step in part) for part in parts)


@torch.no_grad()
def read_gates(model: RecommenderModel, data: TrainingData) -> None:
    """Start the gates of context, before any training, from what pairs of one person's events say of them."""
    if not data.events.context.any():
        return
    device = model.log_temperature.device
    users = np.unique(data.events.user_index[data.weights > 0])
    if not len(users):
        return
    history = histories_to_read(data.histories, users).to(device)
    tokens, present = model.tokens(data.items.to(device))
    model.query.set_gates(context_gates(history, tokens, present))


@torch.no_grad()
def settle(model: RecommenderModel, data: TrainingData) -> None:
    """Set the origin of taste to the mean of the items that somebody took, all parts shown."""
    device = model.log_temperature.device
    tokens, present = model.tokens(data.items.to(device))
    taken = torch.from_numpy(data.behaviour.present).to(device)
    if bool(taken.any()):
        tokens, present = tokens[taken], present[taken]
    model.query.set_centre(tokens, present)


def refresh(data: TrainingData) -> None:
    """Bring the memory of every backbone that learns up to date with its weights."""
    for modality in data.trained:
        rows = range(len(data.behaviour.present))
        fresh: ModalityFeatures = data.content.features(rows, modality)
        data.items.modalities[modality] = fresh


def progress_bar(training: TrainingConfig) -> Progress:
    """A bar that shows epochs, the time left and a note, where the configuration wants one."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} {task.fields[note]}"),
    )
    return Progress(*columns, TimeRemainingColumn(), disable=not training.progress)
