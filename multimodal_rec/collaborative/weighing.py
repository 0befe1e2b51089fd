"""How much each blended score counts: what ranks the validation part best."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

GRID = (0.0, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
"""Weights that are tried. All scores are of the size of log-odds."""


def weigh(measure: Callable[[Tensor], float], start: Tensor, *, row: int, sweeps: int = 2) -> tuple[Tensor, float]:
    """The best weights found by trying one at a time, and what `measure` says of them (higher is better).

    `start`: (kind of item, score); `row`: the kind that `measure` depends on. The others stay as they are. A weight
    changes only for a gain, so that a score of no use where there is nothing to tell keeps what it had.
    """
    best = start.clone()
    value = measure(best)
    for _ in range(sweeps):
        before = value
        for column in range(best.shape[1]):
            for weight in GRID:
                tried = best.clone()
                tried[row, column] = weight
                if bool((tried[row] == 0).all()) or torch.equal(tried, best):
                    continue
                reached = measure(tried)
                if reached > value:
                    best, value = tried, reached
        if value == before:
            break
    return best, value
