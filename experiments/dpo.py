"""How far does DPO come, from pairs of answers that the policy gave before it learned?

    python -m grpo_jax train experiments/dpo.py

The quickstart's model, data and SFT. Then the policy answers each question 16 times,
and learns from right answers paired with wrong ones: as many answers as GRPO sees there
in 93 steps, all of them from before the first.

Pairs differ in a digit or two, so what pushes the wrong answer down takes the right one
with it: with `--dpo.beta 0.1` pairs are told apart ever better, and accuracy falls to
nothing. A larger beta holds the policy where both stay likely.
"""

import dataclasses
import pathlib

from grpo_jax import config, experiment

quickstart = experiment.load(str(pathlib.Path(__file__).with_name("quickstart.py")))


def get_config() -> config.Config:
    base, plain = quickstart.get_config(), config.Config()
    return dataclasses.replace(
        base,
        stages=("sft", "dpo"),
        dpo=config.DPO(
            steps=100,
            batch_size=64,
            learning_rate=2e-5,
            questions=4000,  # there are fewer: all
            samples=16,
            beta=1.0,
        ),
        # what only GRPO reads is left alone
        algorithm=plain.algorithm,
        training=dataclasses.replace(plain.training, batch_size=32),
        optimizer=dataclasses.replace(
            base.optimizer, learning_rate=plain.optimizer.learning_rate
        ),
    )
