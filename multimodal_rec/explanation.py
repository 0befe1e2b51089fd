"""How much each part of an item, the person's history and the context contributed to a score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

_PART_WORDS = {
    "image": "its picture",
    "audio": "its sound",
    "video": "its film",
    "text": "its text",
    "attributes": "its attributes",
    "behaviour": "who else took it",
}
_CONTEXT_SHARE = 0.25
"""Share of the deciding part's contribution from which on a context column is worth a mention."""


class Explanation(NamedTuple):
    """A score taken apart, twice and exactly: by the item's parts, and by what is known of the situation.

    Both are Shapley values of the ranking score: over what is left in and left out they share out the score's distance
    from that of a neutral item. `multimodal_rec.attribution` says what leaving out means.
    """

    user_id: str
    item_id: str
    score: float
    neutral: float
    """What the mean item scores for the same person in the same context."""
    contributions: dict[str, float]
    """Part → its share of `score - neutral`: each modality, 'attributes' and 'behaviour'. 0 where the item lacks it."""
    sources: dict[str, float]
    """Where the same distance comes from: 'general' for anybody at any time, 'history', and each context column."""
    table: dict[str, dict[str, float]]
    """Part → source → contribution; its rows sum to `contributions`, its columns to `sources`."""
    attention: dict[str, float]
    """Part → weight that the ranking score gave it, summing to 1: how far it was looked at, which is no contribution.
    Empty for fusions without attention."""
    similar: dict[str, str | None]
    """Part of the item → what the person took that is most like it there, None where nothing is."""
    shared: dict[str, str]
    """Attribute → the value that the item shares with what the person took, the most telling first."""
    context: dict[str, object]
    """The situation as it was told."""

    @property
    def of_context(self) -> float:
        """What all of the context contributed."""
        return sum(value for name, value in self.sources.items() if name not in ("general", "history"))

    def deciding(self) -> str | None:
        """The part that contributed most, None where none speaks for the item."""
        name = max(self.similar, key=lambda part: self.contributions[part], default=None)
        return None if name is None or self.contributions[name] <= 0 else name

    def because(self, titles: Mapping[str, str] | None = None) -> str:
        """The strongest reason in words; `titles`: item id → what to call what was taken, its id where missing."""
        part = self.deciding()
        if part is None:
            return "nothing about it speaks for it more than about others"
        words = _PART_WORDS.get(part, part)
        if part == "attributes" and self.shared:
            words = "its " + " and ".join(f"{name} {value}" for name, value in list(self.shared.items())[:2])
        like = self.similar[part]
        if like is not None:
            words += f", like {like if titles is None else titles.get(like, like)}"
        columns = {name: value for name, value in self.table[part].items() if name in self.context}
        column = max(columns, key=lambda name: columns[name], default=None)
        if column is not None and columns[column] >= _CONTEXT_SHARE * self.contributions[part]:
            words += f", with {column} {self.context[column]}"
        return words
