"""From a scored rollout to the loss: what leaves, what stays, what is counted."""

import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax import config, prepare, prng
from grpo_jax.losses import statistics
from grpo_jax.records import Rewards
from grpo_jax.section import Refused

MASK = jnp.arange(3)[None, None] < jnp.array([[3, 2], [1, 3]])[:, :, None]
LOGP = jnp.full((2, 2, 3), -1.0)


def rewards(parts=((1.0, 0.0), (1.0, 1.0)), **changes):
    made = Rewards(jnp.array(parts)[:, :, None], MASK, jnp.ones((2, 2), bool))
    return made._replace(**changes)


def rollout(settings, given=None, is_row=None, **scores):
    known = {"logp": LOGP, "ref_logp": None, "sampler_logp": None} | scores
    is_row = jnp.ones((2, 2), bool) if is_row is None else is_row
    given = rewards() if given is None else given
    batch, measured = prepare.rollout(
        settings, given, prepare.Scores(**known), is_row, beta=settings.beta
    )
    return batch, {k: float(v) for k, v in statistics.values(measured).items()}


def test_statistics_say_what_a_rollout_can_teach():
    _, measured = rollout(config.Algorithm())
    assert measured["groups/no_spread"] == 0.5  # the second group agrees
    assert measured["reward_mean"] == 0.75
    assert measured["length_mean"] == (3 + 2 + 1 + 3) / 4
    assert measured["rows/unscorable"] == 0
    # one group z-scored to ±1 on 3 and 2 tokens, the other 0 on 1 and 3
    np.testing.assert_allclose(measured["advantage_mean"], (3 - 2) / 9, 1e-5)
    np.testing.assert_allclose(measured["advantage_max"], 1, 1e-5)


def test_unscorable_and_filling_rows_leave_the_loss_and_its_counts():
    parts = ((1.0, float("nan")), (1.0, 0.0))
    is_row = jnp.array([[True, True], [True, False]])
    batch, measured = rollout(config.Algorithm(), rewards(parts), is_row)
    np.testing.assert_allclose(measured["rows/unscorable"], 1 / 3)
    np.testing.assert_array_equal(batch.is_completion.sum(-1), [[3, 0], [1, 0]])
    # nor are they in their group's statistics: both groups are groups of one
    assert measured["groups/no_spread"] == 1 and not np.any(batch.advantage)


def test_rejected_tokens_leave_the_denominators():
    settings = config.Algorithm(
        rejection=config.Rejection(statistic="token", high=2.0), loss_mean="per_token"
    )
    sampler = LOGP.at[0, 0, 0].set(-3.0)  # π_old/π_sampler = e² there
    batch, measured = rollout(settings, sampler_logp=sampler)
    np.testing.assert_allclose(measured["mismatch/rejected"], 1 / 9)
    batch = prepare.minibatch(
        settings, batch, LOGP, None, None, rollout_tokens=8, parts=1
    )
    np.testing.assert_allclose(batch.row_weight, np.full((2, 2), 1 / 8))


def test_a_sampler_that_agrees_has_weight_one():
    settings = config.Algorithm(correction=config.Correction(level="token"))
    batch, measured = rollout(settings, sampler_logp=LOGP)
    np.testing.assert_array_equal(batch.weight, np.where(MASK, 1.0, 0.0))
    assert measured["mismatch/kl"] == 0 and measured["mismatch/log_gap_max"] == 0


def test_the_kl_in_the_reward_comes_from_the_scores():
    advantage = config.Advantage(estimator="none", scale_rewards="none")
    settings = config.Algorithm(
        beta=0.5, kl=config.KL(placed="reward", estimator="k1"), advantage=advantage
    )
    batch, _ = rollout(settings, ref_logp=LOGP - 0.2)  # k1 = 0.2 at every token
    # return-to-go of −0.1 a token, and the reward 1 at the end
    np.testing.assert_allclose(batch.advantage[0, 0], [0.7, 0.8, 0.9], 1e-6)


@pytest.mark.parametrize(
    ("changes", "needed"),
    [
        ({"beta": 0.0}, False),
        ({"beta": 0.01}, True),
        ({"beta": 0.0, "ratio_to": "reference"}, True),
        ({"beta": 0.0, "kl": config.KL(placed="reward")}, True),
    ],
)
def test_when_the_reference_must_score(changes, needed):
    assert prepare.needs_reference(config.Algorithm(**changes)) is needed


def test_a_minibatch_selects_by_the_policy_of_now():
    keys = prng.sample_keys(prng.root(0), jnp.arange(2), 2)
    entropy = jnp.arange(12.0).reshape(2, 2, 3)
    settings = config.Algorithm(top_entropy=0.5)
    batch, _ = rollout(settings)
    batch = prepare.minibatch(
        settings, batch, LOGP, entropy, keys, rollout_tokens=9, parts=1
    )
    # entropies of the nine tokens: 0 1 2 3 4 6 9 10 11; the median is 4
    assert batch.is_uncertain.sum() == 5
    np.testing.assert_allclose(batch.entropy_weight, 1 / 5)
    settings = config.Algorithm(surrogate="kl_cov", cov_fraction=0.12)
    batch, _ = rollout(settings)
    logp = LOGP.at[0, 1, 1].set(-9.0)  # a bad token that became unlikely: A < 0
    batch = prepare.minibatch(
        settings, batch, logp, entropy, keys, rollout_tokens=9, parts=1
    )
    assert batch.is_selected.sum() == 1 and batch.is_selected[0, 1, 1]


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"correction": config.Correction(level="token")}, "sampler_logp"),
        ({"rejection": config.Rejection(statistic="token", high=2.0)}, "sampler_logp"),
        ({"kl": config.KL(placed="reward")}, "ref_logp"),
        ({"ratio_to": "reference"}, "ref_logp"),
    ],
)
def test_scores_that_the_settings_call_for_are_named(changes, missing):
    with pytest.raises(Refused, match=f"the scores carry no {missing}"):
        rollout(config.Algorithm(**changes))


def test_without_old_log_probabilities_the_samplers_are_only_recorded():
    batch, measured = rollout(config.Algorithm(), logp=None, sampler_logp=LOGP)
    assert batch.old_logp is None and "mismatch/kl" not in measured


def test_the_entropy_of_a_single_token_is_its_own_mean():
    one = rewards(is_completion=MASK & (jnp.arange(12).reshape(2, 2, 3) == 7))
    batch, _ = rollout(config.Algorithm(), one)
    settings = config.Algorithm()
    batch = prepare.minibatch(
        settings, batch, LOGP, None, None, rollout_tokens=1, parts=1
    )
    assert batch.entropy_weight == 1
    none = batch._replace(is_completion=jnp.zeros((2, 2, 3), bool))
    none = prepare.minibatch(
        settings, none, LOGP, None, None, rollout_tokens=0, parts=1
    )
    assert np.isfinite(none.entropy_weight) and not np.any(none.row_weight)
