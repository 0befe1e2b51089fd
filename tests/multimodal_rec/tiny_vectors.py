"""Small catalogues whose items have vectors in place of media."""

from __future__ import annotations

import numpy as np
import pandas as pd

from multimodal_rec.catalogue import Catalogue
from multimodal_rec.config import TrainingConfig
from multimodal_rec.schema import Schema

SCHEMA = Schema("tiny", kind="music", text=("title",), vectors={"audio": ("vggish", "whisper"), "text": ("minilm",)})

AUDIO_ONLY = Schema("sounds", kind="music", vectors={"audio": ("vggish",)})

CPU = TrainingConfig(device="cpu", epochs=15, batch_size=32, progress=False)


def items() -> pd.DataFrame:
    """Six items; i1 lacks vggish, i2 lacks whisper, i4 has nothing but its title."""
    random = np.random.default_rng(0)
    absent = {"vggish": ("i1", "i4"), "whisper": ("i2", "i4"), "minilm": ("i4",)}
    frame = pd.DataFrame({"item_id": [f"i{item}" for item in range(6)], "title": [f"song {item}" for item in range(6)]})
    for column, dim in (("vggish", 4), ("whisper", 3), ("minilm", 5)):
        cells = [None if i in absent[column] else random.normal(100, 10, dim) for i in frame["item_id"]]
        frame[column] = pd.Series(cells, dtype=object)
    return frame


def log(num_items: int = 6) -> pd.DataFrame:
    return pd.DataFrame(
        [{"user_id": f"u{user}", "item_id": f"i{item}"} for user in range(4) for item in range(num_items)]
    )


def sounds(num_items: int = 40, num_users: int = 30) -> Catalogue:
    """Items of two kinds that only their vectors tell apart, and people who like one kind each."""
    random = np.random.default_rng(1)
    kind = np.arange(num_items) % 2
    vectors = random.normal(50, 1, (num_items, 8)) + np.where(kind[:, None] == 0, 4.0, -4.0) * np.eye(8)[0]
    frame = pd.DataFrame({"item_id": [f"i{item}" for item in range(num_items)]})
    frame["vggish"] = pd.Series(list(vectors), dtype=object)
    rows = [
        {"user_id": f"u{user}", "item_id": f"i{item}", "position": place}
        for user in range(num_users)
        # The last four items are taken by nobody.
        for place, item in enumerate(random.permutation(np.arange(user % 2, num_items - 4, 2))[:8])
    ]
    return Catalogue.from_frames(frame, pd.DataFrame(rows), schema=AUDIO_ONLY)
