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
    known = {"logp": LOGP, "ref_logp": LOGP, "sampler_logp": None} | scores
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
    assert config.Algorithm(**changes).needs_reference is needed


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
        ({"beta": 0.1}, "ref_logp"),
        ({"mu": 2}, "logp"),
        ({"off_policy_limit": 0.1}, "logp"),
    ],
)
def test_scores_that_the_settings_call_for_are_named(changes, missing):
    field = "algorithm." + next(iter(changes))
    with pytest.raises(Refused, match=f"the scores carry no {missing}, .*{field}"):
        rollout(config.Algorithm(**changes), **{missing: None})


def test_shapes_and_types_of_what_was_scored_are_checked():
    with pytest.raises(Refused, match=r"Scores.sampler_logp has shape \(1, 2, 3\)"):
        rollout(config.Algorithm(), sampler_logp=LOGP[:1])
    with pytest.raises(Refused, match=r"Rewards.parts is int\d+; it must be float"):
        rollout(config.Algorithm(), rewards(((1, 0), (1, 1))))
    settings = config.Algorithm(advantage=config.Advantage(group_by="level"))
    wrong = rewards(columns={"level": jnp.arange(3)})
    with pytest.raises(Refused, match=r"columns\['level'\] has shape \(3,\)"):
        rollout(settings, wrong)


@pytest.mark.parametrize(
    ("changes", "given", "message"),
    [
        ({"top_entropy": 0.5}, {"entropy": None}, "entropy is not given"),
        ({"surrogate": "clip_cov"}, {"keys": None}, "keys is not given"),
        (
            {},
            {"logp": LOGP[:1], "entropy": None, "keys": None},
            r"logp has shape \(1, 2, 3\)",
        ),
        ({}, {"parts": 2}, "batch.old_logp is not given, which a rollout in several"),
    ],
)
def test_what_a_minibatch_needs_is_named(changes, given, message):
    settings = config.Algorithm(**changes)
    batch, _ = rollout(settings)
    keys = prng.sample_keys(prng.root(0), jnp.arange(2), 2)
    known = {"logp": LOGP, "entropy": LOGP, "keys": keys, "parts": 1} | given
    if "parts" in given:
        batch = batch._replace(old_logp=None)
    with pytest.raises(Refused, match=message):
        prepare.minibatch(settings, batch, rollout_tokens=9, **known)


def test_the_kl_in_the_reward_is_measured_and_steers_beta():
    kl = config.KL(placed="reward", estimator="k1", target=0.1, horizon=10.0)
    _, measured = rollout(config.Algorithm(kl=kl), ref_logp=LOGP - 0.2)
    np.testing.assert_allclose(measured["kl"], 0.2, 1e-6)


def test_a_rows_weight_counts_the_tokens_that_are_rejected():
    settings = config.Algorithm(
        correction=config.Correction(level="sequence", high=None),
        rejection=config.Rejection(statistic="token", high=2.0),
    )
    sampler = LOGP.at[0, 0].add(-jnp.log(jnp.array([0.5, 1.0, 3.0])))
    batch, _ = rollout(settings, sampler_logp=sampler)
    np.testing.assert_array_equal(batch.is_completion[0, 0], [True, True, False])
    np.testing.assert_allclose(batch.weight[0, 0, :2], [1.5, 1.5], 1e-6)


def test_drift_is_taken_from_the_sampler_where_it_was_recorded():
    settings = config.Algorithm(off_policy_limit=0.1)
    batch, _ = rollout(settings, sampler_logp=LOGP + 1.0)
    np.testing.assert_array_equal(batch.sampler_logp, LOGP + 1.0)
    assert rollout(config.Algorithm(), sampler_logp=LOGP)[0].sampler_logp is None


def test_statistics_are_of_what_is_compared():
    steps = {
        "step_reward": jnp.array([[[1.0, 0.0]] * 2] * 2),
        "step_end": jnp.array([[[0, 2]] * 2] * 2),  # two rows have no third token
        "is_step": jnp.ones((2, 2, 2), bool),
    }
    agreeing = rewards(((0.0, 0.0), (0.0, 0.0)), **steps)
    by_step = config.Algorithm(advantage=config.Advantage(supervision="process"))
    _, measured = rollout(by_step, agreeing)
    assert measured["groups/no_spread"] == 0
    assert measured["steps/left_out"] == 2 / 8 and np.isclose(
        measured["reward_mean"], 4 / 6
    )
    # A row without any step that counts is unscorable, whatever its output was given.
    unknown = agreeing.step_reward.at[0, 1].set(jnp.nan).at[1, 1, 0].set(jnp.nan)
    batch, measured = rollout(by_step, agreeing._replace(step_reward=unknown))
    assert measured["rows/unscorable"] == 1 / 4
    assert not batch.is_completion[0, 1].any() and batch.is_completion[1, 1].any()
    pooled = config.Algorithm(advantage=config.Advantage(group_by="level"))
    parts = rewards(((1.0, 1.0), (0.0, 0.0)), columns={"level": jnp.zeros(2, int)})
    assert rollout(pooled, parts)[1]["groups/no_spread"] == 0
    assert rollout(config.Algorithm(), parts)[1]["groups/no_spread"] == 1


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


def test_what_no_row_of_a_group_has_makes_none_unscorable_and_extremes_are_told_apart():
    parts = [[[1.0, jnp.nan], [0.0, jnp.nan]], [[jnp.nan, jnp.nan], [1.0, 1.0]]]
    parts = jnp.array(parts)
    _, measured = rollout(config.Algorithm(), rewards()._replace(parts=parts))
    assert measured["rows/unscorable"] == 1 / 4
    np.testing.assert_allclose(measured["advantage_min"], -1, 1e-5)
    np.testing.assert_allclose(measured["advantage_max"], 1, 1e-5)


def test_a_group_without_a_valid_row_is_no_group():
    made = Rewards(
        jnp.array([[[1.0], [0.0]], [[1.0], [0.0]], [[1.0], [1.0]]]),
        jnp.ones((3, 2, 3), bool),
        jnp.array([[True, True], [False, False], [True, True]]),
    )
    three = jnp.full((3, 2, 3), -1.0)
    scores = prepare.Scores(three, three, None)
    everyone = jnp.ones((3, 2), bool)
    settings = config.Algorithm()
    _, measured = prepare.rollout(settings, made, scores, everyone, beta=0.01)
    assert statistics.values(measured)["groups/no_spread"] == 0.5
