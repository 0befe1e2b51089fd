"""Pretrained picture and sound networks for `benchmarks/tuning.py`, made here because none are at hand.

    python benchmarks/pretraining.py --source ../shared/data --out runs/tuning/pretrained

A small ViT learns `subCategory` on half of the `fashion` photos, another one the genre on half of the `emotify` tracks.
Each is saved as timm saves its networks, so that `timm:FOLDER` and `spectrogram:FOLDER` load it. The other halves are
never read here. A folder that is there already is left alone.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import timm
import torch
from PIL import Image
from timm.models import save_for_hf
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal_rec.media import read_sound
from towers.spectrogram import SpectrogramSound

PICTURE_SIDE_PX = 48
_STORED_SIDE_PX = 56
"""Photos are kept a little larger than the network reads them, which leaves room for random crops."""
_PICTURE_NET: dict[str, Any] = {
    "img_size": PICTURE_SIDE_PX,
    "patch_size": 8,
    "embed_dim": 128,
    "depth": 6,
    "num_heads": 4,
}
_SOUND_NET: dict[str, Any] = {
    "img_size": (64, 96),
    "patch_size": 16,
    "in_chans": 2,
    "embed_dim": 64,
    "depth": 4,
    "num_heads": 4,
}
_WINDOWS_A_TRACK = 8


class Recipe(NamedTuple):
    """How long and on how much a network is trained."""

    epochs: int = 24
    batch_size: int = 64
    learning_rate: float = 1e-3
    held_out_share: float = 0.1
    """Share of the half that is only measured on, to tell a network that has learned from one that has not."""


def halves(ids: list[str]) -> tuple[list[str], list[str]]:
    """The half to pretrain on and the half to tune on: always the same for the same ids, whatever their order."""
    ids = sorted(ids)
    shuffled = [ids[index] for index in np.random.default_rng(0).permutation(len(ids))]
    return shuffled[: len(ids) // 2], shuffled[len(ids) // 2 :]


def read_products(source: Path) -> pd.DataFrame:
    """The `fashion` products that have a photo, indexed by id, with the photo's path in `photo`."""
    products = pd.read_csv(source / "fashion" / "products.csv", dtype={"id": str}).set_index("id")
    products = products.loc[products["has_image"] == 1]
    return products.assign(photo=[str(source / "fashion" / "images" / f"{product}.jpg") for product in products.index])


def read_tracks(source: Path) -> pd.DataFrame:
    """The `emotify` tracks, indexed by id, with genre, the file's path in `sound`, and counts of what listeners said.

    `liked` and `disliked`; every feeling's column says how many had it, and `no FEELING` how many had not.
    """
    tracks = pd.read_csv(source / "emotify" / "tracks.csv", dtype={"track_id": str}).set_index("track_id")
    tracks["sound"] = [str(source / "emotify" / "audio" / f"{track}.ogg") for track in tracks.index]
    heard = pd.read_csv(source / "emotify" / "annotations.csv", skipinitialspace=True)
    heard.columns = heard.columns.str.strip()
    heard = heard.astype({"track id": str})
    feelings = list(heard.loc[:, "amazement":"sadness"])
    # A few listeners ticked both or neither: no opinion.
    undecided = heard["liked"] + heard["disliked"] != 1
    heard.loc[undecided, ["liked", "disliked"]] = 0
    heard = heard.assign(**{f"no {feeling}": 1 - heard[feeling] for feeling in feelings})
    for outcome in ["liked", "disliked", *feelings, *(f"no {feeling}" for feeling in feelings)]:
        tracks[outcome] = heard.groupby("track id")[outcome].sum()
    return tracks


def pretrain_pictures(source: Path, folder: Path, *, recipe: Recipe | None = None, limit: int | None = None) -> Path:
    """`folder` with a ViT that learned `subCategory`. `limit`: at most so many photos."""
    if (folder / "config.json").is_file():
        return folder
    products = read_products(source)
    chosen = products.loc[halves(list(products.index))[0][:limit]]
    photos = torch.stack([_small_photo(path) for path in chosen["photo"]])
    labels, names = pd.factorize(chosen["subCategory"])
    torch.manual_seed(0)
    net = _vit(len(names), _PICTURE_NET)
    accuracy = fit_classifier(net, photos, torch.from_numpy(labels), augment=_crop, recipe=recipe or Recipe())
    data = {"input_size": (3, PICTURE_SIDE_PX, PICTURE_SIDE_PX), "mean": (0.5,) * 3, "std": (0.5,) * 3}
    save(net, folder, {**data, "crop_pct": 1.0, "interpolation": "bicubic"}, accuracy)
    return folder


def pretrain_sounds(source: Path, folder: Path, *, recipe: Recipe | None = None, limit: int | None = None) -> Path:
    """`folder` with a ViT over spectrograms that learned the genre. `limit`: at most so many tracks."""
    if (folder / "config.json").is_file():
        return folder
    tracks = read_tracks(source)
    chosen = tracks.loc[halves(list(tracks.index))[0][:limit]]
    ear = SpectrogramSound("test_vit", pretrained=False)  # For its spectrogram only: the one the tower will make.
    sounds = torch.stack([ear.prepare(read_sound(path), _WINDOWS_A_TRACK)["spectrogram"] for path in chosen["sound"]])
    labels, names = pd.factorize(chosen["genre"])
    torch.manual_seed(0)
    net = _vit(len(names), _SOUND_NET)
    accuracy = fit_classifier(net, sounds, torch.from_numpy(labels), augment=_disturb, recipe=recipe or Recipe())
    save(net, folder, {"input_size": (2, 64, 96), "mean": (0.0,) * 2, "std": (1.0,) * 2}, accuracy)
    return folder


def fit_classifier(
    net: nn.Module, inputs: Tensor, labels: Tensor, *, augment: Callable[[Tensor, bool], Tensor], recipe: Recipe
) -> float:
    """Train `net` in place; the accuracy on the part that is held out.

    `inputs`: (item, ...), or (item, window, ...), where every window is an example and a held-out item's prediction
    is the mean over its windows. `augment(inputs, training)` makes a batch of what `net` reads.
    """
    windowed = inputs.ndim == 5
    num_held = max(1, round(len(inputs) * recipe.held_out_share))
    train, train_labels = inputs[num_held:], labels[num_held:]
    if windowed:
        train_labels = train_labels.repeat_interleave(train.shape[1])
        train = train.flatten(0, 1)
    optimiser = torch.optim.AdamW(net.parameters(), lr=recipe.learning_rate, weight_decay=0.05)
    steps = recipe.epochs * -(-len(train) // recipe.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.learning_rate, total_steps=steps, pct_start=0.1)
    net.train()
    for epoch in range(recipe.epochs):
        started, total = time.perf_counter(), 0.0
        for batch in torch.randperm(len(train)).split(recipe.batch_size):
            loss = F.cross_entropy(net(augment(train[batch], True)), train_labels[batch], label_smoothing=0.1)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item() * len(batch)
        print(f"epoch {epoch}: loss {total / len(train):.3f}, {time.perf_counter() - started:.0f} s", flush=True)
    net.eval()
    with torch.no_grad():
        held = inputs[:num_held]
        logits = net(augment(held.flatten(0, 1) if windowed else held, False))
        if windowed:
            logits = logits.unflatten(0, held.shape[:2]).mean(dim=1)
    return float((logits.argmax(dim=1) == labels[:num_held]).float().mean())


def save(net: nn.Module, folder: Path, data: dict[str, Any], accuracy: float) -> None:
    """Write timm's `config.json` and `model.safetensors`, and what the network reached in `pretraining.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    report = {"held_out_accuracy": accuracy, "parameters": sum(each.numel() for each in net.parameters())}
    (folder / "pretraining.json").write_text(json.dumps(report))
    # config.json last of all, after the weights: it marks a folder that is whole.
    save_for_hf(net, str(folder), safe_serialization=True, data_config=data)
    print(f"{folder}: {report}", flush=True)


def _vit(num_classes: int, sizes: dict[str, Any]) -> nn.Module:
    architecture = "vit_tiny_patch16_224"
    return timm.create_model(architecture, num_classes=num_classes, global_pool="avg", drop_path_rate=0.1, **sizes)


def _small_photo(path: str) -> Tensor:
    """uint8 (3, stored side, stored side); the decoder shrinks while it decodes, which is most of the time saved."""
    with Image.open(path) as image:
        image.draft("RGB", (_STORED_SIDE_PX, _STORED_SIDE_PX))
        small = image.convert("RGB").resize((_STORED_SIDE_PX, _STORED_SIDE_PX), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1)


def _crop(photos: Tensor, training: bool) -> Tensor:
    """A batch in [-1, 1]: in training one random crop for the whole batch, and each photo mirrored or not."""
    pixels = photos.float() / 127.5 - 1
    if training:
        side = int(torch.randint(36, _STORED_SIDE_PX + 1, ()))
        top, left = torch.randint(0, _STORED_SIDE_PX - side + 1, (2,)).tolist()
        pixels = pixels[:, :, top : top + side, left : left + side]
        mirrored = torch.rand(len(pixels)) < 0.5
        pixels = torch.where(mirrored[:, None, None, None], pixels.flip(-1), pixels)
    return F.interpolate(pixels, size=PICTURE_SIDE_PX, mode="bicubic", antialias=True, align_corners=False)


def _disturb(sounds: Tensor, training: bool) -> Tensor:
    """A batch of spectrograms: in training shifted in time, louder or softer, with a band and a moment left out."""
    if not training:
        return sounds
    sounds = sounds.roll(int(torch.randint(sounds.shape[-1], ())), dims=-1).clone()
    sounds[:, 0] += 0.2 * torch.randn(len(sounds), 1, 1)
    band, moment = int(torch.randint(sounds.shape[-2] - 8, ())), int(torch.randint(sounds.shape[-1] - 16, ()))
    mean = sounds[:, 0].mean()
    sounds[:, 0, band : band + 8] = mean
    sounds[:, 0, :, moment : moment + 16] = mean
    return sounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=Path("../shared/data"), help="folder with fashion and emotify")
    parser.add_argument("--out", type=Path, default=Path("runs/tuning/pretrained"), help="where the networks are kept")
    options = parser.parse_args()
    pretrain_sounds(options.source, options.out / "sounds")
    pretrain_pictures(options.source, options.out / "pictures")


if __name__ == "__main__":
    main()
