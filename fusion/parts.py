"""What every fusion asks of its input: parts in a fixed order, and which of them are present."""

from __future__ import annotations

from torch import Tensor


def zero_absent(tokens: Tensor, present: Tensor) -> Tensor:
    """`tokens` (..., part, dim) with zeros where a part is absent; `where`, since a product would keep NaN."""
    return tokens.where(present.unsqueeze(-1), tokens.new_zeros(()))


def check_parts(tokens: Tensor, present: Tensor) -> None:
    """Raise `ValueError` unless `tokens` is (item, part, dim), `present` bool (item, part), and no item is empty."""
    if tokens.ndim != 3 or present.shape != tokens.shape[:2]:
        raise ValueError(
            f"tokens have shape {tuple(tokens.shape)} and present {tuple(present.shape)}. "
            "Expected (item, part, dim) and (item, part)."
        )
    if not bool(present.any(dim=-1).all()):
        rows = (~present.any(dim=-1)).nonzero().flatten().tolist()
        raise ValueError(f"rows {rows[:5]} have no part present. Expected at least one each; leave such items out.")
