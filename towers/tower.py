"""One modality in, one embedding out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple, final

import numpy as np
import torch
from torch import Tensor, nn

from towers.backbone import Backbone, hash_state
from towers.pooling import FrameAttention, MeanPooling, masked_mean


class TowerBatch(NamedTuple):
    """Prepared items, ready for a tower's `forward`."""

    windows: dict[str, Tensor]
    """Each (sum of windows, ...): all items' windows one after another."""
    counts: Tensor
    """int64 (batch,): how many windows each item has, at least 1."""

    def to(self, device: torch.device | str) -> TowerBatch:
        """The same batch on another device."""
        return TowerBatch({name: tensor.to(device) for name, tensor in self.windows.items()}, self.counts.to(device))


@final
class Tower(nn.Module):
    """Backbone, pooling over an item's windows, and a projection to `embedding_dim`.

    `backbone` is already tuned (`towers.tuning.apply_tuning`); `tuning` says how. At most
    `max_windows` pictures, frames or windows of sound of an item are read. `owns_backbone=False` builds a
    tower over another tower's backbone: it is used, but its weights and its mode stay with the other tower. Video
    (`modality="video"`) pools its frames by attention, everything else by the mean.
    """

    def __init__(
        self,
        backbone: Backbone,
        embedding_dim: int,
        *,
        modality: str | None = None,
        tuning: str = "frozen",
        max_windows: int = 4,
        owns_backbone: bool = True,
    ) -> None:
        super().__init__()
        self.modality = backbone.modality if modality is None else modality
        self.tuning = tuning
        self.max_windows = max_windows
        self.embedding_dim = embedding_dim
        self.backbone_dim = backbone.dim
        self.owns_backbone = owns_backbone
        self.backbone: Backbone
        if owns_backbone:
            self.backbone = backbone
        else:
            # Past nn.Module's registration: a backbone registered twice would be saved twice, which safetensors
            # refuses, and its parameters would belong to two towers.
            object.__setattr__(self, "backbone", backbone)
        self.pooling = FrameAttention(backbone.dim) if self.modality == "video" else MeanPooling()
        self.projection = nn.Sequential(nn.LayerNorm(backbone.dim), nn.Linear(backbone.dim, embedding_dim))
        self.train(self.training)

    def prepare_one(self, value: Any) -> dict[str, Tensor]:
        """CPU tensors of one item, each (window, ...); safe to send between processes.

        `value`: `str`, `PIL.Image` (or a list of them), `Sound` or `Frames`, by modality; else `TypeError`.
        """
        return self.backbone.prepare(value, self.max_windows)

    def collate(self, prepared: Sequence[dict[str, Tensor]]) -> TowerBatch:
        """A batch of what `prepare_one` gave. Raises `ValueError` for an empty sequence."""
        if not prepared:
            raise ValueError("nothing to collate: expected at least one prepared item, got none.")
        counts = torch.tensor([len(next(iter(item.values()))) for item in prepared], dtype=torch.int64)
        return TowerBatch(self.backbone.collate(prepared), counts)

    def prepare(self, inputs: Sequence[Any]) -> TowerBatch:
        """A CPU batch of raw inputs: `prepare_one` of each, collated."""
        return self.collate([self.prepare_one(value) for value in inputs])

    def features(self, batch: TowerBatch) -> tuple[Tensor, Tensor]:
        """The backbone's rows (batch, window, backbone_dim), zero where absent, and which windows are present.

        A frozen backbone runs without gradients.
        """
        with torch.no_grad() if self.tuning == "frozen" else nullcontext():
            rows = self.backbone(batch.windows)
            counts = batch.counts
            width = int(counts.max())
            present = torch.arange(width, device=counts.device)[None, :] < counts[:, None]
            features = rows.new_zeros(len(counts), width, rows.shape[-1])
            features[present] = rows
        return features, present

    def project(self, features: Tensor, present: Tensor) -> Tensor:
        """Embeddings (batch, embedding_dim), not L2-normalised, of what `features` gave, now or from a cache."""
        return self.projection(self.pooling(features, present))

    def forward(self, batch: TowerBatch) -> Tensor:
        """Embeddings (batch, embedding_dim), not L2-normalised."""
        return self.project(*self.features(batch))

    def encode(self, inputs: Sequence[Any], *, batch_size: int = 32, project: bool = True) -> np.ndarray:
        """Embeddings of raw inputs: float32 (input, embedding_dim), in evaluation mode, without gradients.

        `project=False` gives the backbone's pooled output instead, (input, backbone_dim): the mean over windows,
        equal to the library's own output for one window.
        """
        modules = dict.fromkeys([*self.modules(), *self.backbone.modules()])
        modes = [(module, module.training) for module in modules]
        device = next(self.projection.parameters()).device
        rows: list[np.ndarray] = []
        try:
            for module, _ in modes:
                module.training = False
            with torch.inference_mode():
                for start in range(0, len(inputs), batch_size):
                    batch = self.prepare(inputs[start : start + batch_size]).to(device)
                    features, present = self.features(batch)
                    out = self.project(features, present) if project else masked_mean(features, present)
                    rows.append(out.float().cpu().numpy())
        finally:
            for module, mode in modes:
                module.training = mode
        if not rows:
            return np.zeros((0, self.embedding_dim if project else self.backbone_dim), dtype=np.float32)
        return np.concatenate(rows)

    def train(self, mode: bool = True) -> Tower:
        """Set training mode; a frozen or adapted backbone stays in evaluation mode.

        Dropout and running BatchNorm statistics would otherwise change what its weights, which stay, give.
        """
        super().train(mode)
        if self.owns_backbone and self.tuning != "full":
            self.backbone.eval()
        return self

    def backbone_parameters(self) -> list[nn.Parameter]:
        """The backbone's trainable parameters: none where it is frozen or another tower's."""
        if not self.owns_backbone:
            return []
        return [parameter for parameter in self.backbone.parameters() if parameter.requires_grad]

    def backbone_fingerprint(self) -> str:
        """16 hexadecimal digits over the backbone's weights, adapters and preprocessing: the cache's key."""
        return hashlib.sha256(f"{self.backbone.fingerprint()} {self.max_windows}".encode()).hexdigest()[:16]

    def fingerprint(self) -> str:
        """16 hexadecimal digits over the whole tower: which embeddings may be compared with each other."""
        digest = hashlib.sha256(f"{self.modality} {self.embedding_dim} {self.backbone_fingerprint()}".encode())
        hash_state(digest, self.pooling)
        hash_state(digest, self.projection)
        return digest.hexdigest()[:16]
