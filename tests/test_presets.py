"""The names that people know set the options that they stand for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax import config, experiment, prepare, presets
from grpo_jax.losses import objective
from grpo_jax.records import Rewards
from grpo_jax.section import Refused


@pytest.mark.parametrize("name", presets.PRESETS)
def test_a_preset_sets_exactly_what_it_says(name):
    plain = experiment.flat(config.Algorithm())
    made = experiment.flat(presets.algorithm(name))
    assert made == plain | presets.PRESETS[name]


def test_presets_that_differ_from_each_other_are_different_objectives():
    made = [presets.algorithm(name) for name in presets.PRESETS]
    assert len(set(made)) == len(made)


def test_overrides_win_and_unknown_names_are_listed():
    assert presets.algorithm("dapo", group_size=16).group_size == 16
    with pytest.raises(Refused, match="preset is 'grop'; it must be one of grpo"):
        presets.algorithm("grop")


def test_the_papers_own_numbers():
    made = presets.algorithm("deepseekmath")
    assert (made.group_size, made.beta, made.kl.estimator) == (64, 0.04, "k3")
    assert (made.mu, made.loss_mean, made.advantage.scale_rewards) == (
        1,
        "per_sequence",
        "group",
    )


def test_rloo_weighs_an_output_by_the_sum_of_its_tokens():
    """Its gradient is A Σ_t ∇ log π, however long the output (2402.14740, eq. 8)."""
    settings = presets.algorithm("rloo", group_size=2, beta=0.0)
    mask = jnp.array([[[True] * 4, [True, False, False, False]]])
    rewards = Rewards(jnp.array([[[1.0], [0.0]]]), mask, mask.any(-1))
    logp = jnp.full(mask.shape, -1.0)
    scores = prepare.Scores(logp, logp, None)
    batch, _ = prepare.rollout(settings, rewards, scores, mask.any(-1), beta=0.0)
    batch = prepare.minibatch(
        settings, batch, logp, None, None, rollout_tokens=5, parts=1
    )
    slope = jax.grad(lambda x: objective.policy_loss(settings, x, batch, beta=0.0)[0])(
        logp
    )
    np.testing.assert_allclose(slope[0], [[-0.5] * 4, [0.5, 0, 0, 0]], 1e-6)
