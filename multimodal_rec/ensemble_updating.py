"""Feedback for several recommenders, one after the other."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from multimodal_rec.fine_tuning import FineTune
from multimodal_rec.recommender import Recommender
from multimodal_rec.updating import UpdateReport, checked_events


def update_members(
    recommenders: Mapping[str, Recommender],
    interactions: pd.DataFrame,
    *,
    users: pd.DataFrame | None = None,
    fine_tune: FineTune | None = None,
) -> dict[str, UpdateReport]:
    """Name → what `Recommender.update` reported; the arguments are its.

    All recommenders check the interactions before the first is told. What fails later carries a note that names who
    was told: that is no state to go back from, as a call that is repeated tells the others, and nobody twice.
    """
    for recommender in recommenders.values():
        checked_events(interactions, recommender._fitted(), recommender.store.read_interactions())
    reports: dict[str, UpdateReport] = {}
    for name, recommender in recommenders.items():
        try:
            reports[name] = recommender.update(interactions, users=users, fine_tune=fine_tune)
        except Exception as error:
            told = ", ".join(f"'{each}'" for each in reports) or "none"
            error.add_note(f"Member '{name}' failed; told before it: {told}. Call update again with the same events.")
            raise
    return reports
