"""Does GRPO put right what the demonstrations taught wrongly?

    python -m grpo_jax train experiments/quickstart.py

A byte-level transformer of 0.5M parameters, made from scratch, learns from a short SFT
how sums are done: by columns, and then whole. `27+ 5=` is answered `12  2  32`. Of ten
demonstrations seven end in a number that is one too high, so what is right is something
that only the reward knows.

Greedy accuracy on 200 held-out sums, in percent, before and after 120 steps of GRPO:

    seed      0     1     2     3     4     5     6     7     8     9
    before  23.5   8.0  11.5  11.0  17.5  10.0   9.0  22.0  14.5   5.0
    after   99.0  86.5  91.5  94.5  93.5  98.5  94.0  99.0  99.5  96.0

Seed 0 takes 150 seconds on two CPU cores that have little else to do, compiling
included (2026-11-29).
"""

from grpo_jax import config
from grpo_jax.models.settings import Model, Numerics, Tiny


def get_config() -> config.Config:
    return config.Config(
        stages=("sft", "online"),
        model=Model(
            tiny=Tiny(layers=2, width=128, ffw=512, max_length=32),
            numerics=Numerics(remat="none"),
        ),
        data=config.Data(name="sums", count=4000, size=2, wrong=0.7),
        sft=config.SFT(steps=350, batch_size=128, learning_rate=3e-3),
        algorithm=config.Algorithm(group_size=16, beta=0.0),
        sampling=config.Sampling(temperature=1.0, max_new=10, segment=10),
        optimizer=config.Optimizer(
            learning_rate=5e-4, schedule="cosine", final_rate=0.1, warmup=20, b2=0.95
        ),
        training=config.Training(steps=120, batch_size=32),
        evaluation=config.Evaluation(every=50),
        keep=config.Keep(every=200, samples=50),
    )
