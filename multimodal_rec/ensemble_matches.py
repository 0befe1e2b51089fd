"""How alike an ensemble's items are, and how well they match a wish: the mean of what its recommenders say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from multimodal_rec.ensemble_state import EnsembleState
from multimodal_rec.errors import ConfigError
from multimodal_rec.search import reads_wishes, standardised


def cosines(state: EnsembleState, items: Sequence[str]) -> np.ndarray:
    """Cosines of items with all that any recommender has, float32 (asked, item), -inf where none has both.

    The mean over those recommenders that have both, and not over the embeddings side by side: there an item that some
    do not have would be less like everything that all have, for no reason of its own.
    """
    total = np.zeros((len(items), len(state.ids)), dtype=np.float32)
    counts = np.zeros(total.shape, dtype=np.float32)
    for name, scorer in state.scorers.items():
        known = [row for row, item_id in enumerate(items) if item_id in scorer.item_rows]
        if known:
            own, places = state.rows[name]
            chosen = np.ix_(np.array(known), places)
            total[chosen] += scorer.similarity([scorer.item_rows[items[row]] for row in known])[:, own]
            counts[chosen] += 1
    return np.where(counts > 0, total / np.maximum(counts, 1), np.float32(-np.inf))


def matches(state: EnsembleState, wishes: Sequence[str]) -> np.ndarray:
    """How well each item matches each wish, float32 (wish, item), in standard deviations from the usual item.

    The mean of `WishSearch.match` of the recommenders that read text and have the item, brought to one scale again;
    0 where none does. Raises `ConfigError` where no recommender reads text, or a wish is empty.
    """
    readers = [each for each in state.members.recommenders.values() if reads_wishes(each._fitted().model)]
    if not readers:
        raise ConfigError(
            f"no member reads text (recommenders: {', '.join(state.scorers)}). Expected one with a text tower, or an "
            "open_clip image tower with its text encoder. Add TowerConfig('hf:...') as towers['text'] to one and fit "
            "it again."
        )
    total = np.zeros((len(wishes), len(state.ids)), dtype=np.float32)
    counts = np.zeros(len(state.ids), dtype=np.float32)
    for recommender in readers:
        scorer, searcher = recommender._searcher()
        # What was embedded since this state was taken is not in it.
        rows = [row for row, item_id in enumerate(scorer.ids) if item_id in state.place]
        places = [state.place[scorer.ids[row]] for row in rows]
        total[:, places] += searcher.match(wishes)[:, rows]
        counts[places] += 1
    return standardised(total / np.maximum(counts, 1), counts > 0)
