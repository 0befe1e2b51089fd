"""Baselines that one linear system solves: EASE, EASE with content, and ridge from content to factors."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse.linalg import svds

from multimodal_rec.baselines.baseline import Baseline, Log
from multimodal_rec.collaborative.item_weights import weights_of
from multimodal_rec.errors import ConfigError


@final
class EASE(Baseline):
    """A linear map from histories to scores, the best in squared error whose diagonal is 0, in closed form.

    B = I − P / diag(P) column by column, P = (XᵀX + λI)⁻¹; scores = X B. `regularisation` is λ. Dense in items: memory
    grows with their square and time with their cube, or with that of people where items are too many and people are
    not. Source: Steck (arXiv:1905.03375), equation 8.
    """

    def __init__(self, regularisation: float = 100.0) -> None:
        super().__init__()
        _check_positive("regularisation", regularisation)
        self.regularisation = regularisation

    def _learn(self, log: Log, validate: Callable[[Baseline], float] | None) -> None:
        del validate
        self._to_scores = weights_of(log.histories, self.regularisation)

    def _score(self, log: Log, user_index: np.ndarray) -> np.ndarray:
        return log.histories[user_index].astype(np.float32) @ self._to_scores


@final
class EASEWithContent(Baseline):
    """EASE that must also predict an item's content from that of the others, so that likeness joins the weights.

    Under the histories X stand the items' features F as further rows: P = (XᵀX + w FFᵀ + λI)⁻¹, then as in `EASE`.
    Features are centred over the items that have any and scaled to length 1, so `content_weight` w counts people:
    two items just alike are as close as if w people had taken both and nothing else. An item that nobody took is
    scored by what it is like.
    """

    def __init__(self, regularisation: float = 100.0, *, content_weight: float = 30.0) -> None:
        super().__init__()
        _check_positive("regularisation", regularisation)
        _check_positive("content_weight", content_weight)
        self.regularisation, self.content_weight = regularisation, content_weight

    def _learn(self, log: Log, validate: Callable[[Baseline], float] | None) -> None:
        del validate
        features = log.directions("EASEWithContent") * self.content_weight**0.5
        self._to_scores = weights_of(log.histories, self.regularisation, features=features)

    def _score(self, log: Log, user_index: np.ndarray) -> np.ndarray:
        return log.histories[user_index].astype(np.float32) @ self._to_scores


@final
class Ridge(Baseline):
    """What a linear map from content makes of an item, in the factors of who took what; late items score like the rest.

    X ≈ U S Vᵀ, the `num_factors` largest singular values of the histories; W = argmin Σ |V_i − F_i W|² + λ|W|² over
    the items that somebody took; scores = X V (F W)ᵀ. With `keep_taken`, those items keep their own factors V_i and
    only the others are mapped. `regularisation` is λ, in the units of `content` F, which is read as it is: neither
    centred nor scaled (there is no constant either, so an item without content scores 0).
    """

    def __init__(self, regularisation: float = 10.0, *, num_factors: int = 64, keep_taken: bool = False) -> None:
        super().__init__()
        _check_positive("regularisation", regularisation)
        if num_factors < 1:
            raise ConfigError(f"num_factors is {num_factors}. Expected at least 1, such as 64.")
        self.regularisation, self.num_factors, self.keep_taken = regularisation, num_factors, keep_taken

    def _learn(self, log: Log, validate: Callable[[Baseline], float] | None) -> None:
        del validate
        taken = np.asarray(log.histories.sum(axis=0)) > 0
        features = log.features("Ridge")
        known = features[taken]
        self._factors = factors = _item_factors(log, self.num_factors)
        gram = known.T @ known
        gram[np.diag_indices_from(gram)] += self.regularisation
        mapped = features @ cho_solve(cho_factor(gram), known.T @ factors[taken])
        self._mapped = np.where(taken[:, None], factors, mapped) if self.keep_taken else mapped

    def _score(self, log: Log, user_index: np.ndarray) -> np.ndarray:
        return (log.histories[user_index] @ self._factors) @ self._mapped.T


def _item_factors(log: Log, num_factors: int) -> np.ndarray:
    """Right singular vectors (item, factor) of the largest singular values, as many as there are at most."""
    smaller = min(log.num_users + 1, log.num_items)
    if num_factors < smaller - 1:
        # A fixed start makes the iterations repeatable.
        _, _, right = svds(log.histories, k=num_factors, v0=np.ones(smaller))
    else:
        right = np.linalg.svd(log.histories.toarray(), full_matrices=False)[2][:num_factors]
    return np.transpose(np.asarray(right)).copy()


def _check_positive(name: str, value: float) -> None:
    if not value > 0:
        raise ConfigError(f"{name} is {value}. Expected a number above 0, such as 100.")
