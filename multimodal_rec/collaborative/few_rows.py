"""Ridge of each item from all others where items are many and the rows they stand in are fewer."""

from __future__ import annotations

from typing import Any, final

import numpy as np
from scipy import sparse
from scipy.linalg import get_lapack_funcs

from multimodal_rec.errors import ConfigError

_ITEMS_AT_ONCE = 2048
"""Items whose weights are written out in one step."""


@final
class FewRows:
    """EASE's weights B (from item, to item), solved for by rows: time goes with the cube of people and features.

    With X̃ the log and below it a row a feature, P = (X̃ᵀX̃ + λI)⁻¹ = (I − X̃ᵀKX̃) / λ with K = (X̃X̃ᵀ + λI)⁻¹, and so
    B = I − P / diag(P) = I − (I − X̃ᵀKX̃) / d, column by column, with d = 1 − diag(X̃ᵀKX̃). In float32: what is inverted
    is λ at least in every direction. Sources: Steck (arXiv:1905.03375), equation 8; Woodbury's identity.
    """

    def __init__(self, taken: sparse.csr_array, features: np.ndarray | None, strength: float) -> None:
        """`taken`: X, (person, item) of 0 and 1; `features`: (item, feature), scaled; `strength`: λ.

        Raises `ConfigError` where λ is too small for the rows to be told apart.
        """
        self._log = sparse.csr_array(taken[np.diff(taken.indptr) > 0].astype(np.float32))
        self._by_item = sparse.csr_array(self._log.T)
        self._num_people, num_items = len(self._log.indptr) - 1, len(self._by_item.indptr) - 1
        self._features = np.zeros((num_items, 0), np.float32) if features is None else features.astype(np.float32)
        between = self._log @ self._features
        gram = np.block(
            [
                [sparse.csr_array(self._log @ self._by_item).toarray(), between],
                [between.T, self._features.T @ self._features],
            ]
        )
        gram[np.diag_indices_from(gram)] += strength
        # By Cholesky, in place. It fills one triangle.
        factorise, invert = get_lapack_funcs(("potrf", "potri"), (gram,))
        factor, failed = factorise(gram.T, lower=1, overwrite_a=1)
        inverse, failed_too = invert(factor, lower=1, overwrite_c=1)
        if failed or failed_too:
            raise ConfigError(f"λ = {strength} is too small for these interactions. Raise it.")
        self._inverse: np.ndarray = np.tril(inverse)
        self._inverse += np.tril(inverse, -1).T
        own = [self._own(slice(start, start + _ITEMS_AT_ONCE)) for start in range(0, num_items, _ITEMS_AT_ONCE)]
        self._left = (1 - np.concatenate(own)).astype(np.float32)

    @staticmethod
    def num_rows(taken: sparse.csr_array, features: np.ndarray | None = None) -> int:
        """How many rows there are to be solved for."""
        return int(np.count_nonzero(np.diff(taken.indptr))) + (0 if features is None else features.shape[1])

    def times(self, columns: np.ndarray) -> np.ndarray:
        """B times columns (item, column)."""
        scaled = columns / self._left[:, None]
        return columns - scaled + self._around(scaled)

    def transposed_times(self, columns: np.ndarray) -> np.ndarray:
        """Bᵀ times columns (item, column)."""
        return columns - (columns - self._around(columns)) / self._left[:, None]

    def dense(self) -> np.ndarray:
        """B itself, float32 (item, item), with a diagonal of 0."""
        num_items = len(self._left)
        weights = np.empty((num_items, num_items), np.float32)
        for start in range(0, num_items, _ITEMS_AT_ONCE):
            part = slice(start, start + _ITEMS_AT_ONCE)
            weights[:, part] = self._back(self._forth(part).T)
        weights /= self._left
        np.fill_diagonal(weights, 0.0)
        return weights

    def _around(self, columns: np.ndarray) -> np.ndarray:
        """X̃ᵀKX̃ times columns."""
        columns = columns.astype(np.float32)
        return self._back(self._inverse @ np.concatenate([self._log @ columns, self._features.T @ columns]))

    def _back(self, rows: np.ndarray) -> np.ndarray:
        """X̃ᵀ times (row, column)."""
        found: Any = self._by_item @ rows[: self._num_people]
        found += self._features @ rows[self._num_people :]
        return found

    def _forth(self, part: slice) -> np.ndarray:
        """X̃ᵀK of some items, (item, row)."""
        found: Any = self._by_item[part] @ self._inverse[: self._num_people]
        found += self._features[part] @ self._inverse[self._num_people :]
        return found

    def _own(self, part: slice) -> np.ndarray:
        """What X̃ᵀKX̃ says of some items and themselves, (item,)."""
        forth = self._forth(part)
        own = np.asarray(self._by_item[part].multiply(forth[:, : self._num_people]).sum(axis=1))
        return own + (self._features[part] * forth[:, self._num_people :]).sum(axis=1)
