"""One modality in, one embedding out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, final

import numpy as np
import torch
from torch import Tensor, nn

from towers import artefact
from towers.backbone import Backbone, hash_state
from towers.int8 import use_int8
from towers.layers import block_names, depth_of
from towers.lengths import batches_by_length
from towers.pooling import FrameAttention, MeanPooling, masked_mean
from towers.side import SideNetwork
from towers.tuning import apply_tuning, keeps_backbone, merge_adapter

if TYPE_CHECKING:
    # PEFT takes seconds to import, and few towers have adapters.
    from towers.adalora import RankBudget


class TowerBatch(NamedTuple):
    """Prepared items, ready for a tower's `forward`."""

    windows: dict[str, Tensor]
    """Each (sum of windows, ...): all items' windows one after another."""
    counts: Tensor
    """int64 (batch,): how many windows each item has, at least 1."""

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> TowerBatch:
        """The same batch on another device; `non_blocking` does not wait for the copy of pinned memory to end."""
        moved = {name: tensor.to(device, non_blocking=non_blocking) for name, tensor in self.windows.items()}
        return TowerBatch(moved, self.counts.to(device, non_blocking=non_blocking))

    def pinned(self) -> TowerBatch:
        """The same batch in memory that a GPU can fetch by itself; only where there is a GPU."""
        windows = {name: tensor.pin_memory() for name, tensor in self.windows.items()}
        return TowerBatch(windows, self.counts.pin_memory())


@final
class Tower(nn.Module):
    """Backbone, pooling over an item's windows, and a projection to `embedding_dim`.

    `source`: a backbone, already tuned (`towers.tuning.apply_tuning`), or another tower, whose backbone is then used
    but stays that tower's own: its weights, its mode, its tuning. At most `max_windows` pictures, frames or windows of
    sound or text of an item are read; `frames` tells whoever decodes a video which of its frames. Video
    (`modality="video"`) pools its frames by attention, everything else by the mean. `reload` gives the same backbone
    once more, tuned alike: with it, `release_backbone` can free one that is kept.
    """

    def __init__(
        self,
        source: Backbone | Tower,
        embedding_dim: int,
        *,
        modality: str | None = None,
        max_windows: int = 4,
        frames: str = "even",
        reload: Callable[[], Backbone] | None = None,
    ) -> None:
        super().__init__()
        # Past nn.Module's registration: a backbone registered twice would be saved twice, which safetensors refuses,
        # and its parameters would belong to two towers.
        object.__setattr__(self, "_owner", source if isinstance(source, Tower) else None)
        self._reload = reload
        # The fingerprint of a backbone that is not in memory.
        self._released: str | None = None
        if isinstance(source, Backbone):
            self._modules["backbone"] = source
        backbone = self.backbone
        self.modality = backbone.modality if modality is None else modality
        self.max_windows = max_windows
        self.frames = frames
        self.embedding_dim = embedding_dim
        self.backbone_dim = backbone.dim
        # Kept here, since a backbone may be released.
        self.columns = backbone.columns
        self._take_tuning(backbone)
        # Vectors of a video are one row: there are no frames to weigh.
        of_frames = self.modality == "video" and not self.columns
        self.pooling = FrameAttention(backbone.dim) if of_frames else MeanPooling()
        self.projection = nn.Sequential(nn.LayerNorm(backbone.dim), nn.Linear(backbone.dim, embedding_dim))
        self.train(self.training)

    @property
    def owns_backbone(self) -> bool:
        """False where the backbone is another tower's."""
        return self.__dict__["_owner"] is None

    @property
    def backbone(self) -> Backbone:
        """The backbone, read again where it was released."""
        owner = self if self.owns_backbone else self.__dict__["_owner"]
        backbone = owner._modules.get("backbone")
        return backbone if isinstance(backbone, Backbone) else owner._restored()

    @property
    def feature_dim(self) -> int:
        """How many numbers `features` gives a window."""
        return self.backbone_dim if self.side is None else sum(self.side.widths)

    @property
    def keeps_backbone(self) -> bool:
        """Whether the backbone's weights stay as they are, so that what it gives can come from a cache."""
        return keeps_backbone(self.tuning, self.adapter)

    def prepare_one(self, value: Any) -> dict[str, Tensor]:
        """CPU tensors of one item, each (window, ...); safe to send between processes.

        `value`: `str`, `PIL.Image` (or a list of them), `Sound`, `Frames` or vectors, by backbone; else `TypeError`.
        """
        return self.backbone.prepare(value, self.max_windows)

    def prepare_many(self, values: Sequence[Any]) -> list[dict[str, Tensor]]:
        """`prepare_one` of each value, faster together where the library reads many at once."""
        return self.backbone.prepare_many(values, self.max_windows)

    def collate(self, prepared: Sequence[dict[str, Tensor]]) -> TowerBatch:
        """A batch of what `prepare_one` gave. Raises `ValueError` for an empty sequence."""
        if not prepared:
            raise ValueError("nothing to collate: expected at least one prepared item, got none.")
        counts = torch.tensor([len(next(iter(item.values()))) for item in prepared], dtype=torch.int64)
        return TowerBatch(self.backbone.collate(prepared), counts)

    def prepare(self, inputs: Sequence[Any]) -> TowerBatch:
        """A CPU batch of raw inputs, prepared and collated."""
        return self.collate(self.prepare_many(inputs))

    def features(self, batch: TowerBatch) -> tuple[Tensor, Tensor]:
        """The backbone's rows (batch, window, feature_dim), zero where absent, and which windows are present.

        `feature_dim` is the backbone's dim; with `adapter="side"` the pooled output of every block follows it. A
        backbone that is kept runs without gradients.
        """
        with torch.no_grad() if self.keeps_backbone else nullcontext():
            rows = self.rows(batch.windows)
            counts = batch.counts
            if len(rows) == len(counts):
                # One window an item, as most have: nothing to lay out, and no GPU is waited for.
                return rows.unsqueeze(1), torch.ones(len(rows), 1, dtype=torch.bool, device=rows.device)
            width = int(counts.max())
            present = torch.arange(width, device=counts.device)[None, :] < counts[:, None]
            features = rows.new_zeros(len(counts), width, rows.shape[-1])
            features[present] = rows
        return features, present

    def rows(self, windows: dict[str, Tensor]) -> Tensor:
        """The backbone's rows (window, feature_dim) of prepared windows, one after another."""
        if self.side is None:
            return self.backbone(windows)
        base, layers = self.backbone.layered(windows)
        return torch.cat([base, *layers], dim=-1)

    def adapted(self, features: Tensor) -> Tensor:
        """Rows (..., backbone_dim) of `features`' (..., feature_dim): through the side network, if there is one."""
        return features if self.side is None else self.side(features)

    def project(self, features: Tensor, present: Tensor) -> Tensor:
        """Embeddings (batch, embedding_dim), not L2-normalised, of what `features` gave, now or from a cache."""
        return self.projection(self.pooling(self.adapted(features), present))

    def forward(self, batch: TowerBatch) -> Tensor:
        """Embeddings (batch, embedding_dim), not L2-normalised."""
        return self.project(*self.features(batch))

    def encode(self, inputs: Sequence[Any], *, batch_size: int = 32, project: bool = True) -> np.ndarray:
        """Embeddings of raw inputs: float32 (input, embedding_dim), in evaluation mode, without gradients.

        `project=False` gives the backbone's pooled output instead, adapters included, (input, backbone_dim): the mean
        over windows, equal to the library's own output for one window of an untuned backbone.
        """
        modules = dict.fromkeys([*self.modules(), *self.backbone.modules()])
        modes = [(module, module.training) for module in modules]
        device = next(self.projection.parameters()).device
        rows = np.zeros((len(inputs), self.embedding_dim if project else self.backbone_dim), dtype=np.float32)
        # Where lengths differ, many are sorted by them; pictures are too large to be held so many at once.
        block = 64 * batch_size if self.backbone.varies else batch_size
        try:
            for module, _ in modes:
                module.training = False
            with torch.inference_mode():
                for start in range(0, len(inputs), block):
                    prepared = self.prepare_many(inputs[start : start + block])
                    lengths = self.backbone.lengths(prepared) if self.backbone.varies else [0] * len(prepared)
                    for places in batches_by_length(lengths, batch_size):
                        batch = self.collate([prepared[place] for place in places]).to(device)
                        features, present = self.features(batch)
                        pooled = masked_mean(self.adapted(features), present)
                        out = self.project(features, present) if project else pooled
                        rows[[start + place for place in places]] = out.float().cpu().numpy()
        finally:
            for module, mode in modes:
                module.training = mode
        return rows

    def train(self, mode: bool = True) -> Tower:
        """Set training mode; whatever of the backbone is kept stays in evaluation mode.

        Dropout and running BatchNorm statistics would otherwise change what its weights, which stay, give.
        """
        super().train(mode)
        backbone = self._modules.get("backbone")
        if backbone is None or not mode:
            return self
        if self.tuning != "full":
            backbone.eval()
        elif not all(weight.requires_grad for weight in backbone.parameters()):
            for module in backbone.modules():
                weights = list(module.parameters())
                if weights and not any(weight.requires_grad for weight in weights):
                    module.eval()
        return self

    def backbone_parameters(self) -> list[nn.Parameter]:
        """What tuning trains: the backbone's weights or its adapter's; none of another tower's backbone."""
        return [parameter for _, parameter in self._tuned()]

    def parameters_by_depth(self) -> list[list[nn.Parameter]]:
        """`backbone_parameters` from the layer nearest the output to the one nearest the input; none is empty.

        For rates that fall with the distance from the output. One group where the network's blocks are not known.
        """
        tuned = self._tuned()
        if self.keeps_backbone:
            return [[parameter for _, parameter in tuned]] if tuned else []
        try:
            blocks = block_names(self.backbone.net)
        except ValueError:
            return [[parameter for _, parameter in tuned]]
        groups: dict[int, list[nn.Parameter]] = {}
        for name, parameter in tuned:
            inside = name.removeprefix("net.")
            depth = depth_of(inside, blocks) if inside != name else len(blocks) + 1
            groups.setdefault(depth, []).append(parameter)
        return [groups[depth] for depth in sorted(groups, reverse=True)]

    def set_total_steps(self, total: int) -> None:
        """Say how many training steps will pass through the backbone; only AdaLoRA asks."""
        if self._budget is not None:
            self._budget.set_total_steps(total)

    def after_step(self) -> None:
        """Call after each optimiser step whose batch passed the backbone, before gradients are cleared."""
        if self._budget is not None:
            self._budget.after_step()

    def schedule_state(self) -> dict[str, Tensor]:
        """Where AdaLoRA's ranks stand, for a checkpoint; empty but for AdaLoRA. `load_schedule_state` reads it."""
        return {} if self._budget is None else self._budget.state()

    def load_schedule_state(self, state: dict[str, Tensor]) -> None:
        """The inverse of `schedule_state`."""
        if self._budget is not None:
            self._budget.load_state(state)

    def penalty(self) -> Tensor:
        """What the adapter adds to the loss, a scalar; 0 but for AdaLoRA."""
        if self._budget is not None:
            return self._budget.penalty()
        return torch.zeros((), device=next(self.projection.parameters()).device)

    def save_adapter(self, folder: str | Path) -> None:
        """Write the adapter alone, with the fingerprint of the backbone that it belongs to.

        Raises `ValueError` where there is no adapter.
        """
        artefact.save_adapter(self, Path(folder))

    def load_adapter(self, folder: str | Path) -> Tower:
        """Put a saved adapter on this tower's backbone, frozen or adapted alike; self.

        Raises `ValueError` where the adapter belongs to another backbone, or this one has another adapter.
        """
        artefact.load_adapter(self, Path(folder))
        return self

    def adapt(self, adapter: str, rank: int) -> None:
        """Give a frozen tower an adapter that is still silent. Raises `ValueError` as `apply_tuning` does."""
        apply_tuning(self.backbone, "adapter", adapter=adapter, rank=rank)
        self._take_tuning(self.backbone)
        self.train(self.training)

    def merge_adapter(self) -> Tower:
        """Add the adapter to the weights it stands beside; self, frozen, over a plain backbone that gives the same.

        Raises `ValueError` for `bottleneck` and `side`, which compute what no weight of the backbone can hold.
        """
        merge_adapter(self.backbone)
        self._take_tuning(self.backbone)
        return self

    def use_int8(self) -> int:
        """Give the backbone's linear layers int8 weights, for good; how many there are. Nothing of it learns any more.

        0 for another tower's backbone, which is that tower's own to change.
        """
        if self.owns_backbone:
            count = use_int8(self.backbone)
            # Its files hold the weights as they were.
            self._reload = None
        else:
            count = 0
        self.tuning, self.adapter = self.backbone.tuning, self.backbone.adapter
        self.train(self.training)
        return count

    def release_backbone(self) -> bool:
        """Free a kept backbone's memory until it is needed again; whether it could be.

        It is read from its files the next time, so this does nothing where `reload` was not given.
        """
        if not self.owns_backbone or not self.keeps_backbone or self._reload is None:
            return False
        if "backbone" in self._modules:
            self._released = self.backbone.fingerprint()
            del self._modules["backbone"]
        return True

    def wake_backbone(self) -> None:
        """Read a released backbone again now, so that `state_dict` holds it."""
        _ = self.backbone

    def backbone_fingerprint(self) -> str:
        """16 hexadecimal digits over the backbone's weights, adapters and preprocessing: the cache's key."""
        owner = self if self.owns_backbone else self.__dict__["_owner"]
        inner = owner._released or self.backbone.fingerprint()
        kind = "rows" if self.side is None else "layers"
        how = f"{self.max_windows} {self.frames} {kind}"
        return hashlib.sha256(f"{inner} {how}".encode()).hexdigest()[:16]

    def fingerprint(self) -> str:
        """16 hexadecimal digits over the whole tower: which embeddings may be compared with each other."""
        digest = hashlib.sha256(f"{self.modality} {self.embedding_dim} {self.backbone_fingerprint()}".encode())
        for module in (self.side, self.pooling, self.projection):
            hash_state(digest, {} if module is None else module.state_dict())
        return digest.hexdigest()[:16]

    @property
    def _budget(self) -> RankBudget | None:
        return self.backbone.budget if self.owns_backbone else None

    def _take_tuning(self, backbone: Backbone) -> None:
        self.tuning, self.adapter = backbone.tuning, backbone.adapter
        self.side = None
        if backbone.adapter == "side":
            self.side = SideNetwork(backbone.dim, backbone.layer_dims(), backbone.adapter_rank)

    def _tuned(self) -> list[tuple[str, nn.Parameter]]:
        tuned: list[tuple[str, nn.Parameter]] = []
        if self.owns_backbone and not self.keeps_backbone:
            tuned += [(name, value) for name, value in self.backbone.named_parameters() if value.requires_grad]
        if self.side is not None:
            tuned += list(self.side.named_parameters())
        return tuned

    def _restored(self) -> Backbone:
        if self._reload is None:
            raise RuntimeError("a tower has neither a backbone nor a way to read one.")
        # Wherever this happens, in inference too, the weights must be ordinary ones, and no random number be drawn.
        with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
            backbone = self._reload().to(next(self.projection.parameters()).device)
        self._modules["backbone"] = backbone
        self._released = None
        self.train(self.training)
        return backbone
