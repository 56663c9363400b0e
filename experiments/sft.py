"""Would more of the same demonstrations have done it, without any reward?

    python -m grpo_jax train experiments/sft.py

The quickstart's model and data, with SFT alone, for as many updates as its two stages.
"""

import dataclasses
import pathlib

from grpo_jax import config, experiment

quickstart = experiment.load(str(pathlib.Path(__file__).with_name("quickstart.py")))


def get_config() -> config.Config:
    base, plain = quickstart.get_config(), config.Config()
    steps = base.sft.steps + base.training.steps
    return dataclasses.replace(
        base,
        stages=("sft",),
        sft=dataclasses.replace(base.sft, steps=steps),
        # what only GRPO reads is left alone
        algorithm=plain.algorithm,
        training=plain.training,
        optimizer=dataclasses.replace(
            base.optimizer, learning_rate=plain.optimizer.learning_rate
        ),
    )
