"""Which of a backbone's weights learn, and what is put beside those that do not."""

from __future__ import annotations

from typing import Any

from torch import nn

from towers.backbone import Backbone
from towers.bottleneck import add_bottlenecks
from towers.layers import block_names, blocks_of, depth_of

TUNINGS = ("frozen", "adapter", "full")
ADAPTERS = ("lora", "dora", "adalora", "bottleneck", "side")

# Names of the layers that low-rank matrices go beside, by family of network; the first family whose names are all
# there is taken. Attention's query and value wherever they are layers of their own (LoRA, arXiv:2106.09685, 4.2).
_FAMILIES: tuple[tuple[str, ...], ...] = (
    ("query", "value"),  # BERT, RoBERTa
    ("q_lin", "v_lin"),  # DistilBERT
    ("query_proj", "value_proj"),  # DeBERTa
    ("q_proj", "v_proj"),  # wav2vec 2.0 and HuBERT in torchaudio
    ("Wqkv",),  # ModernBERT
    ("qkv",),  # timm's ViT and Swin, and SigLIP's trunk
    # open_clip's ViT. Not its nn.MultiheadAttention, whose forward calls no layer of its own: PEFT adds and subtracts
    # the matrices around every call there, so that the weights which should stay drift by rounding.
    ("c_fc", "c_proj"),
    # WavLM in torchaudio: its query and value are one matrix without a layer; its out_proj is really called.
    ("out_proj", "intermediate_dense", "output_dense"),
    ("q", "v"),  # MPNet, T5
    ("fc1", "fc2"),  # ConvNeXt
)


def apply_tuning(
    backbone: Backbone, tuning: str, *, adapter: str = "lora", rank: int = 8, top_layers: int | None = None
) -> None:
    """Set which weights of `backbone` learn, in place, once.

    `frozen`: none. `full`: all, or with `top_layers` those of the last blocks and of what follows them. `adapter`:
    none of the backbone's own; `lora`, `dora` and `adalora` put matrices of rank `rank` beside attention (or the
    feed-forward layers, where attention has none of its own), `bottleneck` a network of `rank` numbers behind each
    half of a block, `side` leaves the backbone alone: the tower's side network learns. All of them leave the output as
    it was at first. Raises `ValueError` for an unknown word, and for an adapter that this network cannot take.
    """
    _check(backbone, tuning, adapter, top_layers)
    backbone.requires_grad_(False)
    training = backbone.training
    if tuning == "full":
        _unfreeze(backbone, top_layers)
    elif tuning == "adapter":
        if adapter == "side":
            block_names(backbone.net)  # Raises where the network's layers cannot be told apart.
        elif adapter == "bottleneck":
            add_bottlenecks(backbone.net, rank)
        else:
            _add_low_rank(backbone, adapter, rank)
        backbone.adapter, backbone.adapter_rank = adapter, rank
    if backbone.token_pooling is not None:
        backbone.token_pooling.requires_grad_(True)
    backbone.tuning = tuning
    backbone.train(training)


def keeps_backbone(tuning: str, adapter: str | None) -> bool:
    """Whether no gradient goes through a backbone tuned so: what it gives can come from a cache."""
    return tuning == "frozen" or (tuning == "adapter" and adapter == "side")


def adapter_targets(backbone: Backbone, adapter: str = "lora") -> tuple[str, ...]:
    """Names of the layers that low-rank matrices go beside. Raises `ValueError` where the network has none."""
    inside = {
        name.rpartition(".")[2]
        for block in blocks_of(backbone.net)
        for name, module in block.named_modules()
        if isinstance(module, nn.Linear)
    }
    for family in _FAMILIES:
        if inside.issuperset(family):
            return family
    raise ValueError(
        f"adapter='{adapter}' needs attention or feed-forward layers, and {type(backbone.net).__name__} has none that "
        f"are known. Text encoders, ViT, Swin, ConvNeXt, CLIP, wav2vec 2.0, HuBERT and WavLM take it; for other "
        f"networks choose adapter='side', tuning='frozen' or tuning='full'."
    )


def merge_adapter(backbone: Backbone) -> None:
    """Add low-rank matrices to the weights that they stand beside, in place: a plain backbone, frozen, remains.

    Raises `ValueError` where there is no adapter, or one that cannot be merged.
    """
    if backbone.adapter not in ("lora", "dora", "adalora"):
        what = f"adapter='{backbone.adapter}'" if backbone.adapter else f"tuning='{backbone.tuning}'"
        why = (
            "computes something between the layers (or beside them) that no weight of the backbone can hold"
            if backbone.adapter
            else "has no adapter"
        )
        raise ValueError(
            f"a backbone with {what} cannot be merged: it {why}. Expected 'lora', 'dora' or 'adalora'. Keep it as it "
            "is, or save it with save_adapter."
        )
    # Here, not at the top: PEFT takes seconds to import, and few towers have adapters.
    from peft.tuners.tuners_utils import BaseTunerLayer  # noqa: PLC0415

    for name, module in list(backbone.net.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            parent, _, last = name.rpartition(".")
            setattr(backbone.net.get_submodule(parent), last, module.get_base_layer())
    backbone.requires_grad_(False)
    backbone.tuning, backbone.adapter, backbone.adapter_rank, backbone.budget = "frozen", None, 0, None


def _check(backbone: Backbone, tuning: str, adapter: str, top_layers: int | None) -> None:
    if tuning not in TUNINGS:
        raise ValueError(f"tuning '{tuning}' is unknown. Expected one of {', '.join(map(repr, TUNINGS))}.")
    if adapter not in ADAPTERS:
        raise ValueError(f"adapter '{adapter}' is unknown. Expected one of {', '.join(map(repr, ADAPTERS))}.")
    if backbone.tuning != "frozen":
        raise ValueError(
            f"this backbone has tuning='{backbone.tuning}' already. Expected a fresh one: a second tuning over the "
            "first would mix both. Build another."
        )
    if tuning != "frozen" and next(backbone.parameters(), None) is None:
        what = f"adapter='{adapter}'" if tuning == "adapter" else f"tuning='{tuning}'"
        raise ValueError(
            f"{what} needs weights, and {type(backbone.net).__name__} has none: vectors that were computed elsewhere "
            "are read as they are. Take tuning='frozen', or a backbone that reads the media itself."
        )
    if top_layers is not None and (tuning != "full" or top_layers < 1):
        raise ValueError(f"top_layers={top_layers} with tuning='{tuning}'. Expected at least 1, with tuning='full'.")
    if backbone.token_pooling is not None and keeps_backbone(tuning, adapter):
        raise ValueError(
            "pooling='attention' learns over every token, and a backbone that is kept (tuning='frozen', "
            "adapter='side') gives pooled rows only. Take pooling='mean' or 'cls', or another tuning."
        )


def _unfreeze(backbone: Backbone, top_layers: int | None) -> None:
    lowest = 0
    blocks: list[str] = []
    if top_layers is not None:
        blocks = block_names(backbone.net)
        if top_layers > len(blocks):
            raise ValueError(
                f"top_layers={top_layers}, and {type(backbone.net).__name__} has {len(blocks)} blocks. Expected at "
                f"most that many; leave top_layers out for all weights."
            )
        lowest = len(blocks) - top_layers + 1
    for name, parameter in backbone.net.named_parameters():
        parameter.requires_grad_(depth_of(name, blocks) >= lowest and f"net.{name}" not in backbone.unused)


def _add_low_rank(backbone: Backbone, adapter: str, rank: int) -> None:
    # Here, not at the top: PEFT takes seconds to import, and few towers have adapters.
    from peft import AdaLoraConfig, AdaLoraModel, LoraConfig, LoraModel  # noqa: PLC0415

    from towers.adalora import RankBudget  # noqa: PLC0415

    targets: Any = list(adapter_targets(backbone, adapter))
    net: Any = backbone.net
    if adapter == "adalora":
        first = rank + (rank + 1) // 2
        config = AdaLoraConfig(
            target_r=rank, init_r=first, lora_alpha=2 * first, lora_dropout=0.0, target_modules=targets, total_step=1000
        )
        backbone.budget = RankBudget(AdaLoraModel(net, config, "default"))
    else:
        LoraModel(
            net,
            LoraConfig(
                r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=targets, use_dora=adapter == "dora"
            ),
            "default",
        )
