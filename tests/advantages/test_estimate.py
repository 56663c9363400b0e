"""From rewards to advantages of tokens: the whole way, as the settings ask."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax import config, presets
from grpo_jax.advantages import estimate
from grpo_jax.records import Rewards
from grpo_jax.section import Refused
from tests.advantages.test_tokens import naive_gae

LENGTH = np.array([[3, 1, 4, 2], [2, 2, 4, 0]])
MASK = np.arange(4) < LENGTH[:, :, None]
REWARD = np.array([[1.0, 0.0, 0.5, 1.0], [0.2, 0.9, 0.2, 0.4]])
EXACT = {"eps": 0.0}


def rewards(reward=REWARD, mask=MASK, **more):
    reward = np.asarray(reward, float)
    parts = reward if reward.ndim == 3 else reward[:, :, None]
    valid = more.pop("is_valid", np.ones(parts.shape[:2], bool))
    return jax.tree.map(jnp.asarray, Rewards(parts, mask, valid, **more))


def run(given=None, beta=0.0, kl=None, **advantage):
    settings = config.Algorithm(
        advantage=config.Advantage(**advantage), kl=kl or config.KL()
    )
    given = rewards() if given is None else given
    return np.asarray(estimate.estimate(settings, given, beta=beta).advantage)


def near(actual, expected, tolerance=1e-5):
    np.testing.assert_allclose(actual, expected, tolerance, tolerance)


def z(x):
    return (x - x.mean()) / x.std()


def test_outcome_supervision_writes_the_z_score_on_every_token():
    got = run(**EXACT)
    for b in range(2):
        near(got[b], z(REWARD[b])[:, None] * MASK[b])


# Process supervision, through the whole function ---------------------------------------
STEP_MASK = np.array([[[True, True, False], [True, True, True]]])
STEPS = np.array([[[1.0, 0.0, 9.0], [0.5, 1.0, 1.0]]])
ENDS = np.array([[[1, 4, 0], [0, 2, 3]]])
TOKENS = np.arange(5) < np.array([[5, 4]])[:, :, None]
HAND = [[-1, -1, -1.75, -1.75, -1.75], [1, 1.5, 1.5, 0.75, 0]]


def process(reward=STEPS, end=ENDS, is_step=STEP_MASK, mask=TOKENS, **options):
    given = rewards(
        np.zeros(mask.shape[:2]),
        mask,
        step_reward=reward,
        step_end=end,
        is_step=is_step,
    )
    return run(given, supervision="process", **(EXACT | options))


def test_the_hand_example_of_process_supervision():
    near(process()[0], HAND)


def test_another_hand_example():
    # rewards 1, 0 | 1: mean 2/3, std 0.4714, z 0.7071, −1.4142 | 0.7071
    got = process(
        np.array([[[1.0, 0.0], [1.0, 9.0]]]),
        np.array([[[0, 1], [1, 0]]]),
        np.array([[[True, True], [True, False]]]),
        np.ones((1, 2, 2), bool),
    )
    near(got[0], [[-0.7071, -1.4142], [0.7071, 0.7071]], 1e-4)


def test_identity_1_one_step_per_output_is_outcome_supervision():
    got = process(
        REWARD[:, :3, None], (LENGTH - 1)[:, :3, None], MASK[:, :3, :1], MASK[:, :3]
    )
    near(got, run(rewards(REWARD[:, :3], MASK[:, :3]), **EXACT))


def test_identity_2_the_first_tokens_add_up_to_zero():
    assert abs(process()[0, :, 0].sum()) < 1e-5


def test_identity_3_only_a_steps_end_changes_the_advantage():
    pool = np.array([1.0, 0.0, 0.5, 1.0, 1.0])
    value = (pool - pool.mean()) / pool.std()
    change = -np.diff(process()[0], append=0)
    near(change[0], [0, value[0], 0, 0, value[1]])
    near(change[1], [value[2], 0, value[3], value[4], 0])


def test_identity_4_tokens_after_the_last_end_get_nothing():
    near(
        process(end=np.array([[[1, 3, 0], [0, 1, 2]]]))[0, :, 3:], [[-1.75, 0], [0, 0]]
    )


@pytest.mark.parametrize("poison", [np.nan, np.inf, 1e30])
def test_identity_5_padded_steps_enter_nothing(poison):
    wide = np.concatenate([STEPS, np.full((1, 2, 2), poison)], -1)
    wide[0, 0, 2] = poison
    end = np.concatenate([ENDS, np.zeros((1, 2, 2), int)], -1)
    is_step = np.concatenate([STEP_MASK, np.zeros((1, 2, 2), bool)], -1)
    near(process(wide, end, is_step)[0], HAND)


def test_identity_5_shift_scale_and_agreement():
    near(process(3 * STEPS - 2)[0], HAND)
    assert not np.any(process(np.full(STEPS.shape, 0.7)))


def test_identity_6_rewards_on_the_last_step_only_are_not_outcome_supervision():
    # (0, 1) and (0, 0): mean 0.25, std 0.433
    got = process(
        np.array([[[0.0, 1.0], [0.0, 0.0]]]),
        np.array([[[0, 1], [0, 1]]]),
        np.ones((1, 2, 2), bool),
        np.ones((1, 2, 2), bool),
    )
    near(got[0], [[1.155, 1.732], [-1.155, -0.577]], 1e-3)


def test_identity_7_splitting_a_step_changes_the_result():
    end = np.array([[[0, 1, 4], [0, 2, 3]]])
    split = process(
        np.array([[[1.0, 1.0, 0.0], [0.5, 1.0, 1.0]]]), end, np.ones((1, 2, 3), bool)
    )
    assert np.abs(split[0] - HAND).max() > 0.1


def test_an_end_outside_the_row_or_without_a_reward_is_no_step():
    for end, reward in (((7, 2, 3), 0.3), ((-1, 2, 3), 0.3), ((0, 2, 3), np.nan)):
        ends, steps = ENDS.copy(), STEPS.copy()
        ends[0, 1], steps[0, 1, 0] = end, reward
        is_step = STEP_MASK.copy()
        is_step[0, 1, 0] = False
        near(process(steps, ends), process(is_step=is_step))


def test_a_step_must_end_on_a_token_of_its_row():
    mask = np.arange(5) < np.array([[1, 0, 3]])[:, :, None]
    steps = np.array([[[1.0], [0.0], [0.0]]])
    one = np.ones((1, 3, 1), bool)
    # the empty row has no token to end a step on: two steps are compared
    got = process(steps, np.array([[[0], [0], [2]]]), one, mask)
    near(got[0], [[1, 0, 0, 0, 0], [0] * 5, [-1, -1, -1, 0, 0]])
    # and an end in the padding, whatever its width, is none either
    got = process(steps, np.array([[[0], [0], [3]]]), one, mask)
    near(got[0], [[0] * 5] * 3)


def test_a_discount_counts_the_tokens_of_its_own_row():
    given = rewards(
        np.array([[1.0, 0.0, 0.0]]), np.arange(4) < np.array([[[3], [1], [4]]])
    )
    got = run(given, estimator="none", scale_rewards="none", gamma=0.5)
    near(got[0], [[0.25, 0.5, 1, 0], [0] * 4, [0] * 4])
    got = run(given, estimator="mean", scale_rewards="none", gamma=0.5)
    third = 1 / 3
    near(got[0][0], [third / 2, third, 2 * third, 0])
    near(got[0][1], [-third, 0, 0, 0])
    near(got[0][2], [-third / 8, -third / 4, -third / 2, -third])


def test_the_nonzero_scale_multiplies_by_rows_over_nonzero_rows():
    given = rewards(np.array([[1.0, 0.0, 0.0, 0.0]]), np.ones((1, 4, 2), bool))
    near(run(given, scale_rewards="nonzero")[0, :, 0], [3, -1, -1, -1])


def test_filtered_rows_are_in_no_pool_of_steps():
    given = rewards(
        np.zeros((1, 2)),
        TOKENS,
        step_reward=STEPS,
        step_end=ENDS,
        is_step=STEP_MASK,
        is_valid=np.array([[True, False]]),
    )
    near(run(given, supervision="process", **EXACT)[0], [[0, 0, -1, -1, -1], [0] * 5])


# Combining, filtering, whitening -------------------------------------------------------
def test_rewards_are_weighted_and_added():
    parts = np.stack([REWARD, REWARD**2], -1)
    got = run(rewards(parts), reward_weights=(1.0, 0.5), **EXACT)
    near(got, run(rewards(REWARD + 0.5 * REWARD**2), **EXACT))


def test_a_sample_that_lacks_a_part_others_have_is_unscorable():
    """It counted as one that was given nothing."""
    parts = np.stack([REWARD, REWARD], -1)
    parts[0, 0, 0], parts[0, 2, 1] = np.nan, np.inf
    got = run(rewards(parts), **EXACT)[0]
    assert not np.any(got[[0, 2]])
    near(got[[1, 3]], z(REWARD[0, [1, 3]])[:, None] * MASK[0, [1, 3]])
    parts[0, 0] = np.nan
    near(run(rewards(parts), **EXACT)[0], got)


def test_a_part_that_no_sample_of_a_question_has_does_not_apply_to_it():
    parts = np.stack([REWARD, 7 * REWARD], -1)
    parts[0, :, 1] = np.nan
    expected = np.stack([z(REWARD[0]), z(8 * REWARD[1])])
    near(run(rewards(parts), **EXACT), expected[:, :, None] * MASK)
    parts[0] = np.nan
    assert not np.any(run(rewards(parts), **EXACT)[0])


def test_gdpo_normalises_each_reward_then_adds_then_whitens_rows():
    other = np.array([[3.0, 1.0, 1.0, 1.0], [0.0, 0.0, 5.0, 1.0]])
    parts = np.stack([REWARD, other], -1)
    options = {"normalise_each": True, "reward_weights": (1.0, 2.0), "whiten": "rows"}
    total = np.stack([z(REWARD[b]) + 2 * z(other[b]) for b in range(2)])
    near(run(rewards(parts), **options, **EXACT), z(total)[:, :, None] * MASK, 1e-4)
    near(
        run(rewards(parts), normalise_each=True, **EXACT)[0, 0, 0],
        (z(REWARD[0]) + z(other[0]))[0],
        1e-4,
    )


def test_gdpo_leaves_out_what_is_missing_from_a_part():
    parts = np.stack([REWARD, REWARD], -1)
    parts[0, 3, 1] = np.nan
    got = run(rewards(parts), normalise_each=True, **EXACT)[0, :, 0]
    second = np.append(z(REWARD[0, :3]), 0)
    near(got, z(REWARD[0]) + second, 1e-4)


def test_the_batchs_std_divides_every_group():
    centred = REWARD - REWARD.mean(1, keepdims=True)
    expected = (centred / (REWARD.std() + 0.5))[:, :, None] * MASK
    near(run(scale_rewards="batch", eps=0.5), expected)


def test_gpg_scales_by_rows_over_non_zero_rewards():
    centred = REWARD - REWARD.mean(1, keepdims=True)
    near(run(scale_rewards="nonzero"), (centred * 8 / 7)[:, :, None] * MASK)


def test_groups_that_share_a_column_are_one_group():
    given = rewards(columns={"level": np.array([3, 3])})
    got = run(given, group_by="level", **EXACT)
    near(got, z(REWARD)[:, :, None] * MASK)
    apart = rewards(columns={"level": np.array([3, 4])})
    near(run(apart, group_by="level", **EXACT), run(**EXACT))


def test_reinforce_pp_discounts_then_whitens_tokens():
    options = {"estimator": "none", "scale_rewards": "none", "gamma": 0.5}
    to_come = np.maximum(LENGTH[:, :, None] - 1 - np.arange(4), 0)
    plain = np.where(MASK, REWARD[:, :, None] * 0.5**to_come, 0)
    near(run(**options), plain)
    near(run(whiten="tokens", **options, **EXACT)[MASK], z(plain[MASK]), 1e-4)


def test_a_discount_also_serves_the_estimators_that_compare():
    to_come = np.maximum(LENGTH[:, :, None] - 1 - np.arange(4), 0)
    near(run(gamma=0.5, **EXACT), run(**EXACT) * 0.5**to_come)


def test_remax_subtracts_the_given_baseline():
    given = rewards(baseline=np.array([0.5, 0.1]))
    got = run(given, estimator="given", scale_rewards="none")
    near(got, (REWARD - [[0.5], [0.1]])[:, :, None] * MASK)


KL_VALUES = np.random.default_rng(0).exponential(1.0, MASK.shape)


def test_a_kl_in_the_reward_is_summed_before_outputs_are_compared():
    given = rewards(kl=KL_VALUES)
    got = run(given, beta=0.3, kl=config.KL(placed="reward"), **EXACT)
    shaped = REWARD - 0.3 * (KL_VALUES * MASK).sum(-1)
    near(got[1], z(shaped[1])[:, None] * MASK[1], 1e-4)


def test_ppo_takes_the_kl_at_every_token_and_a_critics_value(float64):
    value = np.random.default_rng(1).normal(0, 1, MASK.shape)
    given = rewards(kl=KL_VALUES, value=value)
    options = {"estimator": "gae", "scale_rewards": "none", "gamma": 0.9}
    settings = config.Algorithm(
        kl=config.KL(placed="reward"),
        advantage=config.Advantage(gae_lambda=0.8, **options),
    )
    got = estimate.estimate(settings, given, beta=0.3)
    for b, g in np.ndindex(2, 4):
        row = -0.3 * KL_VALUES[b, g]
        if LENGTH[b, g]:
            row[LENGTH[b, g] - 1] += REWARD[b, g]
        expected = naive_gae(row, value[b, g], MASK[b, g], 0.9, 0.8)
        near(got.advantage[b, g], expected, 1e-12)
        near(got.returns[b, g], np.where(MASK[b, g], expected + value[b, g], 0), 1e-12)


# For all of them -----------------------------------------------------------------------
def everything():
    return rewards(
        step_reward=REWARD[:, :, None],
        step_end=np.maximum(LENGTH - 1, 0)[:, :, None],
        is_step=np.ones((2, 4, 1), bool),
        baseline=np.array([0.5, 0.1]),
        value=KL_VALUES,
        kl=KL_VALUES,
        columns={"level": np.array([0, 1])},
    )


PRESETS = sorted({presets.algorithm(n).advantage: n for n in presets.PRESETS}.values())


@pytest.mark.parametrize("name", PRESETS)
def test_padding_changes_nothing_and_gets_nothing(name):
    settings = presets.algorithm(name)
    plain = estimate.estimate(settings, everything(), beta=0.1).advantage
    assert not np.any(np.asarray(plain)[~MASK])

    def pad(x):
        is_tokens = x.ndim == 3 and x.shape[-1] == 4
        return jnp.pad(x, ((0, 0), (0, 0), (0, 3))) if is_tokens else x

    wide = estimate.estimate(settings, jax.tree.map(pad, everything()), beta=0.1)
    near(wide.advantage[:, :, :4], plain, 1e-6)


@pytest.mark.parametrize("name", PRESETS)
def test_a_compiled_program_with_traced_settings_agrees(name):
    settings = presets.algorithm(name)
    compiled = jax.jit(estimate.estimate)(settings, everything(), beta=0.1)
    plain = estimate.estimate(settings, everything(), beta=0.1)
    near(compiled.advantage, plain.advantage, 1e-5)


@pytest.mark.parametrize(
    "name", ["grpo", "dr_grpo", "rloo", "rank", "grpo_process", "opo"]
)
def test_questions_do_not_feel_each_other(name):
    settings = presets.algorithm(name)
    plain = estimate.estimate(settings, everything(), beta=0.1).advantage
    given = everything()
    changed = given._replace(
        parts=given.parts.at[1].add(5.0), step_reward=given.step_reward.at[1].mul(3.0)
    )
    other = estimate.estimate(settings, changed, beta=0.1).advantage
    np.testing.assert_array_equal(other[0], plain[0])


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"supervision": "process"}, "step_reward"),
        ({"estimator": "given", "scale_rewards": "none"}, "baseline"),
        ({"estimator": "gae", "scale_rewards": "none"}, "value"),
        ({"kl": config.KL(placed="reward")}, "kl"),
        ({"group_by": "level"}, "columns"),
    ],
)
def test_a_missing_record_is_named(options, field):
    with pytest.raises(
        Refused, match=f"carry no {field}, which .*Fill Rewards.{field}"
    ):
        run(**options)


def test_an_unknown_column_and_wrong_weights_are_refused():
    given = rewards(columns={"level": np.array([0, 1])})
    with pytest.raises(Refused, match=r"group_by is 'type'; the data has \['level'\]"):
        run(given, group_by="type")
    with pytest.raises(Refused, match="has 2 values; there are 1 reward functions"):
        run(reward_weights=(1.0, 2.0))


def test_shapes_that_disagree_are_refused():
    with pytest.raises(Refused, match=r"Rewards.is_valid has shape \(2, 1\)"):
        run(rewards(is_valid=np.ones((2, 1), bool)))
