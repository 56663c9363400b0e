"""Does it help to reward every step, and not only the answer?

    python -m grpo_jax train experiments/process.py
    python -m grpo_jax train experiments/process.py --workdir runs/outcome \\
        --algorithm.advantage.supervision outcome --rewards.steps None

A byte-level transformer of 0.5M parameters, made from scratch, learns from a short SFT
to answer `Start with 15. Add 4. What is the result?` by the line `15 + 4 = 19` and the
answer behind `####`. Of ten demonstrations seven give an answer that is one too high,
below a line that is right. The outcome is wrong then; of the steps, only the last is.

NOT YET RUN to its end: the machine at hand was busy. What was run are three pilots on
right demonstrations, seed 0, at a learning rate of 5e-4, greedy accuracy on 200
held-out questions. Chains of two steps, 60 updates of 16 questions × 16 samples: from
10.0% (95%: 6.6–14.9%) to 8.5% (5.4–13.2%) with rewards of steps, to 5.0% (2.7–9.0%)
with those of outcomes. Chains of one, 32 × 16: from 22.5% to 20.5% with rewards of
steps, by way of 9.5%. Nothing was learned there: a policy that cannot calculate is not
taught to in 60 updates, and the rate may have been too high. Hence a lower one here,
and something to learn that is no calculation. The number of lines stayed what was asked
for: between 2.98 and 3.01 on average in every one of the first 60 updates.
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
