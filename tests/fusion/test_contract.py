"""Every fusion passes the contract."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fusion import AttentionFusion, ContextScore
from tests.contracts import FusionContract


def _shaken(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator))
    return module


def _sliced(smaller: nn.Module, module: nn.Module, part: int) -> nn.Module:
    kept = [index for index in range(len(next(module.parameters()))) if index != part]
    smaller.load_state_dict({name: weight[kept] for name, weight in module.state_dict().items()})
    return smaller


class TestAttentionFusion(FusionContract):
    def build(self) -> nn.Module:
        return _shaken(AttentionFusion(self.embedding_dim, self.num_parts))

    def without(self, fusion: nn.Module, part: int) -> nn.Module:
        return _sliced(AttentionFusion(self.embedding_dim, self.num_parts - 1), fusion, part)

    def blocks(self, fusion: nn.Module, tokens: Tensor, present: Tensor) -> Tensor:
        fused = fusion(tokens, present)
        assert fused.shape == (len(tokens), tokens.shape[1] * self.embedding_dim)
        return fused.unflatten(1, tokens.shape[1:]) / tokens.shape[1]


class TestContextScore(FusionContract):
    def build(self) -> nn.Module:
        return _shaken(ContextScore(self.embedding_dim, self.num_parts))

    def without(self, fusion: nn.Module, part: int) -> nn.Module:
        self._left = [index for index in range(self.num_parts) if index != part]
        return _sliced(ContextScore(self.embedding_dim, self.num_parts - 1), fusion, part)

    def blocks(self, fusion: nn.Module, tokens: Tensor, present: Tensor) -> Tensor:
        queries = torch.randn(2, self.num_parts, self.embedding_dim, generator=torch.Generator().manual_seed(3))
        if tokens.shape[1] < self.num_parts:
            queries = queries[:, self._left]
        assert isinstance(fusion, ContextScore)
        return fusion.contributions(queries, tokens, present).permute(1, 2, 0) / tokens.shape[1]
