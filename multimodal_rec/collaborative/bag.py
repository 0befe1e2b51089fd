"""Weighed sums of a table's rows, as many as a history has events."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def weighed_sums(table: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """Sums (person, dim) of `table` (row, dim) over the rows that `index` (person, event) names, times `weights`."""
    if torch.compiler.is_exporting():
        # Other runtimes have no kernel for bags, and would walk through them one by one.
        return (table[index] * weights.unsqueeze(-1)).sum(dim=1)
    return F.embedding_bag(index, table.contiguous(), mode="sum", per_sample_weights=weights)
