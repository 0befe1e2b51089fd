"""From scores to the few items to show: the best k a person, and which items may be among them."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from multimodal_rec.errors import ConfigError, ItemError, UnknownIdError
from multimodal_rec.rows import ItemTable

if TYPE_CHECKING:
    from multimodal_rec.reranking.step import Step

# So few scores are sorted sooner than the best of them are found.
_SORTED_WHOLE = 1024


class TopK(NamedTuple):
    """The best items a person, best first; rows with fewer than k items end in None and -inf."""

    ids: list[list[str | None]]
    """`user` lists of k item ids."""
    scores: np.ndarray
    """Float32 (user, k), descending."""


@dataclass(frozen=True, kw_only=True)
class Query:
    """Which items a recommendation may hold; several conditions hold together."""

    exclude_seen: bool = True
    """Leave out what the person's history holds."""
    exclude: tuple[str, ...] = ()
    """Item ids to leave out; an id that is not stored is left out already."""
    candidates: tuple[str, ...] | None = None
    """Only these item ids; None admits all."""
    where: Mapping[str, object] | None = None
    """Attribute → the value that an item must have, or a tuple of values of which it must have one. An attribute with
    several values, such as tags, matches where any of them does; an item without the attribute never does."""
    never: Mapping[str, object] | None = None
    """Attribute → the value, or a tuple of values, that an item must not have, read as in `where`."""
    by: Literal["ranking", "retrieval"] = "ranking"
    """Which score orders them: the context-aware one, or the inner product with the item's own embedding, which costs
    less and tells less of the context."""
    shortlist: int | None = None
    """How many items of the highest retrieval scores, found through the index, are ranked; None ranks every item. At
    least k; a few times k loses little."""

    steps: tuple[Step, ...] = ()
    """What is done to each list after the ranking, in this order: variety, exposure, rules (`reranking`)."""
    pool: int = 100
    """How many of the best items the first of the steps reads, beside those that a step asks for by itself; no more
    than the shortlist, where there is one."""

    def __post_init__(self) -> None:
        if self.by not in ("ranking", "retrieval"):
            raise ConfigError(f"Query.by is {self.by!r}. Expected 'ranking' or 'retrieval'.")
        if self.pool < 1:
            raise ConfigError(f"Query.pool is {self.pool}. Expected at least 1, better ten times the k asked for.")
        strange = [step for step in self.steps if not callable(getattr(step, "apply", None))]
        if strange:
            raise ConfigError(
                f"Query.steps holds {strange[0]!r}. Expected steps of multimodal_rec.reranking, such as MMR(0.3)."
            )
        object.__setattr__(self, "steps", tuple(self.steps))
        if self.shortlist is not None and self.shortlist < 1:
            raise ConfigError(f"Query.shortlist is {self.shortlist}. Expected at least 1, or None to rank every item.")
        for name in ("exclude", "candidates"):
            value = getattr(self, name)
            if isinstance(value, str):
                raise ConfigError(f"Query.{name} is the text '{value}'. Expected a tuple of ids, such as ('{value}',).")
            if value is not None:
                object.__setattr__(self, name, tuple(value))

    def allowed_mask(self, table: ItemTable) -> np.ndarray:
        """Which of the table's items this query admits, bool (item,); what was seen is the caller's to leave out.

        Raises `UnknownIdError` for a candidate that the table does not hold, `ConfigError` for an attribute that
        none of its items has.
        """
        allowed = np.ones(len(table.ids), dtype=bool)
        position = table.position
        if self.candidates is not None:
            unknown = [item_id for item_id in self.candidates if item_id not in position]
            if unknown:
                raise UnknownIdError(
                    f"{len(unknown)} of {len(self.candidates)} candidates are not among the {len(table.ids)} embedded "
                    f"items: {', '.join(map(repr, unknown[:5]))}. Embed them first, or leave them out."
                )
            allowed[:] = False
            allowed[[position[item_id] for item_id in self.candidates]] = True
        allowed[[position[item_id] for item_id in self.exclude if item_id in position]] = False
        for name, wanted in (self.where or {}).items():
            allowed &= _matches(table, "where", name, wanted)
        for name, unwanted in (self.never or {}).items():
            allowed &= ~_matches(table, "never", name, unwanted)
        return allowed


def top_k(
    scores: np.ndarray,
    ids: Sequence[str],
    *,
    k: int,
    excluded: Sequence[Collection[int]] | None = None,
    allowed: np.ndarray | None = None,
) -> TopK:
    """The k items with the highest scores a person, best first; equal scores keep the order of `ids`.

    `scores`: float (user, item), of which -inf is never shown; `ids`: an id an item; `excluded`: item indices a
    person to leave out; `allowed`: bool (item,) or (user, item), True = may be shown. k may exceed the number of
    items. Raises `ItemError` where a score is NaN, `ConfigError` where k is below 1, `ValueError` where shapes
    disagree.
    """
    if k < 1:
        raise ConfigError(f"k is {k}. Expected at least 1.")
    if scores.ndim != 2 or scores.shape[1] != len(ids):
        raise ValueError(f"scores have shape {scores.shape}. Expected (user, {len(ids)}), a column an id.")
    num_users = len(scores)
    if excluded is not None and len(excluded) != num_users:
        raise ValueError(f"excluded has {len(excluded)} rows. Expected {num_users}, one a row of scores.")
    if allowed is not None and allowed.shape not in ((len(ids),), scores.shape):
        raise ValueError(f"allowed has shape {allowed.shape}. Expected ({len(ids)},) or {scores.shape}.")
    check_numbers(scores, ids)
    kept = scores.astype(np.float32)
    if allowed is not None:
        kept = np.where(allowed, kept, np.float32(-np.inf))
    best = np.full((num_users, k), -np.inf, dtype=np.float32)
    names: list[list[str | None]] = []
    for user, row in enumerate(kept):
        if excluded is not None:
            row[np.fromiter(excluded[user], dtype=np.int64)] = -np.inf
        order = best_rows(row, k)
        best[user, : len(order)] = row[order]
        shown: list[str | None] = [ids[int(i)] for i in order]
        names.append(shown + [None] * (k - len(order)))
    return TopK(names, best)


def best_rows(row: np.ndarray, k: int) -> np.ndarray:
    """Where the k highest of one row of scores are, int64, best first; equal ones keep their order, -inf is never."""
    if k < len(row) and len(row) > _SORTED_WHOLE:
        # A partial sort finds the k-th score in linear time; whoever ties with it enters in the order of the items.
        threshold = np.partition(row, len(row) - k)[len(row) - k]
        above = np.flatnonzero(row > threshold)
        tied = np.flatnonzero(row == threshold)[: k - len(above)]
        chosen = np.sort(np.concatenate([above, tied]))
        order = chosen[np.argsort(-row[chosen], kind="stable")]
    else:
        order = np.argsort(-row, kind="stable")[:k]
    return order[row[order] > -np.inf]


def _matches(table: ItemTable, rule: str, name: str, wanted: object) -> np.ndarray:
    known = table.columns.names
    if name not in known and len(table.ids) > 0:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean '{near[0]}'?" if near else f"They have: {', '.join(known) or 'none'}."
        raise ConfigError(f"Query.{rule} names the attribute '{name}', which no embedded item has. {hint}")
    return table.columns.mask(name, wanted if isinstance(wanted, (tuple, list)) else (wanted,))


def check_numbers(scores: np.ndarray, ids: Sequence[str]) -> None:
    """Raise `ItemError` naming the items with a score, of (user, item), that is NaN."""
    broken = np.isnan(scores).sum(axis=0)
    if broken.any():
        first = np.flatnonzero(broken)[:5].tolist()
        raise ItemError(
            f"scores of {np.count_nonzero(broken)} of {len(ids)} items are NaN, so they have no order. "
            "Expected numbers. Look at these items' embeddings and at the model's weights; the first of them:",
            {ids[int(i)]: f"NaN for {broken[i]} of {len(scores)} people" for i in first},
        )
