"""A linear map between two kinds of numbers of the same items, as strong as leaving each item out allows."""

from __future__ import annotations

import torch
from torch import Tensor

_PENALTIES = torch.logspace(-2, 4, 13, dtype=torch.float64)


def ridge_map(inputs: Tensor, targets: Tensor) -> Tensor:
    """W, (input dim, target dim), so that `inputs @ W` predicts `targets` best for an item that it did not learn from.

    `inputs`: (item, input dim), `targets`: (item, target dim), both about 0. The penalty is that of 13 between 1e-2
    and 1e4 with the least error of each item left out, in closed form; zeros where fewer than two items are given.
    """
    if len(inputs) < 2:
        return targets.new_zeros(inputs.shape[1], targets.shape[1])
    x, y = inputs.double(), targets.double()
    values, vectors = torch.linalg.eigh(x.T @ x)
    turned, crossed = x @ vectors, vectors.T @ (x.T @ y)
    best, error = crossed.new_zeros(crossed.shape), y.square().mean()
    for penalty in _PENALTIES.to(x.device):
        inverse = 1 / (values.clamp(min=0) + penalty)
        leverage = turned.square() @ inverse
        solution = inverse.unsqueeze(1) * crossed
        left_out = ((y - turned @ solution) / (1 - leverage).clamp(min=1e-9).unsqueeze(1)).square().mean()
        if left_out < error:
            best, error = solution, left_out
    return (vectors @ best).to(targets.dtype)
