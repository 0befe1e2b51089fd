"""Learning of the graph score: known answers of the rounds, what is hidden, taste without a pattern in time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from multimodal_rec.collaborative.graph_fitting import GraphConfig, GraphLearner, fit_graph
from multimodal_rec.collaborative.score import CollaborativeScore, ContentBlock, Log
from multimodal_rec.errors import ConfigError
from multimodal_rec.history import Events, Histories

QUICK = GraphConfig(dim=16, epochs=10, people_a_step=16, num_neighbours=2)


def log_of(pairs: list[tuple[int, int]], *, num_people: int, num_items: int, weights: list[float] | None = None) -> Log:
    person, item = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    nothing = np.zeros(len(person))
    events = Events(
        person, item, nothing.astype(np.int64), nothing.astype(np.float32), np.zeros((len(person), 0)), nothing
    )
    weight = np.array([1.0] * len(person) if weights is None else weights, dtype=np.float32)
    return Log(events, weight, num_people, num_items, False, np.zeros((num_people, 0), dtype=np.float32), {})


def scores(score: CollaborativeScore, *items: int) -> np.ndarray:
    """Scores (item,) of somebody who took these."""
    events = log_of([(0, item) for item in items], num_people=1, num_items=0).events
    batch = Histories(events, length=100, ordered=False).collate([np.arange(len(items))])
    with torch.no_grad():
        people = score.people(batch, score.vectors, torch.zeros(1, 0))
    return (people @ score.items(score.vectors).T).numpy()[0]


def checkerboard() -> tuple[Log, list[tuple[int, int]]]:
    """Even people take even items; a sixth of the pairs is hidden."""
    pairs = [(u, i) for u in range(30) for i in range(12) if u % 2 == i % 2]
    order = np.random.default_rng(0).permutation(len(pairs))
    return log_of([pairs[row] for row in order[30:]], num_people=30, num_items=12), [pairs[row] for row in order[:30]]


def test_the_checkerboard_is_learned_for_new_people_too() -> None:
    log, hidden = checkerboard()
    score = fit_graph(log, QUICK).score
    for user, item in hidden:
        took = log.events.item_index[log.events.user_index == user].tolist()
        found = scores(score, *took)
        assert (found[item] > found[1 - user % 2 :: 2]).all()
    found = scores(score, 3)
    assert found[1::2].min() > found[::2].max()


def test_the_same_seed_gives_the_same_score() -> None:
    log, _ = checkerboard()
    short = GraphConfig(**{**vars(QUICK), "epochs": 2})
    first, second = (fit_graph(log, short).score.vectors for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    other = fit_graph(log, GraphConfig(**{**vars(short), "seed": 1})).score.vectors
    assert not torch.allclose(first, other)


@pytest.mark.parametrize("num_rounds", [0, 1, 2])
def test_vectors_are_the_rounds_through_the_graph(num_rounds: int) -> None:
    random = np.random.default_rng(0)
    took = (random.random((7, 5)) < 0.5).astype(np.float32)
    took[:, 4] = 0
    content = ContentBlock(random.normal(size=(5, 3)).astype(np.float32), np.ones(5, dtype=bool))
    pairs = [(int(u), int(i)) for u, i in zip(*np.nonzero(took), strict=True)]
    # A block that tells nothing, as of attributes that nobody declared, takes nothing from what the others weigh.
    silent = ContentBlock(np.zeros((5, 1), dtype=np.float32), np.zeros(5, dtype=bool))
    log = log_of(pairs, num_people=7, num_items=5)._replace(content={"text": content, "attributes": silent})
    learner = GraphLearner(log, GraphConfig(**{**vars(QUICK), "num_rounds": num_rounds}))
    assert [share for share, _ in learner._alike] == [1.0, 1.0]
    with torch.no_grad():
        learner.refresh()
    degree = np.maximum(took.sum(axis=0), 1) ** -0.5
    walk = np.maximum(took.sum(axis=1, keepdims=True), 1) ** -0.5 * took * degree
    state = total = learner.side().detach().numpy()
    for _ in range(num_rounds):
        state = walk.T @ walk @ state
        total = total + state
    around = total + sum(share * (edges.forward @ total) for share, edges in learner._alike)
    assert len(learner._alike) == 2
    expected = np.hstack(
        [
            learner.history_side().detach().numpy() * degree[:, None],
            around / np.linalg.norm(around, axis=1, keepdims=True),
        ]
    )
    expected[4] = 0  # Nobody took it.
    np.testing.assert_allclose(learner.score.vectors.numpy(), expected, rtol=1e-4, atol=1e-6)


def test_the_loss_is_the_softmax_at_what_each_person_took() -> None:
    log, _ = checkerboard()
    learner = GraphLearner(log, GraphConfig(**{**vars(QUICK), "hidden": 0.0}))
    losses = [float(loss.detach()) for loss in learner.losses(np.random.default_rng(0))]
    assert len(losses) == learner.num_steps() == 4
    with torch.no_grad():
        learner.refresh()
    for loss, people in zip(losses, np.array_split(np.random.default_rng(0).permutation(30), 4), strict=True):
        expected = []
        for user in people.tolist():
            took = log.events.item_index[log.events.user_index == user].tolist()
            found = scores(learner.score, *took)
            expected += [np.log(np.exp(found).sum()) - found[item] for item in took]
        assert loss == pytest.approx(np.mean(expected), rel=1e-4)


def test_only_edges_of_the_asked_are_hidden_and_both_ends_agree() -> None:
    log, _ = checkerboard()
    learner = GraphLearner(log, QUICK)
    whole, _ = learner._edges
    row = np.repeat(np.arange(30), np.diff(whole.indptr))
    shown = (row != 3) & (row != 8)
    edges = learner._shown(shown)
    expected = whole.toarray()
    expected[[3, 8]] = 0
    np.testing.assert_array_equal(edges.forward.toarray(), expected)
    np.testing.assert_array_equal(edges.backward.toarray(), expected.T)


def test_dislikes_are_no_edges_and_their_kind_does_not_count() -> None:
    log = log_of([(0, 0), (0, 1), (1, 0), (1, 2)], num_people=2, num_items=3, weights=[1, -1, 1, 0])
    log = log._replace(events=log.events._replace(kind=np.array([1, 2, 1, 2])))
    learner = GraphLearner(log, QUICK)
    assert learner._took.toarray().tolist() == [[1, 0, 0], [1, 0, 0]]
    assert learner.score.taking.tolist()[1:] == [1.0, 0.0]


def test_every_weight_learns() -> None:
    log, _ = checkerboard()
    random = np.random.default_rng(0)
    blocks = {
        name: ContentBlock(random.normal(size=(12, 4)).astype(np.float32), np.ones(12, dtype=bool)) for name in "ab"
    }
    learner = GraphLearner(log._replace(content=blocks), QUICK)
    next(learner.losses(random)).backward()
    still = [name for name, p in learner.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


def test_a_log_of_nothing_and_one_of_a_single_event_are_learned() -> None:
    assert not fit_graph(log_of([], num_people=0, num_items=3), QUICK).score.vectors.any()
    score = fit_graph(log_of([(0, 1)], num_people=1, num_items=3), QUICK).score
    assert np.isfinite(scores(score, 1)).all()


@pytest.mark.parametrize(
    "wrong", [{"num_rounds": -1}, {"num_neighbours": -1}, {"temperature": 0.0}, {"hidden": 1.0}, {"people_a_step": 0}]
)
def test_numbers_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        GraphConfig(**wrong)  # pyright: ignore[reportArgumentType]
