"""Which people, situations or items a scorer serves well: one metric, a row a label, an interval around each.

Labels come from the caller (what an item has, who a person is), from the queries (context), or from how often items
were taken (`popularity_labels`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from multimodal_rec.errors import ConfigError, UnknownIdError
from multimodal_rec.evaluation.rankings import Rankings
from multimodal_rec.evaluation.significance import intervals

HOT, WARM, COLD = "hot", "warm", "cold"
"""What `popularity_labels` calls items."""


def popularity_labels(known: pd.DataFrame, item_ids: Sequence[str], *, hot_share: float = 0.2) -> dict[str, str]:
    """Item id → 'hot', 'warm' or 'cold', by how many people took each in `known` (user_id and item_id).

    Cold: nobody. Hot: the `hot_share` (rounded up) of the items that anybody took which most people took; items tied
    with the first one beyond that share are not hot, so that chance never draws the line. Warm: the rest.
    """
    if not 0 <= hot_share <= 1:
        raise ConfigError(f"hot_share is {hot_share}. Expected a share of the items that were taken, between 0 and 1.")
    pairs = pd.DataFrame(known[["user_id", "item_id"]]).drop_duplicates()
    takers = pairs.groupby("item_id").size().reindex(pd.Index(item_ids), fill_value=0).to_numpy()
    taken = np.sort(takers[takers > 0])[::-1]
    num_hot = int(np.ceil(hot_share * taken.size))
    line = taken[num_hot] if num_hot < taken.size else 0
    labels = np.where(takers == 0, COLD, np.where(takers > line, HOT, WARM))
    return dict(zip(item_ids, labels.tolist(), strict=True))


def by_item(rankings: Rankings, labels: Mapping[str, str], metric: str) -> pd.DataFrame:
    """`metric` for the positives of each label of item; see `Evaluation.by_item`."""
    item_labels = _labels_of(rankings.item_ids[rankings.item_index], labels, "items")
    return _table(
        {label: rankings.of_positives(item_labels == label) for label in _in_order(labels, item_labels)}, metric
    )


def by_person(rankings: Rankings, labels: Mapping[str, str], metric: str) -> pd.DataFrame:
    """`metric` for the people of each label; see `Evaluation.by_person`."""
    user_labels = _labels_of(pd.Index(rankings.queries["user_id"]), labels, "people")
    return _table(
        {label: rankings.of_queries(user_labels == label) for label in _in_order(labels, user_labels)}, metric
    )


def by_context(rankings: Rankings, column: str, metric: str) -> pd.DataFrame:
    """`metric` for the queries of each value of a context column; see `Evaluation.by_context`."""
    columns = [name for name in rankings.queries if name != "user_id"]
    if column not in columns:
        have = f"Expected one of {', '.join(map(repr, columns))}" if columns else "This evaluation had no context"
        raise ConfigError(f"the queries have no context column '{column}'. {have}.")
    codes, values = pd.factorize(rankings.queries[column], sort=True, use_na_sentinel=False)
    table = _table({code: rankings.of_queries(codes == code) for code in range(len(values))}, metric)
    return table.set_axis(pd.Index(values, name=column))


def _in_order(labels: Mapping[str, str], used: np.ndarray) -> list[str]:
    # Labels in the order in which the caller names them; those without a positive have no row.
    there = set(used)
    return [label for label in dict.fromkeys(labels.values()) if label in there]


def _labels_of(ids: pd.Index, labels: Mapping[str, str], what: str) -> np.ndarray:
    codes, unique = pd.factorize(ids)
    missing = [name for name in unique if name not in labels]
    if missing:
        raise UnknownIdError(
            f"{len(missing)} of {len(unique)} {what} with positives have no label, such as '{missing[0]}'. "
            "Give every one a label; a name of its own for the rest will do."
        )
    return np.array([labels[name] for name in unique], dtype=object)[codes]


def _table(parts: Mapping[str, Rankings] | Mapping[int, Rankings], metric: str) -> pd.DataFrame:
    rows = []
    for part in parts.values():
        values = part.per_user([metric])
        counts = {"people": len(values), "queries": len(part.queries), "positives": len(part.item_index)}
        rows.append(counts | intervals(values).loc[metric].to_dict())
    index = pd.Index(list(parts), name="label")
    return pd.DataFrame(rows, index=index, columns=["people", "queries", "positives", "mean", "low", "high"])
