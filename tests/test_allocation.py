"""Samples go where one more helps the gradient most, and no other split does better."""

import itertools
import json

import numpy as np
import pytest

from grpo_jax import allocation


def spent(variance, n):
    """The batch gradient's variance: Σ v / (n − 1)."""
    return sum(v / (k - 1) for v, k in zip(variance, n, strict=True))


@pytest.mark.parametrize("seed", range(12))
def test_no_other_split_of_the_samples_has_less_variance(seed):
    rng = np.random.default_rng(seed)
    variance = rng.choice([0.01, 0.05, 0.1, 0.2, 0.25], 4)
    least, most = 2, int(rng.integers(5, 9))
    total = int(rng.integers(4 * least, 4 * most + 1))
    n = allocation.allot(variance, total, least, most)
    assert n.sum() == total and n.min() >= least and n.max() <= most
    splits = itertools.product(range(least, most + 1), repeat=4)
    best = min(spent(variance, split) for split in splits if sum(split) == total)
    assert spent(variance, n) == pytest.approx(best, rel=1e-12)


def test_samples_follow_the_square_root_of_the_variance():
    # n − 1 ∝ √v: 1 : 2 : 3 of 60 − 3 samples above the first of each.
    n = allocation.allot(np.array([0.01, 0.04, 0.09]), 63, 2, 60)
    assert n.tolist() == [11, 21, 31]


def test_questions_alike_get_alike_and_the_first_what_is_left():
    assert allocation.allot(np.full(3, 0.2), 13, 2, 8).tolist() == [5, 4, 4]
    assert allocation.allot(np.zeros(3), 13, 2, 8).tolist() == [5, 4, 4]
    assert allocation.allot(np.array([0.25, 0.0]), 10, 2, 8).tolist() == [8, 2]
    assert allocation.allot(np.array([0.1, 0.2]), 2, 1, 8).tolist() == [1, 1]


def test_what_is_expected_of_the_variance_by_hand():
    # Beta(a, b): E[p(1 − p)] = ab / ((a + b)(a + b + 1)).
    # Nothing was ever asked: the rate is (0 + 1)/(0 + 2), the prior Beta(1, 1): 1/6.
    np.testing.assert_allclose(allocation.spread([None], [0.0, 0.0]), [1 / 6])
    # In general 3 of 4 (and 1 of 2) are right: 2/3, Beta(4/3, 2/3); then 2 of 2 are.
    found = allocation.spread([None, [2.0, 2.0]], [4.0, 3.0])
    np.testing.assert_allclose(found, [8 / 9 / 6, (10 / 3) * (2 / 3) / 20])


def test_a_question_that_is_sometimes_right_varies_most():
    seen = [[8.0, right] for right in (0.0, 2.0, 4.0, 6.0, 8.0)]
    found = allocation.spread(seen, [40.0, 20.0])
    np.testing.assert_allclose(found, found[::-1])
    assert found[0] < found[1] < found[2]


def test_older_rewards_count_half_and_unknown_ones_not_at_all():
    seen = allocation.after(None, np.array([1.0, 0.0, np.nan, 1.0]))
    assert seen == [3.0, 2.0]
    # 3/2 + 2 samples; 2/2 + (1 + 0.5), what lies outside of [0, 1] being cut.
    seen = allocation.after(seen, np.array([7.0, 0.5, np.nan, np.nan]))
    assert seen == [3.5, 2.5]
    assert json.loads(json.dumps(seen)) == seen
