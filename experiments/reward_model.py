"""Does a reward model learn to tell right answers from wrong ones?

    python -m grpo_jax train experiments/reward_model.py

The quickstart's transformer of 0.5M parameters, made from scratch, reads sums that are
answered by columns and then whole, `27+ 5=12  2  32`; half of them end in a number
that is off by up to nine, `12  2  37`. It is told which, and asked about questions that
it never saw. Lines of longer answers are judged in judges.py.

Measured on 400 answers to 200 held-out sums, seed 0, after 400 updates (2026-11-29,
three minutes on two CPU cores that others used as well): 99.5% told rightly (95%: 98.2
to 99.9%), ROC AUC 0.997 (0.986 to 1.000), calibration error 0.005. With
`--optimizer.schedule cosine --optimizer.final-rate 0.1`: 93.0%, 0.973 and 0.013.
"""

from grpo_jax import config
from grpo_jax.models.settings import Model, Numerics, Tiny


def get_config() -> config.Config:
    return config.Config(
        stages=("reward",),
        model=Model(
            tiny=Tiny(layers=2, width=128, ffw=512, max_length=32),
            numerics=Numerics(remat="none"),
        ),
        data=config.Data(name="sums", count=4000, size=2),
        reward=config.Reward(
            labels="correct", steps=400, batch_size=128, learning_rate=3e-3
        ),
        optimizer=config.Optimizer(warmup=20, b2=0.95),
        evaluation=config.Evaluation(every=100),
        keep=config.Keep(every=200),
    )
