"""How much each part of an item, the person's history and the context contributed to a score."""

from __future__ import annotations

from typing import NamedTuple


class Explanation(NamedTuple):
    """A score taken apart by leaving one part out at a time.

    The contributions need not sum to the score: parts share attention, so that what one leaves the others take up.
    """

    user_id: str
    item_id: str
    score: float
    contributions: dict[str, float]
    """Part → score less the score without it: each modality, 'attributes', 'behaviour', and 'history' and 'context'
    on the side of the query. 0 where the item, person or query has nothing of it."""
    similar: dict[str, str | None]
    """Part of the item → what the person took that is most like it there, None where nothing is."""

    def because(self) -> str:
        """The strongest reason in words."""
        parts = {name: value for name, value in self.contributions.items() if name in self.similar}
        name = max(parts, key=lambda part: parts[part])
        if parts[name] <= 0:
            return "nothing about it speaks for it more than about others"
        like = self.similar[name]
        what = {"image": "its picture", "audio": "its sound", "video": "its film", "text": "its text"}.get(
            name, {"attributes": "its attributes", "behaviour": "who else took it"}.get(name, name)
        )
        return what if like is None else f"{what}, like {like}"
