from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from multimodal_rec.baselines import EASE, Baseline, ContentKNN, ItemKNN, Popularity, tuned
from multimodal_rec.errors import ConfigError, NotFittedError, UnknownIdError
from multimodal_rec.evaluation import evaluate_ranking

MOVIELENS = Path(__file__).parents[3] / "shared" / "data" / "movielens-100k"

ITEMS = [f"i{i}" for i in range(20)]
USERS = [f"u{u}" for u in range(30)]

BASELINES: dict[str, Callable[[], Baseline]] = {
    "popularity": Popularity,
    "item-kNN": lambda: ItemKNN(10, shrinkage=1.0),
    "EASE": lambda: EASE(5.0),
    "content": ContentKNN,
    "content, 5 nearest": lambda: ContentKNN(5),
}
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


@pytest.fixture(params=list(BASELINES))
def make(request: pytest.FixtureRequest) -> Callable[[], Baseline]:
    return BASELINES[request.param]


class TestContract:
    def test_fit_returns_itself_and_scores_are_float32_query_by_item(self, make: Callable[[], Baseline]) -> None:
        baseline = make()
        assert baseline.fit(checkerboard()[0], ITEMS, content=content()) is baseline
        scores = baseline.score(queries("u3", "u0", "u3"))
        assert scores.shape == (3, len(ITEMS))
        assert scores.dtype == np.float32
        assert np.isfinite(scores).all()
        np.testing.assert_array_equal(scores[0], scores[2])

    def test_rows_do_not_depend_on_each_other(self, make: Callable[[], Baseline]) -> None:
        baseline = make().fit(checkerboard()[0], ITEMS, content=content())
        together = baseline.score(queries(*USERS))
        alone = np.concatenate([baseline.score(queries(user)) for user in USERS])
        np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-6)

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

    def test_a_late_item_is_scored(self, make: Callable[[], Baseline]) -> None:
        train = checkerboard()[0].query("item_id != 'i0'")
        scores = make().fit(train, ITEMS, content=content()).score(queries("u0", "u1"))
        if isinstance(make(), ContentKNN):
            assert scores[0, 0] > scores[1, 0]
        else:
            np.testing.assert_array_equal(scores[:, 0], 0.0)

    def test_a_stranger_has_no_taste(self, make: Callable[[], Baseline]) -> None:
        train = checkerboard()[0]
        baseline = make().fit(train, ITEMS, content=content())
        scores = baseline.score(queries("u0", "stranger"))
        if isinstance(baseline, Popularity):
            np.testing.assert_array_equal(scores[0], scores[1])
        else:
            np.testing.assert_array_equal(scores[1], 0.0)
            assert scores[0].any()

    def test_nothing_was_read(self, make: Callable[[], Baseline]) -> None:
        with pytest.raises(NotFittedError, match=r"has not read any interactions\. Call fit first"):
            make().score(queries("u0"))
        with pytest.raises(UnknownIdError, match="item 'i19' of the interactions is not among the 19 item_ids"):
            make().fit(checkerboard()[0], ITEMS[:-1], content=content()[:-1])


@pytest.mark.parametrize("name", PERSONAL)
def test_the_checkerboard_is_learned(name: str) -> None:
    train, test = checkerboard()
    baseline = PERSONAL[name]().fit(train, ITEMS, content=content())
    scores = baseline.score(queries(*USERS))
    even_user, even_item = np.arange(len(USERS)) % 2 == 0, np.arange(len(ITEMS)) % 2 == 0
    own = scores[even_user][:, even_item].min(), scores[~even_user][:, ~even_item].min()
    other = scores[even_user][:, ~even_item].max(), scores[~even_user][:, even_item].max()
    assert min(own) > max(other)
    reached = evaluate_ranking(baseline.score, test, known=train, item_ids=ITEMS).means()
    assert reached["recall@10"] == 1.0


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


def test_ease_solves_its_constrained_regression() -> None:
    rng = np.random.default_rng(0)
    taken = rng.random((40, 6)) < 0.4
    taken[0] = [True, False, False, False, False, False]
    user, item = np.nonzero(taken)
    log = pd.DataFrame({"user_id": [f"u{u}" for u in user], "item_id": [f"i{i}" for i in item]})
    baseline = EASE(3.0).fit(log, [f"i{i}" for i in range(6)])
    scores = baseline.score(queries(*[f"u{u}" for u in range(40)]))
    # Column by column: a ridge regression on the other items.
    x = taken.astype(float)
    for column in range(6):
        others = np.delete(x, column, axis=1)
        weights = np.linalg.solve(others.T @ others + 3.0 * np.eye(5), others.T @ x[:, column])
        np.testing.assert_allclose(scores[taken.any(axis=1), column], (others @ weights)[taken.any(axis=1)], rtol=1e-4)


def test_content_knn_by_hand() -> None:
    log = pd.DataFrame({"user_id": ["u", "u", "v"], "item_id": ["a", "b", "c"]})
    features = np.array([[2.0, 0.0], [3.0, 3.0], [0.0, 1.0], [0.5, 0.0], [0.0, 0.0]])
    root = np.sqrt(1 / 2)
    all_items = ContentKNN().fit(log, list("abcde"), content=features).score(queries("u"))
    np.testing.assert_allclose(all_items, [[root, root, root, 1 + root, 0]], rtol=1e-6)
    # Of d the nearest taken item is a; of c it is b; of a it is b, for nobody took d.
    nearest = ContentKNN(1).fit(log, list("abcde"), content=features).score(queries("u"))
    np.testing.assert_allclose(nearest[0, [0, 2, 3, 4]], [root, root, 1, 0], rtol=1e-6)


def test_tuned_takes_the_best_on_validation_and_refits_on_both() -> None:
    train, rest = checkerboard(0.5)
    valid, test = rest[: len(rest) // 2], rest[len(rest) // 2 :]
    grid: dict[str, Callable[[], EASE]] = {"λ 1e9": lambda: EASE(1e9), "λ 5": lambda: EASE(5.0)}
    choice = tuned(grid, train, valid=valid, item_ids=ITEMS)
    assert set(choice.valid) == set(grid)
    assert choice.label == max(choice.valid, key=lambda label: choice.valid[label])
    both = pd.concat([train, valid])
    expected = grid[choice.label]().fit(both, ITEMS)
    np.testing.assert_array_equal(choice.baseline.score(queries(*USERS)), expected.score(queries(*USERS)))
    assert evaluate_ranking(choice.baseline.score, test, known=both, item_ids=ITEMS).means()["recall@10"] == 1.0
    reached = tuned(
        {"all": ContentKNN, "none": lambda: ContentKNN(1)}, train, valid=valid, item_ids=ITEMS, content=content()
    )
    assert reached.label == "all"


def test_bad_settings_are_named() -> None:
    log = checkerboard()[0]
    with pytest.raises(ConfigError, match=r"ContentKNN got content of none. Expected \(20, dim\)"):
        ContentKNN().fit(log, ITEMS)
    with pytest.raises(ConfigError, match=r"content of shape \(3, 2\). Expected \(20, dim\)"):
        ContentKNN().fit(log, ITEMS, content=np.zeros((3, 2)))
    with pytest.raises(ConfigError, match="Give an item without content a row of zeros"):
        ContentKNN().fit(log, ITEMS, content=np.full((20, 2), np.nan))
    with pytest.raises(ConfigError, match="k is 0"):
        ContentKNN(0)
    with pytest.raises(ConfigError, match="k is 0 and shrinkage"):
        ItemKNN(0)
    with pytest.raises(ConfigError, match="regularisation is 0"):
        EASE(0)
    with pytest.raises(ConfigError, match="no settings to choose from"):
        tuned({}, log, valid=log, item_ids=ITEMS)


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
