"""The experiment in rounds: its commands, and what it is compared with."""

import dataclasses
import re

from grpo_jax import experiment, iterative

PATH = "experiments/iterative.py"


def test_its_commands_differ_in_what_is_renewed_alone():
    module = experiment.load(PATH)
    said = module.__doc__.replace("\\\n", " ")
    commands = re.findall(r"train experiments/iterative\.py(.*)", said)
    ours, theirs = (
        experiment.flat(experiment.parse(module, words.split()).config)
        for words in commands
    )
    assert {k: (ours[k], theirs[k]) for k in ours if ours[k] != theirs[k]} == {
        "iterative.renews": ("both", "model"),
    }


def test_it_begins_where_the_quickstart_does():
    chosen = experiment.load(PATH).get_config()
    base = experiment.load("experiments/quickstart.py").get_config()
    start, alone = iterative.of_start(chosen), iterative.of_start(base)
    assert (start.model, start.data) == (alone.model, alone.data)
    assert start.sft == dataclasses.replace(alone.sft, steps=500)
    assert chosen.rewards.functions == ("model",)
