"""Which of a backbone's weights learn."""

from __future__ import annotations

from torch import nn

from towers.backbone import Backbone

TUNINGS = ("frozen", "adapter", "full")

# Names of the layers that LoRA goes beside, by family of network; the first family whose names are all there is
# taken. Attention's query and value wherever they are layers of their own (LoRA, arXiv:2106.09685, section 4.2).
_FAMILIES: tuple[tuple[str, ...], ...] = (
    ("query", "value"),  # BERT, RoBERTa
    ("q_lin", "v_lin"),  # DistilBERT
    ("query_proj", "value_proj"),  # DeBERTa
    ("q_proj", "v_proj"),  # wav2vec 2.0 and HuBERT in torchaudio
    ("Wqkv",),  # ModernBERT
    ("qkv",),  # timm's ViT, and SigLIP's trunk
    # open_clip's ViT. Never `out_proj` inside nn.MultiheadAttention: its forward is not called, so no gradient.
    ("attn", "c_fc", "c_proj"),
    # WavLM in torchaudio: its query and value are one matrix without a layer; its out_proj is really called.
    ("out_proj", "intermediate_dense", "output_dense"),
    ("q", "v"),  # MPNet, T5
)


def apply_tuning(backbone: Backbone, tuning: str, rank: int = 8) -> None:
    """Set which weights of `backbone` learn, in place.

    `frozen`: none. `adapter`: LoRA matrices of rank `rank` beside attention, whose second factor starts at zero, so
    that the output is unchanged at first. `full`: all. Raises `ValueError` for another tuning, and for an adapter on
    a network without attention layers, such as a convolutional net.
    """
    if tuning not in TUNINGS:
        raise ValueError(f"tuning '{tuning}' is unknown. Expected one of {', '.join(map(repr, TUNINGS))}.")
    backbone.requires_grad_(tuning == "full")
    if tuning == "adapter":
        # Here, not at the top: PEFT takes seconds to import, and few towers have adapters.
        from peft import LoraConfig, inject_adapter_in_model  # noqa: PLC0415

        targets = adapter_targets(backbone)
        config = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=list(targets))
        training = backbone.training
        inject_adapter_in_model(config, backbone.net)
        backbone.train(training)


def adapter_targets(backbone: Backbone) -> tuple[str, ...]:
    """Names of the layers that LoRA goes beside. Raises `ValueError` where the network has none of them."""
    names = {
        name.rpartition(".")[2]
        for name, module in backbone.net.named_modules()
        if isinstance(module, (nn.Linear, nn.MultiheadAttention))
    }
    for family in _FAMILIES:
        if names.issuperset(family):
            return family
    raise ValueError(
        f"tuning='adapter' needs attention layers, and {type(backbone.net).__name__} has none that are known. "
        f"Text encoders, ViTs, wav2vec 2.0, HuBERT and WavLM take adapters; for convolutional nets choose "
        f"tuning='frozen' or tuning='full'."
    )
