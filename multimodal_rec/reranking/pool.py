"""From scores to lists through steps: the pool that they read, and the k that they leave."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from multimodal_rec.errors import ConfigError
from multimodal_rec.people import Person
from multimodal_rec.reranking.candidates import Candidates, Shelf
from multimodal_rec.reranking.step import Step
from multimodal_rec.retrieval import Query, TopK, best_rows, check_numbers
from multimodal_rec.scorer import Scorer


class Reader(NamedTuple):
    """Whose list it is."""

    name: str
    """What steps that draw at random draw by."""
    taken: Collection[int]
    """Rows of what the person took."""
    excluded: Collection[int]
    """Rows that they are not to be shown."""


def best_after(
    scorer: Scorer,
    people: Sequence[str | Person],
    scores: np.ndarray,
    *,
    k: int,
    query: Query,
    excluded: Sequence[Collection[int]],
) -> TopK:
    """The k items a person that the query's steps leave of the best ones; arguments as of `pools_of`."""
    return _lists(pools_of(scorer, people, scores, k=k, query=query, excluded=excluded), query.steps, k)


def pools_of(
    scorer: Scorer,
    people: Sequence[str | Person],
    scores: np.ndarray,
    *,
    k: int,
    query: Query,
    excluded: Sequence[Collection[int]],
) -> list[Candidates]:
    """What the first of the query's steps reads, one list a person, best first; `scores`: float32 (person, item).

    The best `query.pool` items that may be shown, at least k, and for each step that wants items of a kind the best k
    of those. `excluded`: rows a person to leave out. Errors as of `top_k`.
    """
    readers = [_reader(scorer, person, left_out) for person, left_out in zip(people, excluded, strict=True)]
    return _pools(scorer.shelf, readers, scores, k=k, query=query, allowed=query.allowed_mask(scorer.table))


def best_on(
    shelf: Shelf, readers: Sequence[Reader], scores: np.ndarray, *, k: int, query: Query, allowed: np.ndarray
) -> TopK:
    """`best_after` of any shelf's items; `allowed`: what the query admits of them, bool (item,)."""
    return _lists(_pools(shelf, readers, scores, k=k, query=query, allowed=allowed), query.steps, k)


def _pools(
    shelf: Shelf, readers: Sequence[Reader], scores: np.ndarray, *, k: int, query: Query, allowed: np.ndarray
) -> list[Candidates]:
    if k < 1:
        raise ConfigError(f"k is {k}. Expected at least 1.")
    check_numbers(scores, shelf.ids)
    masks = [mask for step in query.steps if (mask := step.wanted(shelf)) is not None]
    pools: list[Candidates] = []
    for reader, row in zip(readers, scores, strict=True):
        usable = np.where(allowed, row, np.float32(-np.inf))
        usable[np.fromiter(reader.excluded, dtype=np.int64)] = -np.inf
        wanted = [best_rows(np.where(mask, usable, np.float32(-np.inf)), k) for mask in masks]
        rows = np.unique(np.concatenate([best_rows(usable, max(k, query.pool)), *wanted]))
        pools.append(_candidates(shelf, reader, rows[np.argsort(-row[rows], kind="stable")], row))
    return pools


def found_after(scorer: Scorer, people: Sequence[str | Person], found: TopK, *, k: int, query: Query) -> TopK:
    """The k items a person that the query's steps leave of lists found otherwise, best first, such as a shortlist's."""
    pools: list[Candidates] = []
    for person, ids, scores in zip(people, found.ids, found.scores, strict=True):
        rows = np.array([scorer.item_rows[item_id] for item_id in ids if item_id is not None], dtype=np.int64)
        by_row = np.full(len(scorer.ids), -np.inf, dtype=np.float32)
        by_row[rows] = scores[: len(rows)]
        pools.append(_candidates(scorer.shelf, _reader(scorer, person), rows, by_row))
    return _lists(pools, query.steps, k)


def after_steps(candidates: Candidates, steps: Sequence[Step], k: int) -> Candidates:
    """What the steps make of a list, one after the other, cut to k."""
    for step in steps:
        candidates = step.apply(candidates, k)
    return candidates.take(np.arange(min(k, len(candidates))))


def _reader(scorer: Scorer, person: str | Person, excluded: Collection[int] = ()) -> Reader:
    return Reader(person_name(person), scorer.people.seen(person), excluded)


def _candidates(shelf: Shelf, reader: Reader, rows: np.ndarray, scores: np.ndarray) -> Candidates:
    taken = np.array(sorted(reader.taken), dtype=np.int64)
    return Candidates(shelf, rows, scores[rows], taken=taken, person=reader.name)


def person_name(person: str | Person) -> str:
    """A person's id, or what tells one without an id from others."""
    return person if isinstance(person, str) else "\n".join([*person.history, person.profile or ""])


def _lists(pools: Sequence[Candidates], steps: Sequence[Step], k: int) -> TopK:
    ids: list[list[str | None]] = []
    scores = np.full((len(pools), k), -np.inf, dtype=np.float32)
    for place, pool in enumerate(pools):
        shown = after_steps(pool, steps, k)
        scores[place, : len(shown)] = shown.scores
        ids.append([*shown.ids, *[None] * (k - len(shown))])
    return TopK(ids, scores)
