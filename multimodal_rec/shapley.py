"""What each of a few players adds, over all orders in which they could come."""

from __future__ import annotations

from itertools import product
from math import factorial

import numpy as np


def subsets(num_players: int) -> np.ndarray:
    """Every subset, bool (2^num_players, num_players); the first holds nobody, the last everybody."""
    return np.array(list(product([False, True], repeat=num_players)), dtype=bool).reshape(2**num_players, num_players)


def shapley_values(values: np.ndarray) -> np.ndarray:
    """What each player adds to `values`, float64 (player, ...); over players they sum to the last value less the first.

        φ_p = Σ over S without p of |S|! (n - |S| - 1)! / n! · (v(S ∪ p) - v(S))

    `values`: (2^n, ...), what each subset is worth, in the order of `subsets`; with one row there is no player. Exact,
    not sampled. Source: Shapley, "A value for n-person games" (1953).
    """
    num_players = len(values).bit_length() - 1
    if len(values) != 2**num_players:
        raise ValueError(f"values has {len(values)} rows. Expected a power of 2, one a subset.")
    if num_players == 0:
        return np.zeros((0, *values.shape[1:]))
    there = subsets(num_players)
    size = there.sum(axis=1)
    # A row counts for a player who is in it with the weight of the others before, and against one who is not.
    joined = np.array([factorial(max(s - 1, 0)) * factorial(num_players - max(s, 1)) for s in size])
    missing = np.array([factorial(s) * factorial(max(num_players - s - 1, 0)) for s in size])
    weights = np.where(there, joined[:, None], -missing[:, None]) / factorial(num_players)
    return np.tensordot(weights.T, np.asarray(values, dtype=np.float64), axes=1)
