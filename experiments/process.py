"""Does it help to reward every step, and not only the answer?

    python -m grpo_jax train experiments/process.py
    python -m grpo_jax train experiments/process.py --workdir runs/outcome \\
        --algorithm.advantage.supervision outcome --rewards.steps None

A byte-level transformer of 0.5M parameters, made from scratch, learns from a short SFT
to answer `Start with 15. Add 4. What is the result?` by the line `15 + 4 = 19` and the
answer behind `####`. Of ten demonstrations seven give an answer that is one too high,
below a line that is right. The outcome is wrong then; of the steps, only the last is.

Which of the two is better does not show here, with seed 0. Greedy accuracy on 200
held-out questions, with 95% intervals, before and after 60 updates on two machines of
two CPU cores each, whose sums differ in their last bits and so, soon, in all draws:

    2026-11-29, 4 minutes a run   before 23.0 (17.7-29.3)
        rewards of steps 22.5 (17.3-28.8), of outcomes 16.5 (12.0-22.3)
    2026-11-30, 2 minutes a run   before 22.0 (16.8-28.2)
        rewards of steps 31.0 (25.0-37.7), of outcomes 30.0 (24.1-36.7)

What one run gains or loses in so short a time is luck as much as method. On the first
machine what samples earned rose from 0.35 to 0.42, and from 0.28 to 0.39; the number of
lines stayed what was asked for. A start that calculates better, more updates and
other seeds are not tried. Earlier pilots on right demonstrations, at a learning
rate of 5e-4, learned nothing either: a policy that cannot calculate is not taught to in
60 updates.
"""

from grpo_jax import config, presets
from grpo_jax.models.settings import Model, Numerics, Tiny


def get_config() -> config.Config:
    return config.Config(
        stages=("sft", "online"),
        model=Model(
            tiny=Tiny(layers=2, width=128, ffw=512, max_length=128),
            numerics=Numerics(remat="none"),
        ),
        data=config.Data(name="chains", count=4000, size=1, wrong=0.7, held_out=0.3),
        rewards=config.Rewarding(steps="chain"),
        sft=config.SFT(steps=300, batch_size=64, learning_rate=3e-3),
        algorithm=presets.algorithm("grpo_process", group_size=16, beta=0.0),
        sampling=config.Sampling(temperature=1.0, max_new=28, segment=28),
        optimizer=config.Optimizer(
            learning_rate=2e-4, schedule="cosine", final_rate=0.1, warmup=10, b2=0.95
        ),
        training=config.Training(steps=60, batch_size=32),
        evaluation=config.Evaluation(every=60),
        keep=config.Keep(every=300, samples=30),
    )
