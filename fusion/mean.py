"""The mean of an item's parts, block by block: what every other fusion starts as, and has to beat."""

from __future__ import annotations

from typing import final

from torch import Tensor, nn

from fusion.parts import check_parts, zero_absent


@final
class MeanFusion(nn.Module):
    """Fuse one item's part embeddings into one, every present part of the same weight.

        e(i) = [num_parts / |present| · x(i, p)]_p      0 where a part is absent

    This is attention with uniform weights, and nothing is learned. The blocks stand side by side, so that an inner
    product with a query of one block a part is num_parts times the mean over present parts of ⟨q_p, x(i, p)⟩.
    """

    def __init__(self, embedding_dim: int, num_parts: int) -> None:
        super().__init__()
        self._shape = (num_parts, embedding_dim)
        self.output_dim = embedding_dim * num_parts

    def forward(self, tokens: Tensor, present: Tensor) -> Tensor:
        """The fused embedding, (item, part · dim).

        `tokens`: (item, part, dim); rows whose `present` (item, part) is False may hold anything, NaN included.
        Raises `ValueError` where an item has no part, or where shapes disagree; `TypeError` unless `present` is bool.
        """
        check_parts(tokens, present, shape=self._shape)
        share = self._shape[0] / present.sum(dim=1, keepdim=True).to(tokens.dtype)
        return (share.unsqueeze(-1) * zero_absent(tokens, present)).flatten(start_dim=1)
