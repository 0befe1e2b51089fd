"""Behaviour features: what they know, and whose events they must not know."""

from __future__ import annotations

import numpy as np
import pytest

from multimodal_rec.behaviour import BehaviourScale, ItemBehaviour, folded_in, item_behaviour


def _log(num_users: int = 40, num_items: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """People of two tastes: even people take items below the middle, odd ones above it, and each one other."""
    random = np.random.default_rng(seed)
    users = np.repeat(np.arange(num_users), 5)
    half = num_items // 2
    tastes = [half * (user % 2) for user in range(num_users)]
    items = [np.append(random.permutation(half)[:4] + taste, random.integers(half) + half - taste) for taste in tastes]
    return users, np.concatenate(items)


def _features(users: np.ndarray, items: np.ndarray, *, num_items: int = 12, rank: int = 3) -> ItemBehaviour:
    return item_behaviour(users, items, num_users=40, num_items=num_items, rank=rank, num_folds=4, seed=0)


def test_shapes_and_absence() -> None:
    users, items = _log()
    found = _features(users, items, num_items=13)
    assert found.features.shape == (13, 4)
    assert found.folds.shape == (4, 13, 4)
    assert found.features.dtype == found.folds.dtype == np.float32
    assert found.present.tolist() == [True] * 12 + [False]
    assert not found.features[12].any()
    assert not found.folds[:, 12].any()
    assert sorted(np.bincount(found.fold_of_user).tolist()) == [10, 10, 10, 10]


def test_items_taken_together_are_alike() -> None:
    users, items = _log()
    factors = _features(users, items).features[:, :-1]
    assert np.sign(factors[:6, 0]).tolist() == [np.sign(factors[0, 0])] * 6
    assert np.sign(factors[6:, 0]).tolist() == [-np.sign(factors[0, 0])] * 6


def test_popularity_is_standardised_log_count() -> None:
    users = np.array([0, 1, 2, 0, 0, 0])
    items = np.array([0, 0, 0, 1, 1, 1])  # the same person three times counts once
    counts = np.log1p([3, 1])
    found = item_behaviour(users, items, num_users=3, num_items=3, rank=2, num_folds=3, seed=0)
    expected = (counts - counts.mean()) / counts.std()
    np.testing.assert_allclose(found.features[:2, -1], expected, rtol=1e-5)
    assert found.features[2, -1] == 0


def test_folds_do_not_contain_a_persons_own_events() -> None:
    """Whatever a person takes instead, the features of the person's fold say the same.

    They are turned onto everybody's axes, so it is their inner products, which no turn changes, that must agree.
    """
    users, items = _log()
    before = _features(users, items)
    changed = items.copy()
    changed[users == 3] = [0, 1, 2, 3, 4]
    after = _features(users, changed)
    assert before.present.all()
    assert after.present.all()
    for fold in range(4):
        same = [
            np.allclose(a[:, :-1] @ a[:, :-1].T, b[:, :-1] @ b[:, :-1].T, atol=1e-3)
            and np.allclose(a[:, -1], b[:, -1], atol=1e-5)
            for a, b in [(before.folds[fold], after.folds[fold])]
        ]
        assert same == [fold == before.fold_of_user[3]]


def test_folds_are_turned_onto_everybody() -> None:
    users, items = _log()
    found = _features(users, items)
    for fold in found.folds:
        # The one direction in which the two tastes differ points the same way everywhere.
        assert np.corrcoef(fold[:, 0], found.features[:, 0])[0, 1] > 0.9


def test_the_same_seed_gives_the_same_features() -> None:
    one, other = _features(*_log()), _features(*_log())
    for first, second in zip([*one[:-1], *one.scale], [*other[:-1], *other.scale], strict=True):
        np.testing.assert_array_equal(first, second)


def test_folding_in_the_log_that_was_decomposed_gives_its_own_features() -> None:
    users, items = _log()
    found = _features(users, items, num_items=13)
    again = folded_in(users, items, num_users=40, known=found.features, scale=found.scale)
    np.testing.assert_allclose(again[found.present], found.features[found.present], atol=1e-5)
    read = BehaviourScale.from_dict(found.scale.to_dict())
    np.testing.assert_array_equal(folded_in(users, items, num_users=40, known=found.features, scale=read), again)


def test_what_was_never_taken_comes_to_lie_by_what_its_people_took() -> None:
    users, items = _log()
    found = _features(users, items, num_items=14)
    more_users, more_items = np.append(users, [0, 2, 4, 1, 3, 5, 7]), np.append(items, [12] * 3 + [13] * 4)
    again = folded_in(more_users, more_items, num_users=40, known=found.features, scale=found.scale)
    even, odd = found.features[:6, 0].mean(), found.features[6:12, 0].mean()
    assert np.sign(again[12, 0]) == np.sign(even)
    assert np.sign(again[13, 0]) == np.sign(odd)
    # In units of the first log, whatever the others' popularity became.
    expected = (np.log1p([3, 4]) - found.scale.mean) / found.scale.std
    np.testing.assert_allclose(again[12:, -1], expected, rtol=1e-5)


@pytest.mark.parametrize(("users", "items"), [([], []), ([0], [1]), ([0, 0], [0, 1]), ([0, 1], [0, 0])])
def test_a_log_too_small_for_factors_has_popularity_alone(users: list[int], items: list[int]) -> None:
    found = item_behaviour(
        np.array(users, dtype=np.int64),
        np.array(items, dtype=np.int64),
        num_users=len(set(users)),
        num_items=2,
        rank=4,
        num_folds=5,
        seed=0,
    )
    assert found.features.shape == (2, 5)
    assert np.isfinite(found.features).all()
    assert np.isfinite(found.folds).all()
    assert not found.features[:, :-1].any()
    assert found.present.tolist() == [item in items for item in (0, 1)]
