"""What does a learned critic make of the quickstart's task, in place of groups?

    python -m grpo_jax train experiments/ppo.py

The quickstart's model, data and SFT, and as many samples in each step: 512 questions
with one answer, where GRPO has 32 with 16. The critic has a trunk of its own.
"""

import dataclasses
import pathlib

from grpo_jax import config, experiment, presets

quickstart = experiment.load(str(pathlib.Path(__file__).with_name("quickstart.py")))


def get_config() -> config.Config:
    base = quickstart.get_config()
    samples = base.training.batch_size * base.algorithm.group_size
    return dataclasses.replace(
        base,
        algorithm=presets.algorithm("ppo", beta=0.0),
        critic=config.Critic(learning_rate=1e-3),
        training=dataclasses.replace(base.training, batch_size=samples),
    )
