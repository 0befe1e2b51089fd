"""The part of a tower that was trained elsewhere: one window in, one row out."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Backbone(nn.Module, ABC):
    """A library's network behind one contract. Subclasses are final.

    `prepare` turns one item's value into windows on the CPU, `collate` joins several items' windows, `forward` gives
    one row of `dim` a window. `net` is the library's own module, the one that tuning changes.
    """

    modality: str
    dim: int
    net: nn.Module

    @abstractmethod
    def prepare(self, value: Any, max_windows: int) -> dict[str, Tensor]:
        """CPU tensors of one item, each (window, ...), 1 to `max_windows` windows.

        Raises `TypeError` for a value of another modality.
        """

    @abstractmethod
    def forward(self, windows: dict[str, Tensor]) -> Tensor:
        """One row a window: (window, dim)."""

    @abstractmethod
    def describe(self) -> Mapping[str, Any]:
        """Everything but the weights that changes an output, as JSON values: sizes, means, rates, limits."""

    def collate(self, prepared: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Several items' windows one after another. Windows here have one shape; text pads its tokens."""
        return {name: torch.cat([item[name] for item in prepared]) for name in prepared[0]}

    def fingerprint(self) -> str:
        """16 hexadecimal digits over the weights (adapters included) and the preprocessing."""
        digest = hashlib.sha256(json.dumps(self.describe(), sort_keys=True).encode())
        hash_state(digest, self)
        return digest.hexdigest()[:16]


def hash_state(digest: Any, module: nn.Module) -> None:
    """Feed the names, types, shapes and bytes of a module's weights and buffers into a hashlib digest."""
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
