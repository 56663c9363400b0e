"""Does GRPO put right what the demonstrations taught wrongly?

    python -m grpo_jax train experiments/quickstart.py

A byte-level transformer of 0.6M parameters, made from scratch, learns from a short SFT
how sums are answered: 47+8=55. Half of the demonstrations end in a wrong number, so
which answers are right is something that only the reward knows.
"""

from grpo_jax import config
from grpo_jax.models.settings import Model, Tiny


def get_config() -> config.Config:
    return config.Config(
        stages=("sft", "online"),
        model=Model(tiny=Tiny(layers=4, width=128, ffw=384, max_length=32)),
        data=config.Data(name="sums", count=4000, size=2, wrong=0.6),
        sft=config.SFT(steps=400, batch_size=128, learning_rate=2e-3),
        algorithm=config.Algorithm(group_size=16, beta=0.0),
        sampling=config.Sampling(temperature=1.0, max_new=4, segment=4),
        optimizer=config.Optimizer(learning_rate=3e-4),
        training=config.Training(steps=400, batch_size=32),
        evaluation=config.Evaluation(every=100),
        keep=config.Keep(every=200),
    )
