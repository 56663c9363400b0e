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
