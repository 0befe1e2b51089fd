from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import pytest

from multimodal_rec.baselines import BPR, EASE, Baseline, ContentKNN, Popularity, Schedule, tuned
from multimodal_rec.baselines.baseline import Log
from multimodal_rec.errors import ConfigError
from multimodal_rec.evaluation.protocol import RankingTask

ITEMS = [f"i{i:02}" for i in range(20)]
USERS = [f"u{u:02}" for u in range(30)]
QUERIES = pd.DataFrame({"user_id": USERS})


def checkerboard(protocol: str = "full") -> RankingTask:
    """Even people take even items and odd people odd ones: half to learn from, a quarter each to choose and judge."""
    pairs = pd.DataFrame(
        [(user, item) for u, user in enumerate(USERS) for i, item in enumerate(ITEMS) if u % 2 == i % 2],
        columns=["user_id", "item_id"],
    ).sample(frac=1, random_state=0)
    part = np.arange(len(pairs)) % 4
    parity = np.eye(2, dtype=np.float32)[np.arange(len(ITEMS)) % 2]
    frames = pairs[part < 2], pairs[part == 2], pairs[part == 3]
    return RankingTask(*frames, ITEMS, content=parity, protocol="mmrec" if protocol == "mmrec" else "full")


GRID: Mapping[str, Callable[[], EASE]] = {"λ 1e9": lambda: EASE(1e9), "λ 5": lambda: EASE(5.0)}


@pytest.mark.parametrize("protocol", ["full", "mmrec"])
def test_the_best_on_validation_is_fitted_on_what_the_protocol_allows(protocol: str) -> None:
    task = checkerboard(protocol)
    choice = tuned(GRID, task)
    assert set(choice.valid) == set(GRID)
    assert choice.label == max(choice.valid, key=lambda label: choice.valid[label])
    assert choice.valid["λ 5"] == task.validate(EASE(5.0).fit(task.train, ITEMS).score).means()["ndcg@10"]
    expected = GRID[choice.label]().fit(task.train if protocol == "mmrec" else task.fitted_on, ITEMS)
    np.testing.assert_array_equal(choice.baseline.score(QUERIES), expected.score(QUERIES))
    assert task.judge(choice.baseline.score).means()["ndcg@10"] > 0.5


def test_the_first_wins_a_tie_and_content_is_passed_on() -> None:
    assert tuned({"a": Popularity, "b": Popularity}, checkerboard()).label == "a"
    assert tuned({"all": ContentKNN, "1": lambda: ContentKNN(1)}, checkerboard()).label == "all"


def test_the_metric_is_the_callers() -> None:
    task = checkerboard()
    choice = tuned(GRID, task, metric="recall@20")
    assert choice.valid["λ 5"] == task.validate(EASE(5.0).fit(task.train, ITEMS).score).means()["recall@20"]


def test_what_trains_is_fitted_again_for_as_long_as_validation_found_best() -> None:
    task = checkerboard()
    schedule = Schedule(epochs=30, batch_size=64, learning_rate=0.01, every=3, patience=2)
    choice = tuned({"BPR": lambda: BPR(4, schedule=schedule)}, task)
    alone = BPR(4, schedule=schedule).fit(
        task.train, ITEMS, validate=lambda baseline: task.validate(baseline.score).means()["ndcg@10"]
    )
    assert choice.baseline.best_epoch == alone.best_epoch
    assert choice.valid["BPR"] == task.validate(alone.score).means()["ndcg@10"]
    again = BPR(4, schedule=Schedule(epochs=alone.best_epoch, batch_size=64, learning_rate=0.01))
    np.testing.assert_array_equal(choice.baseline.score(QUERIES), again.fit(task.fitted_on, ITEMS).score(QUERIES))
    kept = tuned({"BPR": lambda: BPR(4, schedule=schedule)}, checkerboard("mmrec"))
    np.testing.assert_array_equal(kept.baseline.score(QUERIES), alone.score(QUERIES))


def test_histories_of_new_people_are_read_and_not_learned_from() -> None:
    task = checkerboard()
    new = {"w": ["i00", "i02", "i04", "i06"], "z": ["i01", "i03", "i05", "i07"]}
    frames = {user: pd.DataFrame({"user_id": user, "item_id": items}) for user, items in new.items()}
    asked = RankingTask(
        task.train,
        frames["w"][2:],
        frames["z"][2:],
        ITEMS,
        given_valid=frames["w"][:2],
        given_test=frames["z"][:2],
    )
    learned_from: list[int] = []

    class Watched(Baseline):
        def _learn(self, log: Log, validate: Callable[[Baseline], float] | None) -> None:
            learned_from.append(log.num_users)
            if validate is not None:
                # Asked twice: the second time nobody may be there who came with the first.
                assert validate(self) == validate(self) == 1.0
            assert self._fitted().num_users == log.num_users

        def _score(self, log: Log, user_index: np.ndarray) -> np.ndarray:
            parity = np.eye(2)[np.arange(len(ITEMS)) % 2]
            return log.histories[user_index] @ parity @ parity.T

    choice = tuned({"": Watched}, asked, metric="recall@10")
    # Valid's own interactions are w's later ones: in the end w is learned from, z never.
    assert learned_from == [30, 31]
    assert choice.valid == {"": 1.0}
    assert asked.judge(choice.baseline.score).means()["recall@10"] == 1.0


def test_bad_requests_are_named() -> None:
    with pytest.raises(ConfigError, match=r"no settings to choose from\. Expected at least one label"):
        tuned({}, checkerboard())
    with pytest.raises(ConfigError, match=r"metric 'ndcg@11' is unknown\. Expected one of ndcg@10"):
        tuned(GRID, checkerboard(), metric="ndcg@11")
