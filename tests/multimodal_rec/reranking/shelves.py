"""Lists small enough to reorder by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from multimodal_rec.reranking import Candidates, Shelf


def listed(
    scores: Sequence[float],
    *,
    embeddings: Sequence[Sequence[float]] | np.ndarray | None = None,
    attributes: Sequence[Mapping[str, object]] | None = None,
    counts: Sequence[int] | None = None,
    taken: Sequence[int] = (),
    person: str = "u",
) -> Candidates:
    """Items a, b, c ... with these scores, as one list from the best to the worst; row 0 is a."""
    count = len(scores)
    made = np.eye(count) if embeddings is None else np.asarray(embeddings, dtype=np.float32)
    shelf = Shelf(
        [chr(ord("a") + row) for row in range(count)],
        made,
        np.array([1] * count if counts is None else counts),
        attributes=[{}] * count if attributes is None else attributes,
    )
    numbers = np.array(scores, dtype=np.float32)
    order = np.argsort(-numbers, kind="stable")
    return Candidates(shelf, order, numbers[order], taken=np.array(taken, dtype=np.int64), person=person)


def shown(candidates: Candidates, k: int) -> str:
    """The first k ids as one word."""
    return "".join(candidates.ids[:k])
