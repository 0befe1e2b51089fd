"""EASE by its factors: what is solved for, how histories are read, what is chosen and how scores are scaled."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse

from multimodal_rec.collaborative import few_rows, item_weights
from multimodal_rec.collaborative.item_item import ItemItemConfig, ItemItemScore
from multimodal_rec.collaborative.item_weights import HeldOut, Setting, calibrated, chosen, factors, weights_of
from multimodal_rec.collaborative.score import ContentBlock, Log
from multimodal_rec.errors import ConfigError
from multimodal_rec.history import Events, HistoryBatch

NUM_PEOPLE, NUM_ITEMS = 40, 12
LIKED, DISLIKED = 0, 1


def log_of(taken: np.ndarray, *, disliked: np.ndarray | None = None, content: np.ndarray | None = None) -> Log:
    """The log in which `taken` (person, item) holds how often who took what, and `disliked` what they disliked."""
    pairs = np.repeat(np.argwhere(taken > 0), taken[taken > 0].astype(int), axis=0)
    other = np.argwhere(np.zeros_like(taken) if disliked is None else disliked)
    rows = np.concatenate([pairs, other])
    kind = np.repeat([LIKED, DISLIKED], [len(pairs), len(other)])
    nothing = np.zeros(len(rows))
    events = Events(
        rows[:, 0], rows[:, 1], kind, nothing.astype(np.float32), np.zeros((len(rows), 1), np.float32), nothing
    )
    blocks = (
        {} if content is None else {"text": ContentBlock(content.astype(np.float32), np.asarray(content.any(axis=1)))}
    )
    weights = np.where(kind == LIKED, 1.0, -1.0).astype(np.float32)
    return Log(events, weights, len(taken), taken.shape[1], True, np.zeros((len(taken), 1), np.float32), blocks)


def history_of(*people: list[int], kinds: list[list[int]] | None = None) -> HistoryBatch:
    width = max(len(items) for items in people) + 1
    index, kind = torch.zeros(len(people), width, dtype=torch.int64), torch.zeros(len(people), width, dtype=torch.int64)
    present = torch.zeros(len(people), width, dtype=torch.bool)
    for row, items in enumerate(people):
        index[row, : len(items)] = torch.tensor(items, dtype=torch.int64)
        present[row, : len(items)] = True
        if kinds is not None:
            kind[row, : len(items)] = torch.tensor(kinds[row], dtype=torch.int64)
    nothing = torch.zeros(len(people), width)
    return HistoryBatch(index, kind, nothing, nothing, nothing, nothing[:, :, None], present)


def checkerboard(seed: int = 0, share: float = 0.7) -> np.ndarray:
    """Even people take even items, odd ones odd items."""
    alike = (np.arange(NUM_PEOPLE)[:, None] + np.arange(NUM_ITEMS)) % 2 == 0
    return alike & (np.random.default_rng(seed).random(alike.shape) < share)


def scores_of(score: ItemItemScore, history: HistoryBatch) -> np.ndarray:
    people = score.people(history, score.vectors, torch.zeros(len(history.present), 1))
    return (people @ score.items(score.vectors).T).numpy()


def fitted(log: Log, *, rank: int = 12, strength: float = 5.0) -> ItemItemScore:
    return ItemItemScore.fit(log, ItemItemConfig(rank=rank, strength=strength), event_weights=(1.0, -1.0))


def ease(taken: np.ndarray, strength: float) -> np.ndarray:
    """The weights as in the paper, column by column: ridge of each item from all others."""
    weights = np.zeros((taken.shape[1], taken.shape[1]))
    for item in range(taken.shape[1]):
        others = np.delete(np.arange(taken.shape[1]), item)
        left = taken[:, others]
        gram = left.T @ left + strength * np.eye(len(others))
        weights[others, item] = np.linalg.solve(gram, left.T @ taken[:, item])
    return weights


def test_all_factors_give_the_ridge_of_each_item_from_the_others() -> None:
    taken = checkerboard().astype(float)
    history_side, item_side = factors(sparse.csr_array(taken), (), Setting(5.0, 0.0), rank=NUM_ITEMS)
    np.testing.assert_allclose(taken @ history_side @ item_side.T, taken @ ease(taken, 5.0), atol=1e-8)


def test_fewer_factors_lose_as_little_as_can_be_of_all_peoples_scores() -> None:
    taken = checkerboard().astype(float)
    wanted = taken @ ease(taken, 5.0)
    history_side, item_side = factors(sparse.csr_array(taken), (), Setting(5.0, 0.0), rank=3)
    left = np.linalg.norm(wanted - taken @ history_side @ item_side.T)
    assert left == pytest.approx(np.linalg.norm(np.linalg.svd(wanted)[1][3:]), rel=1e-6)


def test_content_stands_as_further_rows_under_the_log() -> None:
    taken = checkerboard().astype(float)
    content = np.random.default_rng(1).standard_normal((NUM_ITEMS, 4))
    stacked = np.concatenate([taken, np.sqrt(7.0) * content.T])
    history_side, item_side = factors(sparse.csr_array(taken), [content], Setting(5.0, 7.0), rank=NUM_ITEMS)
    np.testing.assert_allclose(taken @ history_side @ item_side.T, taken @ ease(stacked, 5.0), atol=1e-8)


def test_people_are_scored_by_what_they_took_and_items_that_nobody_took_by_0() -> None:
    taken = checkerboard()
    taken[:, 11] = False
    score = fitted(log_of(taken))
    assert score.vectors[11].abs().max() == 0
    found = scores_of(score, history_of([0, 2]))[0]
    assert found[[4, 6, 8, 10]].min() > found[[1, 3, 5, 7, 9]].max()
    wanted = ease(taken[:, :11].astype(float), score_strength(log_of(taken)))[[0, 2]].sum(axis=0)
    np.testing.assert_allclose(found[:11] / found[4], wanted / wanted[4], atol=1e-3)


def score_strength(log: Log) -> float:
    """λ that is chosen for a log."""
    taken = sparse.csr_array(np.zeros((log.num_people, log.num_items)))
    matrix = taken.toarray()
    matrix[log.events.user_index, log.events.item_index] = 1.0
    matrix = matrix[:, matrix.any(axis=0)]
    return chosen(HeldOut.of(sparse.csr_array(matrix), np.random.default_rng(0)), (), strength=5.0).strength


def test_a_person_without_history_scores_0() -> None:
    score = fitted(log_of(checkerboard()))
    assert np.all(scores_of(score, history_of([], [1, 3]))[0] == 0)


def test_dislikes_and_repetitions_change_nothing() -> None:
    taken = checkerboard()
    plain = fitted(log_of(taken))
    other = fitted(log_of(taken * (1 + taken[::-1, ::-1]), disliked=~taken))
    torch.testing.assert_close(other.vectors, plain.vectors)
    once = scores_of(plain, history_of([0, 2]))
    repeated = scores_of(plain, history_of([2, 0, 2, 3, 0], kinds=[[0, 0, 0, DISLIKED, 0]]))
    np.testing.assert_allclose(repeated, once, rtol=1e-5)


def test_order_and_other_people_in_the_batch_change_nothing() -> None:
    score = fitted(log_of(checkerboard()))
    alone = scores_of(score, history_of([5, 1, 3]))
    np.testing.assert_allclose(scores_of(score, history_of([0, 2, 4, 6], [3, 5, 1]))[1], alone[0], rtol=1e-5)


def test_popularity_is_a_number_of_its_own_that_scales_an_item() -> None:
    taken = checkerboard()
    score = fitted(log_of(taken))
    (column,) = score.popularity_columns
    np.testing.assert_allclose(score.vectors[:, column], np.log1p(taken.sum(axis=0) / 5), rtol=1e-5)
    louder = score.vectors.clone()
    louder[:, column] += 2 * np.log(3.0)
    torch.testing.assert_close(score.items(louder), 3 * score.items(score.vectors))
    wild = score.vectors.clone()
    wild[:, column] = 1e4
    assert torch.isfinite(score.items(wild)).all()


def test_content_is_used_where_it_finds_what_was_held_out() -> None:
    # About six people an item: what kind it is of, the log hardly tells.
    random = np.random.default_rng(3)
    kind = np.arange(60) % 2
    taken = np.stack([random.permutation(np.flatnonzero(kind == person % 2))[:6] for person in range(60)])
    matrix = np.zeros((60, 60))
    matrix[np.arange(60)[:, None], taken] = 1
    held_out = HeldOut.of(sparse.csr_array(matrix), np.random.default_rng(0))
    telling = np.eye(2)[kind] - 0.5
    noise = random.standard_normal((60, 40))
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    assert chosen(held_out, [telling], strength=5.0).content_weight > 0
    assert chosen(held_out, [noise], strength=5.0).content_weight == 0
    assert chosen(None, [telling], strength=5.0) == Setting(5.0, 0.0)
    assert chosen(None, [telling], strength=5.0, content_weight=3.0) == Setting(5.0, 3.0)


def test_a_tenth_of_long_histories_is_held_out_and_no_longer_there() -> None:
    taken = np.zeros((3, 30))
    taken[0, :30], taken[1, :5], taken[2, :4] = 1, 1, 1
    held_out = HeldOut.of(sparse.csr_array(taken), np.random.default_rng(0))
    assert held_out is not None
    assert held_out.people.tolist() == [0, 1]
    assert held_out.person.tolist() == [0, 0, 0, 1]
    rest = held_out.rest.toarray()
    assert rest.sum(axis=1).tolist() == [27, 4, 4]
    assert rest[held_out.people[held_out.person], held_out.item].sum() == 0
    assert HeldOut.of(sparse.csr_array(taken[2:]), np.random.default_rng(0)) is None


def test_scale_and_damping_make_scores_log_odds() -> None:
    # Every person draws 5 of 40 items after having taken 5 or 20; log-odds are `true` over the root of that number.
    random = np.random.default_rng(0)
    sides = random.standard_normal((40, 4))
    lengths = np.repeat([5, 20], 400)
    rest = np.zeros((800, 40))
    for person, length in enumerate(lengths):
        rest[person, random.permutation(40)[:length]] = 1
    logits = 2.0 * (rest @ sides @ sides.T) / np.sqrt(lengths)[:, None]
    logits[rest > 0] = -np.inf
    noisy = logits[:, None] - np.log(random.exponential(size=(800, 5, 40)))
    held_out = HeldOut(
        sparse.csr_array(rest), np.arange(800), np.repeat(np.arange(800), 5), noisy.argmax(axis=2).ravel()
    )
    scale, damping = calibrated(held_out, sides, sides)
    assert damping == 0.5
    assert scale == pytest.approx(2.0, rel=0.1)


def test_many_items_are_solved_by_factors_of_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in ("DENSE_ITEMS", "DENSE_ROWS", "TUNED_ITEMS"):
        monkeypatch.setattr(item_weights, limit, 4)
    score = fitted(log_of(checkerboard()), rank=2)
    found = scores_of(score, history_of([0, 2]))[0]
    assert found[[4, 6, 8, 10]].min() > found[[1, 3, 5, 7, 9, 11]].max()


def test_more_items_than_can_be_solved_for_are_solved_for_by_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = np.concatenate([checkerboard().T, np.zeros((1, NUM_PEOPLE), bool)]).astype(float)
    content = np.random.default_rng(1).standard_normal((NUM_PEOPLE, 3))
    features = np.sqrt(7.0) * content
    by_items = weights_of(sparse.csr_array(taken), 5.0, features=features)
    np.testing.assert_allclose(by_items, ease(np.concatenate([taken, features.T]), 5.0), atol=1e-6)
    # Twelve people and three features, the last person without anything.
    monkeypatch.setattr(item_weights, "DENSE_ITEMS", 15)
    monkeypatch.setattr(item_weights, "DENSE_ROWS", 15)
    monkeypatch.setattr(few_rows, "_ITEMS_AT_ONCE", 16)
    np.testing.assert_allclose(weights_of(sparse.csr_array(taken), 5.0, features=features), by_items, atol=1e-5)
    np.testing.assert_allclose(weights_of(sparse.csr_array(taken), 5.0), ease(taken, 5.0), atol=1e-5)
    history_side, item_side = factors(sparse.csr_array(taken), [content], Setting(5.0, 7.0), rank=NUM_PEOPLE)
    np.testing.assert_allclose(taken @ history_side @ item_side.T, taken @ by_items, atol=1e-5)


def test_a_log_in_which_nobody_takes_anything_scores_0_and_the_same_log_twice_the_same() -> None:
    empty = fitted(log_of(np.zeros((3, 4)), disliked=np.ones((3, 4))))
    assert np.all(scores_of(empty, history_of([0, 1])) == 0)
    first, second = fitted(log_of(checkerboard())), fitted(log_of(checkerboard()))
    torch.testing.assert_close(first.state_dict(), second.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("setting", [{"rank": 0}, {"strength": 0.0}, {"content_weight": -1.0}])
def test_impossible_settings_are_refused(setting: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="Expected at least 1, and a number above 0, and one of at least 0"):
        ItemItemConfig(**setting)  # pyright: ignore[reportArgumentType]
