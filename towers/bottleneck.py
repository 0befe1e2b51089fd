"""Bottleneck adapters: a small residual network behind each half of a transformer block."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

# Names of the modules whose output each half of a block adds to its residual stream, by family of network; the first
# family whose names are all there is taken.
_FAMILIES: tuple[tuple[str, ...], ...] = (
    ("attention.output.dense", "output.dense"),  # BERT, RoBERTa, DeBERTa
    ("attn.o", "output.dense"),  # MPNet
    ("out_lin", "lin2"),  # DistilBERT
    ("attn.Wo", "mlp.Wo"),  # ModernBERT
    ("out_proj", "output_dense"),  # wav2vec 2.0, HuBERT and WavLM in torchaudio
    ("attn.proj", "mlp.fc2"),  # timm's ViT and Swin, and SigLIP's trunk
    # open_clip's ViT: after its nn.MultiheadAttention, which calls no layer of its own.
    ("ls_1", "ls_2"),
    ("mlp.fc2",),  # ConvNeXt
)


class Bottleneck(nn.Module):
    """A layer and, added to what it gives, that output through `rank` numbers and back.

    The way back starts at zero, so that the output is the layer's own at first. Source: arXiv:1902.00751, section 2.
    """

    def __init__(self, base_layer: nn.Module, dim: int, rank: int) -> None:
        super().__init__()
        self.base_layer = base_layer
        back = nn.Linear(rank, dim)
        nn.init.zeros_(back.weight)
        nn.init.zeros_(back.bias)
        self.bottleneck = nn.Sequential(nn.Linear(dim, rank), nn.GELU(), back)

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., dim) → (..., dim)."""
        out = self.base_layer(hidden)
        return out + self.bottleneck(out)


def add_bottlenecks(net: nn.Module, rank: int) -> None:
    """Put a `Bottleneck` around the output layers of every block of `net`, in place.

    Raises `ValueError` for a network without such layers, such as a ResNet.
    """
    names = [name for name, _ in net.named_modules()]
    for family in _FAMILIES:
        found = [[name for name in names if name.endswith("." + end)] for end in family]
        if all(found):
            for name in dict.fromkeys(name for group in found for name in group):
                parent, _, last = name.rpartition(".")
                holder = net.get_submodule(parent)
                layer = getattr(holder, last)
                setattr(holder, last, Bottleneck(layer, _width(layer, holder), rank))
            return
    raise ValueError(
        f"adapter='bottleneck' needs transformer blocks, and {type(net).__name__} has none that are known. Text "
        f"encoders, ViT, Swin, ConvNeXt, CLIP, wav2vec 2.0, HuBERT and WavLM take it; for other networks choose "
        f"adapter='side', tuning='frozen' or tuning='full'."
    )


def _width(layer: nn.Module, holder: nn.Module) -> int:
    if isinstance(layer, nn.Linear):
        return layer.out_features
    # open_clip's layer scale, or nothing in its place, has no size; the norm before it has.
    norm: Any = holder.ln_1
    return int(norm.normalized_shape[0])
