"""The names that people know set the options that they stand for."""

import pytest

from grpo_jax import config, experiment, presets
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
