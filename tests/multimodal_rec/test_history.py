"""History windows: whose events, which of them, how far away."""

from __future__ import annotations

import numpy as np
import pytest

from multimodal_rec.history import Events, Histories

DAY = 86_400


def _events(users: list[int], items: list[int], days: list[float] | None = None) -> Events:
    count = len(users)
    return Events(
        user_index=np.array(users, dtype=np.int64),
        item_index=np.array(items, dtype=np.int64),
        kind=np.arange(count, dtype=np.int64) % 3,
        value=np.arange(count, dtype=np.float32),
        context=np.arange(2 * count, dtype=np.float32).reshape(count, 2),
        seconds=np.zeros(count) if days is None else np.array(days, dtype=np.float64) * DAY,
    )


@pytest.fixture
def histories() -> Histories:
    """Person 0 at rows 0, 2, 3, 5, 6; person 1 at rows 1, 4."""
    return Histories(
        _events([0, 1, 0, 0, 1, 0, 0], [10, 11, 12, 13, 14, 15, 10], [0, 0, 1, 3, 4, 6, 10]), length=3, ordered=True
    )


def test_latest_is_the_end_of_a_persons_own_events(histories: Histories) -> None:
    assert histories.latest(0).tolist() == [3, 5, 6]
    assert histories.latest(1).tolist() == [1, 4]
    assert histories.latest(7).tolist() == []


def test_around_takes_the_nearest_others_in_order(histories: Histories) -> None:
    assert histories.around(3).tolist() == [0, 2, 5]  # of ties, the earlier one
    assert histories.around(2).tolist() == [0, 3, 5]
    assert histories.around(5).tolist() == [2, 3, 6]
    assert histories.around(4).tolist() == [1]


def test_around_never_holds_the_item_itself(histories: Histories) -> None:
    # Item 10 was taken at rows 0 and 6: neither tells of the other.
    assert histories.around(6).tolist() == [2, 3, 5]
    assert histories.around(0).tolist() == [2, 3, 5]


def test_latest_batch_counts_from_after_the_last_event(histories: Histories) -> None:
    batch = histories.collate([histories.latest(0), histories.latest(1), histories.latest(7)])
    assert batch.item_index.tolist()[0] == [13, 15, 10]
    assert batch.item_index.tolist()[1][:2] == [11, 14]
    assert batch.present.tolist() == [[True] * 3, [True, True, False], [False] * 3]
    assert batch.distance.tolist()[:2] == [[2, 1, 0], [1, 0, 0]]
    assert batch.age_days.tolist()[:2] == [[7, 4, 0], [4, 0, 0]]
    assert batch.kind.tolist()[0] == [0, 2, 0]
    assert batch.value.tolist()[0] == [3, 5, 6]
    assert batch.context.shape == (3, 3, 2)
    assert batch.context[0, 0].tolist() == [6, 7]


def test_batch_around_an_event_counts_to_both_sides(histories: Histories) -> None:
    batch = histories.collate([histories.around(3)], moments=[3])
    assert batch.distance.tolist() == [[1, 0, 0]]
    assert batch.age_days.tolist() == [[3, 2, 3]]


def test_without_order_there_is_neither_distance_nor_age() -> None:
    histories = Histories(_events([0, 0, 0], [1, 2, 3], [0, 5, 9]), length=5, ordered=False)
    for batch in (histories.collate([histories.latest(0)]), histories.collate([histories.around(1)], moments=[1])):
        assert not batch.distance.any()
        assert not batch.age_days.any()


def test_a_log_without_events_has_empty_histories() -> None:
    histories = Histories(_events([], []), length=5, ordered=True)
    batch = histories.collate([histories.latest(0), histories.latest(1)])
    assert batch.present.tolist() == [[False], [False]]
    assert batch.context.shape == (2, 1, 2)
    assert histories.collate([]).present.shape == (0, 1)


def test_to_keeps_every_field(histories: Histories) -> None:
    batch = histories.collate([histories.latest(0)])
    moved = batch.to("meta")
    assert {tensor.device.type for tensor in moved} == {"meta"}
    assert [tensor.shape for tensor in moved] == [tensor.shape for tensor in batch]
