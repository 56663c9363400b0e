"""Does a reward model learn to tell right answers from wrong ones?

    python -m grpo_jax train experiments/reward_model.py
    python -m grpo_jax train experiments/reward_model.py --workdir runs/reward_steps \\
        --data.name chains --reward.labels steps --model.tiny.max-length 192

The quickstart's transformer of 0.5M parameters, made from scratch, reads sums that are
answered by columns and then whole, `27+ 5=12  2  32`; half of them end in a number
that is off by up to nine, `12  2  37`. It is told which, and asked about questions that
it never saw. The second command asks about chains of three moves, and labels each line:
one is off, and what follows goes on from there.

Measured on 400 answers to 200 held-out sums, seed 0, after 400 updates (some seven
minutes on two CPU cores that others used as well): 99.5% told rightly (95%: 98.2 to
99.9%), ROC AUC 0.997, calibration error 0.005. With `--optimizer.schedule cosine
--optimizer.final-rate 0.1`: 93.0%, 0.973 and 0.013.

Lines of chains were not learned: with that schedule and 64 solutions an update, ROC AUC
was 0.604 after 100 updates and 0.619 after 200, when the run was ended; the place of a
line alone gives 0.639. More updates, and a model that was taught chains, are not tried.
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
