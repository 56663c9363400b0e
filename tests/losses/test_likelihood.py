"""Likelihoods of tokens and labels by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax.losses import likelihood

MASK = jnp.array([[[True, True], [True, False]]])
LOGP = jnp.array([[[-1.0, -2.0], [-3.0, jnp.nan]]])


def test_sft_is_the_mean_negative_log_likelihood():
    weight = jnp.array([[1 / 4, 1 / 2]])  # per_sequence: 1/(2·2), 1/(1·2)
    total = likelihood.token_nll(LOGP, MASK, jnp.ones((1, 2)), weight)
    np.testing.assert_allclose(total, (1.5 + 3) / 2)


def test_rft_counts_right_answers_only():
    weight = jnp.array([[1 / 4, 1 / 2]])

    def loss(logp):
        return likelihood.token_nll(logp, MASK, jnp.array([[1.0, 0.0]]), weight)

    total, grad = jax.value_and_grad(loss)(LOGP)
    np.testing.assert_allclose(total, 1.5 / 2)
    np.testing.assert_allclose(grad, [[[-1 / 4, -1 / 4], [0, 0]]])


@pytest.mark.parametrize(
    ("label", "loss"),
    [(1.0, np.log1p(np.exp(-2))), (0.0, np.log1p(np.exp(2)))],
)
def test_binary_cross_entropy_by_hand_and_its_slope(label, loss):
    def at(z):
        return likelihood.binary(z, jnp.array([label]), jnp.array([True]), weight=1.0)

    value, slope = jax.value_and_grad(at)(jnp.array([2.0]))
    np.testing.assert_allclose(value, loss, 1e-6)
    np.testing.assert_allclose(slope, 1 / (1 + np.exp(-2)) - label, 1e-6)


def test_soft_labels_weights_and_holes():
    z = jnp.array([0.0, 2.0, jnp.nan])
    y = jnp.array([0.25, 1.0, jnp.nan])
    has = jnp.array([True, True, False])

    def at(z):
        return likelihood.binary(z, y, has, weight=0.5)

    value, slope = jax.value_and_grad(at)(z)
    np.testing.assert_allclose(value, 0.5 * (np.log(2) + np.log1p(np.exp(-2))), 1e-6)
    expected = 0.5 * np.array([0.25, 1 / (1 + np.exp(-2)) - 1, 0])
    np.testing.assert_allclose(slope, expected, 1e-6)


def test_extreme_logits_stay_finite():
    z, y = jnp.array([1e4, -1e4]), jnp.array([0.0, 1.0])
    value = likelihood.binary(z, y, jnp.array([True, True]), weight=1.0)
    np.testing.assert_allclose(value, 2e4)


def test_two_candidate_tokens_are_a_sigmoid():
    plus, minus = 1.3, -0.4
    share = np.exp(plus) / (np.exp(plus) + np.exp(minus))
    logit = likelihood.candidate_logit(jnp.array(plus), jnp.array(minus))
    np.testing.assert_allclose(jax.nn.sigmoid(logit), share, 1e-6)
