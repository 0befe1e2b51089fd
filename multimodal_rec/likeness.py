"""What an item has in common with what somebody took: the nearest thing there, and the words that both carry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def nearest(token: Tensor, taken: Tensor, pull: Tensor) -> int | None:
    """Which of the items taken is most like an item in one part; None where none that speaks for it is like it at all.

    `token`: (dim,), `taken`: (event, dim), both less the mean item, so that likeness is what sets items apart; `pull`:
    (event,), what each event adds to the wish for the item. Only events that speak for it are named: where taste turns
    round with the context, what was taken in the other one speaks for its opposite.
    """
    if not len(taken):
        return None
    cosines = F.cosine_similarity(taken, token.unsqueeze(0)).masked_fill(pull <= 0, -1.0)
    best = int(cosines.argmax())
    return best if float(cosines[best]) > 0 else None


def shared_words(
    item: Mapping[str, object], taken: Sequence[Mapping[str, object]], shares: Mapping[tuple[str, str], float]
) -> dict[str, str]:
    """Attribute → the item's value of it that the items taken have most beyond the catalogue's share.

    Strongest first; values that are no rarer in the catalogue than among the items taken are left out. `shares`:
    (attribute, value) → share of the catalogue's items that have it.
    """
    counts = Counter(pair for row in taken for pair in words_of(row))
    lifts = {pair: counts[pair] / len(taken) - shares.get(pair, 0.0) for pair in words_of(item) if counts[pair]}
    shared: dict[str, str] = {}
    for (name, value), lift in sorted(lifts.items(), key=lambda entry: -entry[1]):
        if lift > 0 and name not in shared:
            shared[name] = value
    return shared


def word_shares(rows: Sequence[Mapping[str, object]]) -> dict[tuple[str, str], float]:
    """(attribute, value) → share of the rows that have it, for attributes in words."""
    counts = Counter(pair for row in rows for pair in words_of(row))
    return {pair: count / len(rows) for pair, count in counts.items()}


def words_of(row: Mapping[str, object]) -> list[tuple[str, str]]:
    """Every attribute in words with its value, each value of a list apart; numbers are no words."""
    pairs: list[tuple[str, str]] = []
    for name, value in row.items():
        values = value if isinstance(value, list) else [value]
        pairs += [(name, each) for each in dict.fromkeys(v for v in values if isinstance(v, str))]
    return pairs


def centred(tokens: Tensor, centre: Tensor, present: Tensor) -> Tensor:
    """Tokens less the mean item's, 0 where absent: (..., part, dim)."""
    return torch.where(present.unsqueeze(-1), tokens - centre, torch.zeros((), device=tokens.device))
