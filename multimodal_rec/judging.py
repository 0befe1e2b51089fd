"""A trained model asked what people took in a test part."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd

from multimodal_rec.catalogue import Catalogue
from multimodal_rec.evaluation import Evaluation, ScoreQueries, evaluate_ranking
from multimodal_rec.evaluation.leaks import check_before, check_disjoint, check_written
from multimodal_rec.evaluation.protocol import Protocol, check_protocol
from multimodal_rec.scorer import Scorer
from multimodal_rec.trained import Trained
from multimodal_rec.vocabulary import Vocabulary


def known_before(trained: Trained, test: Catalogue, protocol: Protocol) -> pd.DataFrame:
    """The interactions that may speak for people when `test` is asked, those that its split gives along included.

    `protocol`: "full" knows all that is in the store, "mmrec" only what was trained on. Raises `LeakError` where a test
    interaction is known already, where the log is not older than the test part of a split by time, or where that part's
    items or people were written too late.
    """
    check_protocol(protocol)
    log = trained.store.read_interactions()
    known = log if protocol == "full" else log.iloc[: trained.num_fitted]
    check_disjoint({"fitted": known, "test": test.interactions})
    if test.part is not None:
        check_before(known, test.part, what="the features and histories that this model reads")
    check_written(test, known)
    given = None if test.part is None else test.part.given
    return known if given is None else pd.concat([known, given], ignore_index=True)


def judge(
    scorer: Scorer,
    test: Catalogue,
    *,
    known: pd.DataFrame,
    vocabulary: Vocabulary,
    candidates: Collection[str] | None,
    retrieval: bool,
    without: Collection[str],
) -> Evaluation:
    """How well a scorer ranks what people took in `test`; its items that the scorer lacks are never found.

    `known`: what people took before; `retrieval`, `without`: as of `Scorer.rank`, 'context' also leaves the queries'
    contexts out.
    """
    columns = vocabulary.context.columns

    def score_queries(queries: pd.DataFrame) -> np.ndarray:
        contexts = None if "context" in without else queries.loc[:, list(columns)]
        encoded = vocabulary.contexts(contexts, num_rows=len(queries))
        return scorer.rank(queries["user_id"].tolist(), encoded, retrieval=retrieval, without=without)

    return judge_scores(
        score_queries, test, known=known, ids=scorer.ids, context_columns=columns, candidates=candidates
    )


def judge_scores(
    score: ScoreQueries,
    test: Catalogue,
    *,
    known: pd.DataFrame,
    ids: Sequence[str],
    context_columns: Sequence[str],
    candidates: Collection[str] | None = None,
) -> Evaluation:
    """How well any scores rank what people took in `test`, float (query, item) of the items `ids`.

    Items of `test` that are not among these are never found; a context column that it lacks is missing in each query.
    """
    have = set(ids)
    item_ids = [*ids, *(item_id for item_id in test.item_ids if item_id not in have)]

    def wide(queries: pd.DataFrame) -> np.ndarray:
        scores = np.full((len(queries), len(item_ids)), -np.inf, dtype=np.float32)
        scores[:, : len(ids)] = score(queries)
        return scores

    taken = test.interactions.loc[test.event_weights > 0]
    return evaluate_ranking(
        wide,
        taken.assign(**{name: None for name in context_columns if name not in taken}),
        known=known.loc[known["item_id"].isin(item_ids)],
        item_ids=item_ids,
        context_columns=context_columns,
        candidates=candidates,
    )
