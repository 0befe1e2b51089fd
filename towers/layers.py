"""Where a network's blocks are: for the last n of them, for the rate of each, for the output of each."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

# Where libraries keep the blocks of a network, one after another; the first path that is there is taken.
_PATHS = (
    "encoder.transformer.layers",  # wav2vec 2.0, HuBERT and WavLM in torchaudio
    "encoder.layer",  # BERT, RoBERTa, MPNet, DeBERTa
    "transformer.layer",  # DistilBERT
    "transformer.resblocks",  # open_clip's ViT
    "trunk.blocks",  # SigLIP, and other timm networks inside open_clip
    "trunk.stages",
    "blocks",  # ViT, DeiT; the stages of EfficientNet
    "stages",  # ConvNeXt, RegNet
    "layers",  # ModernBERT; the stages of Swin
    "block",  # T5's encoder
)

# Modules after the last block, by their first name: they are as far from the input as a layer can be.
_AFTER = re.compile(r"^(trunk\.)?(norm|fc_norm|ln_post|proj|head|attn_?pool|final_norm|final_conv|conv_head|bn2)(\.|$)")


def block_names(net: nn.Module) -> list[str]:
    """Names of the blocks of a network from input to output: a transformer's layers, a convolutional net's stages.

    Raises `ValueError` where no known library keeps its blocks so.
    """
    modules = dict(net.named_modules())
    for path in _PATHS:
        found = modules.get(path)
        if isinstance(found, (nn.ModuleList, nn.Sequential)) and len(found) > 1:
            return [f"{path}.{index}" for index in range(len(found))]
    stages = [name for name in ("layer1", "layer2", "layer3", "layer4") if name in modules]
    if stages:  # ResNet, in timm and in open_clip
        return stages
    raise ValueError(
        f"the blocks of {type(net).__name__} are not known, so its depth cannot be told. Expected one of "
        f"{', '.join(_PATHS)} or layer1 … layer4. Choose tuning='frozen', or 'full' without top_layers and layer_decay."
    )


def blocks_of(net: nn.Module) -> list[nn.Module]:
    """The blocks themselves; see `block_names`."""
    return [net.get_submodule(name) for name in block_names(net)]


def depth_of(parameter: str, blocks: list[str]) -> int:
    """How deep a parameter of the network lies: 0 before the first block, 1 … n in one, n + 1 after the last."""
    for index, block in enumerate(blocks):
        if parameter.startswith(block + "."):
            return index + 1
    return len(blocks) + 1 if _AFTER.match(parameter) else 0


def recompute_blocks(net: nn.Module) -> None:
    """Have each block computed again in the backward pass instead of keeping what it computed (checkpointing).

    Values and gradients stay the same; memory falls to about one block's, time grows by about a third. Source:
    arXiv:1604.06174.
    """
    for block in blocks_of(net):
        block.forward = _Recomputed(block.forward)


class _Recomputed:
    """A block's forward that is run twice where gradients are wanted. A class, so that it can be copied and sent."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        self._forward = forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return checkpoint(self._forward, *args, use_reentrant=False, **kwargs)
