"""Sampler against trainer: weights, rejection, and what they are for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax import config
from grpo_jax.losses import mismatch, statistics

MASK = jnp.array([[[True, True, True], [True, True, False], [False] * 3]])
RATIO = np.array([[[0.5, 1.0, 3.0], [1.2, 0.8, 7.0], [9.0, 9.0, 9.0]]])
SAMPLER = jnp.full((1, 3, 3), -2.0)
OLD = SAMPLER + jnp.log(RATIO)


def weights(old=OLD, **options):
    weight, measured = mismatch.weights(
        config.Correction(**options), old, SAMPLER, MASK
    )
    return weight[0], statistics.values(measured)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"level": "token", "high": None}, [[0.5, 1, 3], [1.2, 0.8, 0], [0, 0, 0]]),
        ({"level": "token"}, [[0.5, 1, 2], [1.2, 0.8, 0], [0, 0, 0]]),
        ({"level": "token", "low": 0.9}, [[0.9, 1, 2], [1.2, 0.9, 0], [0, 0, 0]]),
        (
            {"level": "token", "mode": "mask", "low": 0.9},
            [[0, 1, 0], [1.2, 0, 0], [0, 0, 0]],
        ),
        ({"level": "sequence"}, [[1.5] * 3, [0.96, 0.96, 0], [0, 0, 0]]),
        (
            {"level": "sequence", "mode": "mask", "high": 1.2},
            [[0, 0, 0], [0.96, 0.96, 0], [0, 0, 0]],
        ),
        (
            {"level": "token", "normalise": True},
            np.array([[0.5, 1, 2], [1.2, 0.8, 0], [0, 0, 0]]) / 1.1,
        ),
        (
            {"level": "sequence", "normalise": True},
            np.array([[1.5] * 3, [0.96, 0.96, 0], [0, 0, 0]]) / 1.23,
        ),
    ],
)
def test_weights_by_hand(options, expected):
    np.testing.assert_allclose(weights(**options)[0], expected, 1e-5)


def test_statistics_of_the_weights_by_hand():
    _, measured = weights(level="token")
    expected = {"weight_max": 2, "ratio_max": 3, "ratio_min": 0.5, "above": 1 / 5}
    expected |= {"below": 0, "outside": 1 / 5, "normaliser": 1.1, "weight_mean": 1.1}
    # squares 0.25 + 1 + 4 + 1.44 + 0.64 = 7.33: 1.1² / (7.33/5)
    expected["weight_effective"] = 1.21 / 1.466
    for name, value in expected.items():
        np.testing.assert_allclose(measured[f"mismatch/{name}"], value, 1e-5)


def accepted(**options):
    kept = mismatch.accepted(config.Rejection(**options), OLD, SAMPLER, MASK)
    return np.asarray(kept[0]).astype(int).tolist()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"statistic": "none"}, [[1, 1, 1], [1, 1, 0], [0, 0, 0]]),
        # the bounds are on π_old/π_sampler: 3 is above 2 and 0.5 below 0.6
        ({"statistic": "token", "high": 2.0}, [[1, 1, 0], [1, 1, 0], [0, 0, 0]]),
        ({"statistic": "token", "low": 0.6}, [[0, 1, 1], [1, 1, 0], [0, 0, 0]]),
        # products 1.5 and 0.96
        ({"statistic": "sequence_sum", "high": 1.4}, [[0] * 3, [1, 1, 0], [0] * 3]),
        ({"statistic": "sequence_sum", "low": 0.97}, [[1] * 3, [0] * 3, [0] * 3]),
        # geometric means 1.1447 and 0.9798
        ({"statistic": "sequence_mean", "high": 1.15}, [[1] * 3, [1, 1, 0], [0] * 3]),
        ({"statistic": "sequence_mean", "high": 1.14}, [[0] * 3, [1, 1, 0], [0] * 3]),
        ({"statistic": "sequence_mean", "low": 0.99}, [[1] * 3, [0] * 3, [0] * 3]),
        # every token
        ({"statistic": "sequence_max", "high": 2.9}, [[0] * 3, [1, 1, 0], [0] * 3]),
        ({"statistic": "sequence_max", "low": 0.7}, [[0] * 3, [1, 1, 0], [0] * 3]),
        # k2 of 3 is 0.6035, of 0.5 0.2402; the row's sum 0.8437
        (
            {"statistic": "token", "measure": "k2", "high": 0.6},
            [[1, 1, 0], [1, 1, 0], [0] * 3],
        ),
        (
            {"statistic": "sequence_sum", "measure": "k2", "high": 0.84},
            [[0] * 3, [1, 1, 0], [0] * 3],
        ),
        # k3 of 3 is 0.9014, of 0.5 0.1931: mean over three tokens 0.3648
        (
            {"statistic": "sequence_mean", "measure": "k3", "high": 0.36},
            [[0] * 3, [1, 1, 0], [0] * 3],
        ),
        (
            {"statistic": "sequence_mean", "measure": "k3", "high": 0.37},
            [[1] * 3, [1, 1, 0], [0] * 3],
        ),
    ],
)
def test_rejection_by_hand(options, expected):
    assert accepted(**options) == expected


def test_weights_make_the_gradient_unbiased_for_the_policy_by_enumeration(float64):
    # E_sampler[w A ∇log π] = E_π[A ∇log π] for one token, over all five of them
    rng = np.random.default_rng(0)
    theta, a = jnp.asarray(rng.normal(0, 1, 5)), jnp.asarray(rng.normal(0, 1, 5))
    sampler = jax.nn.log_softmax(theta + jnp.asarray(rng.normal(0, 0.3, 5)))
    logp = jax.nn.log_softmax(theta)
    one = jnp.ones((1, 5, 1), bool)
    settings = config.Correction(level="token", high=None)
    shaped = logp[None, :, None], sampler[None, :, None], one
    w = mismatch.weights(settings, *shaped)[0][0, :, 0]

    def weighted(theta, chance):
        return (chance * a * jax.nn.log_softmax(theta)).sum()

    biased = jax.grad(weighted)(theta, jnp.exp(sampler))
    right = jax.grad(weighted)(theta, jnp.exp(logp))
    np.testing.assert_allclose(
        jax.grad(weighted)(theta, jnp.exp(sampler) * w), right, 1e-12
    )
    assert np.abs(biased - right).max() > 0.01


@pytest.mark.parametrize("poison", [np.nan, np.inf, 1e30, -1e30])
@pytest.mark.parametrize("level", ["token", "sequence"])
def test_padding_is_never_read(poison, level):
    spoilt = jnp.where(MASK, OLD, poison)
    for a, b in zip(weights(level=level), weights(spoilt, level=level), strict=True):
        jax.tree.map(np.testing.assert_array_equal, a, b)
    rejection = config.Rejection(statistic="sequence_max", high=2.9)
    kept = mismatch.accepted(rejection, spoilt, SAMPLER, MASK)
    np.testing.assert_array_equal(kept[0], [[0] * 3, [1, 1, 0], [0] * 3])
    a, b = (
        statistics.values(mismatch.disagreement(x, SAMPLER, MASK))
        for x in (OLD, spoilt)
    )
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_extreme_disagreement_is_finite():
    far = OLD.at[0, 0, 0].set(-1e30).at[0, 1, 0].set(1e30)
    for level in ("token", "sequence"):
        weight, measured = weights(far, level=level, high=None)
        assert np.isfinite(weight).all()
        assert all(np.isfinite(x) for x in measured.values())


def test_a_row_without_tokens_is_not_counted_among_the_rows():
    measured = statistics.values(mismatch.disagreement(OLD, SAMPLER, MASK))
    # rows: ratio products 1.5 and 0.96 → χ² (1.25 + (0.9216 − 1))/2
    np.testing.assert_allclose(measured["mismatch/chi2_row"], 0.5858, 1e-4)
    gap = np.abs(np.log([1.5, 0.96]) / [3, 2]).mean()
    np.testing.assert_allclose(measured["mismatch/log_perplexity_gap"], gap, 1e-5)
    np.testing.assert_allclose(measured["mismatch/log_gap_max"], np.log(3), 1e-5)


ONE = jnp.ones((1, 1, 1), bool)


def of_one_token(settings, log_ratio):
    sampler = jnp.full((1, 1, 1), -2.0)
    weight, measured = mismatch.weights(settings, sampler + log_ratio, sampler, ONE)
    return float(weight[0, 0, 0]), statistics.values(measured)


def test_a_row_of_one_token_is_its_own_mean_and_its_own_unit():
    low = config.Rejection(statistic="sequence_mean", low=0.5)
    sampler = jnp.full((1, 1, 1), -2.0)
    assert not mismatch.accepted(low, sampler - 1.0, sampler, ONE).any()
    by_row = config.Correction(level="sequence", high=None, normalise=True)
    weight, measured = of_one_token(by_row, 1.0)
    np.testing.assert_allclose(weight, 1, 1e-6)
    np.testing.assert_allclose(measured["mismatch/ratio_max"], np.e, 1e-6)
    got = statistics.values(mismatch.disagreement(sampler + 1, sampler, ONE))
    np.testing.assert_allclose(got["mismatch/log_perplexity_sampler"], 2, 1e-6)
    np.testing.assert_allclose(got["mismatch/log_perplexity_gap"], 1, 1e-6)


def test_the_log_ratio_is_held_at_twenty():
    token = config.Correction(level="token", high=None)
    np.testing.assert_allclose(of_one_token(token, 50.0)[0], np.exp(20.0), 1e-5)


def test_weights_that_are_all_masked_stay_zero_when_normalised():
    masked = config.Correction(level="token", mode="mask", high=2.0, normalise=True)
    assert of_one_token(masked, 3.0)[0] == 0


def test_a_sampler_that_recorded_nan_counts_as_agreeing_and_is_reported():
    sampler = jnp.array([[[-2.0, jnp.nan]]])
    old, mask = jnp.array([[[-1.0, -1.0]]]), jnp.ones((1, 1, 2), bool)
    settings = config.Correction(level="sequence", high=None)
    weight, _ = mismatch.weights(settings, old, sampler, mask)
    np.testing.assert_allclose(weight, np.full((1, 1, 2), np.e), 1e-6)
    got = statistics.values(mismatch.disagreement(old, sampler, mask))
    assert got.pop("mismatch/unknown") == 0.5
    assert all(np.isfinite(x) for x in got.values())
