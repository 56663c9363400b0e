"""The paper's central table: autodiff of each loss equals coefficient times ∇log π.

The policy is a table of logits, so that ∇log π is exact and cheap: [T, V] per row.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax import config, presets, unified
from grpo_jax.losses import likelihood, objective, preference
from grpo_jax.losses.reduce import row_weights
from grpo_jax.records import PolicyBatch

T, V = 4, 5
LENGTH = np.array([4, 2, 3])  # three completions of one question
MASK = np.arange(T) < LENGTH[:, None]
TOKENS = np.array([[0, 3, 2, 1], [4, 4, 0, 0], [1, 0, 2, 0]])
RIGHT = np.array([True, False, True])
ADVANTAGE = np.array([[0.7, -0.3, 0.7, -0.9], [-1.4] * T, [0.7, -0.6, -0.2, 0.0]])
BETA = 0.3
KNOBS = unified.Knobs(BETA, 0.2, 0.2)


def table(seed, scale=1.0):
    return jnp.asarray(np.random.default_rng(seed).normal(0, scale, (3, T, V)))


def logp_of(logits):
    logp = jax.nn.log_softmax(logits)
    return jnp.take_along_axis(logp, jnp.asarray(TOKENS)[:, :, None], -1)[:, :, 0]


def completions(logits, old, ref):
    """One `Completion` per row, with what every method might look at."""
    logp, old_logp, ref_logp = logp_of(logits), logp_of(old), logp_of(ref)
    margins = jnp.where(MASK, logp - ref_logp, 0).sum(-1) / LENGTH
    return [
        unified.Completion(
            logp[i],
            old_logp[i],
            ref_logp[i],
            jnp.asarray(ADVANTAGE[i]),
            jnp.asarray(RIGHT[i]),
            jnp.asarray([1.0, -1.0, 0.0][i]),
            margins[0] - margins[1],
        )
        for i in range(3)
    ]


def by_coefficient(method, logits, old, ref, rows=(0, 1, 2)):
    """Σ_o 1/|o| Σ_t GC ∇log π(o_t): eq. 5, as a gradient on the table."""
    total = jnp.zeros_like(logits)
    for i in rows:
        o = completions(logits, old, ref)[i]
        coefficient = unified.gradient_coefficient(method, o, KNOBS)
        weight = jnp.where(MASK[i], jax.lax.stop_gradient(coefficient), 0) / LENGTH[i]
        grad = jax.grad(lambda x, i=i, w=weight: (w * logp_of(x)[i]).sum())(logits)
        total += grad
    return total


def weights(settings):
    mask = jnp.asarray(MASK)[None]
    everyone = jnp.ones((1, 3), bool)
    return row_weights(settings, mask, everyone, rollout_tokens=9, parts=1)


def policy_gradient(settings, logits, old, ref, advantage=ADVANTAGE):
    batch = PolicyBatch(
        jnp.asarray(MASK)[None],
        jnp.asarray(advantage)[None],
        jnp.ones((1, 3), bool),
        old_logp=logp_of(old)[None],
        ref_logp=logp_of(ref)[None],
        row_weight=weights(settings),
    )

    def loss(x):
        return objective.policy_loss(
            settings, logp_of(x)[None], batch, beta=settings.beta
        )[0]

    return -jax.grad(loss)(logits)  # J is maximised


def equal(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("moved", [0.0, 0.8])
def test_grpo(moved, float64):
    # moved 0: θ = θ_old, the coefficient is Â + β(π_ref/π − 1) of eq. 21.
    # moved 0.8: after further updates, ratios are on all sides of the clip range.
    old, ref = table(0), table(1)
    logits = old + moved * table(2)
    settings = config.Algorithm(beta=BETA)
    expected = by_coefficient("GRPO", logits, old, ref) / 3
    equal(policy_gradient(settings, logits, old, ref), expected)
    if moved:
        ratio = np.exp(logp_of(logits) - logp_of(old))[MASK]
        sign = np.sign(ADVANTAGE[MASK])
        assert ((ratio > 1.2) & (sign > 0)).any() and ((ratio > 1.2) & (sign < 0)).any()
        assert ((ratio < 0.8) & (sign > 0)).any() and ((ratio < 0.8) & (sign < 0)).any()
    else:
        o = completions(logits, old, ref)[0]
        printed = ADVANTAGE[0] + BETA * (jnp.exp(o.ref_logp - o.logp) - 1)
        equal(unified.gradient_coefficient("GRPO", o, KNOBS), printed)


@pytest.mark.parametrize("moved", [0.0, 0.8])
def test_ppo(moved, float64):
    old, ref = table(0), table(1)
    logits = old + moved * table(2)
    settings = config.Algorithm(beta=0.0)
    expected = by_coefficient("PPO", logits, old, ref) / 3
    equal(policy_gradient(settings, logits, old, ref), expected)
    if not moved:
        o = completions(logits, old, ref)[2]
        equal(unified.gradient_coefficient("PPO", o, KNOBS), ADVANTAGE[2])


def test_sft(float64):
    logits = table(0)
    weight = weights(config.Algorithm())

    def loss(x):
        ones = jnp.ones((1, 3))
        return likelihood.token_nll(
            logp_of(x)[None], jnp.asarray(MASK)[None], ones, weight
        )

    expected = by_coefficient("SFT", logits, logits, logits) / 3
    equal(-jax.grad(loss)(logits), expected)


def test_rft_is_sft_on_right_answers(float64):
    logits = table(0)
    weight = weights(config.Algorithm())

    def loss(x):
        right = jnp.asarray(RIGHT, float)[None]
        mask = jnp.asarray(MASK)[None]
        return likelihood.token_nll(logp_of(x)[None], mask, right, weight)

    expected = by_coefficient("RFT", logits, logits, logits) / 3
    equal(-jax.grad(loss)(logits), expected)


def test_online_rft_is_a_preset_of_the_policy_loss(float64):
    logits = table(0)
    settings = presets.algorithm("online_rft")
    indicator = np.where(RIGHT, 1.0, 0.0)[:, None] * np.ones(T)
    got = policy_gradient(settings, logits, logits, logits, indicator)
    equal(got, by_coefficient("Online RFT", logits, logits, logits) / 3)


def test_dpo_by_the_corrected_coefficient(float64):
    logits, ref = table(0), table(1)

    def loss(x):
        m = [
            preference.margin(
                logp_of(x)[i], logp_of(ref)[i], jnp.asarray(MASK[i]), form="mean"
            )
            for i in (0, 1)
        ]
        return preference.dpo(*m, beta=BETA, label_smoothing=0.0)

    expected = by_coefficient("DPO", logits, logits, ref, rows=(0, 1))
    equal(-jax.grad(loss)(logits), expected)


def test_the_printed_dpo_coefficient_is_another_number():
    # (14): σ of β times log-ratios of single tokens, without the factor β.
    logits, ref = table(0), table(1)
    better, worse, _ = completions(logits, logits, ref)
    printed = jax.nn.sigmoid(
        BETA * (worse.logp - worse.ref_logp) - BETA * (better.logp - better.ref_logp)
    )
    ours = unified.gradient_coefficient("DPO", better, KNOBS)
    assert np.all(np.abs(printed - ours) > 0.1)  # roughly the missing factor
    assert np.ptp(printed) > 0.01 and np.ptp(ours) < 1e-6  # and a token's own ratio


def test_grpo_at_the_group_mean_with_no_kl_does_nothing(float64):
    old = table(0)
    o = completions(old, old, old)[0]._replace(advantage=jnp.zeros(T))
    equal(unified.gradient_coefficient("GRPO", o, KNOBS), np.zeros(T))


def test_an_unknown_method_is_named():
    o = completions(table(0), table(0), table(0))[0]
    with pytest.raises(ValueError, match="method is 'TRPO'; it must be one of SFT"):
        unified.gradient_coefficient("TRPO", o, KNOBS)
