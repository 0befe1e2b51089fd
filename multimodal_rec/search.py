"""Items that match a wish in words, blended with what a person likes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol, final, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from multimodal_rec.errors import ConfigError
from multimodal_rec.losses import ALIGNMENT_TEMPERATURE
from multimodal_rec.model import RecommenderModel
from multimodal_rec.people import OnUnknown, Person
from multimodal_rec.recommendations import Recommendations, shortfalls
from multimodal_rec.reranking.pool import best_after
from multimodal_rec.retrieval import Query, top_k
from multimodal_rec.rows import ItemTable
from multimodal_rec.scorer import Scorer
from multimodal_rec.words import WordIndex

TASTE = 0.3
"""Share of the person and the situation in a blended score; the rest is the wish's, which was said and not guessed."""

_WORDS = 0.3
"""Weight of equal words beside 1 for meaning (`benchmarks/search.py`)."""


class Asking(NamedTuple):
    """Who has the wish, and where."""

    user: str | Person | None
    contexts: np.ndarray | None
    """Encoded, (1, context width); None where neither person nor context is given, and the wish alone counts."""
    taste: float
    """Share of the ranking score."""
    on_unknown: OnUnknown = "raise"
    """What becomes of a `user` of whom nothing is known."""


@runtime_checkable
class ReadsWishes(Protocol):
    """A backbone with a text encoder of its own, such as CLIP's, whose rows lie in the space of its pictures."""

    @property
    def reads_wishes(self) -> bool:
        """Whether the text encoder is there and fits what the backbone gives."""
        ...

    def encode_query(self, texts: Sequence[str]) -> Tensor:
        """(text, dim), comparable by cosine with what the backbone gives of its own modality."""
        ...


def reads_wishes(model: RecommenderModel) -> bool:
    """Whether a model reads text: by a tower of its own, or by a backbone that does."""
    return "text" in model.towers or bool(_own_readers(model))


def _own_readers(model: RecommenderModel) -> dict[str, ReadsWishes]:
    """Modality but text → the backbone that reads text by itself."""
    backbones = {name: model.tower(name).backbone for name in model.towers if name != "text"}
    return {name: each for name, each in backbones.items() if isinstance(each, ReadsWishes) and each.reads_wishes}


@final
class WishSearch:
    """How well a table's items match wishes: their stored tokens alone, so that no tower but the wish's runs.

    A wish goes through the text tower and its aligner, each part of an item through its own, and cosines compare them,
    as training's alignment taught. A part whose backbone reads text by itself (CLIP) is compared in its own space.
    The token of behaviour is never asked: what an item is does not depend on who took it.
    """

    def __init__(self, model: RecommenderModel, table: ItemTable) -> None:
        """Raises `ConfigError` where the model reads no text, or was trained without alignment."""
        self._model = model
        self._own = _own_readers(model)
        if "text" not in model.towers and not self._own:
            raise ConfigError(
                f"this model reads no text: its towers are for {', '.join(model.towers) or 'nothing'}. Expected a text "
                "tower, or an open_clip image tower with its text encoder. Add TowerConfig('hf:...') as towers['text'] "
                "and fit again."
            )
        self.parts = tuple(self._own) if "text" not in model.towers else model.parts[:-1]
        device = model.log_temperature.device
        tokens, present = torch.from_numpy(table.tokens).to(device), table.present
        self._present = {name: present[:, model.parts.index(name)] for name in self.parts}
        with torch.inference_mode():
            self._items = {name: self._projected(tokens[:, model.parts.index(name)], name) for name in self.parts}
        self._words = WordIndex(table.attributes)
        if "text" in model.towers:
            model.tower("text").wake_backbone()

    def match(
        self, wishes: Sequence[str], *, parts: Collection[str] | None = None, words: float = _WORDS
    ) -> np.ndarray:
        """How well each item matches each wish, float32 (wish, item), in standard deviations from the usual item.

        The sum of the evidence of each present part of `parts` (None: all), and `words` times what equal words say,
        either brought to mean 0 and deviation 1. Evidence is the cosine over the alignment's temperature, less the log
        of what items have on average: contrastive training makes it the log of how much likelier the wish is with
        this item than with any (arXiv:1807.03748, eq. 5), so that a part which can tell little says little. What an
        item lacks says nothing, 0. Raises `ConfigError` for a part that cannot be compared, or an empty wish.
        """
        _check(wishes)
        chosen = self.parts if parts is None else tuple(parts)
        unknown = [name for name in chosen if name not in self.parts]
        if unknown:
            raise ConfigError(f"'{unknown[0]}' cannot be searched. Expected some of {', '.join(self.parts)}.")
        asked = self._asked(wishes, chosen)
        total = np.zeros((len(wishes), len(next(iter(self._present.values())))), dtype=np.float32)
        for name in chosen:
            cosines = (asked[name] @ self._items[name].T).float().cpu().numpy()
            # A space that was not aligned here has a temperature of its own: there a deviation counts as one log unit.
            said = standardised if name in self._own else _evidence
            total += said(cosines, self._present[name])
        total = standardised(total)
        return total if words == 0 else standardised(total + words * standardised(self._words.scores(wishes)))

    @torch.inference_mode()
    def _asked(self, wishes: Sequence[str], parts: Sequence[str]) -> dict[str, Tensor]:
        """Part → the wishes as it is compared with, unit rows (wish, dim)."""
        model = self._model
        asked: dict[str, Tensor] = {}
        if any(name not in self._own for name in parts):
            device = model.log_temperature.device
            said = torch.from_numpy(model.tower("text").encode(list(wishes))).to(device)
            said = F.normalize(model.aligners["text"](F.layer_norm(said, said.shape[1:])), dim=1)
            asked = {name: said for name in parts if name not in self._own}
        for name in (name for name in parts if name in self._own):
            rows = self._own[name].encode_query(list(wishes)).unsqueeze(1)
            there = torch.ones(rows.shape[:2], dtype=torch.bool, device=rows.device)
            projected = model.tower(name).project(rows, there)
            asked[name] = F.normalize(F.layer_norm(projected, projected.shape[1:]), dim=1)
        return asked

    def _projected(self, tokens: Tensor, name: str) -> Tensor:
        return F.normalize(tokens if name in self._own else self._model.aligners[name](tokens), dim=1)


def standardised(scores: np.ndarray, present: np.ndarray | None = None) -> np.ndarray:
    """Each row with mean 0 and deviation 1 over the items that are `present`, (row, item); 0 for those that are not.

    A row whose scores are all alike is 0: it prefers nothing.
    """
    out = np.zeros(scores.shape, dtype=np.float32)
    shown = np.ones(scores.shape[1], dtype=bool) if present is None else present
    if not shown.any():
        return out
    some = scores[:, shown].astype(np.float64)
    some -= some.mean(axis=1, keepdims=True)
    spread = some.std(axis=1, keepdims=True)
    out[:, shown] = np.divide(some, spread, out=np.zeros_like(some), where=spread > 1e-9)
    return out


def _evidence(cosines: np.ndarray, present: np.ndarray) -> np.ndarray:
    out = np.zeros(cosines.shape, dtype=np.float32)
    if present.any():
        logits = cosines[:, present] / ALIGNMENT_TEMPERATURE
        out[:, present] = logits - np.log(np.exp(logits).mean(axis=1, keepdims=True))
    return out


def blended(match: np.ndarray, taste: np.ndarray, share: float) -> np.ndarray:
    """(1 - share) · match + share · taste, float32 (wish, item), both in standard deviations over the items.

    `taste`: ranking scores (1 or wish, item), brought to that scale here. Raises `ConfigError` for a share outside
    0 to 1.
    """
    check_share(share)
    return ((1 - share) * match + share * standardised(taste)).astype(np.float32)


def check_share(taste: float) -> None:
    """None where it is a share. Raises `ConfigError` outside 0 to 1."""
    if not 0 <= taste <= 1:
        raise ConfigError(f"taste is {taste}. Expected a share from 0 (the wish alone) to 1 (the person alone).")


def _check(wishes: Sequence[str]) -> None:
    for place, wish in enumerate(wishes):
        if not isinstance(wish, str) or not wish.strip():
            raise ConfigError(f"wish {place} is {wish!r}. Expected text with a word in it, such as 'slow piano'.")


def find(
    search: WishSearch, scorer: Scorer, wishes: Sequence[str], *, k: int, asking: Asking, query: Query
) -> Recommendations:
    """The k items that match each wish best among those that `query` admits, blended with the taste of who asks.

    Scores are standardised over all items, so that what a query leaves out changes no score; its steps reorder each
    list. Raises as `Recommender.search` does.
    """
    check_share(asking.taste)
    if query.shortlist is not None:
        raise ConfigError(
            f"Query.shortlist is {query.shortlist}: an index finds what a person takes, not what a wish means. "
            "Expected None. Leave it out: every item is compared with a wish."
        )
    scores = search.match(wishes)
    seen: set[int] = set()
    is_answered = True
    person = Person() if asking.user is None else asking.user
    if asking.contexts is not None:
        (is_answered,) = scorer.people.answered([person], "cold" if asking.user is None else asking.on_unknown)
        if is_answered:
            taste = scorer.rank([person], asking.contexts, retrieval=query.by == "retrieval")
            scores = blended(scores, taste, asking.taste)
        else:
            scores = np.full_like(scores, -np.inf)
        seen = scorer.people.seen(person) if query.exclude_seen else set()
    people, excluded = [person] * len(wishes), [seen] * len(wishes)
    if query.steps:
        best = best_after(scorer, people, scores, k=k, query=query, excluded=excluded)
    else:
        best = top_k(scores, scorer.ids, k=k, excluded=excluded, allowed=query.allowed_mask(scorer.table))
    reasons = shortfalls(best, scorer, people, answered=[is_answered] * len(wishes), query=query)
    return Recommendations(best.ids, best.scores, reasons)
