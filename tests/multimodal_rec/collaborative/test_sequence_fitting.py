"""Learning of the sequence score: what is read, what is foretold, what is not, and that order is learned."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from multimodal_rec.collaborative.fitting import Fitted
from multimodal_rec.collaborative.score import CollaborativeScore, ContentBlock, Log
from multimodal_rec.collaborative.sequence_fitting import SequenceConfig, SequenceLearner, Windows, fit_sequence
from multimodal_rec.errors import ConfigError
from multimodal_rec.history import Events, Histories

ITEMS = 12
QUICK = SequenceConfig(dim=16, window=6, dropout=0.0, epochs=15, events_a_step=60, horizon=1, learning_rate=2e-2)


def log_of(
    item: np.ndarray,
    *,
    person: np.ndarray | None = None,
    weights: np.ndarray | None = None,
    seconds: np.ndarray | None = None,
    num_items: int = ITEMS,
    ordered: bool = True,
) -> Log:
    """A log of events (person, event), or flat with `person`."""
    who = np.repeat(np.arange(len(item)), item.shape[1]) if person is None else person
    count = item.size
    events = Events(
        who.astype(np.int64),
        item.ravel().astype(np.int64),
        np.zeros(count, dtype=np.int64),
        np.zeros(count, dtype=np.float32),
        np.zeros((count, 0), dtype=np.float32),
        np.zeros(count) if seconds is None else seconds.ravel().astype(np.float64),
    )
    weight = np.ones(count, dtype=np.float32) if weights is None else weights.ravel().astype(np.float32)
    num_people = int(who.max(initial=-1)) + 1
    return Log(events, weight, num_people, num_items, ordered, np.zeros((num_people, 0), dtype=np.float32), {})


def rounds(people: int = 60, length: int = 8) -> Log:
    """Everybody starts somewhere in the circle of items and takes the next one each time."""
    first = np.random.default_rng(0).integers(0, ITEMS, people)
    return log_of((first[:, None] + np.arange(length)) % ITEMS)


def asked(score: CollaborativeScore, *items: int) -> np.ndarray:
    """Scores (item,) after these items, which are themselves not asked about."""
    events = log_of(np.array([items], dtype=np.int64)).events
    batch = Histories(events, length=100, ordered=True).collate([np.arange(len(items))])
    with torch.no_grad():
        people = score.people(batch, score.vectors, torch.zeros(1, 0))
    found = (people @ score.items(score.vectors).T).numpy()[0]
    found[list(items)] = -np.inf
    return found


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    return fit_sequence(rounds(), QUICK)


class TestLearning:
    def test_what_always_follows_comes_first(self, fitted: Fitted) -> None:
        assert asked(fitted.score, 3, 4).argmax() == 5
        assert asked(fitted.score, 9, 10, 11).argmax() == 0

    def test_many_items_are_learned_from_those_that_are_drawn(self) -> None:
        few = SequenceConfig(**{**vars(QUICK), "max_candidates": 5, "epochs": 20})
        assert asked(fit_sequence(rounds(), few).score, 3, 4).argmax() == 5

    def test_the_start_knows_what_is_taken_first(self) -> None:
        first = np.array([[4, item] for item in range(12) if item != 4] * 4)
        assert asked(fit_sequence(log_of(first), QUICK).score).argmax() == 4

    def test_the_same_seed_gives_the_same_score(self) -> None:
        short = SequenceConfig(**{**vars(QUICK), "dropout": 0.3, "epochs": 2})
        first, second = (asked(fit_sequence(rounds(20), short).score) for _ in range(2))
        np.testing.assert_array_equal(first, second)
        other = fit_sequence(rounds(20), SequenceConfig(**{**vars(short), "seed": 1}))
        assert not np.allclose(first, asked(other.score))

    def test_events_of_one_second_have_no_order(self) -> None:
        # Untimed, 0 then 1 is an order; of one second, it is none.
        item = np.tile([0, 1, 2], (64, 1))
        timed = log_of(item, seconds=np.tile([5.0, 5.0, 5.0], (64, 1)))
        untimed, same = fit_sequence(log_of(item), QUICK).score, fit_sequence(timed, QUICK).score
        assert asked(untimed).argmax() == 0
        assert asked(untimed)[0] - asked(untimed)[2] > 2
        assert abs(asked(same)[0] - asked(same)[2]) < 1

    def test_content_is_part_of_an_item_and_every_weight_learns(self) -> None:
        random = np.random.default_rng(0)
        log = rounds()
        kinds = random.integers(0, 3, len(log.weights))
        values = random.normal(size=len(log.weights)).astype(np.float32)
        log = log._replace(
            events=log.events._replace(kind=kinds, value=values, seconds=np.cumsum(random.exponential(size=480) * 100)),
            people=random.normal(size=(60, 3)).astype(np.float32),
            content={"text": ContentBlock(random.normal(size=(ITEMS, 5)).astype(np.float32), np.ones(ITEMS, bool))},
        )
        torch.manual_seed(0)
        learner = SequenceLearner(log, SequenceConfig(**{**vars(QUICK), "dropout": 0.0, "events_a_step": 10_000}))
        (loss,) = learner.losses(np.random.default_rng(0))
        loss.backward()
        still = [name for name, p in learner.named_parameters() if p.grad is None or not p.grad.any()]
        assert still == []


class TestWhatIsForetold:
    def one_loss(self, log: Log, **changes: float) -> float:
        torch.manual_seed(0)
        config = SequenceConfig(**{**vars(QUICK), "dropout": 0.0, "events_a_step": 10_000, **changes})
        learner = SequenceLearner(log, config)
        with torch.no_grad():
            learner.side.item.zero_()  # Every candidate is as likely as every other.
        losses = list(learner.losses(np.random.default_rng(0)))
        assert len(losses) == 1
        return float(losses[0].detach())

    def test_candidates_are_what_somebody_took_and_this_person_not_yet(self) -> None:
        log = log_of(np.array([[0, 1, 2]]), num_items=9)
        assert self.one_loss(log) == pytest.approx(np.log([3, 2, 1]).mean())

    def test_what_is_disliked_or_known_is_read_and_not_foretold(self) -> None:
        # The second is disliked and the third is the first again: the start foretells 0, the states after 1 and 0, 4.
        weights = np.array([[1, -1, 1, 1]])
        log = log_of(np.array([[0, 1, 0, 4]]), weights=weights)
        assert self.one_loss(log) == pytest.approx(np.log([2, 1, 1, 1]).mean(), abs=1e-6)

    def test_heavier_events_count_more(self) -> None:
        log = log_of(np.array([[0, 1]]), weights=np.array([[3, 1]]))
        assert self.one_loss(log) == pytest.approx(np.log(2) * 3 / 4)

    def test_several_next_things_share_one_weight(self) -> None:
        # All candidates are alike, so that each state's loss is the same for each of its targets.
        log = log_of(np.array([[0, 1, 2]]))
        assert self.one_loss(log, horizon=3) == pytest.approx(np.log([3, 2, 1]).mean())

    def test_nothing_to_foretell_is_no_loss(self) -> None:
        log = log_of(np.array([[0, 1]]), weights=np.array([[-1, 0]]))
        assert list(SequenceLearner(log, QUICK).losses(np.random.default_rng(0))) == []
        empty = log_of(np.zeros((0, 1)))
        assert not fit_sequence(empty, QUICK).score.vectors.any()


class TestWindows:
    def test_every_event_is_what_came_next_exactly_once(self) -> None:
        starts = np.array([0, 1, 4, 4, 30])
        for seed in range(20):
            windows = Windows.of(starts, 5, np.random.default_rng(seed))
            rows = [range(a, b + 1) for a, b in zip(windows.learn_from, windows.end, strict=True)]
            assert sorted(row for stretch in rows for row in stretch) == list(range(30))
            assert ((windows.end - windows.begin) <= 5).all()
            assert (windows.learn_from >= windows.begin).all()

    def test_long_histories_are_cut_elsewhere_each_time_and_read_back_as_far_as_may_be(self) -> None:
        ends = set()
        for seed in range(20):
            windows = Windows.of(np.array([0, 30]), 5, np.random.default_rng(seed))
            ends.add(tuple(windows.end.tolist()))
            assert (windows.end - windows.begin == np.minimum(windows.end, 5)).all()
        assert len(ends) > 2


def test_untaken_items_have_no_vector() -> None:
    score = fit_sequence(log_of(np.array([[0, 1, 2]]), num_items=5), QUICK).score
    assert score.vectors.any(dim=1).tolist() == [True, True, True, False, False]


def test_a_log_without_order_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no order.*Give timestamp or position"):
        fit_sequence(log_of(np.array([[0, 1]]), ordered=False))


@pytest.mark.parametrize("wrong", [{"num_heads": 3}, {"window": 0}, {"dropout": 1.0}, {"decay": 0.0}, {"horizon": 0}])
def test_numbers_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong)).removeprefix("num_")):
        SequenceConfig(**wrong)  # pyright: ignore[reportArgumentType]
