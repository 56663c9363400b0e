r"""DeepSeekMath's reinforcement learning: chains of thought for GSM8K-like and MATH.

    python -m grpo_jax train experiments/math_cot.py

It trains DeepSeekMath-Instruct 7B; smaller ones with `--model.name`, of the hub or a
folder, and those that have a template with `--data.wrapping chat`.

What the paper states is set so: 64 samples of a question, KL weight 0.04, learning rate
1e-6, one update per rollout, 1,024 tokens, its prompt. Its 1,024 are taken to be
outputs: 16 questions a step. It does not state a temperature; 1 is that of the
objective. Its reward model is not public: the reward here is the exact answer.

Meant for a v5p-128, or eight H200. NOT YET RUN at that size: no such machine was at
hand. What was run is three steps of SmolLM2-135M on two CPU cores (`--model.name
smollm2-135m --data.wrapping chat`, 4 questions × 4 samples × 96 tokens).
"""

from grpo_jax import config
from grpo_jax.models.settings import Model, Numerics


def get_config() -> config.Config:
    return config.Config(
        model=Model(
            name="deepseek-ai/deepseek-math-7b-instruct",
            numerics=Numerics(compute="bfloat16", remat="full"),
        ),
        data=config.Data(
            name="math", test="math500", instruction="steps", wrapping="paper"
        ),
        algorithm=config.Algorithm(group_size=64, beta=0.04),
        sampling=config.Sampling(
            temperature=1.0, max_new=1024, max_prompt=512, segment=64, cache="bfloat16"
        ),
        optimizer=config.Optimizer(learning_rate=1e-6),
        training=config.Training(steps=500, batch_size=16),
        evaluation=config.Evaluation(every=50, questions=500, batch_size=128),
        keep=config.Keep(every=25),
    )
