r"""GRPO on GSM8K with the exact answer as reward.

    python -m grpo_jax train experiments/gsm8k.py
    python -m grpo_jax evaluate runs/gsm8k --k 8

It trains Qwen2.5-0.5B-Instruct; `--model.name` takes any other, of the hub or a folder.
Meant for one H200 or a v5e-8. NOT YET RUN at that size: no such machine was at hand.
What was run is three steps of SmolLM2-135M on two CPU cores (`--model.name
smollm2-135m`, 4 questions × 4 samples × 96 tokens): that they run, and no more. GSM8K
comes from the hub, or from the folder that the variable GRPO_JAX_DATA names.
"""

from grpo_jax import config
from grpo_jax.models.settings import Model, Numerics


def get_config() -> config.Config:
    return config.Config(
        model=Model(
            name="Qwen/Qwen2.5-0.5B-Instruct", numerics=Numerics(compute="bfloat16")
        ),
        data=config.Data(
            name="gsm8k", test="test", instruction="steps", wrapping="chat"
        ),
        algorithm=config.Algorithm(group_size=16, beta=0.001),
        sampling=config.Sampling(
            temperature=1.0, max_new=512, max_prompt=384, segment=32, cache="bfloat16"
        ),
        optimizer=config.Optimizer(learning_rate=1e-6, warmup=10),
        training=config.Training(steps=300, batch_size=64, parts=8),
        evaluation=config.Evaluation(every=50, questions=1319, batch_size=128),
        keep=config.Keep(every=25),
    )
