"""Shares, chances and intervals: by hand, by enumeration of subsets, and by property."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpo_jax import accuracy


def test_wilson_by_hand():
    """8 of 10, as R's binom.confint(method = "wilson") prints it."""
    found = accuracy.wilson(8, 10)
    np.testing.assert_allclose(found, (0.8, 0.4901625, 0.9433178), 1e-6)
    np.testing.assert_allclose(accuracy.wilson(0, 10)[1:], (0, 0.2775328), 1e-6, 1e-12)


def by_subsets(k, answers, right):
    """Every subset of k, and every one of its most frequent answers."""
    wins = []
    for chosen in itertools.combinations(answers, k):
        votes = Counter(x for x in chosen if x is not None)
        top = [x for x, n in votes.items() if n == max(votes.values())]
        wins.append(sum(x in right for x in top) / len(top) if top else 0.0)
    return np.mean(wins)


answers = st.lists(st.sampled_from(["a", "b", "c", "d", None]), min_size=1, max_size=9)


@given(answers, st.integers(1, 9), st.sets(st.sampled_from("abc")))
def test_a_majority_is_the_mean_over_all_subsets(given_, k, right):
    k = min(k, len(given_))
    found = accuracy.majority_at(k, given_, right.__contains__)
    np.testing.assert_allclose(found, by_subsets(k, given_, right), 1e-12, 1e-12)


@given(answers, st.integers(1, 9))
def test_pass_is_the_mean_over_all_subsets(given_, k):
    k, right = min(k, len(given_)), sum(x == "a" for x in given_)
    wins = ["a" in chosen for chosen in itertools.combinations(given_, k)]
    found = accuracy.pass_at(k, right, len(given_))
    np.testing.assert_allclose(found, np.mean(wins), 1e-12)


@pytest.mark.parametrize(
    ("given_", "k", "share"),
    [
        (["a", "b"], 2, 0.5),  # a tie
        ([None, None, None, "a"], 4, 1.0),  # silence has three votes and no victory
        ([None, None], 2, 0.0),
        (["a", "a", "b", "b", "b"], 5, 0.0),
    ],
)
def test_a_majority_by_hand(given_, k, share):
    assert accuracy.majority_at(k, given_, "a".__eq__) == share


def test_many_answers_are_counted_in_no_time():
    given_ = [i % 20 for i in range(64)]
    found = accuracy.majority_at(64, given_, (3).__eq__)
    assert found == 0.25  # 0, 1, 2 and 3 have four votes each


def test_a_bootstrap_covers_the_truth_about_as_often_as_it_says():
    rng, covered = np.random.default_rng(0), 0
    for seed in range(200):
        found = accuracy.bootstrap((rng.random(100) < 0.3) * 1.0, seed)
        covered += found.low <= 0.3 <= found.high
    assert 180 <= covered <= 198
    assert accuracy.bootstrap(np.ones(5), 0) == (1, 1, 1)


def test_mcnemar_by_hand():
    """10 against 2 of 12: 2 · (1 + 12 + 66) / 4096."""
    a = np.arange(100) < 10
    b = (np.arange(100) >= 50) & (np.arange(100) < 52)
    assert accuracy.mcnemar(a, b) == accuracy.mcnemar(b, a) == 2 * 79 / 4096
    assert accuracy.mcnemar(a, a) == 1.0


def test_the_area_under_the_curve_is_the_share_of_pairs_in_order():
    """3 > 1, 3 > 2, 2 = 2 (half), 2 > 1: 3.5 of 4."""
    score, is_good = (
        np.array([3.0, 1.0, 2.0, 2.0]),
        np.array([True, False, True, False]),
    )
    assert accuracy.auc(score, is_good) == 3.5 / 4
    assert accuracy.auc(-score, is_good) == 0.5 / 4
    assert np.isnan(accuracy.auc(score, np.ones(4, bool)))


def test_the_area_is_that_of_all_pairs_counted_one_by_one():
    rng = np.random.default_rng(0)
    score, is_good = rng.integers(0, 9, 60).astype(float), rng.random(60) < 0.3
    gap = score[is_good][:, None] - score[~is_good]
    expected = ((gap > 0) + (gap == 0) / 2).mean()
    np.testing.assert_allclose(accuracy.auc(score, is_good), expected)


def test_calibration_by_hand():
    """0.1 and 0.3 in a bin of which half is good, 0.9 and 1.0 in one that is all good:
    (2 · |0.2 − 0.5| + 2 · |0.95 − 1|) / 4."""
    said = np.array([0.1, 0.3, 0.9, 1.0])
    found = accuracy.reliability(said, np.array([True, False, True, True]), bins=2)
    np.testing.assert_array_equal(found.count, [2, 2])
    np.testing.assert_allclose(found.said, [0.2, 0.95])
    np.testing.assert_allclose(found.found, [0.5, 1.0])
    np.testing.assert_allclose(found.error, 0.175)


def test_an_empty_bin_weighs_nothing():
    found = accuracy.reliability(np.array([0.05]), np.array([False]))
    assert found.count.tolist() == [1] + [0] * 9
    np.testing.assert_allclose(found.error, 0.05)


def test_of_clusters_of_one_the_interval_is_wilsons():
    right = np.array([1, 0, 1, 1, 0, 1, 1, 1])
    found = accuracy.clustered(right, np.ones(8, int))
    np.testing.assert_allclose(found, accuracy.wilson(6, 8), 1e-12)


def test_a_cluster_that_agrees_counts_once():
    """Of three, each of four that agree, two are right: Wilson's of 2 of 3."""
    found = accuracy.clustered(np.array([4, 0, 4]), np.full(3, 4))
    np.testing.assert_allclose(found, accuracy.wilson(2, 3), 1e-12)
    found = accuracy.clustered(np.array([4, 4, 4]), np.full(3, 4))
    np.testing.assert_allclose(found, accuracy.wilson(3, 3), 1e-12)


def test_clusters_of_different_sizes_by_hand():
    """1 of 1 and 1 of 3: p = 1/2, V = ((1/2)² + (1/2)²) / 4² = 1/32, n = 8, at most 4.

    And 2 of 2, 0 of 1, 1 of 3: V = ((2 − 1)² + (1/2)² + (1/2)²) / 36, n = 6.
    """
    found = accuracy.clustered(np.array([1, 1]), np.array([1, 3]))
    np.testing.assert_allclose(found, accuracy.wilson(2, 4), 1e-12)
    found = accuracy.clustered(np.array([2, 0, 1]), np.array([2, 1, 3]))
    np.testing.assert_allclose(found, accuracy.wilson(3, 6), 1e-12)
    assert np.isnan(accuracy.clustered(np.zeros(2), np.zeros(2, int))).all()


def test_the_interval_of_an_area_by_hand():
    """Good 3 and 2, bad 1 and 2: a = 1, 3/4; b = 1, 3/4; A = 7/8.

    Of themselves each moves it by ±1/16: V = 4/256, and n = 7/64 · 64 = 7, at most 4.
    With 3 and the bad 1 in one cluster, 2 and 2 in another: ±1/8, V = 2/64, n = 3.5.
    """
    score, is_good = np.array([3.0, 1, 2, 2]), np.array([True, False, True, False])
    found = accuracy.auc_clustered(score, is_good, np.arange(4))
    assert found.value == accuracy.auc(score, is_good) == 7 / 8
    np.testing.assert_allclose(found, accuracy.wilson(7, 8)._replace(**wilson_of(4)))
    found = accuracy.auc_clustered(score, is_good, np.array([5, 5, 9, 9]))
    np.testing.assert_allclose(found, accuracy.wilson(7, 8)._replace(**wilson_of(3.5)))
    perfect = accuracy.auc_clustered(
        score + 2 * is_good, is_good, np.array([5, 5, 9, 9])
    )
    np.testing.assert_allclose(perfect, accuracy.wilson(2, 2), 1e-12)
    assert np.isnan(accuracy.auc_clustered(score, np.ones(4, bool), np.arange(4))).all()


def wilson_of(n, p=7 / 8, z=accuracy.Z):
    """Where (p̂ − p)² = z² p (1 − p) / n, solved for p."""
    roots = np.roots([1 + z**2 / n, -2 * p - z**2 / n, p**2])
    return {"low": roots.min(), "high": roots.max()}


def test_who_is_always_sure_is_off_by_the_share_that_is_wrong():
    """And as surely, however that spreads over clusters; here over the bins of 0 and 1.
    Of 4 predictions 3 wrong ones may be chance: their squared parts sum to 3/16, and
    0.80 · √(3/16) + 1.96 · √(0.36 · 3/16) is 0.86."""
    rng = np.random.default_rng(0)
    said, cluster = rng.integers(0, 2, 60) * 1.0, rng.integers(0, 20, 60)
    is_wrong = rng.random(60) < 0.3 + 0.6 * (cluster < 10)
    found = accuracy.calibration_clustered(said, (said > 0) ^ is_wrong, cluster)
    share = np.bincount(cluster, is_wrong, 20), np.bincount(cluster, minlength=20)
    np.testing.assert_allclose(found, accuracy.clustered(*share))
    few = np.array([True, False, False, False])
    found = accuracy.calibration_clustered(np.ones(4), few, np.arange(4))
    np.testing.assert_allclose(found, accuracy.wilson(3, 4)._replace(low=0))


@pytest.mark.parametrize(("sharper", "least"), [(1.0, 0.95), (2.0, 0.9)])
def test_intervals_of_calibration_hold_what_is_so(sharper, least):
    """Of one that is calibrated it is 0, which no estimate is."""
    rng, held, cluster = np.random.default_rng(0), 0, np.repeat(np.arange(100), 4)

    def drawn(questions):
        logit = rng.normal(size=(questions, 1)) + rng.normal(size=(questions, 4))
        is_good = rng.random((questions, 4)) < 1 / (1 + np.exp(-logit))
        return 1 / (1 + np.exp(-sharper * logit.ravel())), is_good.ravel()

    truth = accuracy.reliability(*drawn(100_000)).error if sharper > 1 else 0.0
    for _ in range(400):
        found = accuracy.calibration_clustered(*drawn(100), cluster)
        held += found.low <= truth <= found.high
    assert least <= held / 400 <= 0.99


def test_95_of_100_intervals_of_clustered_scores_hold_what_is_so():
    """Forty questions of eight steps that share a bias; one step alone would be told as
    surely, so an interval that takes steps for independent is too narrow."""
    rng, held, held_alone = np.random.default_rng(0), 0, 0
    cluster = np.repeat(np.arange(40), 8)

    def drawn(questions):
        bias, quality = rng.normal(size=(2, questions, 1))
        is_good = rng.normal(size=(questions, 8)) + quality > 0
        score = is_good + bias + rng.normal(size=(questions, 8))
        return score.ravel(), is_good.ravel()

    truth = accuracy.auc(*drawn(40000))
    for _ in range(400):
        score, is_good = drawn(40)
        low, high = accuracy.auc_clustered(score, is_good, cluster)[1:]
        held += low < truth < high
        low, high = accuracy.auc_clustered(score, is_good, np.arange(320))[1:]
        held_alone += low < truth < high
    assert 0.92 <= held / 400 <= 0.98 and held_alone / 400 < 0.85
