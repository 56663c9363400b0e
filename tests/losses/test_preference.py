"""Losses on pairs by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax.losses import preference
from grpo_jax.section import Refused, choose

NAN = float("nan")


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize(("form", "expected"), [("sum", 0.6), ("mean", 0.3)])
def test_margin_sums_or_averages_the_log_ratio_of_the_completion(form, expected):
    logp, ref = jnp.array([-1.0, -2.0, NAN]), jnp.array([-1.5, -2.1, NAN])
    mask = jnp.array([True, True, False])

    def margin(logp):
        return preference.margin(logp, ref, mask, form=form)

    value, slope = jax.value_and_grad(margin)(logp)
    np.testing.assert_allclose(value, expected, 1e-6)
    np.testing.assert_allclose(slope, [expected / 0.6, expected / 0.6, 0], 1e-6)


def test_the_margin_of_an_empty_completion_is_zero():
    for form in ("sum", "mean"):
        empty = jnp.array([NAN]), jnp.array([NAN]), jnp.array([False])
        assert preference.margin(*empty, form=form) == 0


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_dpo_value_and_slopes(smoothing):
    beta, chosen, rejected = 0.5, 0.8, -0.4

    def loss(a, b):
        return preference.dpo(a, b, beta=beta, label_smoothing=smoothing)

    value, slopes = jax.value_and_grad(loss, (0, 1))(
        *map(jnp.asarray, (chosen, rejected))
    )
    z = beta * (chosen - rejected)
    hand = -(1 - smoothing) * np.log(sigmoid(z)) - smoothing * np.log(sigmoid(-z))
    np.testing.assert_allclose(value, hand, 1e-6)
    slope = -(1 - smoothing) * beta * sigmoid(-z) + smoothing * beta * sigmoid(z)
    np.testing.assert_allclose(slopes, (slope, -slope), 1e-5)


def test_ipo_has_a_target_for_the_gap():
    def loss(gap, beta=0.25):
        return preference.ipo(gap, jnp.zeros(()), beta=beta)

    assert loss(jnp.asarray(2.0)) == 0  # 1/(2β)
    value, slope = jax.value_and_grad(loss)(jnp.asarray(3.0))
    np.testing.assert_allclose((value, slope), (1.0, 2.0))


def test_ipo_compares_two_margins():
    value = preference.ipo(jnp.asarray(3.0), jnp.asarray(1.5), beta=0.25)
    np.testing.assert_allclose(value, (3 - 1.5 - 2) ** 2)
    with pytest.raises(Refused, match="beta is 0; IPO's target"):
        preference.ipo(jnp.asarray(3.0), jnp.asarray(1.5), beta=0)


def test_the_mean_margin_of_one_token_and_an_unknown_form():
    one = jnp.ones(1), jnp.zeros(1), jnp.ones(1, bool)
    assert preference.margin(*one, form="mean") == 1
    # what the types say before this in the tests, says this outside of them
    with pytest.raises(Refused, match="form is 'summ'; it must be one of sum, mean"):
        choose(preference.FORMS, "form", "summ")


def test_bradley_terry():
    def loss(a, b):
        return preference.bradley_terry(a, b)

    value, slopes = jax.value_and_grad(loss, (0, 1))(jnp.asarray(1.0), jnp.asarray(0.5))
    np.testing.assert_allclose(value, -np.log(sigmoid(0.5)), 1e-6)
    np.testing.assert_allclose(slopes, (-sigmoid(-0.5), sigmoid(-0.5)), 1e-6)
    assert loss(jnp.asarray(2.0), jnp.asarray(2.0)) == pytest.approx(np.log(2))
