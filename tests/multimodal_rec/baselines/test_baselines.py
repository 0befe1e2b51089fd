from collections.abc import Callable
from copy import copy
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from multimodal_rec.baselines import (
    BPR,
    EASE,
    Baseline,
    ContentKNN,
    EASEWithContent,
    GraphPropagation,
    ItemKNN,
    LightGCN,
    Popularity,
    Ridge,
    SASRec,
    Schedule,
    TrainedBaseline,
)
from multimodal_rec.errors import ConfigError, NotFittedError, UnknownIdError
from multimodal_rec.evaluation import evaluate_ranking

MOVIELENS = Path(__file__).parents[3] / "shared" / "data" / "movielens-100k"

ITEMS = [f"i{i}" for i in range(20)]
USERS = [f"u{u}" for u in range(30)]

SHORT = Schedule(epochs=40, batch_size=128, learning_rate=0.03)

CLOSED: dict[str, Callable[[], Baseline]] = {
    "popularity": Popularity,
    "item-kNN": lambda: ItemKNN(10, shrinkage=1.0),
    "EASE": lambda: EASE(5.0),
    "content": ContentKNN,
    "content, 5 nearest": lambda: ContentKNN(5),
    "EASE + content": lambda: EASEWithContent(5.0, content_weight=5.0),
    "ridge": lambda: Ridge(0.1, num_factors=2),
    "ridge, own factors": lambda: Ridge(0.1, num_factors=2, keep_taken=True),
}
TRAINED: dict[str, Callable[[], TrainedBaseline]] = {
    "BPR": lambda: BPR(8, schedule=SHORT),
    "LightGCN": lambda: LightGCN(8, num_layers=2, schedule=SHORT),
    "SASRec": lambda: SASRec(8, num_blocks=1, max_items=10, dropout=0.0, schedule=SHORT),
    "graph": lambda: GraphPropagation(8, num_neighbours=3, schedule=SHORT),
}
BASELINES: dict[str, Callable[[], Baseline]] = {**CLOSED, **TRAINED}
PERSONAL = {name: make for name, make in BASELINES.items() if name != "popularity"}


def checkerboard(hidden: float = 0.3, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Even people take even items and odd people odd ones; a share of it is hidden."""
    pairs = pd.DataFrame(
        [(user, item) for u, user in enumerate(USERS) for i, item in enumerate(ITEMS) if u % 2 == i % 2],
        columns=["user_id", "item_id"],
    )
    is_hidden = np.random.default_rng(seed).random(len(pairs)) < hidden
    return pairs[~is_hidden], pairs[is_hidden]


def content() -> np.ndarray:
    """Even items point one way and odd ones another, with noise."""
    rng = np.random.default_rng(1)
    parity = np.eye(2)[np.arange(len(ITEMS)) % 2]
    return np.hstack([parity, 0.1 * rng.normal(size=(len(ITEMS), 3))]).astype(np.float32)


def queries(*user_ids: str) -> pd.DataFrame:
    return pd.DataFrame({"user_id": list(user_ids)})


@cache
def _fitted_once(name: str) -> Baseline:
    return BASELINES[name]().fit(checkerboard()[0], ITEMS, content=content())


def fitted(name: str) -> Baseline:
    """A copy, for what it reads is its own: what it learned is never written to."""
    return copy(_fitted_once(name))


@pytest.fixture(params=list(BASELINES))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


class TestContract:
    def test_fit_returns_itself_and_scores_are_float32_query_by_item(self, name: str) -> None:
        baseline = BASELINES[name]()
        assert baseline.fit(checkerboard()[0], ITEMS, content=content()) is baseline
        scores = baseline.score(queries("u3", "u0", "u3"))
        assert scores.shape == (3, len(ITEMS))
        assert scores.dtype == np.float32
        assert scores.flags["C_CONTIGUOUS"]
        assert np.isfinite(scores).all()
        np.testing.assert_array_equal(scores[0], scores[2])
        assert baseline.score(queries()).shape == (0, len(ITEMS))

    def test_rows_do_not_depend_on_each_other(self, name: str) -> None:
        baseline = fitted(name)
        together = baseline.score(queries(*USERS))
        alone = np.concatenate([baseline.score(queries(user)) for user in USERS])
        np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)

    def test_the_same_seed_gives_the_same_scores(self, name: str) -> None:
        again = BASELINES[name]().fit(checkerboard()[0], ITEMS, content=content())
        np.testing.assert_array_equal(fitted(name).score(queries(*USERS)), again.score(queries(*USERS)))

    def test_a_late_item_is_scored(self, name: str) -> None:
        train = checkerboard()[0].query("item_id != 'i0'")
        scores = BASELINES[name]().fit(train, ITEMS, content=content()).score(queries("u0", "u1"))
        if name in ("content", "content, 5 nearest", "EASE + content", "ridge", "ridge, own factors", "graph"):
            assert scores[0, 0] > scores[1, 0]
        elif name not in TRAINED:
            np.testing.assert_array_equal(scores[:, 0], 0.0)

    def test_a_stranger_has_no_taste(self, name: str) -> None:
        scores = fitted(name).score(queries("u0", "stranger"))
        if name == "popularity":
            np.testing.assert_array_equal(scores[0], scores[1])
        else:
            np.testing.assert_array_equal(scores[1], 0.0)
            assert scores[0].any()

    def test_whoever_is_read_is_scored_and_nothing_else_changes(self, name: str) -> None:
        baseline = fitted(name)
        before = baseline.score(queries(*USERS))
        new = pd.DataFrame({"user_id": "new", "item_id": ["i0", "i4", "i8"]})
        assert baseline.read(new) is baseline
        scores = baseline.score(queries("new", "stranger"))
        if name == "popularity":
            np.testing.assert_array_equal(scores[0], before[0])
        else:
            np.testing.assert_array_equal(scores[1], 0.0)
            # The even items that were not read, against the odd ones.
            assert scores[0, [2, 6, 10, 12, 14, 16, 18]].mean() > scores[0, 1::2].mean()
        if name not in ("LightGCN", "graph"):
            # In these two a new person is a neighbour of everybody's neighbours.
            np.testing.assert_array_equal(baseline.score(queries(*USERS)), before)

    def test_a_history_grows_by_what_is_read(self, name: str) -> None:
        if name in ("popularity", "BPR"):
            pytest.skip("knows no histories")
        baseline = fitted(name)
        before = baseline.score(queries("u0"))
        baseline.read(pd.DataFrame({"user_id": ["u0"], "item_id": ["i1"]}))
        assert (baseline.score(queries("u0")) != before).any()

    def test_nothing_was_read(self, name: str) -> None:
        make = BASELINES[name]
        with pytest.raises(NotFittedError, match=r"has not read any interactions\. Call fit first"):
            make().score(queries("u0"))
        with pytest.raises(NotFittedError, match=r"has not read any interactions\. Call fit first"):
            make().read(checkerboard()[0])
        with pytest.raises(UnknownIdError, match="item 'i19' of the interactions is not among the 19 item_ids"):
            make().fit(checkerboard()[0], ITEMS[:-1], content=content()[:-1])
        unknown = pd.DataFrame({"user_id": ["u0"], "item_id": ["i99"]})
        with pytest.raises(UnknownIdError, match="item 'i99' of the interactions is not among the 20 item_ids"):
            fitted(name).read(unknown)

    def test_the_checkerboard_is_learned(self, name: str) -> None:
        if name == "SASRec":
            pytest.skip("reads the order, and here there is none")
        train, test = checkerboard()
        reached = evaluate_ranking(fitted(name).score, test, known=train, item_ids=ITEMS).means()
        if name == "popularity":
            assert reached["recall@10"] < 0.9
        else:
            assert reached["recall@10"] == 1.0


class TestClosedForms:
    """Those whose result no order of rows, people or items can touch."""

    @pytest.fixture(params=list(CLOSED))
    def make(self, request: pytest.FixtureRequest) -> Callable[[], Baseline]:
        return CLOSED[request.param]

    def test_the_order_of_people_and_rows_does_not_matter(self, make: Callable[[], Baseline]) -> None:
        train = checkerboard()[0]
        shuffled = pd.concat([train, train[:7]]).sample(frac=1, random_state=0)
        first = make().fit(train, ITEMS, content=content())
        second = make().fit(shuffled, ITEMS, content=content())
        np.testing.assert_allclose(
            first.score(queries(*USERS)), second.score(queries(*USERS[::-1]))[::-1], rtol=1e-5, atol=1e-6
        )

    def test_the_order_of_items_does_not_matter(self, make: Callable[[], Baseline]) -> None:
        train = checkerboard()[0]
        order = np.random.default_rng(2).permutation(len(ITEMS))
        first = make().fit(train, ITEMS, content=content())
        second = make().fit(train, [ITEMS[i] for i in order], content=content()[order])
        np.testing.assert_allclose(
            first.score(queries(*USERS))[:, order], second.score(queries(*USERS)), rtol=1e-5, atol=1e-6
        )

    def test_everybody_prefers_all_of_their_own_kind(self, make: Callable[[], Baseline]) -> None:
        baseline = make().fit(checkerboard()[0], ITEMS, content=content())
        if isinstance(baseline, Popularity):
            return
        scores = baseline.score(queries(*USERS))
        even_user, even_item = np.arange(len(USERS)) % 2 == 0, np.arange(len(ITEMS)) % 2 == 0
        own = scores[even_user][:, even_item].min(), scores[~even_user][:, ~even_item].min()
        other = scores[even_user][:, ~even_item].max(), scores[~even_user][:, even_item].max()
        assert min(own) > max(other)


def test_the_log_keeps_time() -> None:
    log = pd.DataFrame(
        {"user_id": ["b", "a", "b", "a"], "item_id": ["x", "y", "y", "x"], "timestamp": [4, 3, 2, 1], "event": "play"}
    )
    baseline = Popularity().fit(log, ["x", "y"])
    known = baseline._fitted()
    assert known.num_users == 2
    assert known.num_items == 2
    items, starts = known.sequences()
    np.testing.assert_array_equal(starts, [0, 2, 4, 4])
    np.testing.assert_array_equal(items, [0, 1, 1, 0])
    np.testing.assert_array_equal(known.histories.toarray(), [[1, 1], [1, 1], [0, 0]])
    # Later rows that happened earlier take their place in time.
    later = pd.DataFrame({"user_id": ["a", "c"], "item_id": ["y", "y"], "timestamp": [0, 9]})
    items, starts = baseline.read(later)._fitted().sequences()
    np.testing.assert_array_equal(starts, [0, 3, 5, 6, 6])
    np.testing.assert_array_equal(items, [1, 0, 1, 1, 0, 1])


def test_without_a_clock_rows_are_the_order() -> None:
    log = pd.DataFrame({"user_id": ["b", "a", "b"], "item_id": ["y", "y", "x"]})
    items, _ = Popularity().fit(log, ["x", "y"])._fitted().sequences()
    np.testing.assert_array_equal(items, [1, 1, 0])


def test_popularity_counts_people_once() -> None:
    log = pd.DataFrame({"user_id": ["u", "u", "v", "v"], "item_id": ["a", "a", "a", "b"]})
    np.testing.assert_array_equal(Popularity().fit(log, ["b", "a", "c"]).score(queries("w")), [[1, 2, 0]])


def test_item_knn_by_hand() -> None:
    log = pd.DataFrame([("u", "a"), ("u", "b"), ("v", "a"), ("v", "b"), ("w", "a"), ("w", "c")])
    log.columns = ["user_id", "item_id"]
    scores = ItemKNN(2, shrinkage=3.0).fit(log, ["a", "b", "c"]).score(queries("u"))
    # People of a, b, c: 3, 2, 1; a and b share 2, a and c share 1, b and c none. u took a and b.
    expected = [[2 / (np.sqrt(6) + 3), 2 / (np.sqrt(6) + 3), 1 / (np.sqrt(3) + 3)]]
    np.testing.assert_allclose(scores, expected, rtol=1e-6)
    # c's one nearest is a, and a's is b.
    nearest = ItemKNN(1, shrinkage=0.0).fit(log, ["a", "b", "c"]).score(queries("w"))
    np.testing.assert_allclose(nearest, [[0, 2 / np.sqrt(6), 1 / np.sqrt(3)]], rtol=1e-6)


def random_log(num_users: int = 40, num_items: int = 6, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """Interactions, and the same as a matrix (user, item) of 0 and 1 in which everybody took something."""
    rng = np.random.default_rng(seed)
    taken = rng.random((num_users, num_items)) < 0.4
    taken[np.arange(num_users), rng.integers(0, num_items, num_users)] = True
    user, item = np.nonzero(taken)
    log = pd.DataFrame({"user_id": [f"u{u:02}" for u in user], "item_id": [f"i{i}" for i in item]})
    return log, taken.astype(float)


def test_ease_solves_its_constrained_regression() -> None:
    log, x = random_log()
    scores = EASE(3.0).fit(log, ITEMS[:6]).score(queries(*[f"u{u:02}" for u in range(40)]))
    # Column by column: a ridge regression on the other items.
    for column in range(6):
        others = np.delete(x, column, axis=1)
        weights = np.linalg.solve(others.T @ others + 3.0 * np.eye(5), others.T @ x[:, column])
        np.testing.assert_allclose(scores[:, column], others @ weights, rtol=1e-4)


def test_ease_with_content_regresses_on_features_as_further_rows() -> None:
    log, x = random_log()
    features = np.random.default_rng(1).normal(size=(6, 4))
    features[2] = 0
    baseline = EASEWithContent(3.0, content_weight=7.0).fit(log, ITEMS[:6], content=features)
    scores = baseline.score(queries(*[f"u{u:02}" for u in range(40)]))
    present = np.arange(6) != 2
    features[present] -= features[present].mean(axis=0)
    features[present] /= np.linalg.norm(features[present], axis=1, keepdims=True)
    stacked = np.vstack([x, np.sqrt(7.0) * features.T])
    for column in range(6):
        others = np.delete(stacked, column, axis=1)
        weights = np.linalg.solve(others.T @ others + 3.0 * np.eye(5), others.T @ stacked[:, column])
        np.testing.assert_allclose(scores[:, column], np.delete(x, column, axis=1) @ weights, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("num_factors", [2, 50])
def test_ridge_maps_content_to_singular_vectors(num_factors: int) -> None:
    log, x = random_log()
    features = np.random.default_rng(1).normal(size=(8, 3))
    features[[2, 7]] = 0
    people = queries(*[f"u{u:02}" for u in range(40)])
    scores = Ridge(2.0, num_factors=num_factors).fit(log, ITEMS[:8], content=features).score(people)
    _, _, right = np.linalg.svd(np.hstack([x, np.zeros((40, 2))]), full_matrices=False)
    factors = right[: min(num_factors, 8)].T
    known = features[:6]
    # The same least squares with λ as further rows.
    rows = np.vstack([known, np.sqrt(2.0) * np.eye(3)])
    weights = np.linalg.lstsq(rows, np.vstack([factors[:6], np.zeros((3, factors.shape[1]))]), rcond=None)[0]
    expected = np.hstack([x, np.zeros((40, 2))]) @ factors @ (features @ weights).T
    if num_factors == 2:
        np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5)
    else:
        # Factors of the singular value 0 are any basis of what nobody took, which no history can see.
        assert np.isfinite(scores).all()
    own = Ridge(2.0, num_factors=num_factors, keep_taken=True).fit(log, ITEMS[:8], content=features).score(people)
    if num_factors == 2:
        np.testing.assert_allclose(own[:, :6], (np.hstack([x, np.zeros((40, 2))]) @ factors @ factors.T)[:, :6], 1e-4)
    else:
        np.testing.assert_allclose(own[:, :6], x, atol=1e-5)


def test_content_knn_by_hand() -> None:
    log = pd.DataFrame({"user_id": ["u", "u", "v"], "item_id": ["a", "b", "c"]})
    features = np.array([[2.0, 0.0], [3.0, 3.0], [0.0, 1.0], [0.5, 0.0], [0.0, 0.0]])
    root = np.sqrt(1 / 2)
    all_items = ContentKNN().fit(log, list("abcde"), content=features).score(queries("u"))
    np.testing.assert_allclose(all_items, [[root, root, root, 1 + root, 0]], rtol=1e-6)
    # Of d the nearest taken item is a; of c it is b; of a it is b, for nobody took d.
    nearest = ContentKNN(1).fit(log, list("abcde"), content=features).score(queries("u"))
    np.testing.assert_allclose(nearest[0, [0, 2, 3, 4]], [root, root, 1, 0], rtol=1e-6)


@pytest.mark.parametrize("make", [ContentKNN, EASEWithContent, Ridge])
def test_content_that_does_not_fit_is_named(make: Callable[[], Baseline]) -> None:
    log, name = checkerboard()[0], make.__name__
    with pytest.raises(ConfigError, match=rf"{name} got content of none. Expected \(20, dim\)"):
        make().fit(log, ITEMS)
    with pytest.raises(ConfigError, match=r"content of shape \(3, 2\). Expected \(20, dim\)"):
        make().fit(log, ITEMS, content=np.zeros((3, 2)))
    with pytest.raises(ConfigError, match="Give an item without content a row of zeros"):
        make().fit(log, ITEMS, content=np.full((20, 2), np.nan))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ContentKNN(0), "k is 0. Expected at least 1, or None for all"),
        (lambda: ItemKNN(0), "k is 0 and shrinkage 10.0. Expected k of at least 1"),
        (lambda: EASE(0), "regularisation is 0. Expected a number above 0"),
        (lambda: EASEWithContent(0), "regularisation is 0. Expected a number above 0"),
        (lambda: EASEWithContent(content_weight=-1), "content_weight is -1. Expected a number above 0"),
        (lambda: Ridge(float("nan")), "regularisation is nan. Expected a number above 0"),
        (lambda: Ridge(num_factors=0), "num_factors is 0. Expected at least 1, such as 64"),
        (lambda: BPR(0), "dim is 0 and regularisation 0.001. Expected at least 1 and at least 0"),
        (lambda: BPR(regularisation=-1), "dim is 64 and regularisation -1. Expected at least 1 and at least 0"),
        (lambda: LightGCN(num_layers=0), "num_layers is 0. Expected at least 1; 0 would be BPR"),
        (lambda: Schedule(epochs=0), "epochs is 0. Expected at least 1"),
        (lambda: Schedule(learning_rate=0), "learning_rate is 0. Expected a number above 0"),
    ],
)
def test_bad_settings_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.real_data
@pytest.mark.skipif(not MOVIELENS.is_dir(), reason="movielens-100k is not in ../shared/data")
def test_movielens_figures_that_were_measured_elsewhere() -> None:
    ratings = pd.read_csv(MOVIELENS / "ratings.csv", dtype={"user_id": str, "movie_id": str})
    ratings = ratings.rename(columns={"movie_id": "item_id"})
    # Timestamps tie often; breaking ties by movie id would put popular films first.
    ratings = ratings.iloc[np.random.default_rng(0).permutation(len(ratings))]
    ratings = ratings.sort_values(["user_id", "timestamp"], kind="stable")
    from_last = ratings.groupby("user_id").cumcount(ascending=False)
    known, test = ratings[from_last > 0], ratings[from_last == 0]
    item_ids = sorted(ratings["item_id"].unique())
    measured = {Popularity: (0.0774, 0.0404, 0.1188, 0.0507), EASE: (0.1665, 0.0876, 0.2418, 0.1065)}
    for baseline, figures in measured.items():
        score = baseline().fit(known, item_ids).score
        means = evaluate_ranking(score, test, known=known, item_ids=item_ids).means()
        reached = [means[name] for name in ("recall@10", "ndcg@10", "recall@20", "ndcg@20")]
        assert reached == pytest.approx(figures, rel=0.02)
