"""Which interactions a model learns from, is chosen on, and is judged on."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import pandas as pd

from multimodal_rec.errors import SplitError

if TYPE_CHECKING:
    from multimodal_rec.catalogue import Catalogue

SPLITS = ("time", "last", "share", "cold_items", "cold_users", "random", "label")
"""The ways to split; see `split_parts`."""

TRAIN, VALID, TEST = 0, 1, 2
GIVEN_VALID, GIVEN_TEST = 3, 4
"""Histories of held-out people: nobody learns from them, whoever ranks for these people may read them."""

IDENTITY = ("user_id", "item_id", "timestamp", "position", "event", "value")
"""Interactions that agree in all of these columns (as far as there are any) are one interaction."""

GIVEN_SHARE = 0.8
"""Of a held-out person's interactions, the share that is history; the rest is asked for."""

_LABELS = {"train": TRAIN, "valid": VALID, "test": TEST, "0": TRAIN, "1": VALID, "2": TEST}


@dataclass(frozen=True, eq=False, kw_only=True)
class Part:
    """Which part of a split a catalogue is: what guards against leaks go by."""

    name: Literal["train", "valid", "test"]
    how: str
    """One of `SPLITS`."""
    since: int | None = None
    """Of a split by time: the first moment (Unix seconds) of this part; None for the training part."""
    until: int | None = None
    """Of a split by time: the first moment of the part after it; None for the test part."""
    given: pd.DataFrame | None = None
    """Of `cold_users`: the histories of this part's people, to be read and not to be learned from."""


class Split(NamedTuple):
    """Three catalogues over the same people, no interaction in two of them: `train, valid, test = ...`."""

    train: Catalogue
    valid: Catalogue
    test: Catalogue


def split_parts(
    interactions: pd.DataFrame,
    how: str,
    *,
    valid: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    column: str | None = None,
) -> np.ndarray:
    """Int64 (row,): 0 for training, 1 for validation, 2 for test. `valid=0` or `test=0` leaves that part empty.

    Rows that agree in all of `IDENTITY` are one interaction written twice: all go into the first part that one is in,
    except with `label`.

    - `time`: one cut over all people. `test` is the latest share of the interactions, `valid` the share before it;
      interactions of one second never straddle a cut but go to the later part, which may so come out larger.
    - `last`: each person's last interaction is for test, the one before for validation (their shares do not matter
      unless 0). Whoever has too few keeps the earliest for training: two give one for training and one for test.
    - `share`: each person's n interactions in order; the last n - floor((1 - test) n) are for test and those from
      floor((1 - valid - test) n) up to there for validation. Each person's first interaction stays in training.
    - `cold_items`: `round(test * n)` of the n items with interactions, drawn by
      `default_rng(seed).permutation(n)` over their ids in order (numbers by value, else by text), lose every
      interaction to test, and the `round(valid * n)` that follow in the permutation to validation.
    - `cold_users`: people drawn in the same way, whose interactions nobody learns from: 3 and 4 are their histories,
      the first four fifths in order (at least one), for validation and test; the rest is asked for.
    - `random`: interactions drawn by `default_rng(seed)`, rounded in the same way.
    - `label`: `column` says it in words (train, valid, test) or numbers (0, 1, 2).

    Order comes from `timestamp`, else from `position`; ties stay in the order of the rows, so a caller who shuffles
    rows first decides ties by chance. Raises `SplitError` where there is no order to split by, where a share is not
    possible, or where a part that was asked for would be empty.
    """
    if how not in SPLITS:
        near = difflib.get_close_matches(how, SPLITS, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise SplitError(f"there is no split '{how}'. Expected one of {', '.join(map(repr, SPLITS))}.{hint}")
    if not (0 <= valid < 1 and 0 <= test < 1 and valid + test < 1):
        raise SplitError(
            f"valid={valid} and test={test} leave nothing to train on. Expected shares with a sum below 1."
        )
    if not len(interactions):
        raise SplitError("this catalogue has no interactions to split. Fit on all of it, or add interactions.")
    ways: dict[str, Callable[[], np.ndarray]] = {
        "label": lambda: _by_label(interactions, column),
        "time": lambda: _by_time(interactions, valid, test),
        "last": lambda: _by_last(interactions, valid, test),
        "share": lambda: _by_share(interactions, valid, test),
        "cold_items": lambda: _drawn(interactions["item_id"].tolist(), valid, test, seed),
        "cold_users": lambda: _by_cold_users(interactions, valid, test, seed),
        "random": lambda: _at_random(interactions, valid, test, seed),
    }
    parts = ways[how]()
    if how != "label":
        parts = _together(interactions, parts)
    for part, name, share in ((TRAIN, "train", 1.0), (VALID, "valid", valid), (TEST, "test", test)):
        if share > 0 and not (parts == part).any() and (how != "label" or part == TRAIN):
            remedy = "Give more interactions" if part == TRAIN else f"Raise {name}, pass {name}=0"
            raise SplitError(
                f"the {name} part of the '{how}' split would be empty: {len(interactions)} interactions, "
                f"valid={valid}, test={test}. {remedy}, or take another split."
            )
    return parts


def interaction_order(interactions: pd.DataFrame) -> np.ndarray | None:
    """Row numbers from the earliest to the latest interaction, by `timestamp`, else `position`; None without either.

    The sort is stable: ties stay in the order of the rows.
    """
    for column in ("timestamp", "position"):
        if column in interactions:
            return np.argsort(interactions[column].to_numpy(), kind="stable")
    return None


def _ordered(interactions: pd.DataFrame, how: str) -> np.ndarray:
    order = interaction_order(interactions)
    if order is None:
        raise SplitError(
            f"the '{how}' split needs an order, and the interactions have neither a 'timestamp' nor a 'position' "
            "column. Add one, or split by 'random' or 'cold_items'."
        )
    return order


def _by_time(interactions: pd.DataFrame, valid: float, test: float) -> np.ndarray:
    order = _ordered(interactions, "time")
    times = interactions["timestamp" if "timestamp" in interactions else "position"].to_numpy()
    parts = np.zeros(len(times), dtype=np.int64)
    num_earlier = len(times)
    # From the latest part backwards: ties that make test larger leave validation its own share of what is earlier.
    for part, share in ((TEST, test), (VALID, valid)):
        size = round(share * len(times))
        if size:
            cut = times[order[max(num_earlier - size, 0)]]
            parts[(times >= cut) & (parts == TRAIN)] = part
            num_earlier = int((times < cut).sum())
    return parts


def _turns(interactions: pd.DataFrame, how: str) -> tuple[np.ndarray, np.ndarray]:
    # Each interaction's place in its user's order, from 0, and how many that user has.
    order = _ordered(interactions, how)
    users = interactions["user_id"].iloc[order].groupby(interactions["user_id"].iloc[order].to_numpy())
    turn = np.empty(len(order), dtype=np.int64)
    turn[order] = users.cumcount().to_numpy()
    count = np.empty(len(order), dtype=np.int64)
    count[order] = users.transform("size").to_numpy()
    return turn, count


def _by_last(interactions: pd.DataFrame, valid: float, test: float) -> np.ndarray:
    turn, count = _turns(interactions, "last")
    from_end = count - 1 - turn
    parts = np.zeros(len(turn), dtype=np.int64)
    num_test = 1 if test > 0 else 0
    if valid > 0:
        parts[(from_end == num_test) & (turn > 0)] = VALID
    if test > 0:
        parts[(from_end == 0) & (turn > 0)] = TEST
    return parts


def _by_share(interactions: pd.DataFrame, valid: float, test: float) -> np.ndarray:
    turn, count = _turns(interactions, "share")
    # The epsilon keeps 0.8 * 10 at 8 where (1 - 0.1 - 0.1) * 10 is 7.999….
    first_valid = np.maximum(np.floor((1 - valid - test) * count + 1e-9), 1)
    first_test = np.maximum(np.floor((1 - test) * count + 1e-9), 1)
    parts = np.zeros(len(turn), dtype=np.int64)
    parts[turn >= first_valid] = VALID
    parts[turn >= first_test] = TEST
    return parts


def _at_random(interactions: pd.DataFrame, valid: float, test: float, seed: int) -> np.ndarray:
    copies = _copies(interactions)
    drawn = np.zeros(copies.max() + 1, dtype=np.int64)
    _assign(drawn, np.random.default_rng(seed).permutation(len(drawn)), valid, test)
    return drawn[copies]


def _drawn(ids: list[str], valid: float, test: float, seed: int) -> np.ndarray:
    """Int64 (row,): parts drawn for each distinct id, every row of an id in its part."""
    distinct = list(dict.fromkeys(ids))
    whole = all(isinstance(each, str) and each.isascii() and each.lstrip("-").isdigit() for each in distinct)
    distinct.sort(key=(lambda each: (int(each), each)) if whole else None)
    label = np.zeros(len(distinct), dtype=np.int64)
    _assign(label, np.random.default_rng(seed).permutation(len(distinct)), valid, test)
    part_of = dict(zip(distinct, label, strict=True))
    return np.array([part_of[each] for each in ids], dtype=np.int64)


def _by_cold_users(interactions: pd.DataFrame, valid: float, test: float, seed: int) -> np.ndarray:
    turn, count = _turns(interactions, "cold_users")
    parts = _drawn(interactions["user_id"].tolist(), valid, test, seed)
    is_history = turn < np.maximum(np.floor(GIVEN_SHARE * count + 1e-9), 1)
    parts[is_history & (parts == VALID)] = GIVEN_VALID
    parts[is_history & (parts == TEST)] = GIVEN_TEST
    return parts


def _together(interactions: pd.DataFrame, parts: np.ndarray) -> np.ndarray:
    # Two copies of one row in two parts would be a question with its answer. Of training, validation, test and both
    # histories: a history comes before what is asked of its people.
    rank = np.array([0, 2, 4, 1, 3])
    first = pd.Series(rank[parts]).groupby(_copies(interactions)).transform("min").to_numpy()
    return np.argsort(rank)[first]


def _copies(interactions: pd.DataFrame) -> np.ndarray:
    """Int64 (row,): one number for all rows of one interaction, from 0 in order of appearance."""
    columns = [name for name in IDENTITY if name in interactions]
    return interactions.groupby(columns, sort=False, dropna=False).ngroup().to_numpy()


def _assign(parts: np.ndarray, permutation: np.ndarray, valid: float, test: float) -> None:
    num_test, num_valid = round(test * len(parts)), round(valid * len(parts))
    parts[permutation[:num_test]] = TEST
    parts[permutation[num_test : num_test + num_valid]] = VALID


def _by_label(interactions: pd.DataFrame, column: str | None) -> np.ndarray:
    if column is None or column not in interactions:
        have = ", ".join(map(repr, interactions.columns))
        raise SplitError(
            f"the 'label' split reads a column, and column={column!r} is not among {have}. Name one of them."
        )
    labels = [
        str(int(v)) if isinstance(v, (float, np.floating)) and v in (0, 1, 2) else str(v) for v in interactions[column]
    ]
    for row, label in enumerate(labels):
        if label not in _LABELS:
            raise SplitError(
                f"column '{column}' holds {label!r} in row {row}. Expected 'train', 'valid' or 'test', or 0, 1 or 2."
            )
    return np.array([_LABELS[label] for label in labels], dtype=np.int64)
