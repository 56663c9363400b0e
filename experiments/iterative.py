"""Does it help to make the reward model and the reference anew between rounds?

    python -m grpo_jax train experiments/iterative.py
    python -m grpo_jax train experiments/iterative.py --workdir runs/once \
        --iterative.renews none

The quickstart's model and demonstrations, of which seven in ten end in a wrong number.
What is right the policy is never told: it is judged by a reward model, which begins
with the demonstrations' policy and learns from 8 answers to each of 64 questions. The
paper's Algorithm 1 goes on with it twice, on what the policy says by then, with a tenth
of the mix said before; the controls are `model`, `reference`, `none`.

NOT YET RUN. Meant for two CPU cores.
"""

import dataclasses
import pathlib

from grpo_jax import config, experiment

quickstart = experiment.load(str(pathlib.Path(__file__).with_name("quickstart.py")))


def get_config() -> config.Config:
    base = quickstart.get_config()
    return dataclasses.replace(
        base,
        rewards=config.Rewarding(functions=("model",)),
        algorithm=config.Algorithm(group_size=16, beta=0.02),
        reward=config.Reward(steps=60, batch_size=64, learning_rate=1e-3),
        iterative=config.Iterative(rounds=2, questions=64),
        optimizer=dataclasses.replace(
            base.optimizer, schedule="constant", final_rate=0.0, learning_rate=3e-4
        ),
        training=dataclasses.replace(base.training, steps=60),
    )
