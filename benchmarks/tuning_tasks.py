"""What `benchmarks/tuning.py` lets towers learn: three tasks, none of which their backbones were trained for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from pretraining import Recipe, halves, pretrain_pictures, pretrain_sounds, read_products, read_tracks
from torch import Tensor
from torch.nn import functional as F

from multimodal_rec.media import read_image, read_sound
from towers.inputs import Sound

RARE = 10
"""Labels that fewer photos of a half have are left out."""
FEELINGS = (
    "amazement",
    "solemnity",
    "tenderness",
    "nostalgia",
    "calmness",
    "power",
    "joyful_activation",
    "tension",
    "sadness",
)
"""Each listener ticked those that a track gave them (the Geneva Emotional Music Scales)."""
OUTCOMES = {**{name: f"no {name}" for name in FEELINGS}, "liked": "disliked"}
"""What is learned of a track, and what speaks against it: columns of `read_tracks`."""
MOMENTS = 8
"""So many pieces of a track are heard, each by itself."""
SECONDS = 3.04
"""Length of a piece: a window of the network, 95 hops of 512 samples at 16 kHz."""
LAST = 3
"""So many titles speak for a person."""


class Part(NamedTuple):
    """Examples of one part of a task."""

    items: Tensor
    """int64 (example, slot): which inputs an example is made of."""
    labels: Tensor
    """(example, ...): whatever the task's loss and score read."""


class Task(NamedTuple):
    """Something to learn, and how it is measured."""

    name: str
    backbone: str
    inputs: list[Any]
    folds: list[dict[str, Part]]
    """train, valid and test; several where inputs are few, so that more of them are tested."""
    loss: Callable[[Tensor, Tensor], Tensor]
    """Of outputs (example, slot, output) and labels."""
    score: Callable[[Tensor, Tensor], dict[str, float]]
    """Measures by name, higher is better, of the same two."""
    num_outputs: int | None = None
    """Of the linear head; None for none: the embeddings themselves are compared."""
    one_slot: bool = False
    """Train on one input of each example, drawn anew in every epoch; all are read where it is measured."""
    measured_every: int = 1
    """Epochs from one look at the validation part to the next."""
    epochs: int = 8
    side_epochs: int = 30
    frozen_epochs: int = 100
    """On a kept backbone's features an epoch costs a second or less, so that neither need stop half-trained."""
    adapter_rates: tuple[float, ...] = (2e-3, 8e-3)
    full_rates: tuple[float, ...] = (2e-4, 6e-4)
    batch_size: int = 16
    max_windows: int = 1
    embedding_dim: int = 64


def photos(source: Path, pretrained: Path, share: float) -> Task:
    """Article type and colour of the photos that the network has not seen."""
    recipe, limit = _shortened(share, 2500)
    folder = pretrain_pictures(source, pretrained / "pictures", recipe=recipe, limit=limit)
    products = read_products(source)
    chosen = products.loc[halves(list(products.index))[1]]
    columns = ["articleType", "baseColour"]
    for column in columns:
        chosen = chosen[chosen.groupby(column)[column].transform("size") >= RARE]
    chosen = chosen.iloc[: round(2200 * share)]
    codes = [pd.factorize(chosen[column]) for column in columns]
    widths = [len(names) for _, names in codes]
    labels = torch.from_numpy(np.stack([code for code, _ in codes], axis=1))

    def loss(outputs: Tensor, labels: Tensor) -> Tensor:
        both = outputs[:, 0].split(widths, dim=1)
        return torch.stack([F.cross_entropy(each, labels[:, index]) for index, each in enumerate(both)]).sum()

    def score(outputs: Tensor, labels: Tensor) -> dict[str, float]:
        found = torch.stack([each.argmax(dim=1) for each in outputs[:, 0].split(widths, dim=1)], dim=1)
        return dict(zip(columns, (found == labels).float().mean(dim=0).tolist(), strict=True))

    inputs = [read_image(path) for path in chosen["photo"]]
    ends = [round(len(labels) * end / 2200) for end in (800, 1200)]
    rows = zip(("train", "valid", "test"), torch.arange(len(labels)).tensor_split(ends), strict=True)
    folds = [{name: Part(each[:, None], labels[each]) for name, each in rows}]
    return Task("photos", f"timm:{folder}", inputs, folds, loss, score, num_outputs=sum(widths))


def music(source: Path, pretrained: Path, share: float) -> Task:
    """What listeners felt at the tracks that the network has not heard, and whether they liked them."""
    recipe, limit = _shortened(share, 200)
    folder = pretrain_sounds(source, pretrained / "music", recipe=recipe, limit=limit)
    tracks = read_tracks(source)
    chosen = tracks.loc[halves(list(tracks.index))[1][: max(20, round(200 * share))]]
    # (track, outcome, yes or no): how many listeners.
    counts = [[chosen[outcome], chosen[against]] for outcome, against in OUTCOMES.items()]
    labels = torch.from_numpy(np.array(counts, np.float32)).permute(2, 0, 1).contiguous()

    def loss(outputs: Tensor, labels: Tensor) -> Tensor:
        logit, (yes, no) = outputs.mean(dim=1), labels.unbind(dim=2)
        return ((yes * F.softplus(-logit) + no * F.softplus(logit)).sum(dim=0) / (yes + no).sum(dim=0)).sum()

    def score(outputs: Tensor, labels: Tensor) -> dict[str, float]:
        found: dict[str, float] = {}
        for index, outcome in enumerate(OUTCOMES):
            logit, (yes, no) = outputs[..., index].mean(dim=1), labels[:, index].unbind(dim=1)
            above = (logit[:, None] > logit[None, :]).float() + 0.5 * (logit[:, None] == logit[None, :]).float()
            found[outcome] = float(yes @ above @ no / (yes.sum() * no.sum()))
        return found

    inputs = [moment for path in chosen["sound"] for moment in _moments(read_sound(path))]
    items = torch.arange(len(inputs)).unflatten(0, (len(chosen), MOMENTS))
    # A fifth of the tracks chooses rates and epochs; each of the others is tested in one fold and trained on in three.
    valid, *judged = torch.arange(len(chosen)).chunk(5)
    folds = []
    for fold, test in enumerate(judged):
        rows = {"train": torch.cat(judged[:fold] + judged[fold + 1 :]), "valid": valid, "test": test}
        folds.append({name: Part(items[each], labels[each]) for name, each in rows.items()})
    task = Task("music", f"spectrogram:{folder}", inputs, folds, loss, score, num_outputs=len(OUTCOMES))
    task = task._replace(one_slot=True, measured_every=5, epochs=40, side_epochs=40)
    return task._replace(adapter_rates=(3e-3, 1e-2), full_rates=(3e-4, 1e-3))


def titles(source: Path, pretrained: Path, share: float) -> Task:  # noqa: ARG001  (the same call as its two siblings)
    """The next title after the last three; validation's and test's next items occur nowhere in training."""
    folder = source / "amazon-titles"
    lines = (folder / "Industrial_and_Scientific_items.tsv").read_text(encoding="utf-8").splitlines()
    title_of = dict(line.split("\t", 1) for line in lines)
    lines = (folder / "am_Industrial_and_Scientific_users.tsv").read_text(encoding="utf-8").splitlines()
    bought = [list(dict.fromkeys(line.split("\t")[1].split(" "))) for line in lines]
    used = sorted({item for items in bought for item in items})
    draw = np.random.default_rng(0)
    fate = dict(zip(used, draw.choice(["train", "valid", "test"], size=len(used), p=[0.6, 0.15, 0.25]), strict=True))
    bought_by: dict[str, list[list[str]]] = {"train": [], "valid": [], "test": []}
    for items in (bought[index] for index in draw.permutation(len(bought))[: round(len(bought) * share)]):
        # The last purchase says which part a person belongs to; what came before it is always a training item.
        part, before = fate[items[-1]], [item for item in items[:-1] if fate[item] == "train"]
        if len(before) >= LAST:
            bought_by[part].append([*before[-LAST:], items[-1]])
    ids = sorted({item for part in bought_by.values() for row in part for item in row})
    row_of = {item: row for row, item in enumerate(ids)}
    rows = {part: torch.tensor([[row_of[item] for item in each] for each in bought_by[part]]) for part in bought_by}
    parts = {part: Part(items, items) for part, items in rows.items()}

    def loss(outputs: Tensor, labels: Tensor) -> Tensor:
        # Each title in turn is the one to be found, from the mean of the person's others: four lessons of one person.
        unit = F.normalize(outputs, dim=-1)
        queries = F.normalize(unit.sum(dim=1, keepdim=True) - unit, dim=-1).flatten(0, 1)
        people = torch.arange(len(labels)).repeat_interleave(labels.shape[1])
        items = labels.flatten()
        # What the person bought besides is no negative, nor is the same item bought by somebody else.
        masked = (people[:, None] == people[None, :]) | (items[:, None] == items[None, :])
        masked.fill_diagonal_(False)
        logits = queries @ unit.flatten(0, 1).T / 0.05
        return F.cross_entropy(logits.masked_fill(masked, -torch.inf), torch.arange(len(logits)))

    def score(outputs: Tensor, labels: Tensor) -> dict[str, float]:
        unit, targets = F.normalize(outputs, dim=-1), labels[:, -1]
        first = torch.from_numpy(np.unique(targets.numpy(), return_index=True)[1])
        hits = unit[:, :-1].mean(dim=1) @ unit[first, -1].T
        own = targets[:, None] == targets[first][None, :]
        rank = (hits >= hits[own][:, None]).sum(dim=1) - 1
        return {"next": float(torch.where(rank < 10, 1 / torch.log2(rank + 2.0), 0.0).mean())}

    inputs = [title_of[item] for item in ids]
    task = Task("titles", "hf:all-MiniLM-L6-v2", inputs, [parts], loss, score)
    # MiniLM was trained on a billion pairs; what a net of 2,500 photos can bear would undo it.
    task = task._replace(adapter_rates=(1e-3, 3e-3), full_rates=(3e-5, 1e-4), embedding_dim=384)
    return task._replace(epochs=1, side_epochs=10, frozen_epochs=20)


def _moments(sound: Sound) -> list[Sound]:
    """Pieces of a track, each as long as a window of the network, evenly spread from its start to its end."""
    length = round(SECONDS * sound.sample_rate_hz)
    starts = np.linspace(0, sound.samples.shape[1] - length, MOMENTS).round().astype(int)
    return [Sound(sound.samples[:, start : start + length], sound.sample_rate_hz) for start in starts]


def _shortened(share: float, inputs: int) -> tuple[Recipe, int]:
    """The pretraining of a trial: `share` of its inputs, and of its epochs."""
    recipe = Recipe()
    return recipe._replace(epochs=max(1, round(recipe.epochs * share))), max(12, round(inputs * share))


TASKS: dict[str, Callable[[Path, Path, float], Task]] = {"music": music, "photos": photos, "titles": titles}
"""A task by name, of the source, where pretrained networks are kept, and the share of everything to take."""
