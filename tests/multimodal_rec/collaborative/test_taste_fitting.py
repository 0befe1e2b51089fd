"""Learning of the taste score: planted taste for content, turned by the context, for new items and new people too."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from multimodal_rec.collaborative.score import ContentBlock, Log
from multimodal_rec.collaborative.settings import TasteConfig
from multimodal_rec.collaborative.taste_fitting import TasteLearner, fit_taste
from multimodal_rec.collaborative.taste_score import TasteScore
from multimodal_rec.errors import ConfigError
from multimodal_rec.history import Events, Histories

QUICK = TasteConfig(dim=2, num_unexplained=1, epochs=20, events_a_step=128, num_alternatives=40)
NUM_ITEMS, NUM_PEOPLE = 40, 60


def planted(seed: int = 0) -> Log:
    """Items of two colours, a block of content that tells them in noise; people like one, and by night the other."""
    random = np.random.default_rng(seed)
    colour = np.arange(NUM_ITEMS) % 2 * 2.0 - 1
    features = random.normal(size=(NUM_ITEMS, 6)).astype(np.float32)
    features[:, 2] = colour * 2
    people = np.repeat(np.arange(NUM_PEOPLE), 8)
    night = random.random(len(people)) < 0.5
    liked = np.where(people % 2 == 0, 1.0, -1.0) * np.where(night, -1.0, 1.0)
    items = np.array([random.choice(np.flatnonzero(colour[:30] == wish)) for wish in liked])
    nothing = np.zeros(len(people), dtype=np.float32)
    context = np.where(night, 1.0, -1.0).astype(np.float32)[:, None]
    seconds = np.tile(np.arange(8), NUM_PEOPLE).astype(np.float64)
    events = Events(people, items, nothing.astype(np.int64), nothing, context, seconds)
    block = ContentBlock(features, np.ones(NUM_ITEMS, dtype=bool))
    weights = np.ones(len(people), dtype=np.float32)
    return Log(events, weights, NUM_PEOPLE, NUM_ITEMS, True, np.zeros((NUM_PEOPLE, 0), np.float32), {"image": block})


def asked(score: TasteScore, vectors: torch.Tensor, items: list[int], nights: list[float], now: float) -> np.ndarray:
    """Scores (item,) at night (1) or by day (-1) of somebody who took these items then."""
    count, nothing = len(items), np.zeros(len(items), dtype=np.float32)
    context = np.array(nights, dtype=np.float32)[:, None]
    place = np.arange(count).astype(np.float64)
    events = Events(np.zeros(count, np.int64), np.array(items), nothing.astype(np.int64), nothing, context, place)
    batch = Histories(events, length=100, ordered=True).collate([np.arange(count)])
    with torch.no_grad():
        people = score.turned(score.people(batch, vectors, torch.zeros(1, 0)), torch.tensor([[now]]))
        return (people @ score.items(vectors).T).numpy()[0]


def test_what_content_tells_is_learned_and_turned_by_the_context() -> None:
    log = planted()
    fitted = fit_taste(log, QUICK)
    score = fitted.score
    assert isinstance(score, TasteScore)
    assert fitted.content is not None
    block = log.content["image"]
    said = fitted.content.block("image", torch.from_numpy(block.features)) + fitted.content.offset
    # The last ten were taken by nobody: their content alone speaks.
    assert not score.vectors[30:].any()
    torch.testing.assert_close(said[:30, : score.content_columns], score.vectors[:30, : score.content_columns])
    assert not said[:, score.content_columns :].any()
    vectors = torch.cat([score.vectors[:30], said[30:]])
    for now, best in ((-1.0, 0), (1.0, 1)):
        found = asked(score, vectors, [0, 2, 5], [-1.0, -1.0, 1.0], now)[30:]
        assert found[best::2].min() > found[1 - best :: 2].max()


def test_what_came_later_was_an_alternative_and_what_came_before_was_not() -> None:
    log = planted()
    learner = TasteLearner(log, QUICK)
    row = 5
    items = torch.arange(NUM_ITEMS)
    had = learner._had(np.array([row]), items, log.events.item_index[[row]])[0]
    before = set(log.events.item_index[:row].tolist()) - {int(log.events.item_index[row])}
    assert set(np.flatnonzero(had.numpy()).tolist()) == before


def test_the_same_seed_gives_the_same_score() -> None:
    short = TasteConfig(**{**vars(QUICK), "epochs": 2})
    first, second = (fit_taste(planted(), short).score.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = fit_taste(planted(), TasteConfig(**{**vars(short), "seed": 1})).score.vectors
    assert not torch.allclose(first["vectors"], other)


def test_a_log_without_content_or_context_is_told_by_what_items_have_of_their_own() -> None:
    random = np.random.default_rng(0)
    people = np.repeat(np.arange(40), 5)
    items = np.concatenate([random.choice(np.arange(person % 2, 20, 2), 5, replace=False) for person in range(40)])
    nothing = np.zeros(len(people), dtype=np.float32)
    context = np.zeros((len(people), 0), dtype=np.float32)
    events = Events(people, items, nothing.astype(np.int64), nothing, context, np.arange(200.0))
    log = Log(events, nothing + 1, 40, 20, True, np.zeros((40, 0), np.float32), {})
    config = TasteConfig(num_unexplained=2, epochs=40, events_a_step=64, unexplained_prior=0.5)
    score = fit_taste(log, config).score
    batch = Histories(events, length=9, ordered=True).collate([np.arange(5), np.arange(5, 10)])
    found = (score.people(batch, score.vectors, torch.zeros(2, 0)) @ score.items(score.vectors).T).numpy()
    assert found[0, ::2].mean() > found[0, 1::2].mean() + 0.5
    assert found[1, 1::2].mean() > found[1, ::2].mean() + 0.5


def test_a_log_in_which_nothing_was_taken_says_nothing() -> None:
    log = planted()._replace(weights=np.zeros(NUM_PEOPLE * 8, dtype=np.float32))
    score = fit_taste(log, QUICK).score
    assert not asked(score, score.vectors, [0, 2], [1.0, 1.0], 1.0).any()


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"content_prior is -1.0.*Expected at least 0"):
        TasteConfig(content_prior=-1.0)
    with pytest.raises(ConfigError, match=r"num_alternatives is 0. Expected at least 1"):
        TasteConfig(num_alternatives=0)
