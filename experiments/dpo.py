"""How far does DPO come, from pairs of answers that the policy gave before it learned?

    python -m grpo_jax train experiments/dpo.py

The quickstart's model, data and SFT. Then the policy answers each question 16 times,
and learns from right answers paired with wrong ones: as many answers as GRPO sees there
in 112 steps, all of them from before the first.
"""

import dataclasses
import pathlib

from grpo_jax import config, experiment

quickstart = experiment.load(str(pathlib.Path(__file__).with_name("quickstart.py")))


def get_config() -> config.Config:
    return dataclasses.replace(
        quickstart.get_config(),
        stages=("sft", "dpo"),
        dpo=config.DPO(
            steps=300,
            batch_size=64,
            learning_rate=2e-4,
            questions=3600,
            samples=16,
            beta=0.1,
        ),
    )
