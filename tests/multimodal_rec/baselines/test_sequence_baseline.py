import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from multimodal_rec.baselines.baseline import Baseline
from multimodal_rec.baselines.sequence import SASRec, SequenceEncoder, _padded, _sampled, _windows
from multimodal_rec.baselines.trained import Schedule
from multimodal_rec.errors import ConfigError, NotFittedError, UnknownIdError

ITEMS = [f"i{i}" for i in range(12)]
QUICK = Schedule(epochs=20, batch_size=16, learning_rate=1e-2, seed=0)


def rounds(people: int = 40, length: int = 9, *, seed: int = 0) -> pd.DataFrame:
    """Everybody starts somewhere in the circle of items and takes the next one each time."""
    first = np.random.default_rng(seed).integers(0, len(ITEMS), people)
    rows = [(f"u{u}", ITEMS[(first[u] + t) % len(ITEMS)], 1000 + t) for u in range(people) for t in range(length)]
    return pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])


def history(*item_ids: str, user_id: str = "new") -> pd.DataFrame:
    return pd.DataFrame({"user_id": user_id, "item_id": item_ids, "timestamp": range(len(item_ids))})


def asked(*user_ids: str) -> pd.DataFrame:
    return pd.DataFrame({"user_id": list(user_ids)})


def small(schedule: Schedule = QUICK, *, max_items: int = 6, num_negatives: int | None = None) -> SASRec:
    return SASRec(16, num_heads=2, max_items=max_items, dropout=0.1, num_negatives=num_negatives, schedule=schedule)


def encoder(model: SASRec) -> SequenceEncoder:
    module = model._module
    assert isinstance(module, SequenceEncoder)
    return module.eval()


@pytest.fixture(scope="module")
def fitted() -> SASRec:
    return small().fit(rounds(), ITEMS)


class TestPlantedOrder:
    @pytest.mark.parametrize("num_negatives", [None, 5])
    def test_what_always_follows_comes_first(self, num_negatives: int | None) -> None:
        model = small(num_negatives=num_negatives).fit(rounds(), ITEMS)
        model.read(pd.concat([history("i3", "i4", user_id="a"), history("i4", "i3", "i10", user_id="b")]))
        scores = model.score(asked("a", "b"))
        assert scores.shape == (2, 12)
        assert scores.dtype == np.float32
        assert scores.argmax(axis=1).tolist() == [5, 11]

    def test_order_is_read_from_the_timestamps(self, fitted: SASRec) -> None:
        ordered = history("i7", "i2", "i9", "i4", user_id="ordered")
        shuffled = ordered.assign(user_id="shuffled").iloc[[2, 0, 3, 1]]
        fitted.read(pd.concat([ordered, shuffled]))
        scores = fitted.score(asked("ordered", "shuffled"))
        np.testing.assert_array_equal(scores[0], scores[1])

    def test_a_history_longer_than_the_window_is_its_last_items(self, fitted: SASRec) -> None:
        tail = ["i7", "i8", "i9", "i10", "i11", "i0"]
        fitted.read(pd.concat([history(*tail, user_id="short"), history("i2", "i2", "i5", *tail, user_id="long")]))
        scores = fitted.score(asked("short", "long"))
        np.testing.assert_array_equal(scores[0], scores[1])


class TestTaste:
    def test_the_checkerboard_is_learned_from_histories_without_a_pattern_in_time(self) -> None:
        pairs = [(u, i) for u in range(30) for i in range(12) if u % 2 == i % 2]
        shuffled = np.random.default_rng(0).permutation(len(pairs))
        log = [(f"u{pairs[row][0]}", ITEMS[pairs[row][1]]) for row in shuffled[50:]]
        model = small(Schedule(epochs=30, batch_size=8, learning_rate=1e-2))
        model.fit(pd.DataFrame(log, columns=["user_id", "item_id"]), ITEMS)
        # Each hidden item against all of the other kind.
        right = []
        for user, item in (pairs[row] for row in shuffled[:50]):
            scores = model.score(asked(f"u{user}"))[0]
            right.append(scores[item] > scores[1 - user % 2 :: 2])
        assert np.mean(right) > 0.95


class TestCausality:
    def test_a_later_item_changes_no_earlier_state(self, fitted: SASRec) -> None:
        before, after = torch.tensor([[0, 1, 2, 3, 4]]), torch.tensor([[0, 1, 2, 9, 7]])
        with torch.no_grad():
            a, b = encoder(fitted)(before), encoder(fitted)(after)
        torch.testing.assert_close(a[:, :3], b[:, :3], rtol=0, atol=0)
        assert not torch.allclose(a[:, 3], b[:, 3])

    def test_an_earlier_item_does_change_later_states(self, fitted: SASRec) -> None:
        with torch.no_grad():
            a, b = encoder(fitted)(torch.tensor([[0, 1, 2]])), encoder(fitted)(torch.tensor([[5, 1, 2]]))
        assert not torch.allclose(a[:, 2], b[:, 2])

    def test_padding_changes_nothing(self, fitted: SASRec) -> None:
        fitted.read(pd.concat([history("i3", "i4", user_id="few"), history(*ITEMS[:6], user_id="many")]))
        alone, beside = fitted.score(asked("few")), fitted.score(asked("few", "many"))
        np.testing.assert_allclose(alone[0], beside[0], rtol=1e-5, atol=1e-6)


class TestLearning:
    def test_windows_learn_every_event_but_the_first_once(self) -> None:
        starts = np.array([0, 1, 4, 4, 17])
        begin, end = _windows(starts, 5)
        learned = sorted(event for b, e in zip(begin, end, strict=True) for event in range(b + 1, e + 1))
        assert learned == [2, 3, *range(5, 17)]
        assert (end - begin).max() == 5
        assert (begin >= np.repeat(starts[:-1], [0, 1, 0, 3])).all()

    def test_padded_rows_are_the_histories(self) -> None:
        rows, there = _padded(np.arange(10, 20), np.array([0, 4]), np.array([3, 5]))
        assert rows[0].tolist() == [10, 11, 12]
        assert rows[1, 0] == 14
        assert there.tolist() == [[True, True, True], [True, False, False]]

    def test_all_negatives_drawn_is_the_softmax_over_all(self) -> None:
        torch.manual_seed(0)
        item, state, wanted = torch.nn.Embedding(7, 4), torch.randn(3, 4), torch.tensor([0, 6, 6])
        # The wanted item is among those drawn and does not count twice: 6 others of 6.
        expected = F.cross_entropy(state @ item.weight.T, wanted)
        sampled = _sampled(state, wanted, torch.arange(7), item)
        assert float(sampled.detach()) == pytest.approx(float(expected.detach()), abs=0.16)
        exact = [
            _sampled(state[i : i + 1], wanted[i : i + 1], torch.tensor([j for j in range(7) if j != wanted[i]]), item)
            for i in range(3)
        ]
        torch.testing.assert_close(torch.stack(exact).mean(), expected)

    def test_the_same_seed_gives_the_same_scores(self) -> None:
        few = Schedule(epochs=2, batch_size=16, seed=3)
        a, b = (small(few).fit(rounds(10), ITEMS).score(asked("u0", "u1")) for _ in range(2))
        np.testing.assert_array_equal(a, b)
        other = small(Schedule(epochs=2, batch_size=16, seed=4)).fit(rounds(10), ITEMS).score(asked("u0", "u1"))
        assert not np.allclose(a, other)

    def test_validation_decides_when_to_stop(self) -> None:
        worth = iter([0.1, 0.5, 0.4, 0.3, 0.2])

        def validate(model: Baseline) -> float:
            assert model.score(asked("u0")).shape == (1, 12)
            return next(worth)

        model = small(Schedule(epochs=50, batch_size=16, patience=3)).fit(rounds(10), ITEMS, validate=validate)
        assert model.best_epoch == 2

    def test_every_weight_learns(self) -> None:
        model = small(Schedule(epochs=1, batch_size=64))
        model.fit(rounds(), ITEMS)
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder(model).parameters())


class TestEdges:
    def test_strangers_score_0_and_people_of_one_event_do_not_stop_it(self) -> None:
        log = pd.concat([rounds(10), history("i1", user_id="once")])
        model = small(Schedule(epochs=1)).fit(log, ITEMS)
        scores = model.score(asked("nobody", "once"))
        assert (scores[0] == 0).all()
        assert scores[1].any()

    def test_before_fit_and_unknown_items(self, fitted: SASRec) -> None:
        with pytest.raises(NotFittedError, match="SASRec has not read any interactions"):
            small().score(asked("u0"))
        with pytest.raises(UnknownIdError, match="item 'i99'"):
            fitted.read(history("i99"))

    def test_sizes_that_cannot_work_are_refused(self) -> None:
        with pytest.raises(ConfigError, match="a dim that num_heads divides"):
            SASRec(10, num_heads=4)
        with pytest.raises(ConfigError, match=r"dropout is 1\.0"):
            SASRec(dropout=1.0)
        with pytest.raises(ConfigError, match="at least 1 negative, or None for all items"):
            SASRec(num_negatives=0)
