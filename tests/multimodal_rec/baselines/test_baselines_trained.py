from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from multimodal_rec.baselines import BPR, Baseline, LightGCN, Log, PairwiseBaseline, Popularity, Schedule
from multimodal_rec.baselines.trained import TrainedBaseline
from multimodal_rec.errors import NotFittedError
from multimodal_rec.evaluation import evaluate_ranking

SCHEDULE = Schedule(epochs=40, batch_size=256, learning_rate=0.02)

PAIRWISE: dict[str, Callable[[Schedule], PairwiseBaseline]] = {
    "BPR": lambda schedule: BPR(8, regularisation=1e-4, schedule=schedule),
    "LightGCN": lambda schedule: LightGCN(8, num_layers=2, schedule=schedule),
}


@pytest.fixture(params=list(PAIRWISE))
def make(request: pytest.FixtureRequest) -> Callable[[Schedule], PairwiseBaseline]:
    return PAIRWISE[request.param]


def clubs(seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Train, test and items: 60 people of four clubs with a dozen items each, some liked far more than others."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(60):
        own = 12 * (user % 4) + np.arange(12)
        for item in rng.choice(own, 6, replace=False, p=np.r_[[3] * 4, [1] * 8] / 20):
            rows.append((f"u{user:02}", f"i{item:02}"))
    log = pd.DataFrame(rows, columns=["user_id", "item_id"])
    is_test = log.groupby("user_id").cumcount() >= 4
    return log[~is_test], log[is_test], [f"i{item:02}" for item in range(48)]


def people(log: pd.DataFrame) -> pd.DataFrame:
    return log[["user_id"]].drop_duplicates()


def test_planted_clubs_are_learned(make: Callable[[Schedule], PairwiseBaseline]) -> None:
    train, test, item_ids = clubs()

    def ndcg(baseline: Baseline) -> float:
        score = baseline.fit(train, item_ids).score
        return evaluate_ranking(score, test, known=train, item_ids=item_ids).means()["ndcg@10"]

    assert ndcg(make(SCHEDULE)) > 2 * ndcg(Popularity())


def test_the_seed_decides_and_torch_keeps_its_own(make: Callable[[Schedule], PairwiseBaseline]) -> None:
    train, _, item_ids = clubs()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    scores = [make(Schedule(epochs=2, seed=seed)).fit(train, item_ids).score(people(train)) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(torch.rand(3).numpy(), expected.numpy())
    np.testing.assert_array_equal(scores[0], scores[1])
    assert (scores[0] != scores[2]).any()


def test_the_order_of_rows_decides_nothing(make: Callable[[Schedule], PairwiseBaseline]) -> None:
    train, _, item_ids = clubs()
    shuffled = pd.concat([train, train[:9]]).sample(frac=1, random_state=0)
    first, second = (make(Schedule(epochs=2)).fit(log, item_ids).score(people(train)) for log in (train, shuffled))
    np.testing.assert_array_equal(first, second)


def test_light_gcn_is_a_dense_loop() -> None:
    train, _, item_ids = clubs()
    train = train[train["item_id"] != "i00"]
    baseline = LightGCN(8, num_layers=3, schedule=Schedule(epochs=1)).fit(train, item_ids)
    log = baseline._fitted()
    taken = log.histories.toarray()[:-1]
    num_users, num_items = taken.shape
    graph = np.zeros((num_users + num_items, num_users + num_items))
    for user in range(num_users):
        for item in range(num_items):
            graph[user, num_users + item] = graph[num_users + item, user] = taken[user, item]
    degree = graph.sum(axis=1)
    for i in range(len(graph)):
        for j in range(len(graph)):
            if graph[i, j]:
                graph[i, j] /= np.sqrt(degree[i] * degree[j])
    module = baseline._module
    assert module is not None
    rounds = [module.get_parameter("nodes").detach().numpy()]
    for _ in range(3):
        rounds.append(graph @ rounds[-1])
    mean = sum(rounds) / 4
    np.testing.assert_allclose(
        baseline.score(people(train).sort_values("user_id")), mean[:num_users] @ mean[num_users:].T, atol=1e-6
    )


def test_the_gradient_of_propagation_is_that_of_the_dense_product() -> None:
    train, _, item_ids = clubs()
    baseline = LightGCN(4, num_layers=2, schedule=Schedule(epochs=1)).fit(train, item_ids)
    module, log = baseline._module, baseline._fitted()
    assert module is not None
    upstream = torch.from_numpy(np.random.default_rng(0).normal(size=(108, 4)).astype(np.float32))
    nodes = module.get_parameter("nodes")
    nodes.grad = None
    (baseline._embeddings(module, log) * upstream).sum().backward()  # pyright: ignore[reportArgumentType]
    # The map is linear, so its matrix is what it makes of the unit vectors; its transpose carries gradients.
    columns = []
    for unit in torch.eye(108):
        with torch.no_grad():
            nodes.copy_(unit[:, None].expand(108, 4))
            columns.append(baseline._embeddings(module, log)[:, 0])  # pyright: ignore[reportArgumentType]
    expected = torch.stack(columns, dim=1).T @ upstream
    assert nodes.grad is not None
    np.testing.assert_allclose(nodes.grad.numpy(), expected.numpy(), atol=1e-5)


def test_new_people_of_bpr_are_the_mean_of_what_they_took() -> None:
    train, _, item_ids = clubs()
    baseline = BPR(8, schedule=SCHEDULE).fit(train, item_ids)
    baseline.read(pd.DataFrame({"user_id": ["u0a", "u0a"], "item_id": ["i01", "i02"]}))
    module = baseline._module
    assert module is not None
    items = module.get_parameter("nodes").detach().numpy()[60:]
    scores = baseline.score(pd.DataFrame({"user_id": ["u0a"]}))
    np.testing.assert_allclose(scores[0], items[[1, 2]].mean(axis=0) @ items.T, rtol=1e-5, atol=1e-6)


def test_a_new_person_of_light_gcn_joins_their_club() -> None:
    train, _, item_ids = clubs()
    baseline = LightGCN(8, num_layers=2, schedule=SCHEDULE).fit(train, item_ids)
    baseline.read(pd.DataFrame({"user_id": ["a", "a"], "item_id": ["i12", "i13"]}))
    scores = baseline.score(pd.DataFrame({"user_id": ["a"]}))[0]
    assert scores[12:24].mean() > max(scores[start : start + 12].max() for start in (0, 24, 36))


def test_negatives_were_never_taken() -> None:
    train, _, item_ids = clubs()
    # Somebody who took everything has no negatives, and must not be waited for.
    everything = pd.DataFrame({"user_id": "all", "item_id": item_ids})
    seen: set[tuple[int, int]] = set()

    class Watched(PairwiseBaseline):
        def _embeddings(self, module: nn.Module, log: Log) -> Tensor:
            return module.get_parameter("nodes")

    baseline = Watched(2, regularisation=0.0, schedule=Schedule(epochs=1))
    baseline.fit(pd.concat([train, everything]), item_ids)
    log = baseline._fitted()
    user, taken = log.histories.nonzero()
    from multimodal_rec.baselines.bpr import _not_taken

    for seed in range(20):
        refused = _not_taken(user.astype(np.int64), taken.astype(np.int64), 48, np.random.default_rng(seed))
        seen |= set(zip(user.tolist(), refused.tolist(), strict=True))
    own = {pair for pair in seen if pair[0] != 0}
    assert not own & set(zip(user.tolist(), taken.tolist(), strict=True))
    # Each of the 44 others of everybody is drawn sooner or later, but for a few.
    assert len(own) > 0.75 * 60 * 44


class Counting(TrainedBaseline):
    """Its one weight goes up by the learning rate a step; items score by how near the weight is to their place."""

    def _build(self, log: Log) -> nn.Module:
        return nn.ParameterDict({"place": torch.zeros(1)})

    def _optimiser(self, module: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(module.parameters(), lr=self.schedule.learning_rate)

    def _losses(self, module: nn.Module, log: Log, rng: np.random.Generator) -> Iterator[Tensor]:
        assert module.training
        yield -module.get_parameter("place").sum()

    def _score(self, log: Log, user_index: np.ndarray) -> np.ndarray:
        assert self._module is not None
        assert not self._module.training
        place = self._module.get_parameter("place").item()
        return np.tile(-np.abs(np.arange(log.num_items) - place), (len(user_index), 1))


ONE = pd.DataFrame({"user_id": ["u"], "item_id": ["i00"]})
PLACES = [f"i{item:02}" for item in range(30)]


def place(baseline: Baseline) -> int:
    return int(baseline.score(pd.DataFrame({"user_id": ["u"]}))[0].argmax())


class TestStopping:
    def test_without_validation_all_epochs_are_run(self) -> None:
        baseline = Counting(Schedule(epochs=9, learning_rate=1.0)).fit(ONE, PLACES)
        assert place(baseline) == 9
        assert baseline.best_epoch == 9

    def test_the_best_weights_are_kept(self) -> None:
        asked = []

        def validate(baseline: Baseline) -> float:
            asked.append(place(baseline))
            return -abs(asked[-1] - 7)

        baseline = Counting(Schedule(epochs=100, learning_rate=1.0, patience=3)).fit(ONE, PLACES, validate=validate)
        assert asked == list(range(1, 11))
        assert place(baseline) == 7
        assert baseline.best_epoch == 7

    def test_validation_is_asked_every_so_often(self) -> None:
        asked = []

        def validate(baseline: Baseline) -> float:
            asked.append(place(baseline))
            return -abs(asked[-1] - 7)

        schedule = Schedule(epochs=100, learning_rate=1.0, patience=2, every=4)
        baseline = Counting(schedule).fit(ONE, PLACES, validate=validate)
        assert asked == [4, 8, 12, 16]
        assert place(baseline) == baseline.best_epoch == 8

    def test_nothing_was_trained(self) -> None:
        with pytest.raises(NotFittedError, match=r"Counting has not been trained\. Call fit first"):
            _ = Counting(Schedule()).best_epoch
