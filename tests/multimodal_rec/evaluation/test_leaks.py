"""A planted leak of each kind: each raises, and names the rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from multimodal_rec.catalogue import Catalogue
from multimodal_rec.errors import LeakError
from multimodal_rec.evaluation.leaks import check_before, check_disjoint, check_role, check_written
from multimodal_rec.evaluation.protocol import RankingTask
from multimodal_rec.recommender import Recommender
from multimodal_rec.schema import Schema
from multimodal_rec.splits import Split
from tests.multimodal_rec.tiny import CPU, tiny_config

NUM = 50


def timed(*, updated: dict[str, int] | None = None, users: pd.DataFrame | None = None) -> Catalogue:
    """Ten items and five people who act in turn, every 100 seconds; i9 comes up at 900 first, everything is from 0."""
    written = {f"i{item}": 0 for item in range(10)} | (updated or {})
    items = pd.DataFrame({"item_id": list(written), "title": "a title", "written": list(written.values())})
    log = pd.DataFrame(
        {
            "user_id": [f"u{event % 5}" for event in range(NUM)],
            "item_id": [f"i{event % 10}" for event in range(NUM)],
            "timestamp": [100 * event for event in range(NUM)],
        }
    )
    moments = {"items": "written"} if users is None else {"items": "written", "users": "written"}
    return Catalogue.from_frames(items, log, users, schema=Schema("timed", text=("title",), updated=moments))


def split_of(catalogue: Catalogue) -> Split:
    return catalogue.split("time", valid=0.2, test=0.2)


class TestAnInteractionInTwoParts:
    def test_is_named_with_both_parts(self) -> None:
        train, _, test = split_of(timed())
        leaking = pd.concat([train.interactions, test.interactions.iloc[[3]]])
        with pytest.raises(LeakError, match=r"1 interactions are in both the train and the test .*\n.*timestamp 4300"):
            check_disjoint({"train": leaking, "test": test.interactions})

    def test_rows_are_all_in_the_error(self) -> None:
        train, _, test = split_of(timed())
        everything = pd.concat([train.interactions, test.interactions])
        with pytest.raises(LeakError) as caught:
            check_disjoint({"train": everything, "test": test.interactions})
        assert caught.value.rows["timestamp"].tolist() == test.interactions["timestamp"].tolist()

    def test_other_types_of_the_same_moment_do_not_hide_it(self) -> None:
        log = split_of(timed()).test.interactions
        stored = log.assign(timestamp=log["timestamp"].astype("Int64"), user_id=log["user_id"].astype("string"))
        with pytest.raises(LeakError, match="10 interactions are in both"):
            check_disjoint({"fitted": stored, "test": log})

    def test_the_same_person_and_item_at_another_moment_is_no_leak(self) -> None:
        log = split_of(timed()).test.interactions
        check_disjoint({"train": log.assign(timestamp=log["timestamp"] - 1), "test": log})

    def test_a_ranking_task_refuses_it(self) -> None:
        split = split_of(timed())
        leaking = replace(split.valid, interactions=split.test.interactions)
        with pytest.raises(LeakError, match="in both the valid and the test"):
            RankingTask.of_split(split._replace(valid=leaking))

    @pytest.mark.parametrize("how", ["random", "share", "cold_users"])
    def test_no_split_of_ours_makes_one_of_rows_written_twice(self, how: str) -> None:
        whole = timed()
        twice = replace(whole, interactions=pd.concat([whole.interactions] * 2, ignore_index=True))
        RankingTask.of_split(twice.split(how, valid=0.2, test=0.2))


class TestTheTestPartForSomethingElse:
    def test_choosing_on_it_is_refused(self) -> None:
        with pytest.raises(
            LeakError, match=r"test part of a 'time' split is given to choose on: 10 interactions"
        ) as caught:
            check_role(split_of(timed()).test, "choose")
        assert len(caught.value.rows) == 10

    def test_learning_from_it_is_refused(self) -> None:
        with pytest.raises(LeakError, match="given to learn from"):
            check_role(split_of(timed()).test, "train")

    def test_judging_and_other_parts_pass(self) -> None:
        train, valid, test = split_of(timed())
        check_role(test, "judge")
        check_role(valid, "choose")
        check_role(train, "train")
        check_role(timed(), "choose")


class TestAFeatureFromTheFuture:
    def test_the_interactions_are_named(self) -> None:
        whole = timed()
        test = split_of(whole).test
        later = whole.interactions.assign(user_id="somebody else").iloc[-2:]
        log = pd.concat([split_of(whole).train.interactions, later])
        assert test.part is not None
        with pytest.raises(LeakError, match=r"item counts come from the future: 2 .*begins at 4000") as caught:
            check_before(log, test.part, what="item counts")
        assert caught.value.rows["timestamp"].tolist() == [4800, 4900]

    def test_what_ends_before_the_part_passes(self) -> None:
        train, valid, test = split_of(timed())
        assert test.part is not None
        check_before(pd.concat([train.interactions, valid.interactions]), test.part, what="item counts")

    def test_splits_that_overlap_in_time_pass(self) -> None:
        train, _, test = timed().split("last")
        assert test.part is not None
        check_before(train.interactions, test.part, what="item counts")


class TestContentFromAfterTheSplit:
    def test_an_item_rewritten_after_the_training_part_is_named(self) -> None:
        train, _, _ = split_of(timed(updated={"i3": 3000}))
        with pytest.raises(LeakError, match=r"1 items were written \('written'\) after .*\nitem_id i3, written 3000"):
            check_written(train, train.interactions)

    def test_a_second_before_the_validation_part_is_early_enough(self) -> None:
        train, valid, test = split_of(timed(updated={"i3": 2999}))
        for part in (train, valid, test):
            check_written(part, train.interactions)

    def test_a_known_item_may_not_be_rewritten_before_it_is_asked_for(self) -> None:
        train, valid, test = split_of(timed(updated={"i3": 4000}))
        known = pd.concat([train.interactions, valid.interactions])
        with pytest.raises(LeakError, match="item_id i3, written 4000"):
            check_written(test, known)

    @pytest.mark.parametrize(("moment", "leaks"), [(4900, False), (4901, True)])
    def test_a_new_item_may_be_as_new_as_its_first_event(self, moment: int, *, leaks: bool) -> None:
        whole = timed(updated={"i9": moment})
        only_late = whole.interactions[(whole.interactions["item_id"] != "i9") | (np.arange(NUM) == NUM - 1)]
        train, valid, test = split_of(replace(whole, interactions=only_late))
        known = pd.concat([train.interactions, valid.interactions])
        if leaks:
            with pytest.raises(LeakError, match="item_id i9, written 4901"):
                check_written(test, known)
        else:
            check_written(test, known)

    def test_people_are_looked_at_too(self) -> None:
        users = pd.DataFrame({"user_id": [f"u{user}" for user in range(5)], "written": [0, 0, 9999, 0, 0]})
        train, _, _ = split_of(timed(users=users))
        with pytest.raises(LeakError, match=r"1 users were written .*\nuser_id u2, written 9999"):
            check_written(train, train.interactions)

    def test_without_a_split_by_time_nothing_is_asked(self) -> None:
        whole = timed(updated={"i3": 9999})
        check_written(whole, whole.interactions)
        check_written(whole.split("last").test, whole.interactions)


class TestRecommender:
    """The verbs ask the guards: what a user cannot forget."""

    def test_fit_refuses_the_test_part(self, bert: Path, catalogue: Catalogue) -> None:
        train, _, test = catalogue.split("time", valid=0.2, test=0.2)
        with pytest.raises(LeakError, match="given to choose on"):
            Recommender(tiny_config(bert)).fit(train, valid=test, training=CPU)
        with pytest.raises(LeakError, match="given to learn from"):
            Recommender(tiny_config(bert)).fit(test, training=CPU)

    def test_fit_refuses_a_validation_part_that_it_also_learns_from(self, bert: Path, catalogue: Catalogue) -> None:
        _, valid, _ = catalogue.split("time", valid=0.2, test=0.2)
        with pytest.raises(LeakError, match="in both the train and the valid"):
            Recommender(tiny_config(bert)).fit(catalogue, valid=valid, training=CPU)

    def test_evaluate_refuses_what_was_fitted(self, fitted: Recommender, catalogue: Catalogue) -> None:
        with pytest.raises(LeakError, match="in both the fitted and the test"):
            fitted.evaluate(catalogue)

    def test_evaluate_refuses_histories_from_the_future(self, bert: Path, catalogue: Catalogue) -> None:
        train, _, test = catalogue.split("time", valid=0.2, test=0.2)
        assert test.part is not None
        late = test.interactions.iloc[[-1]].assign(timestamp=test.part.since)
        later = replace(train, interactions=pd.concat([train.interactions, late], ignore_index=True), part=None)
        asked = replace(test, interactions=test.interactions.iloc[:-1])
        recommender = Recommender(tiny_config(bert)).fit(later, training=replace(CPU, epochs=1))
        with pytest.raises(LeakError, match="come from the future: 1 interactions"):
            recommender.evaluate(asked)
