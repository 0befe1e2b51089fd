"""How a split is asked: who learns from what, what is chosen on what, and what is ranked against what."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd

from multimodal_rec.catalogue import Catalogue
from multimodal_rec.errors import ConfigError
from multimodal_rec.evaluation import Evaluation, ScoreQueries, evaluate_ranking
from multimodal_rec.evaluation.leaks import check_disjoint
from multimodal_rec.splits import Split

Protocol = Literal["full", "mmrec"]
"""`full`: what was fitted or validated on is known at test: it speaks for people and is no candidate. `mmrec`: only
the training part is, so that validation positives are ranked at test, as in MMRec and the papers that use it."""


def check_protocol(protocol: str) -> None:
    """None where there is such a protocol. Raises `ConfigError` naming those there are."""
    known = get_args(Protocol)
    if protocol not in known:
        raise ConfigError(f"protocol '{protocol}' is unknown. Expected one of {', '.join(known)}.")


@dataclass(frozen=True, eq=False)
class RankingTask:
    """One split and its rules: everything that is compared on it is asked the same questions.

    All items are ranked (no sampled negatives) but for those that the person is known to have taken. Raises
    `LeakError` where an interaction is in two parts.
    """

    train: pd.DataFrame
    """Interactions that count as taken, to learn from: user_id, item_id, maybe timestamp, position, context."""
    valid: pd.DataFrame
    """The same, to choose on."""
    test: pd.DataFrame
    """The same, to be judged by, once."""
    item_ids: Sequence[str]
    """Every item, in the order of the scores' columns."""
    _: KW_ONLY
    content: np.ndarray | None = None
    """Float32 (item, dim), zeros where an item has none; for baselines that read content."""
    context_columns: tuple[str, ...] = ()
    """What besides the person makes a query."""
    protocol: Protocol = "full"
    candidates: Collection[str] | None = None
    """The items that are ranked at test; None for all."""
    valid_candidates: Collection[str] | None = None
    """The items that are ranked at validation; None for all."""
    known_train: pd.DataFrame | None = None
    """Everything known at validation, dislikes included; None for `train`."""
    known_valid: pd.DataFrame | None = None
    """What the validation part adds to that for the test; None for `valid`."""
    given_valid: pd.DataFrame | None = None
    """Histories of people whom nobody learns from, read before validation."""
    given_test: pd.DataFrame | None = None
    """The same, before the test."""

    def __post_init__(self) -> None:
        check_protocol(self.protocol)
        check_disjoint({"train": self.train, "valid": self.valid, "test": self.test})

    @classmethod
    def of_split(
        cls,
        split: Split,
        *,
        protocol: Protocol = "full",
        among: Literal["all", "late"] = "all",
        content: np.ndarray | None = None,
        contexts: bool = True,
    ) -> RankingTask:
        """The task of a split; what was disliked is known, and neither learned from nor asked for.

        `among="late"` ranks the items that first come up in a part among themselves (cold items among cold ones).
        `content`: float32 (item, dim) in the order of `split.test.items`. `contexts=False` ranks once a person
        whatever contexts are declared.
        """
        train, valid, test = split
        chosen_among, judged_among = None, None
        if among == "late":
            chosen_among, judged_among = _late(train.item_ids, valid.item_ids), _late(valid.item_ids, test.item_ids)
        elif protocol == "full":
            # Whoever chooses on the validation part has its items before them, and not yet the later ones.
            chosen_among = list(valid.item_ids)
        return cls(
            _taken(train),
            _taken(valid),
            _taken(test),
            test.item_ids,
            content=content,
            context_columns=tuple(test.schema.context) if contexts else (),
            protocol=protocol,
            candidates=judged_among,
            valid_candidates=chosen_among,
            known_train=train.interactions,
            known_valid=valid.interactions,
            given_valid=None if valid.part is None else valid.part.given,
            given_test=None if test.part is None else test.part.given,
        )

    @property
    def fitted_on(self) -> pd.DataFrame:
        """What a setting that validation chose is fitted on for the test: train and valid, or train (`mmrec`)."""
        return self.train if self.protocol == "mmrec" else pd.concat([self.train, self.valid], ignore_index=True)

    def validate(self, score: ScoreQueries) -> Evaluation:
        """How well the validation part is ranked: for choosing."""
        return self._ask(score, self.valid, self._known(self.given_valid), self.valid_candidates)

    def judge(self, score: ScoreQueries) -> Evaluation:
        """How well the test part is ranked: for reporting."""
        later = None if self.protocol == "mmrec" else self.valid if self.known_valid is None else self.known_valid
        return self._ask(score, self.test, self._known(later, self.given_test), self.candidates)

    def _known(self, *more: pd.DataFrame | None) -> pd.DataFrame:
        known = self.train if self.known_train is None else self.known_train
        return pd.concat([known, *(frame for frame in more if frame is not None)], ignore_index=True)

    def _ask(
        self, score: ScoreQueries, log: pd.DataFrame, known: pd.DataFrame, candidates: Collection[str] | None
    ) -> Evaluation:
        return evaluate_ranking(
            score,
            log,
            known=known,
            item_ids=self.item_ids,
            context_columns=self.context_columns,
            candidates=candidates,
        )


def _taken(part: Catalogue) -> pd.DataFrame:
    return part.interactions.loc[part.event_weights > 0]


def _late(earlier: Sequence[str], items: Sequence[str]) -> list[str]:
    known = set(earlier)
    return [item_id for item_id in items if item_id not in known]
