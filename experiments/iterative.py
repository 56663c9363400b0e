"""Does it help to make the reward model and the reference anew between rounds?

    python -m grpo_jax train experiments/iterative.py
    python -m grpo_jax train experiments/iterative.py --workdir runs/model_alone \
        --iterative.renews model

The quickstart's model and demonstrations, of which seven in ten end in a wrong number;
more of them, or not every seed's reward model learns. What is right the policy is never
told. It is judged by a reward model that has learned to tell sums from sums that are
off by up to nine, the columns ahead of them always right: of what a policy may say
besides it knows nothing. The paper's Algorithm 1 goes on with it after every 15 steps,
on what the policy says by then, half of it new. The controls are `model`, `reference`
and `none`.

What came of it stands in overoptimise.py, which runs these settings beside others.
"""

import dataclasses
import pathlib

from grpo_jax import config, experiment

quickstart = experiment.load(str(pathlib.Path(__file__).with_name("quickstart.py")))


def get_config() -> config.Config:
    base = quickstart.get_config()
    return dataclasses.replace(
        base,
        stages=("sft", "reward", "online"),
        rewards=config.Rewarding(functions=("model",)),
        algorithm=config.Algorithm(group_size=16, beta=0.1),
        sft=dataclasses.replace(base.sft, steps=500),
        reward=config.Reward(steps=300, batch_size=64, learning_rate=3e-3),
        iterative=config.Iterative(rounds=5, questions=300, replay=0.5),
        optimizer=config.Optimizer(learning_rate=3e-4, warmup=20, b2=0.95),
        training=dataclasses.replace(base.training, steps=15),
        evaluation=config.Evaluation(every=20),
    )
