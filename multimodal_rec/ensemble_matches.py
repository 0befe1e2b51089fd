"""How alike an ensemble's items are, and how well they match a wish: the mean of what its recommenders say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from multimodal_rec.ensemble_members import Members
from multimodal_rec.errors import ConfigError
from multimodal_rec.search import reads_wishes, standardised


def cosines(members: Members, items: Sequence[str]) -> np.ndarray:
    """Cosines of stored items with all that any recommender has, float32 (asked, item), -inf where none has both.

    The mean over those recommenders that have both, and not over the embeddings side by side: there an item that some
    do not have would be less like everything that all have, for no reason of its own.
    """
    place = members.place
    total = np.zeros((len(items), len(place)), dtype=np.float32)
    counts = np.zeros(total.shape, dtype=np.float32)
    for recommender in members.recommenders.values():
        scorer = recommender._ready()
        known = [row for row, item_id in enumerate(items) if item_id in scorer.item_rows]
        if known:
            chosen = np.ix_(known, [place[item_id] for item_id in scorer.ids])
            total[chosen] += scorer.similarity([scorer.item_rows[items[row]] for row in known])
            counts[chosen] += 1
    return np.where(counts > 0, total / np.maximum(counts, 1), np.float32(-np.inf))


def matches(members: Members, wishes: Sequence[str]) -> np.ndarray:
    """How well each item matches each wish, float32 (wish, item), in standard deviations from the usual item.

    The mean of `WishSearch.match` of the recommenders that read text and have the item, brought to one scale again;
    0 where none does. Raises `ConfigError` where no recommender reads text, or a wish is empty.
    """
    readers = [each for each in members.recommenders.values() if reads_wishes(each._fitted().model)]
    if not readers:
        raise ConfigError(
            f"no member reads text (recommenders: {', '.join(members.recommenders)}). Expected one with a text tower, "
            "or an open_clip image tower with its text encoder. Add TowerConfig('hf:...') as towers['text'] to one and "
            "fit it again."
        )
    place = members.place
    total = np.zeros((len(wishes), len(place)), dtype=np.float32)
    counts = np.zeros(len(place), dtype=np.float32)
    for recommender in readers:
        scorer, searcher = recommender._searcher()
        columns = [place[item_id] for item_id in scorer.ids]
        total[:, columns] += searcher.match(wishes)
        counts[columns] += 1
    return standardised(total / np.maximum(counts, 1), counts > 0)
