"""Tiny backbones of the real classes, and inputs for them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image
from transformers import BertConfig, BertModel

from towers import Frames, Sound

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "slow", "piano", "loud", "drum", "in", "the", "rain", "."]

TINY_SPEECH = {
    "extractor_conv_layer_config": [(16, 10, 5), (16, 3, 2), (16, 2, 2)],
    "encoder_embed_dim": 32,
    "encoder_num_layers": 2,
    "encoder_num_heads": 2,
    "encoder_ff_interm_features": 64,
    "encoder_pos_conv_kernel": 16,
    "encoder_pos_conv_groups": 4,
}


def write_bert(folder: Path, *, weights: bool = True) -> Path:
    """A BERT of 2 layers and 32 dimensions with a WordPiece vocabulary, as Transformers saves one."""
    folder.mkdir(parents=True, exist_ok=True)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=40,
    )
    if weights:
        BertModel(config).save_pretrained(folder)
    config.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    return folder


def write_clip_config(folder: Path, name: str = "tiny-clip") -> Path:
    """An open_clip architecture of 2 layers and 64 dimensions."""
    text = {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1}
    vision = {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8}
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}))
    return path


def picture(seed: int, size: tuple[int, int] = (40, 48)) -> Image.Image:
    """A picture of coloured blocks."""
    values = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(values).resize(size, Image.Resampling.NEAREST)


def tone(frequency_hz: float, seconds: float, sample_rate_hz: int = 16_000, channels: int = 1) -> Sound:
    """A sine with a little noise."""
    time = np.arange(round(seconds * sample_rate_hz)) / sample_rate_hz
    noise = np.random.default_rng(int(frequency_hz)).normal(0, 0.01, time.shape)
    wave = (0.4 * np.sin(2 * np.pi * frequency_hz * time) + noise).astype(np.float32)
    return Sound(np.stack([wave] * channels), sample_rate_hz)


def film(seed: int, num_frames: int) -> Frames:
    """A film of unrelated pictures, four a second."""
    return Frames(
        tuple(picture(seed * 100 + index) for index in range(num_frames)),
        tuple(index / 4 for index in range(num_frames)),
    )
