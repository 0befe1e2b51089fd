"""Every ranking metric against scikit-learn, which gets the same items in the order that our ranks say."""

from itertools import permutations
from typing import NamedTuple

import numpy as np
import pytest
import sklearn
from sklearn import metrics as theirs

from multimodal_rec.evaluation import judgements, metrics

NUM_CASES = 1000


class Case(NamedTuple):
    scores: np.ndarray
    """(item,): -inf where an item is no candidate."""
    positives: np.ndarray
    k: int


def cases() -> list[Case]:
    """One to forty items, half the cases with few distinct scores, lists shorter than k among them."""
    rng = np.random.default_rng(0)
    drawn = []
    for number in range(NUM_CASES):
        num_items = int(rng.integers(1, 41))
        scores = rng.integers(0, 4, num_items).astype(float) if number % 2 else rng.normal(size=num_items)
        positives = rng.permutation(num_items)[: rng.integers(1, min(num_items, 12) + 1)]
        hidden = np.setdiff1d(rng.permutation(num_items)[: num_items // 4], positives)
        scores[hidden] = -np.inf
        drawn.append(Case(scores, positives, int(rng.integers(1, 26))))
    return drawn


CASES = cases()


def ours(case: Case) -> tuple[metrics.Ranks, metrics.Standings, int]:
    num_candidates = int(np.isfinite(case.scores).sum())
    standing = metrics.standings(case.scores[None], [case.positives], num_candidates=[num_candidates])
    return metrics.padded_ranks(standing, 1), standing, num_candidates


def in_our_order(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Relevance and raw scores of the candidates, best first: positives at our ranks, the rest by score between."""
    ranks, _, num_candidates = ours(case)
    relevant = np.zeros(num_candidates, dtype=int)
    relevant[ranks[0].astype(int) - 1] = 1
    others = np.setdiff1d(np.flatnonzero(np.isfinite(case.scores)), case.positives)
    score = np.empty(num_candidates)
    score[relevant == 0] = np.sort(case.scores[others])[::-1]
    score[relevant == 1] = np.sort(case.scores[case.positives])[::-1]
    return relevant, score


def test_cases_hold_what_they_should() -> None:
    assert sum(len(np.unique(case.scores)) < len(case.scores) for case in CASES) > 400
    assert sum(np.isfinite(case.scores).sum() < case.k for case in CASES) > 200


def test_our_ranks_are_an_order_of_the_scores() -> None:
    for case in CASES:
        _, score = in_our_order(case)
        assert (np.diff(score) <= 0).all()


def test_cut_metrics_equal_scikit_learn() -> None:
    """All cases at once, a column a case: scikit-learn judges columns apart from each other."""
    length = 40 + 26
    relevant = np.zeros((length, NUM_CASES), dtype=int)
    listed = np.zeros_like(relevant)
    order = np.tile(-np.arange(length, dtype=float)[:, None], NUM_CASES)
    found = np.empty((NUM_CASES, 6))
    for column, case in enumerate(CASES):
        truth, _ = in_our_order(case)
        relevant[: len(truth), column] = truth
        # Lists shorter than k are filled up with what nobody wants: k places were offered.
        listed[: case.k, column] = 1
        ranks, _, num_candidates = ours(case)
        cut = (metrics.precision, metrics.recall, metrics.f1, metrics.average_precision)
        found[column, :4] = [metric(ranks, case.k)[0] for metric in cut]
        found[column, 4:] = metrics.average_precision(ranks, num_candidates)[0], metrics.reciprocal_rank(ranks)[0]
    scores = theirs.precision_recall_fscore_support(relevant, listed, average=None, zero_division=0.0)
    np.testing.assert_allclose(found[:, :3], np.transpose(scores[:3]), atol=1e-9, rtol=0)
    np.testing.assert_allclose(found[:, 4], theirs.average_precision_score(relevant, order, average=None), atol=1e-9)
    # A column that holds only its best positive: the precision there is the reciprocal of its rank.
    best = relevant * (relevant.cumsum(axis=0) == 1)
    np.testing.assert_allclose(found[:, 5], theirs.average_precision_score(best, order, average=None), atol=1e-9)
    # Theirs divides by the positives it sees, ours by as many as k places can hold.
    hits, num_positives = (relevant * listed).sum(axis=0), relevant.sum(axis=0)
    np.testing.assert_array_equal(found[hits == 0, 3], 0)
    hit = hits > 0
    means = theirs.average_precision_score((relevant * listed)[:, hit], order[:, hit], average=None)
    k = np.array([case.k for case in CASES])
    np.testing.assert_allclose(found[hit, 3], (means * hits[hit] / np.minimum(num_positives, k)[hit]), atol=1e-9)
    hit_rate = [metrics.hit_rate(ours(case)[0], case.k)[0] for case in CASES]
    np.testing.assert_array_equal(hit_rate, theirs.recall_score(relevant, listed, average=None, zero_division=0.0) > 0)


def test_ndcg_and_auc_equal_scikit_learn() -> None:
    with sklearn.config_context(assume_finite=True, skip_parameter_validation=True):
        for case in CASES:
            ranks, standing, num_candidates = ours(case)
            truth, score = in_our_order(case)
            filled = np.concatenate([truth, np.zeros(26, dtype=int)])[None]
            order = -np.arange(filled.size, dtype=float)[None]
            ndcg = theirs.ndcg_score(filled, order, k=case.k, ignore_ties=True)
            assert metrics.ndcg(ranks, case.k)[0] == pytest.approx(ndcg, abs=1e-9, rel=0)
            # From the raw scores, where ties count half, and not from an order that we made.
            area = metrics.auc_of_standings(standing, [num_candidates])[0]
            if len(case.positives) == num_candidates:
                assert np.isnan(area)
            else:
                assert area == pytest.approx(theirs.roc_auc_score(truth, score), abs=1e-9, rel=0)


def test_ties_are_never_worth_more_than_their_expectation() -> None:
    # scikit-learn averages NDCG over all orders of a tie. Ours takes expected places, rounded up: at full depth, where
    # the discount is convex, it cannot exceed that mean, and without ties it equals it.
    with sklearn.config_context(assume_finite=True, skip_parameter_validation=True):
        for case in CASES:
            ranks, _, num_candidates = ours(case)
            relevant, score = in_our_order(case)
            if num_candidates == 1:
                continue  # scikit-learn refuses a list of one
            averaged = theirs.ndcg_score(relevant[None], score[None])
            value = metrics.ndcg(ranks, num_candidates)[0]
            assert value <= averaged + 1e-9
            if len(np.unique(score)) == len(score):
                assert value == pytest.approx(averaged, abs=1e-9, rel=0)


@pytest.mark.parametrize(("num_items", "num_positives"), [(1, 1), (4, 1), (5, 2), (6, 3), (7, 7)])
def test_a_tie_takes_the_mean_places_over_all_orders_rounded_up(num_items: int, num_positives: int) -> None:
    places = [
        np.flatnonzero(np.array(order) < num_positives) + 1.0 for order in permutations(range(num_items), num_items)
    ]
    expected = np.ceil(np.mean(places, axis=0) - 1e-9)
    ranks = metrics.ranks_of_positives(np.ones((1, num_items)), [range(num_positives)])
    np.testing.assert_array_equal(ranks[0], expected)


def test_judgements_equal_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    size = 20
    label = rng.integers(0, 2, (size, NUM_CASES))
    label[:2] = [[0], [1]]
    score = rng.random((size, NUM_CASES))
    score[:, ::2] = rng.integers(0, 5, (size, NUM_CASES // 2)) / 4
    rating = rng.integers(1, 6, (size, NUM_CASES))
    area = [judgements.auc(score[:, case], label[:, case]) for case in range(NUM_CASES)]
    np.testing.assert_allclose(area, theirs.roc_auc_score(label, score, average=None), atol=1e-9, rtol=0)
    error = [judgements.rmse(5 * score[:, case], rating[:, case]) for case in range(NUM_CASES)]
    expected = theirs.root_mean_squared_error(rating, 5 * score, multioutput="raw_values")
    np.testing.assert_allclose(error, expected, atol=1e-9, rtol=0)
    with sklearn.config_context(assume_finite=True, skip_parameter_validation=True):
        for case in range(NUM_CASES):
            loss = theirs.log_loss(label[:, case], score[:, case])
            assert judgements.log_loss(score[:, case], label[:, case]) == pytest.approx(loss, abs=1e-9, rel=0)
