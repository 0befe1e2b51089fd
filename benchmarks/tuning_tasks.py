"""What `benchmarks/tuning.py` lets towers learn: three tasks, none of which their backbones were trained for."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from pretraining import Recipe, halves, pretrain_pictures, pretrain_sounds, read_products, read_tracks
from title_lessons import Lessons, purchases
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from multimodal_rec.builders import build_tower
from multimodal_rec.config import TowerConfig
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
MINILM = "hf:all-MiniLM-L6-v2"
MAX_TOKENS = 16
"""Of a title."""


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
    frozen_rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2, 3e-2)
    side_rates: tuple[float, ...] = (1e-3, 3e-3)
    adapter_rates: tuple[float, ...] = (2e-3, 8e-3)
    full_rates: tuple[float, ...] = (2e-4, 6e-4)
    batch_size: int = 16
    bfloat16: bool = False
    """Train in half precision what passes through the backbone; whatever is measured is float32."""
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
    """The next title, found by the mean of what MiniLM as it is makes of a person's others; candidates are unknown.

    An example is a title, and its labels are all who bought it: one pass through the backbone teaches every co-purchase
    of the title, where batches of people read the popular titles again and again.
    """
    parts = purchases(source / "amazon-titles", share)
    every = [each for part in parts.values() for each in part]
    read = sorted({title for each in every for title in each.others})
    # People's side does not learn: else each step would pass whole histories through the backbone.
    kept = build_tower(TowerConfig(MINILM, max_windows=1, max_tokens=MAX_TOKENS), embedding_dim=1, seed=0)
    unit = F.normalize(torch.from_numpy(kept.encode(read, project=False)), dim=1)
    place = {title: index for index, title in enumerate(read)}
    means = [unit[[place[title] for title in each.others]].mean(dim=0) for each in every]
    lessons = Lessons(F.normalize(torch.stack(means), dim=1), torch.tensor([each.person for each in every]))
    inputs = sorted({each.title for each in every})
    row_of = {title: row for row, title in enumerate(inputs)}
    fold: dict[str, Part] = {}
    number = itertools.count()
    for name, part in parts.items():
        bought: dict[int, list[int]] = {}
        for each in part:
            bought.setdefault(row_of[each.title], []).append(next(number))
        # Padded, since most titles have few buyers and some have hundreds.
        labels = pad_sequence([torch.tensor(each) for each in bought.values()], batch_first=True, padding_value=-1)
        fold[name] = Part(torch.tensor(list(bought))[:, None], labels)
    task = Task("titles", MINILM, list(inputs), [fold], lessons.loss, lessons.score, batch_size=32, bfloat16=True)
    task = task._replace(epochs=3, side_epochs=20, frozen_epochs=20, embedding_dim=384)
    # The one rate tried on the catalogue that nothing is reported of (Musical_Instruments): a run takes minutes.
    task = task._replace(adapter_rates=(3e-3,), full_rates=(3e-5, 1e-4))
    return task._replace(frozen_rates=(1e-4, 3e-4, 1e-3, 3e-3), side_rates=(3e-4, 1e-3))


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
