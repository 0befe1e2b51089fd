"""What each member of an ensemble added to a blended score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from multimodal_rec.context import Context
from multimodal_rec.ensemble_members import ItemColumn
from multimodal_rec.ensemble_state import EnsembleState
from multimodal_rec.explanation import Explanation
from multimodal_rec.people import Person


class EnsembleExplanation(NamedTuple):
    """A blended score taken apart, exactly: by member, and by what each recommender read of the item.

    A recommender adds w / d · (its score - its score of its mean item), with its weight w and deviation d, and a column
    of numbers w / d · (the item's - the mean). A member that does not have the item adds 0.
    """

    user_id: str
    item_id: str
    score: float
    """The blended score."""
    neutral: float
    """What the mean item scores for the same person in the same context, by the members that have the item."""
    contributions: dict[str, float]
    """Member → its share of `score - neutral`."""
    table: dict[str, dict[str, float]]
    """Recommender → part of the item → what it added by that part; rows sum to `contributions`. Empty for a recommender
    that does not have the item."""
    members: dict[str, Explanation]
    """Recommender → its own explanation, in its own units; only of those that have the item."""
    numbers: dict[str, float]
    """Column → the item's number there; only of those that have one."""
    weights: dict[str, float]
    """Member → the ensemble's weight."""

    def deciding(self) -> str | None:
        """The member that contributed most, None where none speaks for the item."""
        name = max(self.contributions, key=lambda member: self.contributions[member])
        return None if self.contributions[name] <= 0 else name

    def because(self, titles: Mapping[str, str] | None = None) -> str:
        """The deciding member's reason in words: as of `Explanation.because`, or the number of a column."""
        name = self.deciding()
        if name is None:
            return "nothing about it speaks for it more than about others"
        if name in self.numbers:
            return f"its {name} of {self.numbers[name]:g}"
        if self.weights[name] < 0:
            return f"'{name}', which counts against an item, expects less of it than of others"
        return self.members[name].because(titles)


class _Share(NamedTuple):
    """One member's part of one blended score."""

    score: float
    neutral: float
    parts: dict[str, float]


def explained_blend(
    state: EnsembleState,
    weights: Mapping[str, float],
    person: str | Person,
    items: Sequence[str],
    *,
    context: Context,
) -> list[EnsembleExplanation]:
    """One explanation an item; arguments and errors as of `Ensemble.explain`."""
    state.check_stored(items)
    state.answered([person], "raise")
    members = state.members
    frame = members.contexts(context, 1)
    own: dict[str, dict[str, Explanation]] = {}
    for name, member in members.by_name.items():
        if not isinstance(member, ItemColumn):
            (told,) = members.told(member, [person])
            own[name] = member.explained(state.scorers[name], told, items, frame)
    found: list[EnsembleExplanation] = []
    for item_id in items:
        said = {name: each[item_id] for name, each in own.items() if item_id in each}
        shares = {name: _share(state, name, weights[name], item_id, said.get(name)) for name in members.by_name}
        columns = {name: each for name, each in members.by_name.items() if isinstance(each, ItemColumn)}
        found.append(
            EnsembleExplanation(
                person if isinstance(person, str) else "",
                item_id,
                score=sum(share.score for share in shares.values()),
                neutral=sum(share.neutral for share in shares.values()),
                contributions={name: share.score - share.neutral for name, share in shares.items()},
                table={name: shares[name].parts for name in own},
                members=said,
                numbers={name: each.values[item_id] for name, each in columns.items() if each.has(item_id)},
                weights=dict(weights),
            )
        )
    return found


def _share(state: EnsembleState, name: str, weight: float, item_id: str, said: Explanation | None) -> _Share:
    member = state.members.by_name[name]
    if isinstance(member, ItemColumn):
        return _Share(weight * float(member.of_values([member.values.get(item_id)])[0]), 0.0, {})
    if said is None:
        return _Share(0.0, 0.0, {})
    scale = state.scales[name]
    unit = weight / scale.deviation
    parts = {part: unit * value for part, value in said.contributions.items()}
    return _Share(unit * (said.score - scale.mean), unit * (said.neutral - scale.mean), parts)
