"""The part of a tower that was trained elsewhere: one window in, one row out."""

from __future__ import annotations

import copy
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from towers.inputs import Sound
from towers.layers import blocks_of

if TYPE_CHECKING:
    # PEFT takes seconds to import, and few towers have adapters.
    from towers.adalora import RankBudget

# What the names of an adapter's own weights hold, wherever they lie in a network.
_OF_ADAPTERS = (".lora_", ".ranknum.", ".bottleneck.")


class Backbone(nn.Module, ABC):
    """A library's network behind one contract. Subclasses are final.

    `prepare` turns one item's value into windows on the CPU, `collate` joins several items' windows, `forward` gives
    one row of `dim` a window. `net` is the library's own module, the one that tuning changes.
    """

    modality: str
    dim: int
    net: nn.Module
    varies: bool = False
    """Whether items' windows differ in length."""
    columns: tuple[str, ...] = ()
    """Item columns of vectors that are read instead of media."""
    unused: tuple[str, ...] = ()
    """Names of parameters that `forward` never reads: they stay as they are under every tuning."""
    tuning: str = "frozen"
    adapter: str | None = None
    """Which kind, where `tuning` is `adapter`."""
    adapter_rank: int = 0
    budget: RankBudget | None = None
    """Of AdaLoRA's ranks."""

    def __init__(self) -> None:
        super().__init__()
        # A pooling over tokens that has weights of its own, where a subclass puts one.
        self.token_pooling: nn.Module | None = None

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

    def prepare_many(self, values: Sequence[Any], max_windows: int) -> list[dict[str, Tensor]]:
        """`prepare` of each value, faster together where the library reads many at once. Raises what `prepare` does."""
        return [self.prepare(value, max_windows) for value in values]

    def lengths(self, prepared: Sequence[dict[str, Tensor]]) -> list[int]:
        """How long the windows of each item are, for batches of like ones where `varies`."""
        return [next(iter(item.values())).shape[1] for item in prepared]

    def without_weights(self) -> Backbone:
        """A copy that prepares and cannot run: small enough to be sent to another process."""
        light = copy.copy(self)
        # Preparing reads plain attributes only; what is registered with nn.Module are the weights.
        light._modules, light._parameters, light._buffers = {}, {}, {}
        return light

    def layered(self, windows: dict[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
        """`forward`'s rows, and the pooled output of every block from input to output, each (window, width).

        Raises `ValueError` for a network whose blocks are not known.
        """
        found: list[Tensor] = []

        def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
            found.append(self.pool_layer(output[0] if isinstance(output, tuple) else output, windows))

        hooks = [block.register_forward_hook(keep) for block in blocks_of(self.net)]
        try:
            return self(windows), found
        finally:
            for hook in hooks:
                hook.remove()

    def layer_dims(self) -> list[int]:
        """How many numbers each block gives, from input to output."""
        blanks = {
            "text": "a",
            "image": Image.new("RGB", (8, 8)),
            "audio": Sound(np.zeros((1, 400), np.float32), 16_000),
        }
        training = self.training
        self.eval()
        try:
            with torch.no_grad():
                _, layers = self.layered(self.prepare(blanks[self.modality], 1))
        finally:
            self.train(training)
        return [layer.shape[-1] for layer in layers]

    def pool_layer(self, output: Tensor, windows: dict[str, Tensor]) -> Tensor:  # noqa: ARG002 - text needs its mask
        """One row a window of a block's output: the mean over its tokens, places or frames."""
        if output.ndim == 3:
            return output.mean(dim=1)
        # A convolutional net's channels come second, a Swin's last.
        channels_last = output.shape[-1] > output.shape[1]
        return output.mean(dim=(1, 2) if channels_last else (2, 3))

    def adapter_state(self) -> dict[str, Tensor]:
        """The adapter's own weights by name, a pooling over tokens among them; empty where there is no adapter."""
        if self.tuning != "adapter":
            return {}
        return {name: value for name, value in self.state_dict().items() if _is_adapter(name)}

    def fingerprint(self) -> str:
        """16 hexadecimal digits over the weights (adapters included) and the preprocessing."""
        return self._digest(self.state_dict())

    def base_fingerprint(self) -> str:
        """The fingerprint without its adapter: that of the backbone which the adapter was put on."""
        state = self.state_dict()
        if self.tuning == "adapter":
            state = {name.replace(".base_layer.", "."): value for name, value in state.items() if not _is_adapter(name)}
        return self._digest(state)

    def _digest(self, state: Mapping[str, Tensor]) -> str:
        digest = hashlib.sha256(json.dumps(self.describe(), sort_keys=True).encode())
        hash_state(digest, state)
        return digest.hexdigest()[:16]


def hash_state(digest: Any, state: Mapping[str, Tensor]) -> None:
    """Feed names, types, shapes and bytes of weights and buffers into a hashlib digest."""
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())


def load_fitting(net: nn.Module, state: Mapping[str, Any], *, file: object, name: str, expected: str) -> None:
    """Load weights into a network. Raises `OSError` with the first reason where they do not fit."""
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise OSError(f"the weights in '{file}' do not fit {name}: {reason} Expected {expected}") from error


def _is_adapter(name: str) -> bool:
    return name.startswith("token_pooling.") or any(part in f".{name}" for part in _OF_ADAPTERS)
