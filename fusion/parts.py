"""What every fusion asks of its input: parts in a fixed order, and which of them are present."""

from __future__ import annotations

import torch
from torch import Tensor


def zero_absent(tokens: Tensor, present: Tensor) -> Tensor:
    """`tokens` (..., part, dim) with zeros where a part is absent; `where`, since a product would keep NaN."""
    return tokens.where(present.unsqueeze(-1), tokens.new_zeros(()))


def check_parts(tokens: Tensor, present: Tensor, *, shape: tuple[int, int]) -> None:
    """Raise unless `tokens` is (item, part, dim), `present` bool (item, part), and no item is empty.

    `shape`: (part, dim), what the fusion was built for. Raises `TypeError` where `present` is not bool, `ValueError`
    otherwise.
    """
    if tokens.ndim != 3 or present.shape != tokens.shape[:2]:
        raise ValueError(
            f"tokens have shape {tuple(tokens.shape)} and present {tuple(present.shape)}. "
            "Expected (item, part, dim) and (item, part)."
        )
    if tuple(tokens.shape[1:]) != shape:
        raise ValueError(
            f"tokens have shape {tuple(tokens.shape)}. Expected (item, {shape[0]}, {shape[1]}), the number of parts "
            "and the dimension that this was built with; a part that is not there is False in present, not left out."
        )
    # Of 0 and 1 as integers, ~ makes -1 and -2: both true.
    if present.dtype != torch.bool:
        raise TypeError(f"present is {present.dtype}. Expected torch.bool, True where a part is there; take `!= 0`.")
    # A graph that is exported knows no values to look at.
    if not torch.compiler.is_exporting() and not bool(present.any(dim=-1).all()):
        rows = (~present.any(dim=-1)).nonzero().flatten().tolist()
        raise ValueError(f"rows {rows[:5]} have no part present. Expected at least one each; leave such items out.")


def check_queries(queries: Tensor, *, shape: tuple[int, int]) -> None:
    """Raise `ValueError` unless `queries` is (query, part, dim), of the `shape` (part, dim) of the items' parts."""
    if queries.ndim != 3 or tuple(queries.shape[1:]) != shape:
        raise ValueError(
            f"queries have shape {tuple(queries.shape)}. Expected (query, {shape[0]}, {shape[1]}): a block a part."
        )
