"""KL estimators: values, slopes, and what their gradients do in expectation."""

from typing import get_args

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from grpo_jax import algorithm, config
from grpo_jax.losses import kl


def value_and_slope(x, **options):
    """The estimate where log π − log π_ref is x, and its slope by log π."""

    def estimate(logp):
        ratio = jnp.exp(logp - jax.lax.stop_gradient(logp))
        return kl.estimate(config.KL(**options), logp, jnp.zeros(()), ratio)

    value, slope = jax.value_and_grad(estimate)(jnp.asarray(float(x)))
    return float(value), float(slope)


def test_every_choice_has_a_function_and_every_function_a_choice():
    assert set(kl.ESTIMATORS) == set(get_args(algorithm.KLEstimator))
    assert set(kl.GRADIENTS) == set(get_args(algorithm.KLGradient))


@pytest.mark.parametrize(
    ("options", "x", "value", "slope"),
    [
        ({"estimator": "k1"}, 0.5, 0.5, 1.0),
        ({"estimator": "abs"}, -0.5, 0.5, -1.0),
        ({"estimator": "k2"}, -0.5, 0.125, -0.5),
        ({"estimator": "k3"}, -1.0, np.e - 2, 1 - np.e),
        ({"estimator": "k3"}, 1.0, np.exp(-1), 1 - np.exp(-1)),
        ({"estimator": "k3", "gradient": "ratio"}, -1.0, np.e - 2, -1.0),
        ({"estimator": "k3", "gradient": "straight_through"}, -1.0, np.e - 2, -1.0),
        ({"estimator": "k1", "gradient": "straight_through"}, -0.5, -0.5, -0.5),
        ({"estimator": "k3", "log_limit": 2.0}, -5.0, np.exp(2) - 3, 0.0),
        ({"estimator": "k3", "limit": 2.0}, -5.0, 2.0, 0.0),
        ({"estimator": "k1", "limit": 2.0}, -5.0, -2.0, 0.0),
        ({"estimator": "k3", "log_limit": None}, -5.0, np.exp(5) - 6, 1 - np.exp(5)),
    ],
)
def test_values_and_slopes_by_hand(options, x, value, slope):
    np.testing.assert_allclose(value_and_slope(x, **options), (value, slope), 1e-5)


def test_the_paper_example():
    # logp 0, −1, −2 to a reference of −1 with β 0.1: 0.1·(e^−1 + 0 + e − 2)/3
    x = jnp.array([1.0, 0.0, -1.0])
    mean = kl.estimate(config.KL(), x, jnp.zeros(3), jnp.ones(3)).mean()
    assert round(float(0.1 * mean), 4) == 0.0362


def test_k3_is_never_negative_on_a_fine_grid():
    x = np.float32(10.0) ** np.linspace(-8, 1, 20_001, dtype=np.float32)
    x = jnp.asarray(np.concatenate([x, -x]))
    assert (kl.k3(x) >= 0).all()
    assert (jnp.exp(-x) - 1 + x < 0).mean() > 0.2  # what expm1 is for


@hypothesis.settings(max_examples=200)
@hypothesis.given(st.floats(-30, 30, width=32), st.integers(-8, 0))
def test_k3_is_never_negative_even_in_float32(x, scale):
    assert value_and_slope(x * 10.0**scale)[0] >= 0


def policies():
    rng = np.random.default_rng(0)
    theta = jnp.asarray(rng.normal(0, 1, 5))
    return theta, jax.nn.log_softmax(jnp.asarray(rng.normal(0, 1, 5)))


def expected_gradient(**options):
    """E over o ~ π of the gradient of the estimate at o, by enumeration."""
    theta, ref = policies()
    settings = config.KL(**options)

    def at(theta, o):
        logp = jax.nn.log_softmax(theta)[o]
        ratio = jnp.exp(logp - jax.lax.stop_gradient(logp))
        return kl.estimate(settings, logp, ref[o], ratio)

    p = jax.nn.softmax(theta)
    return sum(p[o] * jax.grad(at)(theta, o) for o in range(5))


def reverse(theta, ref):
    logp = jax.nn.log_softmax(theta)
    return (jnp.exp(logp) * (logp - ref)).sum()


def forward(theta, ref):
    return (jnp.exp(ref) * (ref - jax.nn.log_softmax(theta))).sum()


@pytest.mark.parametrize(
    ("options", "divergence"),
    [
        ({"estimator": "k1"}, None),
        ({"estimator": "k2"}, reverse),
        ({"estimator": "k3"}, forward),
        ({"estimator": "k3", "gradient": "ratio"}, reverse),
        ({"estimator": "k1", "gradient": "ratio"}, reverse),
        ({"estimator": "k3", "gradient": "straight_through"}, reverse),
    ],
)
def test_what_an_estimate_pulls_along_as_a_loss(options, divergence, float64):
    theta, ref = policies()
    expected = 0 * theta if divergence is None else jax.grad(divergence)(theta, ref)
    got = expected_gradient(**options)
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)
    assert divergence is None or np.abs(expected).max() > 0.01


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_k1_and_k3_are_unbiased_values(estimator, float64):
    theta, ref = policies()
    logp = jax.nn.log_softmax(theta)
    values = kl.estimate(config.KL(estimator=estimator), logp, ref, jnp.ones(5))
    mean = (jnp.exp(logp) * values).sum()
    np.testing.assert_allclose(mean, reverse(theta, ref), 1e-12)


def test_the_controller_by_hand():
    settings = config.KL(target=0.1, horizon=1000.0)
    # 0.11/0.1 − 1 = 0.1 of 100/1000; then an error of 2, cut at 0.2
    np.testing.assert_allclose(kl.next_beta(settings, 0.5, 0.11, 100), 0.5 * 1.01, 1e-6)
    np.testing.assert_allclose(kl.next_beta(settings, 0.5, 0.3, 100), 0.5 * 1.02, 1e-6)
    np.testing.assert_allclose(kl.next_beta(settings, 0.5, 0.01, 100), 0.5 * 0.98, 1e-6)
    assert kl.next_beta(config.KL(), 0.5, 0.3, 100) == 0.5


def test_beta_never_moves_by_more_than_the_error_and_stays_positive():
    settings = config.KL(target=0.1, horizon=100.0)
    np.testing.assert_allclose(kl.next_beta(settings, 0.5, 0.0, 65536), 0.4, 1e-6)
    np.testing.assert_allclose(kl.next_beta(settings, 0.5, 9.0, 65536), 0.6, 1e-6)


@pytest.mark.parametrize("gradient", ["own", "straight_through", "ratio"])
def test_an_unlikely_token_leaves_value_and_gradient_finite(gradient):
    settings = config.KL(gradient=gradient)

    def value(logp):
        ratio = jnp.exp(logp - jax.lax.stop_gradient(logp))
        return kl.estimate(settings, logp, jnp.full(1, -1.0), ratio).sum()

    got, slope = jax.value_and_grad(value)(jnp.full(1, -1e30))
    assert np.isfinite(got) and np.all(np.isfinite(slope))
