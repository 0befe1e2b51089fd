"""What every verb on a saved model begins with."""

# torch and pandas take seconds to import; inside the verbs they delay neither `--help` nor a mistyped option.
# ruff: noqa: PLC0415

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multimodal_rec.recommender import Recommender


def load(model: Path, store: str | None, *, release: str | None = None) -> Recommender:
    """The saved recommender, over a store, or over one of its releases."""
    from multimodal_rec.recommender import Recommender

    return Recommender.load(model, store=store, release=release)
