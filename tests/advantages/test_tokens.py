"""Advantages of tokens: process supervision, returns, GAE, whitening."""

import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax import config
from grpo_jax.advantages import tokens

HOLES = np.array([True, False, True, True, False])


def near(actual, expected, tolerance=1e-6):
    np.testing.assert_allclose(actual, expected, tolerance, tolerance)


def test_a_token_gets_its_own_steps_value_and_all_later_ones():
    # The paper's form by hand: steps end at tokens 1 and 4 of five; values 0.75, −1.75.
    def row(value, end, length, width=6):
        is_step = jnp.array([True] * len(value) + [False])
        value = jnp.array([*value, 99.0])
        end = jnp.array([*end, 2])
        return tokens.from_steps(value, end, is_step, jnp.arange(width) < length)

    near(row([0.75, -1.75], [1, 4], 5), [-1, -1, -1.75, -1.75, -1.75, 0])
    near(row([-0.5, 0.75, 0.75], [0, 2, 3], 4), [1, 1.5, 1.5, 0.75, 0, 0])
    # a tail after the last end has no gradient
    near(row([1.0], [1], 4), [1, 1, 0, 0, 0, 0])
    # and an end in the padding reaches the row, not the padding
    near(row([1.0], [5], 4), [1, 1, 1, 1, 0, 0])


def test_the_reward_stands_on_the_last_token_and_the_penalty_on_all():
    penalty = jnp.array([0.1, 9.0, 0.2, 0.3, 9.0])
    got = tokens.token_rewards(jnp.asarray(1.0), penalty, jnp.asarray(HOLES))
    near(got, [-0.1, 0, -0.2, 0.7, 0])
    empty = tokens.token_rewards(jnp.asarray(1.0), penalty, jnp.zeros(5, bool))
    near(empty, np.zeros(5))


def naive_gae(reward, value, mask, gamma, lam):
    """The recursion on the tokens that count, one by one from the end."""
    out, later_value, later = np.zeros(len(mask)), 0.0, 0.0
    for t in reversed(range(len(mask))):
        if mask[t]:
            later = reward[t] + gamma * later_value - value[t] + gamma * lam * later
            out[t], later_value = later, value[t]
    return out


def test_gae_by_hand():
    everywhere = jnp.ones(3, bool)
    advantage, returns = tokens.generalized_advantage(
        jnp.array([0.0, 0.0, 5.0]), jnp.array([1.0, 2.0, 3.0]), everywhere, 1.0, 0.0
    )
    near(advantage, [1, 1, 2])
    near(returns, [2, 3, 5])


@pytest.mark.parametrize("mask", [HOLES, np.ones(5, bool), np.zeros(5, bool)])
@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 1.0), (0.9, 0.8), (0.9, 0.0)])
def test_gae_against_a_plain_loop_with_holes_and_poison(mask, gamma, lam, float64):
    rng = np.random.default_rng(0)
    reward, value = rng.normal(0, 1, 5), rng.normal(0, 1, 5)
    expected = naive_gae(reward, value, mask, gamma, lam)
    spoilt = (jnp.asarray(np.where(mask, x, np.nan)) for x in (reward, value))
    advantage, returns = tokens.generalized_advantage(
        *spoilt, jnp.asarray(mask), gamma, lam
    )
    near(advantage, expected, 1e-12)
    near(returns, np.where(mask, expected + value, 0), 1e-12)


def test_returns_discount_over_tokens_that_count():
    reward = jnp.array([1.0, 9.0, 2.0, 4.0, 9.0])
    got = tokens.returns(reward, jnp.asarray(HOLES), 0.5)
    near(got, [1 + 0.5 * (2 + 0.5 * 4), 0, 2 + 0.5 * 4, 4, 0])


def test_whitening_by_hand():
    settings = config.Advantage(eps=0.0, whiten="tokens")
    x, where = jnp.array([1.0, jnp.nan, 3.0]), jnp.array([True, False, True])
    near(tokens.whiten(x, where, settings), [-1, 0, 1])
    sample = config.Advantage(eps=2.0, ddof=1, eps_at="under_root", whiten="tokens")
    near(tokens.whiten(x, where, sample), [-0.5, 0, 0.5])


def test_what_agrees_whitens_to_exactly_zero():
    settings = config.Advantage(whiten="tokens")
    for n, constant in ((64, 0.7), (16, 0.1), (1, 3.0)):
        x = jnp.full(n, constant, jnp.float32)
        assert not np.any(tokens.whiten(x, jnp.ones(n, bool), settings))
