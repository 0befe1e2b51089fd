"""Raw items, embedded when they are asked about and stored nowhere."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pandas as pd

from multimodal_rec.embedding import EmbeddingJob
from multimodal_rec.errors import CatalogueError, ConfigError, ItemError
from multimodal_rec.retrieval import TopK, top_k
from multimodal_rec.rows import ItemTable, Layout
from multimodal_rec.scorer import Scorer
from multimodal_rec.store import ItemStore
from multimodal_rec.trained import Trained


def embedded_aside(job: EmbeddingJob, items: pd.DataFrame, *, layout: Layout) -> ItemTable:
    """The rows that `embed` would write of these items, by id; nothing is written but the cache of frozen backbones.

    `layout`: of the model's store. `items` as in `Catalogue.items`; a media cell may also be one path in place of a
    list. They go through a store in memory, so that they are rounded as stored rows are and score what they will score
    there. Raises `CatalogueError` without ids, `ItemError` where one comes twice or an item cannot be embedded.
    """
    _check(items)
    frame = items.reset_index(drop=True)
    for name in job.schema.media_columns:
        if name in frame:
            frame[name] = pd.Series([[cell] if isinstance(cell, str) else cell for cell in frame[name]], dtype=object)
    with ItemStore.open(None, layout) as aside:
        report = job.run(frame, aside)
        if report.failed:
            raise ItemError(
                f"{len(report.failed)} of {len(frame)} items cannot be embedded, and none was scored. Expected media "
                "that can be read and one of the model's modalities each. Mend them, or leave them out.",
                report.failed,
            )
        return aside.read_items(model=job.fingerprint)


def with_newcomers(scorer: Scorer, trained: Trained, items: pd.DataFrame) -> tuple[Scorer, set[int]]:
    """A scorer over what is stored and, behind it, these raw items; and the stored rows that they stand in place of."""
    table = embedded_aside(trained.job, items, layout=trained.store.layout)
    return scorer.beside(table), {scorer.item_rows[item_id] for item_id in table.ids if item_id in scorer.item_rows}


def similar_stored(scorer: Scorer, ids: Sequence[str], replaced: set[int], *, k: int) -> TopK:
    """The k stored items most like each of the raw ones; arguments as `with_newcomers` gave them, and the raw ids."""
    raw = [scorer.item_rows[item_id] for item_id in ids]
    excluded: list[Collection[int]] = [replaced.union(raw)] * len(raw)
    return top_k(scorer.similarity(raw), scorer.ids, k=k, excluded=excluded)


def checked_ids(items: object) -> Sequence[str]:
    """Item ids as they came. Raises `ConfigError` where they are no list of text."""
    if isinstance(items, str) or not isinstance(items, Sequence):
        raise ConfigError(
            f"items is {items!r}. Expected a list of item ids such as ['i1'], or a DataFrame of raw items."
        )
    for place, item_id in enumerate(items):
        if not isinstance(item_id, str):
            raise ConfigError(
                f"items[{place}] is {item_id!r}, a {type(item_id).__name__}. Expected text in a list of item ids."
            )
    return items


def check_stored(new_items: pd.DataFrame | None, shortlist: int) -> None:
    """None where no raw items meet a shortlist. Raises `ConfigError` where they do."""
    if new_items is not None:
        raise ConfigError(
            f"Query.shortlist is {shortlist}, and new_items are given, which no index holds. Expected one of the two. "
            "Leave the shortlist out: every item is then ranked."
        )


def _check(items: pd.DataFrame) -> None:
    if "item_id" not in items.columns:
        raise CatalogueError(
            f"raw items need a column 'item_id'; they have {', '.join(map(str, items.columns))}. Give each an id."
        )
    wrong = [(row, value) for row, value in enumerate(items["item_id"]) if not isinstance(value, str) or not value]
    if wrong:
        row, value = wrong[0]
        raise CatalogueError(
            f"item_id of row {row} is {value!r}, a {type(value).__name__}. Expected text, such as 'i1', in every row."
        )
