"""What every step is, and which items a rule is about."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from multimodal_rec.errors import ConfigError
from multimodal_rec.reranking.candidates import Candidates, Shelf


class Step(ABC):
    """One thing done to a list. Steps are applied in their order, each to what the one before left."""

    @abstractmethod
    def apply(self, candidates: Candidates, k: int) -> Candidates:
        """The same candidates or fewer, in a new order, of which the first k are to be shown."""

    def wanted(self, shelf: Shelf) -> np.ndarray | None:  # noqa: ARG002 (for those that ask for something)
        """Which items the pool must hold the best k of, bool (item,), for the step to do its work; None: the pool is
        enough as it is."""
        return None


@dataclass(frozen=True)
class Group:
    """Items that share an attribute's value, or that few took yet; several conditions hold together."""

    where: Mapping[str, object] = field(default_factory=dict)
    """Attribute → its value, or a tuple of values of which an item must have one."""
    max_events: int | None = None
    """The log has at most so many events of an item; 0: nobody took it yet. None asks for nothing."""

    def __post_init__(self) -> None:
        if not self.where and self.max_events is None:
            raise ConfigError("a Group is about every item. Expected where={'creator': ...}, max_events=0, or both.")

    def mask(self, shelf: Shelf) -> np.ndarray:
        """Which items belong, bool (item,). Raises `ConfigError` for an attribute that no item has."""
        member = np.ones(len(shelf.ids), dtype=bool) if self.max_events is None else shelf.counts <= self.max_events
        for name, value in self.where.items():
            check_attribute(shelf, name, "Group.where")
            member = member & shelf.columns.mask(name, value if isinstance(value, (tuple, list)) else (value,))
        return member


def check_attribute(shelf: Shelf, name: str, field_name: str) -> None:
    """Raise `ConfigError` where no item has the attribute."""
    if len(shelf.ids) and name not in shelf.columns.names:
        known = ", ".join(shelf.columns.names) or "none"
        raise ConfigError(f"{field_name} names the attribute '{name}', which no embedded item has. They have: {known}.")


def check_share(value: float, name: str) -> None:
    """Raise `ConfigError` unless a number lies in [0, 1]."""
    if not 0 <= value <= 1:
        raise ConfigError(f"{name} is {value}. Expected a number from 0 to 1.")


def check_whole(value: int, name: str) -> None:
    """Raise `ConfigError` unless a number is at least 1."""
    if value < 1:
        raise ConfigError(f"{name} is {value}. Expected at least 1.")


def values_of(row: Mapping[str, object], name: str) -> list[object]:
    """The values that an item has of an attribute: several of a list, none where it is missing."""
    value = row.get(name)
    if isinstance(value, list):
        return list(dict.fromkeys(value))
    return [] if value is None else [value]
