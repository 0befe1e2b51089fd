"""Feedback: what people did since, folded into a trained recommender, without starting over."""

from __future__ import annotations

import time
from dataclasses import KW_ONLY, asdict, dataclass, replace
from typing import Any, NamedTuple

import pandas as pd

from multimodal_rec.checking import check_interactions
from multimodal_rec.errors import CatalogueError
from multimodal_rec.fine_tuning import FineTune, FineTuneReport, fine_tuned
from multimodal_rec.refreshing import rows_to_write, with_behaviour
from multimodal_rec.scorer import Scorer
from multimodal_rec.trained import Trained


@dataclass(frozen=True)
class UpdateReport:
    """What an update did."""

    new_events: int
    """Interactions that were not there yet."""
    known_events: int
    """Interactions that were there already, and changed nothing."""
    _: KW_ONLY
    new_people: int
    """People of whom no interaction was known."""
    items: int
    """Items whose behaviour and embedding were computed again."""
    first_taken: int
    """Of these, those that count as taken from now on: too few had taken them before."""
    not_embedded: tuple[str, ...] = ()
    """Items of the interactions that are not embedded, sorted: what was done with them is kept, and speaks for people
    as soon as they are."""
    seconds: float = 0.0
    """Until the new state answered."""
    fine_tune: FineTuneReport | None = None
    """What the fine-tune did, where one was asked for."""
    index_outdated: bool = False
    """Whether an index is kept beside the store that no longer has its items' embeddings: build it anew."""

    def to_dict(self) -> dict[str, Any]:
        """This report as plain JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [
            f"{self.new_events} new interactions, {self.known_events} known already, {self.new_people} new people; "
            f"{self.items} items recomputed, {self.first_taken} of them taken for the first time; {self.seconds:.1f} s"
        ]
        if self.not_embedded:
            lines.append(f"{len(self.not_embedded)} items are not embedded, such as '{self.not_embedded[0]}'")
        if self.index_outdated:
            lines.append("the index is of the items as they were: build it anew with recommender.build_index()")
        return "\n".join(lines if self.fine_tune is None else [*lines, str(self.fine_tune)])


class Updated(NamedTuple):
    """A recommender's next state."""

    trained: Trained
    scorer: Scorer
    report: UpdateReport


def update(
    trained: Trained,
    interactions: pd.DataFrame,
    *,
    users: pd.DataFrame | None = None,
    fine_tune: FineTune | None = None,
) -> Updated:
    """The state after these interactions; `trained` itself stays as it was.

    First the interactions are appended, in one commit, then the rows of the items that they touch are written, in
    another. The second follows from the whole log, so that a process killed in between leaves nothing that the next
    update does not mend, the same interactions sent again or others. Events older than the log take their place in
    time; dislikes enter histories and no statistics; a kind of event that training did not know counts as taken.

    Raises `CatalogueError` with every defect of the interactions, before any is stored.
    """
    started = time.perf_counter()
    store = trained.store
    known = store.read_interactions()
    events = checked_events(interactions, trained, known)
    num_new = store.append_interactions(events)
    if users is not None:
        store.write_users(users)
    trained, log, first_taken = _folded(trained)
    tuned: FineTuneReport | None = None
    if fine_tune is not None:
        trained, tuned = fine_tuned(trained, log, fine_tune)
    # Every table holds the new state from here on: the place to publish a release of all of them.
    scorer = trained.scorer(log)
    report = UpdateReport(
        num_new,
        len(events) - num_new,
        new_people=len(set(events["user_id"]) - set(known["user_id"])),
        items=len(first_taken),
        first_taken=sum(first_taken.values()),
        not_embedded=tuple(sorted(set(events["item_id"]) - set(scorer.item_rows))),
        seconds=time.perf_counter() - started,
        fine_tune=tuned,
    )
    return Updated(trained, scorer, report)


def _folded(trained: Trained) -> tuple[Trained, pd.DataFrame, dict[str, bool]]:
    """The state in which the whole log is folded, and the log, once the touched items' rows are written; item id →
    whether nobody had taken it."""
    store, first_taken = trained.store, dict[str, bool]()
    while True:
        log = store.read_interactions()
        table = store.read_items(model=trained.job.fingerprint)
        updated = trained.folding.updated(log, table)
        touched = [item_id for item_id in trained.folding.taken_since(log, trained.num_folded) if item_id in updated]
        if touched:
            first_taken = {i: not table.present[table.position[i], -1] for i in touched} | first_taken
            fused = with_behaviour(trained.model, table, touched, updated)
            marks = store.read_marks(touched, model=trained.job.fingerprint)
            store.write_items(rows_to_write(trained.model, fused, marks))
        trained = replace(trained, updated=updated, num_folded=len(log))
        # Another process may have appended meanwhile, and known less than all of this when it wrote its items.
        if store.num_interactions == len(log):
            return trained, log, first_taken


def checked_events(interactions: pd.DataFrame, trained: Trained, known: pd.DataFrame) -> pd.DataFrame:
    """The interactions in normal form; `known`: those that are stored.

    Raises `CatalogueError` where they have defects or no place in the order.
    """
    events, problems = check_interactions(interactions, trained.schema)
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise CatalogueError(f"the interactions have {count}, and none was added:", problems)
    ordered_by = [name for name in ("timestamp", "position") if name in known]
    if not len(known) or not len(events):
        return events
    if ordered_by and ordered_by[0] not in events:
        raise CatalogueError(
            f"the interactions have no '{ordered_by[0]}', by which those that are stored are ordered. Expected one in "
            "every row. Add it: where they belong in a history cannot be told without."
        )
    if not ordered_by and ("timestamp" in events or "position" in events):
        raise CatalogueError(
            "the interactions have an order ('timestamp' or 'position'), and those that are stored have none. Expected "
            "all or none. Leave the column out, or fit again on interactions that all have it."
        )
    return events
