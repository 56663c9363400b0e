"""Tokens chosen from a whole minibatch."""

import jax.numpy as jnp
import numpy as np

from grpo_jax import config, prng
from grpo_jax.losses import select

SEED = 1  # eligible tokens of both signs
MASK = np.array([[[True, True, True, False], [True, True, False, False]]])


def keys(questions=(0,), samples=2):
    return prng.sample_keys(prng.root(0), jnp.array(questions), samples)


def test_the_most_uncertain_tokens_by_numpys_quantile():
    entropy = np.array([[[0.1, 0.9, 0.5, 9.0], [0.3, 0.7, 9.0, 9.0]]])
    for share in (0.2, 0.5, 0.9, 1.0):
        settings = config.Algorithm(top_entropy=share)
        got = select.uncertain(settings, jnp.asarray(entropy), jnp.asarray(MASK))
        threshold = np.quantile(entropy[MASK], 1 - share)
        np.testing.assert_array_equal(got, MASK & (entropy >= threshold))


def covariance(logp, advantage):
    a, b = advantage - advantage[MASK].mean(), logp - logp[MASK].mean()
    return np.where(MASK, a * b, -np.inf)


def numbers():
    rng = np.random.default_rng(SEED)
    return rng.normal(0, 1, MASK.shape), rng.normal(0, 1, MASK.shape)


def test_the_share_with_the_largest_covariance_at_least_one():
    logp, advantage = numbers()
    ranked = np.sort(covariance(logp, advantage), axis=None)[::-1]
    for share, count in ((1e-4, 1), (0.3, 1), (0.4, 2), (0.79, 3), (1.0, 5)):
        settings = config.Algorithm(surrogate="kl_cov", cov_fraction=share)
        got = select.covariant(settings, *map(jnp.asarray, (logp, advantage, MASK)))
        expected = covariance(logp, advantage) >= ranked[count - 1]
        np.testing.assert_array_equal(got, expected)


def clip_cov(share=1.0, low=0.1, high=5.0, drift=0.0, question=0, **clip):
    logp, advantage = numbers()
    settings = config.Algorithm(
        surrogate="clip_cov", cov_fraction=share, cov_low=low, cov_high=high, **clip
    )
    old = logp - drift
    arrays = map(jnp.asarray, (logp, old, advantage, MASK))
    return np.asarray(select.covariant_at_random(settings, *arrays, keys((question,))))


def test_only_tokens_inside_the_covariance_range_are_eligible():
    value = covariance(*numbers())
    inside = np.sort(value[MASK])
    assert clip_cov(low=1e-6, high=9.0).sum() == (inside > 1e-6).sum() > 1
    middle = (inside[-1] + inside[-2]) / 2
    got = clip_cov(low=1e-6, high=middle)
    np.testing.assert_array_equal(got, MASK & (value > 1e-6) & (value < middle))
    assert not clip_cov(low=8.0, high=9.0).any()


def test_tokens_that_the_clip_holds_already_are_not_eligible():
    value, (_, advantage) = covariance(*numbers()), numbers()
    eligible = MASK & (value > 1e-6)
    assert (eligible & (advantage > 0)).any() and (eligible & (advantage < 0)).any()
    high = clip_cov(low=1e-6, high=9.0, drift=0.5)  # ρ = 1.65
    np.testing.assert_array_equal(high, eligible & ~(advantage > 0))
    low = clip_cov(low=1e-6, high=9.0, drift=-0.5)  # ρ = 0.61
    np.testing.assert_array_equal(low, eligible & ~(advantage < 0))


def test_as_many_as_the_share_are_drawn_by_key():
    wide = {"low": 1e-6, "high": 9.0}
    draws = np.asarray(prng.token_uniforms(keys(), 4))
    eligible = clip_cov(**wide)
    one = clip_cov(share=0.2, **wide)
    assert one.sum() == 1
    assert draws[one] == draws[eligible].min()
    np.testing.assert_array_equal(one, clip_cov(share=0.2, **wide))
    others = [clip_cov(share=0.2, question=i, **wide) for i in range(1, 9)]
    assert any((other != one).any() for other in others)


def test_a_masked_token_takes_no_place_among_the_chosen():
    """Its covariance is not the largest only because the others' are negative."""
    mask = jnp.array([[[True, True, False]]])
    logp, advantage = jnp.array([[[-1.0, -2.0, jnp.nan]]]), jnp.array([[[-1.0, 1, 0]]])
    settings = config.Algorithm(surrogate="kl_cov", cov_fraction=0.5)
    assert select.covariant(settings, logp, advantage, mask).sum() == 1
    assert select.covariant(settings, logp * 0 - 1, advantage, mask).sum() == 1


def test_a_ratio_just_inside_the_clip_leaves_a_token_eligible():
    wide = {"low": 1e-6, "high": 9.0}
    for drift in (0.15, -0.15):
        np.testing.assert_array_equal(clip_cov(drift=drift, **wide), clip_cov(**wide))
