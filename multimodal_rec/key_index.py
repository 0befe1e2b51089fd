"""Many keys in little memory: which were seen, and where they lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, final

import numpy as np
from pandas.util import hash_array


class _Run(NamedTuple):
    keys: np.ndarray
    """Uint64 (key,), ascending."""
    places: np.ndarray
    """Int32 (key,)."""


@final
class KeyIndex:
    """Keys, each with a place (an integer from 0): 12 bytes a key, where a dict takes more than 150.

    Keys are kept as 64 bits of hash: of a hundred million, two are mistaken for one another once in 3,700 runs. Sorted
    runs are merged as they grow, so that a million keys lie in about ten of them.
    """

    def __init__(self) -> None:
        self._runs: list[_Run] = []

    def __len__(self) -> int:
        """How many keys were added."""
        return sum(len(run.keys) for run in self._runs)

    def add(self, keys: Sequence[str], place: int = 0) -> None:
        """Remember these keys at one place."""
        if not keys:
            return
        hashes = np.sort(_hashes(keys))
        self._runs.append(_Run(hashes, np.full(len(hashes), place, dtype=np.int32)))
        while len(self._runs) > 1 and len(self._runs[-2].keys) < 2 * len(self._runs[-1].keys):
            later, earlier = self._runs.pop(), self._runs.pop()
            # The later one first: of a key at two places, the one that was added last is found.
            joined = np.concatenate([later.keys, earlier.keys])
            order = np.argsort(joined, kind="stable")
            self._runs.append(_Run(joined[order], np.concatenate([later.places, earlier.places])[order]))

    def find(self, keys: Sequence[str]) -> np.ndarray:
        """The place of each key, int32 (key,); -1 where it was never added."""
        found = np.full(len(keys), -1, dtype=np.int32)
        if not len(keys):
            return found
        hashes = _hashes(keys)
        for run in self._runs:
            at = np.minimum(np.searchsorted(run.keys, hashes), len(run.keys) - 1)
            hit = run.keys[at] == hashes
            found[hit] = run.places[at[hit]]
        return found

    def forget(self, place: int) -> None:
        """Drop every key at one place."""
        kept = [_Run(run.keys[run.places != place], run.places[run.places != place]) for run in self._runs]
        self._runs = [run for run in kept if len(run.keys)]


def _hashes(keys: Sequence[str]) -> np.ndarray:
    values: Sequence[str | bytes] = keys
    try:
        "".join(keys).encode()
    except UnicodeEncodeError:
        # Half a surrogate pair; the bytes of all other keys hash to what the keys themselves do.
        values = [key.encode(errors="surrogatepass") for key in keys]
    array = np.array(values, dtype=object)
    return hash_array(array, categorize=False)  # pyright: ignore[reportCallIssue] - pandas declares it as any object
