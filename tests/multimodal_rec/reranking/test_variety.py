"""MMR by hand, the determinantal process against all sets, and one of each."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from multimodal_rec.errors import ConfigError
from multimodal_rec.reranking import DPP, MMR, Deduplicate, Step
from tests.multimodal_rec.reranking.shelves import listed, shown

# a and b point the same way, c and d in two other ones.
PLANE = [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]


class TestMMR:
    def test_by_hand(self) -> None:
        # Scores 4 3 2 1 are 1.342, .447, -.447, -1.342 standard deviations from their mean.
        candidates = listed([4, 3, 2, 1], embeddings=PLANE)
        # At .5: after a, b has .224 - .5, c -.224 - 0, d -.671 + .5, so d; then b -.276, c -.224, so c.
        assert shown(MMR(0.5).apply(candidates, 4), 4) == "adcb"
        # At .2: after a, b has .358 - .2, c -.358, d -1.073 + .2.
        assert shown(MMR(0.2).apply(candidates, 2), 4) == "abcd"
        assert shown(MMR(1.0).apply(candidates, 2), 2) == "ad"

    def test_strength_0_changes_nothing(self) -> None:
        candidates = listed([4, 3, 2, 1], embeddings=PLANE)
        assert MMR(0.0).apply(candidates, 3) is candidates

    def test_places_beyond_k_keep_their_order(self) -> None:
        assert shown(MMR(0.5).apply(listed([4, 3, 2, 1], embeddings=PLANE), 2), 4) == "adbc"

    def test_scores_stay_with_their_items(self) -> None:
        found = MMR(0.5).apply(listed([4, 3, 2, 1], embeddings=PLANE), 4)
        np.testing.assert_array_equal(found.scores, [4, 1, 2, 3])


class TestDPP:
    def test_each_greedy_choice_is_the_best_of_all(self) -> None:
        random = np.random.default_rng(0)
        embeddings = random.normal(size=(9, 6))
        candidates = listed(random.normal(size=9).tolist(), embeddings=embeddings)
        step = DPP(0.6)
        found = step.apply(candidates, 5).ids[:5]
        unit, relevance = candidates.embeddings.astype(np.float64), candidates.relevance
        place = {item_id: number for number, item_id in enumerate(candidates.ids)}

        def value(chosen: list[int]) -> float:
            gram = unit[chosen] @ unit[chosen].T
            return 0.4 * relevance[chosen].sum() + 0.6 * float(np.linalg.slogdet(gram)[1])

        greedy: list[int] = []
        for _ in range(5):
            greedy.append(max((p for p in range(9) if p not in greedy), key=lambda p: value([*greedy, p])))
        assert [place[item_id] for item_id in found] == greedy

    def test_near_the_best_of_all_sets(self) -> None:
        shares = []
        for seed in range(20):
            random = np.random.default_rng(seed)
            candidates = listed(random.normal(size=8).tolist(), embeddings=random.normal(size=(8, 6)))
            unit = candidates.embeddings.astype(np.float64)

            def volume(chosen: list[int], unit: np.ndarray = unit) -> float:
                return float(np.linalg.det(unit[chosen] @ unit[chosen].T))

            best = max(volume(list(chosen)) for chosen in combinations(range(8), 3))
            place = {item_id: number for number, item_id in enumerate(candidates.ids)}
            found = DPP(0.999).apply(candidates, 3).ids[:3]
            shares.append(volume([place[item_id] for item_id in found]) / best)
        assert np.mean(shares) > 0.9
        assert max(shares) == pytest.approx(1, abs=1e-6)

    def test_a_double_comes_last(self) -> None:
        assert shown(DPP(0.3).apply(listed([4, 3, 2], embeddings=[[1, 0], [1, 0], [0, 1]]), 3), 3) == "acb"

    def test_strength_is_below_1(self) -> None:
        with pytest.raises(ConfigError, match=r"DPP.diversity is 1. Expected at least 0 and below 1"):
            DPP(1)


class TestDeduplicate:
    def test_the_better_of_two_stays(self) -> None:
        near = [[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]]
        assert shown(Deduplicate(0.99).apply(listed([1, 2, 3, 4], embeddings=near), 4), 4) == "db"
        assert len(Deduplicate(0.999).apply(listed([1, 2, 3, 4], embeddings=near), 4)) == 4

    def test_what_was_left_out_leaves_nothing_out(self) -> None:
        # b is near a and c is near b, but not near a.
        chain = [[1.0, 0.0], [0.95, 0.31], [0.8, 0.6]]
        assert shown(Deduplicate(0.94).apply(listed([3, 2, 1], embeddings=chain), 3), 3) == "ac"


@pytest.mark.parametrize("step", [MMR(0.5), DPP(0.5), Deduplicate()], ids=repr)
def test_an_empty_list_stays_empty(step: Step) -> None:
    assert step.apply(listed([]), 3).ids == []


@pytest.mark.parametrize("step", [MMR(0.7), DPP(0.7)], ids=repr)
def test_variety_grows_with_strength(step: MMR | DPP) -> None:
    random = np.random.default_rng(1)
    centres = random.normal(size=(4, 8))
    embeddings = np.repeat(centres, 10, axis=0) + 0.3 * random.normal(size=(40, 8))
    scores = np.repeat([3.0, 1.0, 0.0, -1.0], 10) + random.normal(size=40)
    candidates = listed(scores.tolist(), embeddings=embeddings)

    def variety(strength: float) -> float:
        unit = type(step)(strength).apply(candidates, 8).embeddings[:8]
        return 1 - float((unit @ unit.T)[~np.eye(8, dtype=bool)].mean())

    values = [variety(strength) for strength in (0.0, 0.3, 0.9)]
    assert values[0] < values[1] < values[2]


def test_a_strength_outside_its_range() -> None:
    with pytest.raises(ConfigError, match=r"MMR.diversity is 1.5. Expected a number from 0 to 1"):
        MMR(1.5)
    with pytest.raises(ConfigError, match="Expected a cosine"):
        Deduplicate(2)
