"""Does it help to ask more often what the policy only sometimes answers?

    python -m grpo_jax train experiments/allocation.py
    python -m grpo_jax train experiments/allocation.py --workdir runs/equal \
        --groups.allocation equal --algorithm.group-size 8

The quickstart's model and demonstrations, 800 questions that come back every 12 steps,
and 512 samples a step: 64 questions with 8 each, or with 2 to 16 by what is known of
them (see `allocation`).
"""

import dataclasses
import pathlib

from grpo_jax import config, experiment

quickstart = experiment.load(str(pathlib.Path(__file__).with_name("quickstart.py")))


def get_config() -> config.Config:
    base = quickstart.get_config()
    return dataclasses.replace(
        base,
        data=dataclasses.replace(base.data, count=1000, held_out=0.2),
        # What the number of samples does not bias: so both arms learn alike.
        algorithm=config.Algorithm(
            group_size=16,
            beta=0.0,
            loss_mean="per_question",
            advantage=config.Advantage(estimator="leave_one_out", scale_rewards="none"),
        ),
        groups=config.Groups(allocation="neyman", mean=8),
        training=dataclasses.replace(base.training, batch_size=64),
    )
