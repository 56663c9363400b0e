"""The experiment with preferences: its commands, and the paper's own numbers."""

import re

from grpo_jax import experiment, iterative

PATH = "experiments/hh_rlhf.py"


def test_its_commands_name_settings():
    module = experiment.load(PATH)
    said = module.__doc__.replace("\\\n", " ")
    commands = re.findall(r"train experiments/hh_rlhf\.py(.*)", said)
    made = [experiment.parse(module, words.split()).config for words in commands]
    assert [one.rewards.functions for one in made] == [
        ("model",),
        ("model", "brief"),
        ("model", "brief"),
    ]
    each = [one.algorithm.advantage.normalise_each for one in made]
    assert each == [False, False, True]
    assert set(module.REWARDS) == {"brief"}


def test_it_is_a_judge_and_a_policy_with_group_size_8():
    chosen = experiment.load(PATH).get_config()
    assert chosen.makes_several
    judge = iterative.of_judge(chosen, chosen.model, iterative.of_verdicts(chosen))
    policy = iterative.of_policy(chosen, 0, chosen.model, "runs/judge")
    assert judge.stages == ("reward",) and judge.data.name == policy.data.name
    algorithm = policy.algorithm
    assert (algorithm.group_size, algorithm.beta) == (8, 0.01)
    assert algorithm.clip_low == algorithm.clip_high == 0.2
    assert policy.sampling.temperature == 0.7
