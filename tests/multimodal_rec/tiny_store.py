"""A store of a few made-up items, and batches to write to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from multimodal_rec.rows import ItemRows, Layout, ModalityRows
from multimodal_rec.store import ItemStore

DIM = 12  # LanceDB treats lists of ten numbers and more in its own way

LAYOUT = Layout(("text", "image"), DIM)


def open_store(uri: Path | str | None = None, layout: Layout = LAYOUT, *, create: bool = True) -> ItemStore:
    return ItemStore.open(uri, layout, create=create)


def rows(ids: list[str], *, model: str = "m1", seed: int = 0) -> ItemRows:
    rng = np.random.default_rng(seed)
    n = len(ids)

    def numbers(dim: int = DIM) -> np.ndarray:
        return rng.normal(size=(n, dim)).astype(np.float16).astype(np.float32)

    here = np.ones(n, dtype=bool)
    odd = np.arange(n) % 2 == 1
    image = np.where(odd[:, None], numbers(), np.nan)
    return ItemRows(
        ids=ids,
        modalities={
            "text": ModalityRows(numbers(), here, [f"t{i}" for i in ids], "tower-text"),
            "image": ModalityRows(
                image, odd, [f"p{i}" if p else None for i, p in zip(ids, odd, strict=True)], "tower-i"
            ),
        },
        attribute_tokens=numbers(),
        attributes_present=here,
        behaviour_tokens=numbers(),
        behaviour_present=~odd,
        embeddings=numbers(4 * DIM),  # text, image, attributes, behaviour side by side
        model=model,
        attributes=[{"genre": f"g{i}", "tags": ["a", "b'c"], "price": 1.5, "year": None} for i in ids],
    )
