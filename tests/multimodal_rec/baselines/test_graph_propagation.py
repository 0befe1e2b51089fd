import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from multimodal_rec.baselines.baseline import Baseline
from multimodal_rec.baselines.propagation import Edges, GraphPropagation, carry, nearest
from multimodal_rec.baselines.trained import Schedule
from multimodal_rec.errors import ConfigError, NotFittedError

ITEMS = [f"i{i}" for i in range(20)]
USERS = [f"u{u}" for u in range(30)]
QUICK = Schedule(epochs=30, batch_size=10, learning_rate=1e-2, seed=0)


def checkerboard(hidden: float = 0.3, *, without: tuple[int, ...] = ()) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Even people take even items and odd people odd ones; a share of it is hidden, and some items altogether."""
    pairs = pd.DataFrame(
        [(user, item) for u, user in enumerate(USERS) for i, item in enumerate(ITEMS) if u % 2 == i % 2],
        columns=["user_id", "item_id"],
    )
    is_hidden = np.random.default_rng(0).random(len(pairs)) < hidden
    is_hidden |= pairs["item_id"].isin([ITEMS[i] for i in without]).to_numpy()
    return pairs[~is_hidden], pairs[is_hidden]


def content() -> np.ndarray:
    """Even items point one way and odd ones another, with noise."""
    rng = np.random.default_rng(1)
    return np.hstack([np.eye(2)[np.arange(20) % 2], 0.1 * rng.normal(size=(20, 3))]).astype(np.float32)


def asked(*user_ids: str) -> pd.DataFrame:
    return pd.DataFrame({"user_id": list(user_ids)})


def small(schedule: Schedule = QUICK, *, num_neighbours: int = 4, as_new: float = 0.0) -> GraphPropagation:
    return GraphPropagation(16, num_neighbours=num_neighbours, as_new=as_new, schedule=schedule)


def own_kind_first(scores: np.ndarray, users: list[int]) -> bool:
    """Whether everybody's own kind scores above the other, but for a pair of items in twenty."""
    parity = np.arange(20) % 2
    above = [scores[row][parity == u % 2][:, None] > scores[row][parity != u % 2] for row, u in enumerate(users)]
    return bool(np.mean(above) > 0.95)


class TestPropagation:
    @pytest.mark.parametrize("with_content", [True, False])
    def test_it_is_the_slow_dense_loop(self, with_content: bool) -> None:
        log, _ = checkerboard(without=(6,))
        features = content() if with_content else None
        model = small(Schedule(epochs=1)).fit(log, ITEMS, content=features)
        module = model._module
        assert module is not None
        weights = {name: weight.double().numpy() for name, weight in module.state_dict().items()}

        users = [str(user) for user in model._users]
        taken = np.zeros((len(users), 20))
        for row in log.itertuples():
            taken[users.index(str(row.user_id)), ITEMS.index(str(row.item_id))] = 1
        user, item = weights["user"], weights["item"] * (taken.sum(axis=0) > 0)[:, None]
        alike = np.zeros((20, 20))
        if features is not None:
            centred = features.astype(float) - features.astype(float).mean(axis=0)
            centred /= np.linalg.norm(centred, axis=1, keepdims=True)
            item = item + centred @ weights["projection.weight"].T
            for i in range(20):
                others = [j for j in np.argsort(-(centred @ centred[i])) if j not in (i, 6)]
                alike[i, others[:4]] = 1 / 4
        rounds = [(user, item)]
        for _ in range(2):
            next_user, next_item = np.zeros_like(user), np.zeros_like(item)
            for u, i in np.argwhere(taken):
                weight = 1 / np.sqrt(taken[u].sum() * taken[:, i].sum())
                next_user[u] += weight * rounds[-1][1][i]
                next_item[i] += weight * rounds[-1][0][u]
            rounds.append((next_user, next_item))
        user, item = (sum(r[side] for r in rounds) / 3 for side in (0, 1))
        item = item + alike @ item
        expected = user @ item.T
        expected /= np.linalg.norm(user, axis=1)[:, None] * np.maximum(np.linalg.norm(item, axis=1), 1e-12)
        np.testing.assert_allclose(model.score(asked(*users)), expected, rtol=1e-4, atol=1e-5)

    def test_carrying_has_the_gradient_of_the_product(self) -> None:
        rng = np.random.default_rng(0)
        dense = (rng.normal(size=(5, 7)) * (rng.random((5, 7)) < 0.5)).astype(np.float32)
        edges = Edges.of(sparse.csr_array(dense))
        x, wanted = torch.randn(7, 3, requires_grad=True), torch.randn(5, 3)
        torch.testing.assert_close(carry(edges, x), torch.from_numpy(dense) @ x)
        (carry(edges, x) * wanted).sum().backward()
        torch.testing.assert_close(x.grad, torch.from_numpy(dense).T @ wanted)
        torch.testing.assert_close(carry(edges.reversed(), wanted), torch.from_numpy(dense).T @ wanted)


class TestNearest:
    def test_neighbours_are_candidates_that_point_the_same_way(self) -> None:
        angles = np.array([0.0, 0.1, 0.2, 1.5, 1.6])
        rows = np.column_stack([np.cos(angles), np.sin(angles)])
        near = nearest(rows, np.array([True, False, True, True, True]), 1).toarray()
        assert near.argmax(axis=1).tolist() == [2, 0, 0, 4, 3] or near.argmax(axis=1).tolist() == [2, 2, 0, 4, 3]
        assert (near.sum(axis=1) == 1).all()

    def test_items_without_content_neither_have_nor_are_neighbours(self) -> None:
        rows = np.array([[1.0, 0], [0, 0], [0, 1.0], [0, 0]])
        near = nearest(rows, np.array([True, True, True, True]), 3).toarray()
        np.testing.assert_array_equal(near, [[0, 0, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]])

    def test_nobody_to_choose_from_gives_no_edges(self) -> None:
        assert nearest(np.eye(3), np.zeros(3, dtype=bool), 2).nnz == 0


class TestLearning:
    @pytest.mark.parametrize("with_content", [True, False])
    def test_the_checkerboard_is_learned(self, with_content: bool) -> None:
        model = small().fit(checkerboard()[0], ITEMS, content=content() if with_content else None)
        scores = model.score(asked(*USERS))
        assert scores.shape == (30, 20)
        assert scores.dtype == np.float32
        assert own_kind_first(scores, list(range(30)))
        assert (np.abs(scores) <= 1 + 1e-6).all()

    @pytest.mark.parametrize("as_new", [0.0, 0.3])
    def test_an_item_that_nobody_took_is_ranked_by_its_content(self, as_new: float) -> None:
        log, _ = checkerboard(without=(6, 13))
        scores = small(as_new=as_new).fit(log, ITEMS, content=content()).score(asked(*USERS))
        assert np.mean(scores[::2, 6] > scores[::2, 13]) > 0.9
        assert np.mean(scores[1::2, 6] < scores[1::2, 13]) > 0.9

    def test_so_it_is_by_the_projection_alone_and_by_neighbours_alone(self) -> None:
        log, _ = checkerboard(without=(6, 13))
        alone = small(num_neighbours=0).fit(log, ITEMS, content=content()).score(asked("u0", "u1"))
        assert alone[0, 6] > alone[0, 13]
        assert alone[1, 6] < alone[1, 13]
        model = small().fit(log, ITEMS, content=content())
        module = model._module
        assert module is not None
        with torch.no_grad():
            module.get_parameter("projection.weight").zero_()
        scores = model.read(log.iloc[:0]).score(asked("u0", "u1"))
        assert scores[0, 6] > scores[0, 13]
        assert scores[1, 6] < scores[1, 13]

    def test_without_content_nobody_knows_anything_of_it(self) -> None:
        log, _ = checkerboard(without=(6,))
        assert (small().fit(log, ITEMS).score(asked(*USERS))[:, 6] == 0).all()
        features = content()
        features[6] = 0
        assert (small().fit(log, ITEMS, content=features).score(asked(*USERS))[:, 6] == 0).all()

    def test_the_same_seed_gives_the_same_scores_in_any_order_of_queries(self) -> None:
        quick = Schedule(epochs=3, batch_size=10, seed=5)
        a, b = (small(quick, as_new=0.2).fit(checkerboard()[0], ITEMS, content=content()) for _ in range(2))
        np.testing.assert_array_equal(a.score(asked(*USERS)), b.score(asked(*USERS)))
        np.testing.assert_allclose(a.score(asked(*USERS)), a.score(asked(*USERS[::-1]))[::-1], rtol=1e-5, atol=1e-6)
        other = small(Schedule(epochs=3, batch_size=10, seed=6)).fit(checkerboard()[0], ITEMS, content=content())
        assert not np.allclose(a.score(asked(*USERS)), other.score(asked(*USERS)))

    def test_every_weight_learns(self) -> None:
        model = small(Schedule(epochs=1)).fit(checkerboard()[0], ITEMS, content=content())
        assert model._module is not None
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model._module.parameters())

    def test_validation_keeps_the_best_weights(self) -> None:
        worth, seen = iter([0.5, 0.4, 0.3]), []

        def validate(model: Baseline) -> float:
            seen.append(model.score(asked("u0")))
            return next(worth)

        stopped = small(Schedule(epochs=50, batch_size=10, every=2, patience=2))
        stopped.fit(checkerboard()[0], ITEMS, content=content(), validate=validate)
        assert stopped.best_epoch == 2
        np.testing.assert_array_equal(stopped.score(asked("u0")), seen[0])


class TestReading:
    def test_new_people_are_made_of_their_items(self) -> None:
        model = small().fit(checkerboard()[0], ITEMS, content=content())
        items = ["i0", "i4", "i8", "i1", "i7", "i11"]
        model.read(pd.DataFrame({"user_id": ["even"] * 3 + ["odd"] * 3, "item_id": items}))
        assert own_kind_first(model.score(asked("even", "odd")), [0, 1])

    def test_an_item_taken_since_joins_the_graph(self) -> None:
        log, _ = checkerboard(without=(6,))
        model = small().fit(log, ITEMS)
        model.read(pd.DataFrame({"user_id": ["u0", "u2", "u4"], "item_id": "i6"}))
        scores = model.score(asked("u8", "u9"))
        assert scores[0, 6] > scores[0, 7]
        assert scores[1, 6] < scores[1, 7]

    def test_strangers_score_0(self) -> None:
        model = small(Schedule(epochs=1)).fit(checkerboard()[0], ITEMS, content=content())
        scores = model.score(asked("u0", "nobody"))
        assert scores[0].any()
        assert not scores[1].any()


class TestRefusals:
    def test_numbers_that_cannot_work(self) -> None:
        with pytest.raises(ConfigError, match="num_layers 0 and num_neighbours 10"):
            GraphPropagation(num_layers=0)
        with pytest.raises(ConfigError, match=r"temperature is 0, weight_decay 0\.1 and as_new 0\.0"):
            GraphPropagation(temperature=0)
        with pytest.raises(ConfigError, match="a share as_new from 0 to below 1"):
            GraphPropagation(as_new=1.0)

    def test_content_that_does_not_fit(self) -> None:
        with pytest.raises(ConfigError, match=r"GraphPropagation got content of shape \(3, 2\)"):
            small().fit(checkerboard()[0], ITEMS, content=np.ones((3, 2)))
        with pytest.raises(NotFittedError, match="GraphPropagation has not read any interactions"):
            small().score(asked("u0"))
