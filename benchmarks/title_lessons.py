"""Who bought which title, and what of theirs speaks for it: the lessons of `tuning_tasks.titles`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

BUYERS = 5
"""Titles that fewer people bought are left out: they have next to no co-purchases to learn from or be judged by."""
TEMPERATURE = 0.05
"""Of cosines."""


class Purchase(NamedTuple):
    """A title that somebody bought."""

    person: int
    title: str
    others: list[str]
    """What else of theirs speaks for it, at least one title."""


def purchases(folder: Path, share: float, catalogue: str = "Industrial_and_Scientific") -> dict[str, list[Purchase]]:
    """Purchases by part, of a share of the people: train, valid and test have no title in common.

    What speaks for a title is of training titles alone: in training whatever else the person bought, in the other parts
    what they bought before.
    """
    lines = (folder / f"{catalogue}_items.tsv").read_text(encoding="utf-8").splitlines()
    title_of = dict(line.split("\t", 1) for line in lines)
    (people,) = folder.glob(f"am_{catalogue}_users*.tsv")
    bought = [line.split("\t")[1].split(" ") for line in people.read_text(encoding="utf-8").splitlines()]
    # By title, not by item: of two items with one title, one could be known to training and the other a test.
    histories = [list(dict.fromkeys(title_of[item] for item in items)) for items in bought]
    buyers = Counter(title for history in histories for title in history)
    known = sorted(title for title, count in buyers.items() if count >= BUYERS)
    draw = np.random.default_rng(0)
    fate = dict(zip(known, draw.choice(["train", "valid", "test"], size=len(known), p=[0.6, 0.15, 0.25]), strict=True))
    parts: dict[str, list[Purchase]] = {"train": [], "valid": [], "test": []}
    for person in draw.permutation(len(histories))[: round(len(histories) * share)].tolist():
        before: list[str] = []
        for title in histories[person]:
            part = fate.get(title)
            if part == "train":
                before.append(title)
            elif part is not None and before:
                parts[part].append(Purchase(person, title, before.copy()))
        if len(before) > 1:
            parts["train"] += [Purchase(person, one, [each for each in before if each != one]) for one in before]
    return parts


class Lessons(NamedTuple):
    """One a purchase, of all parts. `labels` (title, lesson) name a title's, padded by -1."""

    queries: Tensor
    """(lesson, dim), unit length: what speaks for the title."""
    people: Tensor
    """int64 (lesson,): whose."""

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """InfoNCE from people to titles, over a batch's outputs (title, 1, dim): each buyer looks for the title.

        A batch has each title once, and titles weigh alike whoever bought them, as in `score`: no popularity need be
        taken off the logits (logQ).
        """
        title, lesson = _given(labels)
        logits = self._cosines(lesson, outputs) / TEMPERATURE
        buyers, buyer = self.people[lesson].unique(return_inverse=True)
        # What the person bought besides is no negative.
        masked = torch.zeros(len(buyers), len(labels), dtype=torch.bool)
        masked[buyer, title] = True
        masked = masked[buyer]
        masked[torch.arange(len(title)), title] = False
        lost = F.cross_entropy(logits.masked_fill(masked, -torch.inf), title, reduction="none")
        return _by_title(lost, title).mean()

    def score(self, outputs: Tensor, labels: Tensor) -> dict[str, float]:
        """NDCG@10 of a purchase's title among all of the part: the mean over buyers, and over titles of that.

        The mean over purchases is a few popular titles' luck, which no text foretells.
        """
        title, lesson = _given(labels)
        hits = self._cosines(lesson, outputs)
        rank = (hits >= hits.gather(1, title[:, None])).sum(dim=1) - 1
        gain = torch.where(rank < 10, 1 / torch.log2(rank + 2.0), 0.0)
        return {"next": float(_by_title(gain, title).mean())}

    def _cosines(self, lesson: Tensor, outputs: Tensor) -> Tensor:
        return self.queries[lesson] @ F.normalize(outputs[:, 0], dim=1).T


def _by_title(values: Tensor, title: Tensor) -> Tensor:
    """The mean of each title's values (lesson,); titles without any are left out."""
    numbers = title.bincount()
    return torch.zeros(len(numbers)).index_add(0, title, values)[numbers > 0] / numbers[numbers > 0]


def _given(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and values of labels (title, lesson) that are no padding."""
    title, place = (labels >= 0).nonzero(as_tuple=True)
    return title, labels[title, place]
