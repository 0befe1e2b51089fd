"""Guards: an evaluation that would be told what it asks stops, and names the rows.

Kinds of leak, each with its guard: an interaction in two parts (`check_disjoint`), a part used for what it is not for
(`check_role`), something computed from interactions or written into items after the moment that divides the parts
(`check_before`, `check_written`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pandas as pd

from multimodal_rec.catalogue import Catalogue
from multimodal_rec.errors import LeakError
from multimodal_rec.fields import column_of, number_values
from multimodal_rec.splits import IDENTITY, Part


def check_disjoint(parts: Mapping[str, pd.DataFrame]) -> None:
    """None where no interaction is in two of these frames; else raises `LeakError` naming it and the two parts."""
    names = list(parts)
    for place, first in enumerate(names):
        for second in names[place + 1 :]:
            shared = _shared(parts[first], parts[second])
            if len(shared):
                raise LeakError(
                    f"{len(shared)} interactions are in both the {first} and the {second} interactions. Expected "
                    f"every interaction in one part: what was learned would be asked. Split again, or drop these from "
                    f"the {first} interactions:",
                    shared,
                )


def check_role(part: Catalogue, role: Literal["train", "choose", "judge"]) -> None:
    """None where a catalogue that came from a split may serve as this; else raises `LeakError`.

    The test part may only judge: whatever learns from it or is chosen on it (`valid=`) has seen the answers.
    """
    if part.part is None or part.part.name != "test" or role == "judge":
        return
    used = "to learn from" if role == "train" else "to choose on"
    raise LeakError(
        f"the test part of a '{part.part.how}' split is given {used}: {len(part.interactions)} interactions. "
        "Expected the train or valid part; test data judges once, at the end. Pass the right part:",
        part.interactions,
    )


def check_before(log: pd.DataFrame, part: Part, *, what: str) -> None:
    """None where `log`, which `what` was computed from, is older than a part of a split by time; else `LeakError`.

    Parts of other splits overlap in time by their nature and are let through.
    """
    if part.since is None or "timestamp" not in log:
        return
    future = log.loc[log["timestamp"].to_numpy() >= part.since]
    if len(future):
        raise LeakError(
            f"{what} come from the future: {len(future)} interactions are not older than the {part.name} part, which "
            f"begins at {part.since}. Expected timestamps before that. Fit on the train part of the same split:",
            _identity(future),
        )


def check_written(catalogue: Catalogue, known: pd.DataFrame) -> None:
    """None where what items and people say was written before it is asked for; else raises `LeakError` naming them.

    Goes by the columns that `schema.updated` names (Unix seconds), in a part of a split by time. An item or person of
    the `known` interactions must not be newer than the part's begin; one that only comes up in the part not newer
    than its first interaction there.
    """
    part = catalogue.part
    limit = None if part is None else part.until if part.since is None else part.since
    if part is None or limit is None:
        return
    frames = {"items": (catalogue.items, "item_id"), "users": (catalogue.users, "user_id")}
    for table, column in catalogue.schema.updated.items():
        frame, key = frames[table]
        if frame is None:
            continue
        deadline = np.full(len(frame), float(limit))
        if part.since is not None:
            first = frame[key].map(catalogue.interactions.groupby(key)["timestamp"].min()).to_numpy(dtype=np.float64)
            is_new = ~frame[key].isin(known[key].tolist()).to_numpy()
            # At the first event itself the content was there; whoever has none is asked for by nobody.
            deadline[is_new] = np.where(np.isnan(first), np.inf, first + 1)[is_new]
        late = frame[column].to_numpy(dtype=np.float64) >= deadline
        if late.any():
            raise LeakError(
                f"{int(late.sum())} {table} were written ('{column}') after the moment that they are read for. "
                "Expected texts, attributes and vectors as they stood then. Give the older version, or leave these "
                f"{table} out:",
                frame.loc[late, [key, column]],
            )


def _shared(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    columns = [name for name in IDENTITY if name in first and name in second]
    return _identity(first.loc[_keys(first, columns).isin(_keys(second, columns))]).drop_duplicates()


def _keys(frame: pd.DataFrame, columns: list[str]) -> pd.MultiIndex:
    """One key a row; what was read back from a store has other types than what was written."""
    plain: list[np.ndarray] = []
    for name in columns:
        if name in ("timestamp", "position", "value"):
            plain.append(np.nan_to_num(number_values(column_of(frame, name)), nan=-np.inf))
        else:
            plain.append(np.array(["" if pd.isna(each) else str(each) for each in frame[name]], dtype=object))
    return pd.MultiIndex.from_arrays(plain)


def _identity(log: pd.DataFrame) -> pd.DataFrame:
    return log.loc[:, [name for name in IDENTITY if name in log]]
